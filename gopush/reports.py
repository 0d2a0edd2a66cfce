"""What a process says of itself, of its subscribers, and of its store when it is asked. Pure."""

from __future__ import annotations

from typing import NamedTuple


class Load(NamedTuple):
    """What a comet holds now, and how many messages it has delivered since its start; None where it is no comet."""

    connections: int | None = None
    channels: int | None = None
    deliveries: int | None = None


class Lag(NamedTuple):
    """What waits for a client that is slow to read: the bytes in this process, for how many seconds some have waited,
    and how many bytes its system has not acknowledged; the kernel has some of these.
    """

    bytes: int
    seconds: float
    unread: int


class SlowConsumer(NamedTuple):
    """A connection that is behind: its key, its kind ("tcp", "websocket", "sse"), the client's address, what waits.

    `messages` are those of the `bytes` that were delivered live; `seconds`: how long some have waited without a break.
    """

    key: str
    kind: str
    peer: str
    messages: int
    bytes: int
    seconds: float


class BusyKey(NamedTuple):
    """A key that a comet holds, or takes pushes for: its connections there, and pushes a second of late."""

    key: str
    connections: int
    rate: float


class Presence(NamedTuple):
    """Who is subscribed to a key on a comet: how many, since when without a break, over what.

    `seconds`: how long ago the first of them came, None where the comet does not tell. `over`: kinds of connections
    ("tcp", "websocket", "sse") and how many are of each.
    """

    connections: int
    seconds: int | None = None
    over: tuple[tuple[str, int], ...] = ()


class Status(NamedTuple):
    """How a process is: its version, its age in seconds, and the fields of its Load."""

    version: str
    age: int
    connections: int | None
    channels: int | None
    deliveries: int | None = None


class Backup(NamedTuple):
    """How far a copy of the store is, in bytes. `state`: running, done, failed (again it may work) or refused."""

    state: str
    copied: int = 0
    size: int = 0
    why: str = ""
