"""The options of the store in Redis."""

from __future__ import annotations

from dataclasses import dataclass

from gopush.config.schema import option
from gopush.config.values import count, duration, text
from gopush.message.redis.sources import Source, sources


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
