"""The options of a process that is all of gopush (etc/gopush.ini): alone, or a member of a cluster of equals."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from zlib import crc32

from gopush.comet.settings import SubscriberSettings
from gopush.config.endpoints import refuse_shared
from gopush.config.schema import Section
from gopush.config.values import count, listeners, own_addresses, own_name, text
from gopush.daemon.listeners import advertised
from gopush.daemon.logs import LogSettings
from gopush.errors import SettingsError
from gopush.message.hbase.settings import HBaseSettings
from gopush.message.redis.settings import RedisSettings
from gopush.message.settings import STORES, store_type
from gopush.message.sqlite.settings import SqliteSettings
from gopush.message.store import StoreSettings
from gopush.net.exposure import is_home, stays_home
from gopush.rpc.settings import ClusterSettings, RpcSettings, ZooKeeperSettings
from gopush.web.settings import HttpSettings

LONGEST_NAME = 64
"""Of a node; see node_name()."""

SHARED = ", ".join(name for name, kind in STORES.items() if not kind.alone)

_base, _storage = map(Section, ("base", "storage"))


def default_name(address: str) -> str:
    """The name on the ring of who has none: a long one is cut, and still another one for each address."""
    name = re.sub(r"[^A-Za-z0-9._-]", "-", address)
    tail = f"-{crc32(address.encode()):08x}-{address.rpartition(':')[2]}"
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - len(tail)] + tail


@dataclass(frozen=True)
class EmbeddedSettings:
    """All of etc/gopush.ini."""

    user: str = _base("user", "", text, "the user that the process becomes when root starts it; empty: stay root")
    subscribers: SubscriberSettings = field(default_factory=SubscriberSettings)
    http: HttpSettings = field(default_factory=HttpSettings)
    node: str = _base(
        "node", "", own_name, "the name on the ring, another one for each process; empty: the address that others call"
    )
    weight: int = _base("weight", "1", count(1, 1000), "the node's share of the keys")
    rpc_bind: tuple[str, ...] = _base(
        "rpc.bind", "localhost:6970", listeners, "where other nodes call this process, in a cluster ([zookeeper] addr)"
    )
    rpc_advertise: tuple[str, ...] = _base(
        "rpc.advertise", "", own_addresses, "the address that other nodes call; empty: as bound"
    )
    storage: str = _storage(
        "type", "sqlite", store_type, f"the store: sqlite or memory; in a cluster {SHARED}, which all share"
    )
    store: StoreSettings = field(default_factory=StoreSettings)
    sqlite: SqliteSettings = field(default_factory=SqliteSettings)
    redis: RedisSettings = field(default_factory=RedisSettings)
    hbase: HBaseSettings = field(default_factory=HBaseSettings)
    zookeeper: ZooKeeperSettings = field(default_factory=ClusterSettings)
    rpc: RpcSettings = field(default_factory=RpcSettings)
    log: LogSettings = field(default_factory=LogSettings)

    def __post_init__(self) -> None:
        refuse_shared({**self.subscribers.binds, **self.http.binds, "rpc.bind": self.called_at})
        self.zookeeper.check_name(self.node)
        if self.zookeeper.hosts and (STORES[self.storage].alone or not self.rpc_bind):
            raise ValueError("; ".join(self.missing()))
        if self.storage == "hbase":
            self.hbase.check(self.store.store, self.rpc.call_timeout)

    @property
    def called_at(self) -> tuple[str, ...]:
        """The endpoints where others call in: none where there are no others."""
        return self.rpc_bind if self.zookeeper.hosts else ()

    def missing(self) -> Iterator[str]:
        """What a member of a cluster lacks: a sentence each."""
        if not self.zookeeper.hosts:
            return
        if STORES[self.storage].alone:
            yield (
                f"[storage] type: {self.storage} is a store for one process alone, but [zookeeper] addr makes this one "
                f"a member of a cluster, which shares one: set {SHARED.replace(', ', ' or ')} "
                "(gopush migrate moves what is kept), or leave addr empty"
            )
        if not self.rpc_bind:
            yield "[base] rpc.bind: is empty, but other nodes must call a member of a cluster (try localhost:6970)"
        at_home = all(map(is_home, self.zookeeper.hosts))
        called = {"rpc": (self.rpc_bind, self.rpc_advertise), **self.subscribers.clients}
        for name, (bind, advertise) in called.items():
            yield from _unreachable(name, bind, advertise, at_home=at_home)
        if not (self.rpc.secret or self.rpc.tls_authorities) and not (at_home and all(map(stays_home, self.rpc_bind))):
            yield "[rpc] secret is empty: set one, the same in the whole cluster (openssl rand -base64 24)"


def _unreachable(name: str, bind: Sequence[str], advertise: Sequence[str], *, at_home: bool) -> Iterator[str]:
    """What is wrong with the advertised addresses; `at_home`: the cluster may be on this machine alone."""
    try:
        found = advertised(name, bind, advertise)
    except SettingsError as wrong:
        yield str(wrong)
        return
    if not at_home and any(map(is_home, found)):
        yield (
            f"[base] {name}.advertise: {', '.join(found)} leads others to themselves, and [zookeeper] addr is on "
            "another machine: set what they reach this one by"
        )
