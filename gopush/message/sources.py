"""How the Redis servers behind a message node are written. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

from gopush.values import node_name

_SOURCE = re.compile(
    r"(?P<name>[^:\s]+):(?P<weight>\d{1,4})\s+"
    r"(?:tcp@(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\s#@]+):(?P<port>\d{1,5})|unix@(?P<path>/[^\s#]+))"
    r"(?:#(?P<password>\S+))?"
)


class Source(NamedTuple):
    """A Redis server: at `path` where that is not empty, else at host and port. `password` None: it asks for none."""

    name: str
    weight: int
    host: str
    port: int
    path: str
    password: str | None

    @property
    def address(self) -> str:
        """Where it is, for people."""
        return self.path or f"{self.host}:{self.port}"


def sources(value: str) -> tuple[Source, ...]:
    """Redis servers, name:weight tcp@host:port[#password] or name:weight unix@/path[#password], between commas."""
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
            f"holds {shown!r}, which is not name:weight tcp@host:port[#password] or name:weight unix@/path[#password]"
            " (try node1:1 tcp@localhost:6379; the weight is 1 to 1000)"
        )
    return Source(
        node_name(match["name"]),
        int(match["weight"]),
        (match["host"] or "").strip("[]"),
        int(match["port"] or 0),
        match["path"] or "",
        match["password"],
    )
