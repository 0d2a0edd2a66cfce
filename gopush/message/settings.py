"""The options of a message node (etc/message.ini), and the stores that there are: a line for each.

A store is imported only when it is opened.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from pkgutil import resolve_name
from typing import Any, NamedTuple

from gopush.config.endpoints import refuse_shared
from gopush.config.schema import Section
from gopush.config.values import count, listeners, one_of, own_addresses, text
from gopush.daemon.logs import LogSettings
from gopush.message.hbase.settings import HBaseSettings
from gopush.message.redis.settings import RedisSettings
from gopush.message.sqlite.settings import SqliteSettings
from gopush.message.store import Store, StoreSettings
from gopush.rpc.settings import RpcSettings, ZooKeeperSettings, call_listeners

_base, _node, _storage = map(Section, ("base", "node", "storage"))


class StoreType(NamedTuple):
    """The class of a store, which takes its StoreSettings, its own options and a reactor; which library it `needs`
    beside those that gopush always has ("": none); and whether one process has it for itself alone: a cluster cannot
    share it.
    """

    named: str
    needs: str = ""
    alone: bool = False


STORES = {
    "redis": StoreType("gopush.message.redis.store:RedisStore"),
    "hbase": StoreType("gopush.message.hbase.store:HBaseStore", needs="thriftpy2"),
    "sqlite": StoreType("gopush.message.sqlite.store:SqliteStore", alone=True),
    "memory": StoreType("gopush.message.memory:MemoryStore", alone=True),
}


def open_store(settings: Any, reactor: Any) -> Store:
    """The store that the settings of a message node name; its start() opens it. The settings' field of the store's
    name, where they have one, holds its own options.
    """
    make: type[Any] = resolve_name(STORES[settings.storage].named)
    store: Store = make(settings.store, getattr(settings, settings.storage, None), reactor)
    return store


_name_of_store = one_of(*STORES)


def store_type(value: str) -> str:
    """The name of a store whose library is installed. See config/values.py."""
    needs = STORES[_name_of_store(value)].needs
    if needs and find_spec(needs) is None:
        raise ValueError(f"needs {needs}, which is not installed (pip install 'gopush[{value}]')")
    return value


@dataclass(frozen=True)
class MessageSettings:
    """All of etc/message.ini."""

    user: str = _base("user", "nobody", text, "the user that the process becomes when root starts it; empty: stay root")
    storage: str = _storage("type", "redis", store_type, "the store: redis, hbase, sqlite or memory")
    weight: int = _node("weight", "1", count(1, 1000), "the node's share of the keys")
    rpc_bind: tuple[str, ...] = _base(
        "rpc.bind", "localhost:8070", call_listeners, "where other nodes call this process"
    )
    rpc_advertise: tuple[str, ...] = _base(
        "rpc.advertise", "", own_addresses, "the address that other nodes call; empty: as bound"
    )
    stat_bind: tuple[str, ...] = _base(
        "stat.bind", "localhost:8072", listeners, "where to read its statistics and its health"
    )
    store: StoreSettings = field(default_factory=StoreSettings)
    sqlite: SqliteSettings = field(default_factory=SqliteSettings)
    redis: RedisSettings = field(default_factory=RedisSettings)
    hbase: HBaseSettings = field(default_factory=HBaseSettings)
    zookeeper: ZooKeeperSettings = field(default_factory=ZooKeeperSettings)
    rpc: RpcSettings = field(default_factory=RpcSettings)
    log: LogSettings = field(default_factory=LogSettings)

    def __post_init__(self) -> None:
        refuse_shared({"rpc.bind": self.rpc_bind, "stat.bind": self.stat_bind})
        if self.storage == "hbase":
            self.hbase.check(self.store.store, self.rpc.call_timeout)
