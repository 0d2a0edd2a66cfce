"""How the Redis servers behind a message node are written. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

from gopush.values import addresses, node_name

_SOURCE = re.compile(
    r"(?P<name>[^:\s]+):(?P<weight>\d{1,4})\s+"
    r"(?:(?P<scheme>tcp|rediss)@(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\s#@]+):(?P<port>\d{1,5})|unix@(?P<path>/[^\s#]+)"
    r"|(?P<asked>sentinel|rediss-sentinel)@(?P<sentinels>[^\s/#@]+)/(?P<master>[A-Za-z0-9._-]+))"
    r"(?:#(?P<password>\S+))?"
)


class Source(NamedTuple):
    """A Redis server: at `path` where that is not empty, else at host and port. `password` None: it asks for none.

    Where `sentinels` ("host:port") are named, they know where it is: they call it `master`. `tls`: all of them are
    reached so.
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
    rediss-sentinel@ (the sentinels and the master over TLS).
    """
    found = tuple(_source(word.strip()) for word in re.split(r"[,\n]", value) if word.strip())
    names = [source.name for source in found]
    if not found:
        raise ValueError("names no Redis server (try node1:1 tcp@localhost:6379)")
    if len(set(names)) < len(names):
        raise ValueError("names two Redis servers alike")
    return found


def _source(word: str) -> Source:
    match = _SOURCE.fullmatch(word)
    if not match or not 0 < int(match["weight"]) <= 1000 or not 0 < int(match["port"] or 1) < 65536:
        shown = word.partition("#")[0]
        raise ValueError(
            f"holds {shown!r}, which is not name:weight and tcp@ or rediss@host:port[#password], unix@/path[#password]"
            " or sentinel@ or rediss-sentinel@host:port;host:port/master[#password]"
            " (try node1:1 tcp@localhost:6379; the weight is 1 to 1000)"
        )
    return Source(
        node_name(match["name"]),
        int(match["weight"]),
        (match["host"] or "").strip("[]"),
        int(match["port"] or 0),
        match["path"] or "",
        match["password"],
        _sentinels(match["sentinels"] or ""),
        match["master"] or "",
        "rediss" in (match["scheme"] or match["asked"] or ""),
    )


def _sentinels(value: str) -> tuple[str, ...]:
    found = addresses(value.replace(";", " "))
    if value and not found:
        raise ValueError(f"holds {value!r}, which names no sentinel (try sentinel@localhost:26379/mymaster)")
    return found
