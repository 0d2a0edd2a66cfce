"""The options of a message node (etc/message.ini)."""

from __future__ import annotations

from dataclasses import dataclass, field

from gopush.config.schema import option
from gopush.config.values import addresses, count, listeners, text
from gopush.daemon.logs import LogSettings
from gopush.message.hbase.settings import HBaseSettings
from gopush.message.redis.settings import RedisSettings
from gopush.message.sqlite.settings import SqliteSettings
from gopush.message.store import StoreSettings
from gopush.message.stores import store_type
from gopush.rpc.settings import RpcSettings, ZooKeeperSettings


@dataclass(frozen=True)
class MessageSettings:
    """All of etc/message.ini."""

    user: str = option(
        "base", "user", "nobody", text, "the user that the process becomes when root starts it; empty: stay root"
    )
    storage: str = option("storage", "type", "redis", store_type(), "the store: redis, hbase, sqlite or memory")
    weight: int = option("node", "weight", "1", count(1, 1000), "the node's share of the keys")
    rpc_bind: tuple[str, ...] = option("base", "rpc.bind", "localhost:8070", listeners, "where the cluster calls in")
    rpc_advertise: tuple[str, ...] = option(
        "base", "rpc.advertise", "", addresses, "where the cluster reaches this process; empty: as bound"
    )
    stat_bind: tuple[str, ...] = option(
        "base", "stat.bind", "localhost:8072", listeners, "where its numbers and its health are told"
    )
    store: StoreSettings = field(default_factory=StoreSettings)
    sqlite: SqliteSettings = field(default_factory=SqliteSettings)
    redis: RedisSettings = field(default_factory=RedisSettings)
    hbase: HBaseSettings = field(default_factory=HBaseSettings)
    zookeeper: ZooKeeperSettings = field(default_factory=ZooKeeperSettings)
    rpc: RpcSettings = field(default_factory=RpcSettings)
    log: LogSettings = field(default_factory=LogSettings)

    def __post_init__(self) -> None:
        if self.storage == "hbase":
            self.hbase.check(self.store.store, self.rpc.call_timeout)
