"""Processes as they stand in ZooKeeper: how one wants to be seen, and who is there. Pure."""

from __future__ import annotations

from typing import NamedTuple

from gopush.errors import StartError
from gopush.rpc.model import NodeInfo


class Wish(NamedTuple):
    """How this process wants to be seen. `new`: it was not registered yet, and is refused where it does not fit."""

    comet: bool
    info: NodeInfo
    new: bool


class Entry(NamedTuple):
    """A live process: its znode, the session that owns it, the transaction that made it."""

    path: str
    comet: bool
    info: NodeInfo
    owner: int
    made: int


class Seen(NamedTuple):
    """The result of a refresh. `contested`: others advertise the address of this process."""

    entries: list[Entry]
    mine: Entry | None
    contested: bool = False


class OtherStoreError(StartError):
    """A message node whose data are not those of the others."""


def check_stores(entries: list[Entry], wish: Wish) -> None:
    """Raise StartError where a message node that is new here has other stores than those that live."""
    if wish.comet or not wish.new:
        return
    mine = tuple(sorted(wish.info.stores))
    for entry in entries:
        if not entry.comet and entry.info.id != wish.info.id and entry.info.stores != mine:
            raise StartError(
                f"this node's list of stores, {_named(mine)}, differs from that of the live message node "
                f"{entry.info.id}, {_named(entry.info.stores)}: all must have the same"
            )
        if not entry.comet and entry.info.id != wish.info.id:
            check_store(wish.info, entry.info)


def check_store(mine: NodeInfo, other: NodeInfo) -> None:
    """Raise OtherStoreError where two message nodes, whose lists of stores are the same, keep other data."""
    if not mine.store or mine.store == other.store:
        return
    if not mine.stores:
        raise OtherStoreError(
            "this node keeps messages in a store of its own ([storage] type is sqlite or memory), and the message "
            f"node {other.id} lives: a cluster has one such node, or nodes that share Redis servers"
        )
    if other.store:
        raise OtherStoreError(
            f"the servers behind this node hold other data than those of the live message node {other.id}, which "
            "bear the same names: [redis] source, or [hbase] thrift or table, leads to others, or prefix is another"
        )


def _named(stores: tuple[tuple[str, int], ...]) -> str:
    return ",".join(f"{name}:{weight}" for name, weight in stores) or "(none)"
