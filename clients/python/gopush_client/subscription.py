"""A subscriber's way: look up, subscribe, read, send heartbeats, come back where it was. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gopush_client import wire
from gopush_client.errors import RefusedError, UnavailableError
from gopush_client.steps import Ask, Backoff, Call, Close, Give, Open, Pause, Receive, Send, Steps

TCP = 2
CALL_SECONDS = 10.0
ANSWER_SECONDS = 10.0
"""How long the answer to a heartbeat, or to the request to subscribe, may take."""

GRACE_SECONDS = 5.0
"""How much longer than a heartbeat the comet waits. After so long a silence the subscriber sends a heartbeat before it
hands a message to the user, who may take as long as a heartbeat for it.
"""

READ_ON_SECONDS = 0.05
"""How long it reads at most while the user, who has been busy for GRACE_SECONDS, waits for the next message."""

MOST_AHEAD_BYTES = 4 << 20
"""So much is read while the user is busy, at most and roughly: as much as the largest message."""

LONGEST_WAIT_SECONDS = 3600.0
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
FULL_PAUSE_SECONDS = 20.0
"""Where the key has all the connections that it may have."""

STEADY_SECONDS = 3.0
"""A subscription that lasted longer makes the next loss count as the first one again."""

TOKEN_REFUSALS = (b"-a", b"-c")
REASONS = {
    b"-a": "the token is missing or not good (-a)",
    b"-c": "nobody created this key (-c)",
    b"-p": "the key, the heartbeat or the mid is not good (-p)",
}

Token = str | Callable[[], Any]


class _MovedError(UnavailableError):
    """The key has another comet."""


class _FullError(UnavailableError):
    """The key has no room."""


class _TokenError(RefusedError):
    """The token is not good: another one may be."""


@dataclass
class Subscription:
    """One subscriber. `cursor`: the mid of the last message; None: begin with what is new.

    `token`: it, or a function that fetches one (None: there is none). `on_gap`: messages were trimmed away unread;
    `on_state` hears "connecting", "live" or "away", and why.
    """

    url: wire.Url
    key: str
    heartbeat: int
    token: Token
    cursor: int | None
    comet_tls: bool
    on_gap: Callable[[], object]
    on_state: Callable[[str, str], object]
    clock: Callable[[], float]
    random: Callable[[], float]
    _fetched: str | None = field(default=None, init=False)
    _renewed: bool = field(default=False, init=False)
    """Whether the token was refused, and fetched anew, since the last subscription."""
    _followed: bool = field(default=False, init=False)
    """Whether the key had moved since."""
    _live_since: float | None = field(default=None, init=False)
    _raised: Exception | None = field(default=None, init=False)
    """By a callback: that is no loss of the connection, whatever it is."""
    _buffer: bytearray = field(default_factory=bytearray, init=False)

    def steps(self) -> Steps[None]:
        """For ever. Raises RefusedError where coming back is pointless."""
        backoff = Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, self.random)
        while True:
            self.on_state("connecting", "")
            self._live_since = None
            at_once, reason = False, Exception()
            try:
                yield from self._connection()
            except _TokenError as wrong:
                if not callable(self.token) or self._renewed:
                    raise RefusedError(str(wrong)) from None
                self._fetched, self._renewed = None, True
                at_once, reason = True, wrong
            except _MovedError as wrong:
                at_once, reason = not self._followed, wrong
                self._followed = True
            except (UnavailableError, OSError) as wrong:
                if wrong is self._raised:
                    raise
                reason = wrong
            yield Close()
            if self._live_since is not None and self.clock() - self._live_since > STEADY_SECONDS:
                backoff.reset()
            self.on_state("away", _words(reason))
            if not at_once:
                full = FULL_PAUSE_SECONDS if isinstance(reason, _FullError) else 0.0
                yield Pause(max(backoff.next(), full * (0.75 + 0.5 * self.random())))

    def _connection(self) -> Steps[None]:
        """One connection, from the look-up on. Always raises."""
        token = yield from self._token()
        host, port = yield from self._look_up()
        if self.cursor is None:
            self.cursor = yield from self._last_kept(token)
        yield Open(host, port, self.comet_tls, CALL_SECONDS)
        yield Send(wire.subscribe(self.key, self.heartbeat, token, self.cursor), CALL_SECONDS)
        yield from self._receive()

    def _token(self) -> Steps[str]:
        if not callable(self.token):
            return self.token
        if self._fetched is None:
            self._fetched = str((yield Ask(self.token)) or "")
        return self._fetched

    def _call(self, name: str, long: bool = False, **query: object) -> Steps[wire.Answer]:
        target = wire.path(name, {"k": self.key, **query})
        answer: wire.Answer = yield Call(self.url, "GET", target, b"", {"Prefer": "why"}, CALL_SECONDS, long=long)
        return answer

    def _look_up(self) -> Steps[tuple[str, int]]:
        found = wire.data((yield from self._call("/1/server/get", p=TCP)))
        host, _, port = str(found.get("server")).rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port[:6]) < 65536:
            raise UnavailableError("gopush names no address to connect to")
        return host.strip("[]"), int(port)

    def _last_kept(self, token: str) -> Steps[int]:
        """Where what is new begins; asked for before the first connection, which may end before a message comes."""
        answer = yield from self._call("/1/msg/get", long=True, m=0, head=1, **({"t": token} if token else {}))
        try:
            return wire.last_kept(answer)
        except RefusedError as wrong:
            raise _TokenError(str(wrong)) from None  # the look-up has seen that the key is good

    def _receive(self) -> Steps[None]:
        """Messages, with a heartbeat whenever one is due, until the other side ends or is silent."""
        self._buffer.clear()
        now = sent = self.clock()
        dead = now + ANSWER_SECONDS
        while True:
            due = sent + self.heartbeat
            if now >= due:
                yield Send(b"h", CALL_SECONDS)
                sent, due, dead = now, now + self.heartbeat, min(dead, now + ANSWER_SECONDS)
            received: bytes | None = yield Receive(min(max(min(due, dead) - now, 0.001), LONGEST_WAIT_SECONDS))
            if received == b"":
                raise UnavailableError("the connection was closed")
            if received:
                dead, read = math.inf, self.clock()
                self._buffer += received
                for frame in wire.frames(self._buffer):
                    if self.clock() >= sent + GRACE_SECONDS:
                        yield Send(b"h", CALL_SECONDS)
                        sent = self.clock()
                    if self.clock() >= read + GRACE_SECONDS:
                        yield from self._read_on()
                        read = self.clock()
                    yield from self._take(frame)
            now = self.clock()  # the user may have taken any time
            if now >= dead:
                raise UnavailableError("the comet does not answer heartbeats")

    def _read_on(self) -> Steps[None]:
        """Take what is there: the comet closes who reads nothing of its backlog for ten seconds."""
        end = self.clock() + READ_ON_SECONDS  # more may come as fast as it is read
        while len(self._buffer) < MOST_AHEAD_BYTES and self.clock() < end and (received := (yield Receive(0.001))):
            self._buffer += received

    def _take(self, frame: bytes) -> Steps[None]:
        if frame.startswith(b"{"):
            message = wire.message(frame)
            if self.cursor is None or message.mid > self.cursor:
                yield Give(message)
                self.cursor = message.mid
        elif frame == b"+h":
            if self._live_since is None:
                self._live_since = self.clock()
                self._renewed = self._followed = False
                self.cursor = self.cursor or wire.LEAST_CURSOR
                self._tell(self.on_state, "live", "")
        elif frame == b"+g":
            self._tell(self.on_gap)
        else:
            raise _refusal(frame)

    def _tell(self, callback: Callable[..., object], *values: str) -> None:
        try:
            callback(*values)
        except Exception as wrong:
            self._raised = wrong
            raise


def _refusal(frame: bytes) -> Exception:
    if frame in TOKEN_REFUSALS:
        return _TokenError(REASONS[frame])
    if frame == b"-p":
        return RefusedError(REASONS[frame])
    if frame == b"-n":
        return _MovedError("the key has moved (-n)")
    if frame == b"-l":
        return _FullError("the key has as many connections as it may have (-l)")
    return UnavailableError("received something that is not a message")


def _words(wrong: Exception) -> str:
    return str(getattr(wrong, "strerror", None) or wrong) or type(wrong).__name__
