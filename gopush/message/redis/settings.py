"""The options of the store in Redis, and how its servers are written in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from gopush.config.schema import Section
from gopush.config.values import addresses, count, duration, impossible, node_name, text

_QUOTED = r'"(?:[^"\\]|\\.)*"'
_WORD = re.compile(rf"(?:#{_QUOTED}|[^,\n])+")
_SOURCE = re.compile(
    r"(?P<name>[^:\s]+):(?P<weight>\d{1,4})\s+"
    r"(?:(?P<scheme>tcp|rediss)@(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\s#@]+):(?P<port>\d{1,5})|unix@(?P<path>/[^\s#]+)"
    r"|(?P<asked>sentinel|rediss-sentinel)@(?P<sentinels>[^\s/#@]+)/(?P<master>[A-Za-z0-9._-]+))"
    rf"(?:#(?:(?P<quoted>{_QUOTED})|(?P<password>[^\"\s]\S*)))?"
)
_HARMLESS = re.compile(r"[A-Za-z0-9._-]+(?::\d+)?\s+(?:tcp|rediss)@[A-Za-z0-9._-]+(?::\d+)?")
"""What may be shown of a line that can hold a password, as it has no place for one."""

_redis = Section("redis")


class Source(NamedTuple):
    """A Redis server: at `path` where that is not empty, else at host and port. `password` None: it asks for none.

    Where `sentinels` ("host:port") are named, they know where it is: they call it `master`. `tls`: for all of them.
    """

    name: str
    weight: int
    host: str
    port: int
    path: str
    password: str | None
    sentinels: tuple[str, ...] = ()
    master: str = ""
    tls: bool = False

    @property
    def address(self) -> str:
        """Where it is, for people."""
        if self.sentinels:
            return f"{self.master} of the sentinels {', '.join(self.sentinels)}"
        return self.path or f"{self.host}:{self.port}"


def sources(value: str) -> tuple[Source, ...]:
    """Redis servers between commas, each name:weight and then tcp@host:port[#password], rediss@host:port[#password]
    (over TLS), unix@/path[#password], sentinel@host:port[;host:port…]/master[#password] or the same with
    rediss-sentinel@ (the sentinels and the master over TLS). A password with a comma or a blank stands in double
    quotes, in which a backslash takes the next character as it is. Errors show nothing that can hold a password.
    """
    words = [word for word in map(str.strip, _WORD.findall(value)) if word]
    found = tuple(_source(word, index) for index, word in enumerate(words, 1))
    names = [source.name for source in found]
    if not found:
        raise ValueError("names no Redis server (try node1:1 tcp@localhost:6379)")
    if len(set(names)) < len(names):
        raise ValueError("gives two Redis servers the same name")
    return found


def _source(word: str, index: int) -> Source:
    match = _SOURCE.fullmatch(word)
    shown = repr(word) if _HARMLESS.fullmatch(word) else f"as number {index} what is not shown"
    if not match or not 0 < int(match["weight"]) <= 1000 or not 0 < int(match["port"] or 1) < 65536:
        raise ValueError(
            f"holds {shown}, which is not name:weight and tcp@ or rediss@host:port[#password], unix@/path[#password]"
            " or sentinel@ or rediss-sentinel@host:port;host:port/master[#password]"
            ' (try node1:1 tcp@localhost:6379, or tcp@localhost:6379#"pass,word"; the weight is 1 to 1000)'
        )
    if match["host"] and impossible(match["host"]):
        raise ValueError(f"holds {shown}: its host is not a valid host name")
    return Source(
        node_name(match["name"]),
        int(match["weight"]),
        (match["host"] or "").strip("[]"),
        int(match["port"] or 0),
        match["path"] or "",
        re.sub(r"\\(.)", r"\1", match["quoted"][1:-1]) if match["quoted"] else match["password"],
        _sentinels(match["sentinels"] or ""),
        match["master"] or "",
        "rediss" in (match["scheme"] or match["asked"] or ""),
    )


def _sentinels(value: str) -> tuple[str, ...]:
    try:
        found = addresses(value.replace(";", " "))
    except ValueError:
        found = ()
    if value and not found:
        raise ValueError("holds no sentinel at host:port (try sentinel@localhost:26379/mymaster)")
    return found


@dataclass(frozen=True)
class RedisSettings:
    """Sections [redis] and [redis.source]."""

    timeout: float = _redis("timeout", "1s", duration, "how long a Redis server may take to answer")
    prefix: str = _redis(
        "prefix",
        "gopush:",
        text,
        "how the name of every key in Redis begins; where systems share a Redis, none begins with another one",
    )
    wait: int = _redis(
        "wait", "0", count(0, 100), "replicas that must have a message before gopush acknowledges it", live=True
    )
    sources: tuple[Source, ...] = _redis(
        "source",
        "node1:1 tcp@localhost:6379",
        sources,
        "the Redis servers, separated by commas: name:weight tcp@host:port[#password], rediss@ for TLS, or "
        "unix@/path[#password], or sentinel@host:port;host:port/master[#password], rediss-sentinel@ for TLS; "
        'a password with a comma or a blank in double quotes: #"pass,word"; '
        "where Redis has users, write user:password",
    )
    sentinel_password: str = _redis(
        "sentinel.password", "", text, "the password of the sentinels, or user:password; empty: none"
    )
    tls_authorities: str = _redis("tls.ca", "", text, "the CA file for TLS; empty: the CAs of the system")
    tls_certificate: str = _redis("tls.cert", "", text, "the file of this process's certificate, if they ask for one")
    tls_key: str = _redis("tls.key", "", text, "the file of its key")

    def __post_init__(self) -> None:
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ValueError("[redis] tls.cert and tls.key: set both, or none")
