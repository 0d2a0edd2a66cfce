"""The options of a message node (etc/message.ini)."""

from __future__ import annotations

from dataclasses import dataclass, field

from gopush.config.schema import option
from gopush.config.values import addresses, count, duration, listeners, text
from gopush.daemon.logs import LogSettings
from gopush.message.hbase.settings import HBaseSettings
from gopush.message.redis.sources import Source, sources
from gopush.message.store import store_type
from gopush.rpc.settings import RpcSettings, ZooKeeperSettings


@dataclass(frozen=True)
class StoreSettings:
    """What every store is told."""

    store: int = option(
        "storage", "store", "20", count(1, 1_000_000), "messages that a key keeps, the newest", live=True
    )
    head_life: float = option(
        "storage", "head.life", "1d", duration, "how long a key's last mid outlives its messages", live=True
    )


@dataclass(frozen=True)
class SqliteSettings:
    """Section [sqlite]."""

    path: str = option("sqlite", "path", "gopush.sqlite", text, "the database file")


@dataclass(frozen=True)
class RedisSettings:
    """Sections [redis] and [redis.source]."""

    timeout: float = option("redis", "timeout", "1s", duration, "how long a Redis server may take to answer")
    prefix: str = option("redis", "prefix", "gopush:", text, "what the name of every key in Redis begins with")
    wait: int = option(
        "redis", "wait", "0", count(0, 100), "replicas that must have a message before it is answered", live=True
    )
    sources: tuple[Source, ...] = option(
        "redis",
        "source",
        "node1:1 tcp@localhost:6379",
        sources,
        "the Redis servers, separated by commas: name:weight tcp@host:port[#password], rediss@ for TLS, or "
        "unix@/path[#password], or sentinel@host:port;host:port/master[#password], rediss-sentinel@ for TLS; "
        'a password with a comma or a blank in double quotes: #"pass,word"; '
        "where Redis has users, user:password stands for the password",
    )
    sentinel_password: str = option(
        "redis", "sentinel.password", "", text, "what the sentinels want, perhaps user:password; empty: nothing"
    )
    tls_authorities: str = option("redis", "tls.ca", "", text, "the CA file for TLS; empty: as the system trusts")
    tls_certificate: str = option("redis", "tls.cert", "", text, "the file of this process's certificate, if wanted")
    tls_key: str = option("redis", "tls.key", "", text, "the file of its key")

    def __post_init__(self) -> None:
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ValueError("[redis] tls.cert and tls.key: set both, or none")


@dataclass(frozen=True)
class MessageSettings:
    """All of etc/message.ini."""

    user: str = option("base", "user", "nobody", text, "who the process runs as when root starts it; empty: who calls")
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
