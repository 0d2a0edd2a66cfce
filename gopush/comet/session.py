"""One subscriber's connection: from its request to its end, the same over TCP and WebSocket. Pure: time comes in.

WAITING for the request, RECOVERING while the channel lets it in, LIVE, CLOSING once the last word is said.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable
from enum import Enum
from typing import NamedTuple, Protocol

from gopush.model import GAP, HEARTBEAT, Format, Message, Subscribe
from gopush.net.timers import NO_SLOT

GRACE_SECONDS = 5
MAX_OWED_HEARTBEATS = 1024


class SendLag(NamedTuple):
    """What waits for a client (see Lag): over which kind of connection (see Wire), to which address."""

    kind: str
    peer: str
    bytes: int
    seconds: float
    unread: int


class Wire(Protocol):
    """The connection below a session; `kind`: "tcp", "websocket", "sse"."""

    kind: str

    def send(self, data: bytes) -> int:
        """Send; how many bytes now wait because the client does not read fast enough (0: none)."""

    def finish(self) -> None:
        """Close once all that was sent is out."""

    def abort(self) -> None:
        """Close now."""

    def drained(self) -> Awaitable[None]:
        """Wait until nothing waits to be sent, or the connection is gone."""

    def behind(self) -> SendLag | None:
        """What waits because the client does not read fast enough; None: nothing."""


class Nowhere:
    """The wire of a session whose connection is gone."""

    kind = ""

    def send(self, data: bytes) -> int:
        """See Wire."""
        return 0

    def finish(self) -> None:
        """See Wire."""

    def abort(self) -> None:
        """See Wire."""

    async def drained(self) -> None:
        """See Wire."""

    def behind(self) -> SendLag | None:
        """See Wire."""
        return None


NOWHERE = Nowhere()


class Limits(Protocol):
    """What may wait for one subscriber (settings `msgbuf`), and how long we wait for its request."""

    @property
    def handshake(self) -> float:
        """Seconds."""

    @property
    def msgbuf_messages(self) -> int:
        """Messages."""

    @property
    def msgbuf_bytes(self) -> int:
        """Bytes."""


class State(Enum):
    """Where a session stands."""

    WAITING = 0
    RECOVERING = 1
    LIVE = 2
    CLOSING = 3


LIVE = State.LIVE
"""A name of the module, because looking up an Enum's member costs as much as a call."""


class Backlog:
    """What waits for a slow subscriber: `messages`, `lines` (they and answers to heartbeats), `bytes` of both."""

    __slots__ = ("_sends", "_size", "bytes", "lines", "messages")

    def __init__(self) -> None:
        self._sends: deque[tuple[int, int, int]] = deque()  # (size, lines, messages), the oldest first
        self._size = 0
        self.bytes = 0
        self.lines = 0
        self.messages = 0

    def add(self, size: int, lines: int, messages: int, behind: int) -> None:
        """A send was made, after which `behind` bytes wait: older sends than these are out."""
        sends = self._sends
        sends.append((size, lines, messages))
        self._size += size
        self.lines += lines
        self.messages += messages
        self.settle(behind)

    def settle(self, behind: int) -> None:
        """So many bytes wait now: older sends than these are out."""
        sends = self._sends
        while sends and self._size - sends[0][0] >= behind:
            size, lines, messages = sends.popleft()
            self._size -= size
            self.lines -= lines
            self.messages -= messages
        self.bytes = min(self._size, behind)


class Session:
    """The state machine. `deadline` (clock seconds) is kept for the wheel of time; then Housekeeping aborts."""

    __slots__ = ("_backlog", "_limits", "_owed", "deadline", "format", "request", "slot", "state", "wire")

    def __init__(self, wire: Wire, format: Format, limits: Limits, now: float) -> None:
        self.wire: Wire = wire
        self.format = format
        self.state = State.WAITING
        self.deadline: float = now + limits.handshake
        self.slot = NO_SLOT
        self.request: Subscribe | None = None
        self._limits = limits
        self._owed = 0
        self._backlog: Backlog | None = None

    @property
    def resumes(self) -> bool:
        """Whether the client gave a mid, and so hears of gaps."""
        return self.request is not None and self.request.mid is not None

    @property
    def too_slow(self) -> bool:
        """Whether more waits for the client than the limits allow; one message alone is never too much."""
        if self._owed > MAX_OWED_HEARTBEATS:
            return True
        backlog, limits = self._backlog, self._limits
        return backlog is not None and (
            backlog.lines > limits.msgbuf_messages or (backlog.messages > 1 and backlog.bytes > limits.msgbuf_bytes)
        )

    def waiting_messages(self, behind: int) -> int:
        """How many delivered messages are among the bytes that wait; what is caught up with does not count."""
        if self._backlog is None:
            return 0
        self._backlog.settle(behind)
        return self._backlog.messages

    @property
    def unread(self) -> int:
        """How much is unread of what it caught up with, while some of it waits; what was delivered live came later."""
        behind = self.wire.behind()
        if behind is None:
            return 0
        live = 0 if self._backlog is None else self._backlog.bytes
        return behind.unread - live if behind.bytes > live else 0

    def join(self, request: Subscribe, format: Format, now: float) -> None:
        """The request was read; the client is silent for heartbeat + 5 s at most from here on."""
        self.state = State.RECOVERING
        self.request = request
        self.format = format
        self.heard(0, now)

    def heard(self, heartbeats: int, now: float) -> None:
        """The client sent this many heartbeats: answer each, while joining after the backlog."""
        request = self.request
        if request is None or self.state is State.CLOSING:
            return
        self.deadline = now + request.heartbeat + GRACE_SECONDS
        if self.state is State.LIVE:
            data = self.format.reply(HEARTBEAT) * heartbeats
            behind = self.wire.send(data)
            if behind:
                self._fall_behind(len(data), heartbeats, 0, behind)
            else:
                self._backlog = None
        else:
            self._owed += heartbeats
            if self.too_slow:
                self.abort()

    def accept(self) -> None:
        """Say that the subscription stands."""
        if self.state is State.RECOVERING:
            self.wire.send(self.format.reply(HEARTBEAT))

    def catch_up(self, messages: list[Message], gap: bool) -> int:
        """Send messages of the log while joining; however many, they count for no limit. Gives the bytes sent."""
        data = self.format.reply(GAP) if gap else b""
        frames = b"".join(map(self.format.message, messages))
        if not (data or frames) or self.state is not State.RECOVERING:
            return 0
        self.wire.send(data + frames)
        return len(frames)

    def go_live(self) -> None:
        """The backlog is out: answer the heartbeats that came meanwhile; what comes now is delivered."""
        if self.state is State.RECOVERING:
            self.state = State.LIVE
            if self._owed:
                self.wire.send(self.format.reply(HEARTBEAT) * self._owed)

    def deliver(self, data: bytes, messages: int) -> None:
        """Send framed messages; a subscriber too far behind is closed, and resumes (delivery rule 9)."""
        if self.state is LIVE:
            # This runs for every subscriber of every message.
            behind = self.wire.send(data)
            if behind:
                self._fall_behind(len(data), messages, messages, behind)
            elif self._backlog is not None:
                self._backlog = None

    def finish(self, reply: bytes, now: float) -> None:
        """Send `reply`, if any, and close."""
        if self.state is not State.CLOSING:
            self.state = State.CLOSING
            self.deadline = now + GRACE_SECONDS
            if reply:
                self.wire.send(self.format.reply(reply))
            self.wire.finish()

    def abort(self) -> None:
        """Close without a word."""
        self.state = State.CLOSING
        self.wire.abort()

    def lost(self) -> None:
        """The connection is gone. Session and connection let go of each other: the collector has no cycle to find."""
        self.state = State.CLOSING
        self.wire = NOWHERE

    def _fall_behind(self, size: int, lines: int, messages: int, behind: int) -> None:
        backlog = self._backlog
        if backlog is None:
            backlog = self._backlog = Backlog()
        backlog.add(size, lines, messages, behind)
        if self.too_slow:
            self.abort()


REPLAY_MESSAGES = 1024
REPLAY_BYTES = 1 << 20


class ReplayBuffer:
    """What a channel delivered after `since`, kept while somebody joins it; bounded."""

    __slots__ = ("_bytes", "_messages", "since")

    def __init__(self, since: int) -> None:
        self.since = since
        self._messages: deque[Message] = deque()
        self._bytes = 0

    def add(self, messages: list[Message]) -> None:
        """These were delivered."""
        for message in messages:
            self._messages.append(message)
            self._bytes += len(message.body)
        while len(self._messages) > REPLAY_MESSAGES or self._bytes > REPLAY_BYTES:
            dropped = self._messages.popleft()
            self._bytes -= len(dropped.body)
            self.since = dropped.mid

    def after(self, cursor: int) -> list[Message] | None:
        """What was delivered after `cursor`; None where that is too long ago."""
        if cursor < self.since:
            return None
        return [message for message in self._messages if message.mid > cursor]
