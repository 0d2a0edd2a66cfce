"""Messages from another comet on their way to clients of this process. What comes for a client while others have their
turn goes out with its next write.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.logger import Logger

from gopush.feed import Reader
from gopush.model import GAP, HEARTBEAT, Format, Message, Subscribe
from gopush.net.clock import Clock, cancel

WRITES_IN_A_TURN = 128

MOST_UNREAD_BYTES = 2 << 20
"""How many bytes may wait for one client, not counting the longest piece that it was sent since nothing waited: one
message alone, or a page of what it resumed with, is never too much."""

log = Logger()


class Subscriptions(Protocol):
    """Those at one comet."""

    def add(self, subscription: RemoteSubscription, request: Subscribe) -> None:
        """Subscribe."""

    def remove(self, subscription: RemoteSubscription) -> None:
        """Nobody reads it any more."""


class RemoteSubscription:
    """See Subscription."""

    __slots__ = ("_accepted", "_link", "_reply", "_request", "allowed", "format", "mid", "number", "pending", "reader")

    def __init__(self, link: Subscriptions, request: Subscribe, format: Format, reader: Reader) -> None:
        self._link = link
        self._request: Subscribe | None = request
        self.format = format
        self.reader: Reader | None = reader
        self.number = 0
        self.pending: list[bytes] = []
        """What has come, in its format, and is not written; `mid`: of the last message among it."""
        self.mid = 0
        self.allowed = 0
        """How long the longest piece was since nothing waited for its client."""
        self._accepted = False
        self._reply = b""

    def start(self) -> None:
        """See Subscription."""
        request, self._request = self._request, None
        assert request is not None
        self._link.add(self, request)

    def close(self) -> None:
        """See Subscription."""
        if self.reader is not None:
            self.reader = None
            self._link.remove(self)

    def replied(self, reply: bytes) -> None:
        """The comet says this; more than its first heartbeat is the last word."""
        if reply != HEARTBEAT:
            self._reply = reply
        elif not self._accepted and self.reader is not None:
            self._accepted = True
            self.reader.accepted()

    def over(self, reached: bool) -> None:
        """It has ended. `reached`: the comet has ended it."""
        reader, self.reader = self.reader, None
        if reader is None:
            return
        if self._reply:
            reader.refused(self._reply)
        else:
            reader.ended(reached)


class FeedWriter:
    """Writes to the readers of one comet's subscriptions. `wrote` is called after each turn; `end` ends one of them."""

    def __init__(self, clock: Clock, wrote: Callable[[], object], end: Callable[[RemoteSubscription], object]) -> None:
        self.pending = 0
        """Messages, each for one client."""
        self._clock = clock
        self._wrote = wrote
        self._end = end
        self._behind: deque[RemoteSubscription] = deque()
        self._writing: Any = None

    def stop(self) -> None:
        """Write no more."""
        cancel(self._writing)
        self._writing = None

    def put(self, subscriptions: Sequence[RemoteSubscription], found: Sequence[Message | bytes]) -> None:
        """Messages and gaps are to be written. This runs for every subscriber of every message, most of one format."""
        mid = max((item.mid for item in found if isinstance(item, Message)), default=0)
        format, frames = None, b""
        for subscription in subscriptions:
            if subscription.format is not format:
                format = subscription.format
                frames = b"".join([_shown(item, format) for item in found])
            if not subscription.pending:
                self._behind.append(subscription)
            subscription.pending.append(frames)
            subscription.mid = mid or subscription.mid
        self.pending += len(subscriptions)

    def go_on(self) -> None:
        """Write what is pending, to some in each turn."""
        if self._behind and self._writing is None:
            self._write_some()

    def _write_some(self) -> None:
        self._writing = None
        for _ in range(min(WRITES_IN_A_TURN, len(self._behind))):
            self.write(self._behind.popleft())
        if self._behind:
            self._writing = self._clock.callLater(0, self._write_some)
        self._wrote()

    def write(self, subscription: RemoteSubscription) -> None:
        """Write all that is pending for one. A client that does not read is given up."""
        pending, reader = subscription.pending, subscription.reader
        if not pending:
            return
        frames = pending[0] if len(pending) == 1 else b"".join(pending)
        self.pending -= len(pending)
        pending.clear()
        if reader is None or not frames:
            return
        if subscription.mid:
            reader.cursor = subscription.mid
        try:
            waits = reader.write(frames)
        except Exception:
            log.failure("passing messages on to a client failed; gopush ends its subscription")
            self._end(subscription)
            return
        subscription.allowed = max(subscription.allowed, len(frames)) if waits else 0
        if waits > MOST_UNREAD_BYTES + subscription.allowed:
            self._end(subscription)


def _shown(item: Message | bytes, format: Format) -> bytes:
    if isinstance(item, Message):
        return format.message(item)
    return format.reply(GAP) if item == GAP else b""
