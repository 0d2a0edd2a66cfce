"""Subscriptions of this process: a session whose wire leads to a reader here instead of to a connection.

The rules for devices hold for it: the key's owner, tokens, limits, slow readers, moves.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from gopush.comet.service import Comet
from gopush.comet.session import SendLag, Session
from gopush.feed import Reader, last_mid
from gopush.model import HEARTBEAT, MAX_INT64, Format, NodeInfo, Subscribe

KIND = "sse"
"""What such a connection is called in lists."""


class LocalFeed:
    """See Feed: of the keys that this comet owns."""

    def __init__(self, comet: Comet) -> None:
        self.comet = comet
        self.clock = comet.clock
        self.seen = b""
        """What was sent last, and the mid of its last message: the same bytes go to many, one after the other."""
        self.mid = 0

    def open(self, owner: NodeInfo, request: Subscribe, format: Format, reader: Reader) -> LocalSubscription | None:
        """See Feed."""
        return LocalSubscription(self, request, format, reader) if owner.id == self.comet.id else None

    def watch(self, reached: Callable[[], object]) -> None:
        """See Feed: this comet was never away."""


class LocalSubscription:
    """See Subscription; it is its session's Wire."""

    __slots__ = ("_accepted", "_feed", "_reader", "_reply", "_request", "_session")
    kind = KIND

    def __init__(self, feed: LocalFeed, request: Subscribe, format: Format, reader: Reader) -> None:
        self._feed = feed
        self._reader: Reader | None = reader
        # The reader watches its client, so this session has no silence to wait for.
        self._request = request._replace(heartbeat=MAX_INT64)
        self._session = Session(self, format, feed.comet.settings, feed.clock.seconds())
        self._accepted = False
        self._reply = b""

    def start(self) -> None:
        """See Subscription."""
        comet, session = self._feed.comet, self._session
        comet.opened(session)
        comet.subscribe(session, self._request, session.format)

    def close(self) -> None:
        """See Subscription."""
        if self._reader is not None:
            self._reader = None
            self._feed.comet.closed(self._session)

    # --- what the session calls ---

    def send(self, data: bytes) -> int:
        """See Wire. This runs for every subscriber of every message."""
        feed, reader = self._feed, self._reader
        if reader is None:
            return 0
        if data is not feed.seen:
            if data[:1] in b"+-":
                return self._replied(data)
            feed.seen = data
            feed.mid = last_mid(data)
        if feed.mid:
            reader.cursor = feed.mid
        return reader.write(data)

    def finish(self) -> None:
        """See Wire."""
        self._feed.clock.callLater(0, self._over, self._reply)

    def abort(self) -> None:
        """See Wire."""
        self._feed.clock.callLater(0, self._over, b"")

    def drained(self) -> Awaitable[None]:
        """See Wire."""
        assert self._reader is not None
        return self._reader.until_drained()

    def behind(self) -> SendLag | None:
        """See Wire."""
        reader = self._reader
        waiting = None if reader is None else reader.waiting()
        return None if reader is None or waiting is None else SendLag(self.kind, reader.peer, *waiting)

    def _replied(self, reply: bytes) -> int:
        if reply[:1] == b"-":
            self._reply = reply
        elif reply[: len(HEARTBEAT)] == HEARTBEAT and not self._accepted:
            self._accepted = True
            assert self._reader is not None
            self._reader.accepted()
        return 0

    def _over(self, reply: bytes) -> None:
        """The session's end is its connection's."""
        reader, self._reader = self._reader, None
        if reader is None:
            return
        self._feed.comet.closed(self._session)
        if reply:
            reader.refused(reply)
        else:
            reader.ended(reached=True)
