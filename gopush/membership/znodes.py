"""What a live process writes into ZooKeeper, and how it is read (protocol.md, section 7). Pure."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from gopush.config.values import addresses
from gopush.errors import StartError
from gopush.model import MAX_WEIGHT, NodeInfo

_FIRST = f"{0:010}"
_SEQUENCE = re.compile(r"\d{10}")


def comet_data(info: NodeInfo) -> bytes:
    """The content of a comet process's znode."""
    return _json(info, {"rpc": info.rpc, "tcp": info.tcp, "ws": info.ws, "weight": info.weight})


def message_data(info: NodeInfo) -> bytes:
    """The content of a message node's znode."""
    data: dict[str, Any] = {"rpc": info.rpc, "weight": info.weight}
    if info.stores:
        data["stores"] = dict(info.stores)
    if info.store:
        data["store"] = info.store
    return _json(info, data)


def content(comet: bool, info: NodeInfo) -> bytes:
    """What a process writes into its znode. Raises StartError where nobody could read that, not even itself."""
    try:
        if comet:
            read_comet(info.node, _FIRST, data := comet_data(info))
        else:
            read_message(_FIRST, data := message_data(info))
    except ValueError as wrong:
        raise StartError(f"{info.id} cannot be registered, for others could not read it: {wrong}") from None
    return data


def read_comet(node: str, name: str, data: bytes) -> NodeInfo:
    """A comet from its znode: the names of its node and its own, and its content. Raises ValueError.

    It ignores fields that it does not know.
    """
    fields = _fields(data)
    return NodeInfo(
        node,
        _sequence(name),
        _addresses(fields, "rpc", at_least=1),
        _addresses(fields, "tcp"),
        _addresses(fields, "ws"),
        _weight(fields.get("weight", 1)),
        draining=fields.get("draining") is True,
    )


def read_message(name: str, data: bytes) -> NodeInfo:
    """As read_comet(), for a message node: it has no name but its address."""
    fields = _fields(data)
    stores = fields.get("stores", {})
    if not isinstance(stores, dict):
        raise ValueError("stores are no object")
    rpc = _addresses(fields, "rpc", at_least=1)
    named = tuple(sorted((store, _weight(weight)) for store, weight in stores.items()))
    weight, draining = _weight(fields.get("weight", 1)), fields.get("draining") is True
    store = fields.get("store", "")
    if not isinstance(store, str):
        raise ValueError("store is no text")
    return NodeInfo(rpc[0], _sequence(name), rpc, weight=weight, stores=named, draining=draining, store=store)


def _json(info: NodeInfo, fields: dict[str, Any]) -> bytes:
    draining = {"draining": True} if info.draining else {}
    return json.dumps(fields | draining, separators=(",", ":")).encode()


def _fields(data: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(data)
    except RecursionError:
        raise ValueError("too deep") from None
    if not isinstance(fields, dict):
        raise ValueError("not an object")
    return fields


def _sequence(name: str) -> int:
    if not _SEQUENCE.fullmatch(name[-10:]):
        raise ValueError("the name does not end in a sequence number")
    return int(name[-10:])


def _addresses(fields: dict[str, Any], name: str, at_least: int = 0) -> tuple[str, ...]:
    found = fields.get(name, [])
    if not isinstance(found, list) or not all(isinstance(one, str) and addresses(one) == (one,) for one in found):
        raise ValueError(f"{name} is no list of addresses")
    if len(found) < at_least:
        raise ValueError(f"{name} is missing")
    return tuple(found)


def _weight(weight: Any) -> int:
    if type(weight) is not int or not 0 < weight <= MAX_WEIGHT:
        raise ValueError(f"the weight is not from 1 to {MAX_WEIGHT}")
    return weight


class Registration(NamedTuple):
    """What this process registers as. `new`: it was not registered yet, and is refused where it does not fit.

    `changed`: the fields that are to be written into its znode, where it has one. The others stay as an operator has
    written them.
    """

    comet: bool
    info: NodeInfo
    new: bool
    changed: frozenset[str] = frozenset()


class Registered(NamedTuple):
    """A live process: its znode, the session that owns it, the transaction that made it."""

    path: str
    comet: bool
    info: NodeInfo
    owner: int
    made: int


class Seen(NamedTuple):
    """The result of a refresh. `mine`: of this process. `contested`: others advertise its address."""

    registrations: list[Registered]
    mine: list[Registered]
    contested: bool = False


class OtherStoreError(StartError):
    """A message node whose data are not those of the others."""


def check_stores(registrations: list[Registered], registration: Registration) -> None:
    """Raise StartError where a message node that is new here has other stores than those that live."""
    if registration.comet or not registration.new:
        return
    mine = tuple(sorted(registration.info.stores))
    others = [one.info for one in registrations if not one.comet and one.info.id != registration.info.id]
    for other in others:
        if other.stores != mine:
            raise StartError(
                f"this node's list of stores, {_named(mine)}, differs from that of the live message node "
                f"{other.id}, {_named(other.stores)}: all message nodes must have the same"
            )
        check_store(registration.info, other)


def check_store(mine: NodeInfo, other: NodeInfo) -> None:
    """Raise OtherStoreError where two message nodes, whose lists of stores are the same, keep other data."""
    if not mine.store or mine.store == other.store:
        return
    if not mine.stores:
        raise OtherStoreError(
            "this node keeps messages in a store of its own ([storage] type is sqlite or memory), and the message "
            f"node {other.id} is alive: a cluster has one such node, or nodes that share Redis servers"
        )
    if other.store:
        raise OtherStoreError(
            "the servers of this node hold other data than the servers of the same names of the live message node "
            f"{other.id}: check [redis] source and prefix, or [hbase] thrift, table and prefix"
        )


def _named(stores: tuple[tuple[str, int], ...]) -> str:
    return ",".join(f"{name}:{weight}" for name, weight in stores) or "(none)"
