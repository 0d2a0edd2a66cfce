"""Subscriptions of other processes: event streams and waiting reads there, whose key this comet owns.

Such a process calls this one (web/feed_client.py), and has all its subscriptions over that one connection: what a
round of delivery sends to many of them travels once, with their numbers. Each is a session here, so that the rules for
devices hold for it: the key's owner, tokens, limits, moves. Whether its client reads is looked at where the client is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Protocol

from twisted.internet.defer import Deferred, fail, succeed

from gopush.comet.feed import KIND
from gopush.comet.service import Comet
from gopush.comet.session import SendLag, Session
from gopush.errors import UnavailableError
from gopush.feed import ENDED, READ_ALL, VERSION, FeedItem, FeedRequest
from gopush.model import MAX_INT64, TCP_RAW, Subscribe

BATCH_BYTES = 1 << 20
MOST_NUMBERS = 10_000
"""What one answer holds at most, where one item alone does not have more bytes."""

MOST_WAITING_BYTES = 32 << 20
NUMBER_BYTES = 8
"""What may wait for one process, each number of a subscription among it; one for which there is no room ends, and its
process resumes it."""

IN_A_TURN = 32
"""Subscriptions that begin, or end with their process, in one turn of the reactor."""

LOOK_SECONDS = 5.0
MOST_MISSED = 2
"""A process that takes nothing is cut off after so many looks."""


class FeedCaller(Protocol):
    """The connection by which another process calls."""

    def notifyOnDisconnect(self, notifier: Callable[[], object]) -> None:
        """Have `notifier` called when it is lost."""

    def refuse(self, reason: str) -> None:
        """Cut it, with one line for the operator."""


class FeedServer:
    """Implements FeedService."""

    def __init__(self, comet: Comet) -> None:
        self.comet = comet
        self.clock = comet.clock
        self._outboxes: dict[FeedCaller, _Outbox] = {}

    def feed(
        self, caller: FeedCaller, wanted: Sequence[FeedRequest], closed: Sequence[int], read: Sequence[int]
    ) -> Deferred[None]:
        """See FeedService."""
        outbox = self._outbox(caller)
        outbox.close(closed)
        outbox.read(read)
        outbox.open(wanted)
        return succeed(None)

    def feed_next(self, caller: FeedCaller) -> Deferred[list[FeedItem]]:
        """See FeedService."""
        return self._outbox(caller).take()

    def _outbox(self, caller: FeedCaller) -> _Outbox:
        outbox = self._outboxes.get(caller)
        if outbox is None:
            outbox = self._outboxes[caller] = _Outbox(self, caller)
            caller.notifyOnDisconnect(partial(self._lost, caller))
        return outbox

    def _lost(self, caller: FeedCaller) -> None:
        self._outboxes.pop(caller).lose()


class _Outbox:
    """What waits for one process, and its subscriptions by number."""

    def __init__(self, feed: FeedServer, caller: FeedCaller) -> None:
        self.feed = feed
        self._caller = caller
        self._subscriptions: dict[int, _Subscription] = {}
        self._wanted: deque[FeedRequest] = deque()
        self._over: list[_Subscription] = []
        self._items: deque[tuple[bytes, list[int]]] = deque()
        self._bytes = 0
        self._taking: Deferred[list[FeedItem]] | None = None
        self._answering = self._opening = self._lost = False
        self._missed = 0
        feed.clock.callLater(LOOK_SECONDS, self._look)

    # --- what the process calls ---

    def open(self, wanted: Sequence[FeedRequest]) -> None:
        """Begin subscriptions, a few in each turn."""
        self._wanted += wanted
        if self._wanted and not self._opening:
            self._open_some()

    def close(self, numbers: Sequence[int]) -> None:
        """End subscriptions: nobody reads them any more."""
        unwanted = set(numbers)
        if self._wanted:
            self._wanted = deque(request for request in self._wanted if request.number not in unwanted)
        for number in numbers:
            subscription = self._subscriptions.pop(number, None)
            if subscription is not None:
                subscription.lose()

    def read(self, numbers: Sequence[int]) -> None:
        """The clients of these have read what was sent before READ_ALL."""
        for number in numbers:
            subscription = self._subscriptions.get(number)
            if subscription is not None:
                subscription.has_read()

    def take(self) -> Deferred[list[FeedItem]]:
        """What comes next."""
        if self._lost or self._taking is not None:
            return fail(UnavailableError("what comes next is asked for already"))
        taking = self._taking = Deferred()
        self._missed = 0
        if self._items:
            self._answer()
        return taking

    # --- what the subscriptions call ---

    def put(self, number: int, data: bytes) -> bool:
        """Send to a subscription; False where there is no room. This runs for every subscriber of every message."""
        if self._bytes > MOST_WAITING_BYTES and data is not ENDED:
            return False
        self._bytes += NUMBER_BYTES
        items = self._items
        if items and items[-1][0] is data and len(items[-1][1]) < MOST_NUMBERS:
            items[-1][1].append(number)
            return True
        self._bytes += len(data)
        items.append((data, [number]))
        if self._taking is not None and not self._answering:
            self._answering = True
            self.feed.clock.callLater(0, self._answer)
        return True

    def over(self, subscription: _Subscription) -> None:
        """It has ended here; whoever ended it may still be at work with its session."""
        if not self._over:
            self.feed.clock.callLater(0, self._close_over)
        self._over.append(subscription)

    def _close_over(self) -> None:
        over, self._over = self._over, []
        for subscription in over:
            if self._subscriptions.pop(subscription.number, None) is not None:
                subscription.lose()

    def _answer(self) -> None:
        self._answering = False
        taking = self._taking
        if taking is None:
            return
        size = numbers = 0
        taken: list[FeedItem] = []
        while self._items and (not taken or (size < BATCH_BYTES and numbers < MOST_NUMBERS)):
            data, to = self._items.popleft()
            size += len(data)
            numbers += len(to)
            taken.append(FeedItem(tuple(to), data))
        self._bytes -= size + numbers * NUMBER_BYTES
        self._taking = None
        taking.callback(taken)

    def _open_some(self) -> None:
        self._opening = False
        for _ in range(min(IN_A_TURN, len(self._wanted))):
            request = self._wanted.popleft()
            if request.number not in self._subscriptions:
                subscription = self._subscriptions[request.number] = _Subscription(self, request.number)
                subscription.start(request)
        if self._wanted:
            self._opening = True
            self.feed.clock.callLater(0, self._open_some)

    # --- the process itself ---

    def _look(self) -> None:
        """Show that this comet is there, where nothing comes; see whether the process is."""
        if self._lost:
            return
        self.feed.clock.callLater(LOOK_SECONDS, self._look)
        if self._taking is not None:
            self._answer()
            return
        self._missed += 1
        if self._missed >= MOST_MISSED and self._subscriptions:
            self._caller.refuse(f"took nothing of what came for its {len(self._subscriptions)} event streams")

    def lose(self) -> None:
        """The process is gone: its subscriptions end, a few in each turn."""
        self._lost = True
        self._wanted.clear()
        self._items.clear()
        self._taking = None
        for number in list(islice(self._subscriptions, IN_A_TURN)):
            self._subscriptions.pop(number).lose()
        if self._subscriptions:
            self.feed.clock.callLater(0, self.lose)


class _Subscription:
    """The Wire of a session; `number`: what its process calls it."""

    __slots__ = ("_outbox", "_reading", "_session", "number")
    kind = KIND

    def __init__(self, outbox: _Outbox, number: int) -> None:
        feed = outbox.feed
        self.number = number
        self._outbox = outbox
        self._session = Session(self, TCP_RAW, feed.comet.settings, feed.clock.seconds())
        self._reading: list[Deferred[None]] = []

    def start(self, wanted: FeedRequest) -> None:
        """Subscribe. Its process watches the client, so this session has no silence to wait for."""
        comet, session = self._outbox.feed.comet, self._session
        comet.opened(session)
        comet.subscribe(session, Subscribe(wanted.key, MAX_INT64, wanted.token, VERSION, wanted.mid), TCP_RAW)

    def lose(self) -> None:
        """The process does not have it any more."""
        self._outbox.feed.comet.closed(self._session)
        self.has_read()

    def has_read(self) -> None:
        """Its client has read all, or is gone."""
        reading, self._reading = self._reading, []
        for waiting in reading:
            waiting.callback(None)

    # --- what the session calls ---

    def send(self, data: bytes) -> int:
        """See Wire: the process tells nobody how far its client is behind, but closes it itself."""
        if not self._outbox.put(self.number, data):
            self._no_room()
        return 0

    def finish(self) -> None:
        """See Wire."""
        self.abort()

    def abort(self) -> None:
        """See Wire."""
        self._outbox.put(self.number, ENDED)
        self._outbox.over(self)

    def drained(self) -> Deferred[None]:
        """See Wire."""
        drained: Deferred[None] = Deferred()
        self._reading.append(drained)
        if not self._outbox.put(self.number, READ_ALL):
            self._no_room()
        return drained

    def behind(self) -> SendLag | None:
        """See Wire."""
        return None

    def _no_room(self) -> None:
        self._outbox.feed.comet.counters.slow_closed += 1
        self._session.abort()
