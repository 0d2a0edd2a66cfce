"""Subscriptions at the comets of other processes: all of this process at one comet go over one connection of calls
(comet/feed_server.py has the other end), and what comes for many of them comes once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count, islice
from math import ceil
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from gopush.feed import ENDED, READ_ALL, FeedItem, FeedRequest, Reader, unframed
from gopush.membership.view import Coordination, View
from gopush.model import GAP, Format, Message, NodeInfo, Subscribe
from gopush.net.clock import Clock, cancel
from gopush.rpc.logins import Logins
from gopush.rpc.remote import FeedPeer, RemoteFeedComet
from gopush.rpc.settings import RpcSettings
from gopush.web.feed_writer import FeedWriter, RemoteSubscription

TIMEOUT_SECONDS = 10.0
"""A comet that has nothing to say says so earlier (comet/feed_server.py)."""

IDLE_SECONDS = 30.0
"""How long a connection without subscriptions is kept."""

LEAVE_SECONDS = 1.0
LEAVE_STEPS = 20
"""How subscriptions leave a comet that is gone: not all at once."""

MOST_IN_A_CALL = 1000
MOST_PENDING = 50_000
"""Messages for one client each that may wait for their turn; while they are more, no more are asked for."""

log = Logger()


Connect = Callable[[NodeInfo, Callable[[], object]], FeedPeer]


class RemoteFeed:
    """See Feed. `connect`: gives a comet whose calls end after TIMEOUT_SECONDS; it says when it can be called."""

    def __init__(self, clock: Clock, coordination: Coordination, connect: Connect) -> None:
        self.clock = clock
        self.connect = connect
        self.links: dict[tuple[str, ...], _Link] = {}
        """By NodeInfo.rpc: a comet that is back may have another second address."""
        self._coordination = coordination
        self._useless: set[str] = set()
        self._watchers: list[Callable[[], object]] = []
        coordination.watch(self._view_changed)

    def open(self, owner: NodeInfo, request: Subscribe, format: Format, reader: Reader) -> RemoteSubscription:
        """See Feed."""
        link = self.links.get(owner.rpc)
        if link is None:
            link = self.links[owner.rpc] = _Link(self, owner)
        return RemoteSubscription(link, request, format, reader)

    def watch(self, reached: Callable[[], object]) -> None:
        """See Feed."""
        self._watchers.append(reached)

    def met(self, comet: str) -> None:
        """It can be called. Where that was of no use before, who waits waits on."""
        for reached in self._watchers if comet not in self._useless else ():
            reached()

    def refused(self, comet: str, reason: str) -> None:
        """A comet that is there has refused a call: one of an older release, say."""
        if comet not in self._useless:
            self._useless.add(comet)
            log.warn(
                "event streams and waiting reads cannot subscribe at the comet {comet}: {reason}",
                comet=comet,
                reason=reason,
            )

    def answered(self, comet: str) -> None:
        """It has answered."""
        if comet in self._useless:
            self._useless.discard(comet)
            log.info("event streams and waiting reads can subscribe again at the comet {comet}", comet=comet)

    def gone(self, rpc: tuple[str, ...]) -> bool:
        """Whether no comet is called there any more; one that is sends subscribers away itself as their keys move."""
        return all(info.rpc != rpc for info in self._coordination.view.comets)

    def stop(self) -> None:
        """Let go of all comets."""
        for link in list(self.links.values()):
            link.stop()

    def _view_changed(self, _: View) -> None:
        for rpc, link in self.links.items():
            if self.gone(rpc):
                link.leave()


def remote_feed(reactor: Any, coordination: Coordination, settings: RpcSettings, logins: Logins) -> RemoteFeed:
    """Of a process with these settings for calls."""
    return RemoteFeed(
        reactor,
        coordination,
        lambda owner, met: RemoteFeedComet(reactor, owner, settings, TIMEOUT_SECONDS, logins, met),
    )


class _Link:
    """The connection to one comet, and the subscriptions there by number."""

    def __init__(self, feed: RemoteFeed, owner: NodeInfo) -> None:
        self._feed = feed
        self._id, self._rpc = owner.id, owner.rpc
        self._comet = feed.connect(owner, partial(feed.met, owner.id))
        self._numbers = count(1)
        self._subscriptions: dict[int, RemoteSubscription] = {}
        self._wanted: deque[FeedRequest] = deque()
        self._closed: deque[int] = deque()
        self._read: deque[int] = deque()
        self._sending: Any = None
        self._taking = False
        self._connection = 0
        """The one over which the comet has answered last: it has the subscriptions."""
        self._attempt = 0
        """Goes up where a call fails: what the calls before it come to does not count then."""
        self._writer = FeedWriter(feed.clock, self._take_next, self._end)
        self._idle: Any = None
        self._leaving: Any = None

    # --- what the subscriptions call ---

    def add(self, subscription: RemoteSubscription, request: Subscribe) -> None:
        """Subscribe."""
        cancel(self._idle)
        self._idle = None
        number = subscription.number = next(self._numbers)
        self._subscriptions[number] = subscription
        self._wanted.append(FeedRequest(number, request.key, request.token, request.mid))
        self._send_later()

    def remove(self, subscription: RemoteSubscription) -> None:
        """Nobody reads it any more."""
        if self._subscriptions.pop(subscription.number, None) is not None:
            self._closed.append(subscription.number)
            self._send_later()
            self._rest()

    # --- what the comet hears ---

    def _send_later(self) -> None:
        if self._sending is None:
            self._sending = self._feed.clock.callLater(0, self._send)

    def _send(self) -> None:
        self._sending = None
        if self._gone:
            self._end_all()
            return
        wanted = [request for request in _first(self._wanted) if request.number in self._subscriptions]
        closed, read = _first(self._closed), _first(self._read)
        if wanted or closed or read:
            sent = self._comet.feed(wanted, closed, read)
            sent.addErrback(self._failed, self._attempt)
        if self._wanted or self._closed or self._read:
            self._send_later()
        self._take_next()

    # --- what the comet says ---

    def _take_next(self) -> None:
        if self._taking or self._writer.pending > MOST_PENDING or not self._subscriptions:
            return
        if self._gone:
            self._end_all()
            return
        self._taking = True
        coming = self._comet.feed_next()
        coming.addCallback(self._take, self._attempt).addErrback(self._failed, self._attempt)

    def _take(self, items: Sequence[FeedItem], attempt: int) -> None:
        if attempt != self._attempt:
            return
        self._taking = False
        self._connection = self._comet.connections
        self._feed.answered(self._id)
        for numbers, data in items:
            found = (self._subscriptions.get(number) for number in numbers)
            self._sort([subscription for subscription in found if subscription is not None], data)
        self._writer.go_on()
        self._take_next()

    def _sort(self, subscriptions: Sequence[RemoteSubscription], data: bytes) -> None:
        """Put messages to what is pending; what is no message is obeyed once the messages before it are written."""
        found = () if data in (ENDED, READ_ALL) else unframed(data)
        if found and all(isinstance(item, Message) or item == GAP for item in found):
            self._writer.put(subscriptions, found)
            return
        for subscription in subscriptions:
            self._writer.write(subscription)
            for item in found:
                if isinstance(item, bytes) and item != GAP:
                    subscription.replied(item)
                else:
                    self._writer.put([subscription], [item])
            if data == ENDED:
                self._subscriptions.pop(subscription.number, None)
                subscription.over(reached=True)
            elif data == READ_ALL:
                Deferred.fromCoroutine(self._until_read(subscription))
        if data == ENDED:
            self._rest()

    def _end(self, subscription: RemoteSubscription, reached: bool = True) -> None:
        self.remove(subscription)
        subscription.over(reached)

    async def _until_read(self, subscription: RemoteSubscription) -> None:
        if subscription.reader is not None:
            await subscription.reader.until_drained()
        if subscription.reader is not None:
            self._read.append(subscription.number)
            self._send_later()

    # --- the connection ---

    @property
    def _gone(self) -> bool:
        """Whether that connection was lost while no call was out, which would have failed."""
        comet, known = self._comet, self._connection
        return known != 0 and not (comet.connected and comet.connections == known)

    def leave(self) -> None:
        """Its comet is gone, and may be frozen: whoever subscribes there looks for another one."""
        if self._leaving is None:
            self._leave_later(LEAVE_STEPS)

    def _leave_later(self, steps: int) -> None:
        self._leaving = self._feed.clock.callLater(LEAVE_SECONDS / LEAVE_STEPS, self._leave_some, steps)

    def _leave_some(self, steps: int) -> None:
        self._leaving = None
        if not self._feed.gone(self._rpc):
            return
        share = ceil(len(self._subscriptions) / steps)
        for subscription in list(islice(self._subscriptions.values(), share)):
            self._end(subscription, reached=False)
        if self._subscriptions:
            self._leave_later(max(steps - 1, 1))
        else:
            self.stop()

    def _failed(self, failure: Failure, attempt: int) -> None:
        """The comet does not answer: whoever subscribes there looks for another one."""
        if attempt != self._attempt:
            return
        if self._comet.connected:
            self._feed.refused(self._id, failure.getErrorMessage())
            self.stop()  # the comet may still have what is forgotten here
        self._end_all()

    def _end_all(self) -> None:
        self._attempt += 1
        self._taking = False
        self._connection = 0
        for waiting in (self._wanted, self._closed, self._read):
            waiting.clear()
        over, self._subscriptions = self._subscriptions, {}
        for subscription in over.values():
            subscription.over(reached=False)
        self._rest()

    def _rest(self) -> None:
        if not self._subscriptions and self._idle is None and self._feed.links.get(self._rpc) is self:
            self._idle = self._feed.clock.callLater(IDLE_SECONDS, self.stop)

    def stop(self) -> None:
        """Close the connection."""
        self._attempt += 1
        self._writer.stop()
        for timer in (self._sending, self._idle, self._leaving):
            cancel(timer)
        if self._feed.links.get(self._rpc) is self:
            del self._feed.links[self._rpc]
        self._comet.stop()


def _first(waiting: deque[Any]) -> list[Any]:
    """Take out what a call may hold."""
    return [waiting.popleft() for _ in range(min(MOST_IN_A_CALL, len(waiting)))]
