"""The live peers of one kind: their lanes, their health, and what happens to calls when one of them fails.

All calls about one key that must keep their order go through one lane at a time: a key moves to another peer only
when nothing of it is unanswered, or, when a peer is given up, with all of it, first and in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar, cast

from twisted.internet.defer import Deferred, DeferredList, fail, maybeDeferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from gopush.clock import Clock, within
from gopush.errors import UnavailableError
from gopush.rpc.coordination import REMEMBERED_KEYS
from gopush.rpc.lane import Entry, Lane
from gopush.rpc.model import NodeInfo
from gopush.rpc.peer import Call, Hold, Peer, Service
from gopush.rpc.settings import RpcSettings

RETRY_PAUSE_SECONDS = 0.1

log = Logger()


S = TypeVar("S", bound=Service)
T = TypeVar("T")

Choice = Callable[[str, Sequence[Peer[S]]], Peer[S]]


class Peers(Generic[S]):
    """Calls peers through lanes. `choose` picks the peer for a key among those that may still be tried."""

    def __init__(
        self,
        clock: Clock,
        connect: Callable[[NodeInfo], S],
        choose: Choice[S],
        settings: RpcSettings,
    ) -> None:
        self.live: dict[str, Peer[S]] = {}
        self._clock = clock
        self._connect = connect
        self._choose = choose
        self._settings = settings
        self._first: dict[str, Peer[S]] = {}  # what _best() chose, until something changes
        self._held: dict[tuple[Call[S], str], Hold[S]] = {}
        self._paused: list[tuple[Call[S], str, Entry]] = []
        self._probe = LoopingCall(self._ping_unhealthy)
        self._probe.clock = cast(Any, clock)

    @property
    def busy(self) -> bool:
        """Whether a call has no answer yet."""
        return bool(self._paused) or any(lane.busy for peer in self.live.values() for lane in peer.lanes.values())

    def update(self, infos: Iterable[NodeInfo]) -> None:
        """Adopt the peers of a new view; what waits for one that is gone, or drains, moves to the others."""
        self._first.clear()
        wanted = {info.id: info for info in infos}
        draining = []
        for name, info in wanted.items():
            if name not in self.live:
                self.live[name] = Peer(info, self._connect(info))
                continue
            peer = self.live[name]
            if info.draining and not peer.info.draining:
                draining.append(peer)
            peer.info = info
        for name in [name for name in self.live if name not in wanted]:
            peer = self.live.pop(name)
            self._first.clear()
            for lane in list(peer.lanes.values()):
                lane.give_up()
            peer.service.stop()
        self._first.clear()
        for peer in draining:
            for (call, _), lane in list(peer.lanes.items()):
                if call.moves:
                    lane.hand_over()

    def stop(self) -> None:
        """Let go of all peers; what waits fails."""
        paused, self._paused = self._paused, []
        for _, _, entry in paused:
            entry.fail("stopped")
        self.update(())
        if self._probe.running:
            self._probe.stop()

    def call(self, call: Call[S], key: str, item: Any, size: int, until: float, lane: str = "") -> Deferred[Any]:
        """Have `item` answered by the best peer that answers by `until`; else fail with UnavailableError.

        `lane` tells apart what must not wait for each other at one peer.
        """
        entry = Entry(key, item, size, until)
        if call.ordered:
            entry.hold = self._hold(call, key)
            entry.hold.take()
        self._route(call, lane, entry)
        return entry.done

    def call_peer(self, call: Call[S], name: str, item: Any, size: int) -> Deferred[Any]:
        """Have `item` answered by this peer, or fail."""
        peer = self.live.get(name)
        if peer is None:
            return fail(UnavailableError(f"{name} is gone"))
        entry = Entry("", item, size, self._clock.seconds() + call.timeout)
        self._put(call, "", peer, entry)
        return entry.done

    def ask(self, name: str, call: Callable[[S], Deferred[T]]) -> Deferred[T]:
        """Call this peer, past all lanes: for what comes seldom and concerns no key. Fails with UnavailableError."""
        peer = self.live.get(name)
        if peer is None:
            return fail(UnavailableError(f"{name} is gone"))
        asked = within(self._settings.call_timeout, maybeDeferred(call, peer.service), self._clock)
        return asked.addErrback(_unavailable, name)

    def ping(self) -> Deferred[None]:
        """Fires as soon as one peer answers. Fails with UnavailableError where none does."""
        if not self.live:
            return fail(UnavailableError("no such node is known"))
        pings = [self.ask(name, lambda service: service.ping()) for name in self.live]
        return DeferredList(pings, fireOnOneCallback=True, consumeErrors=True).addCallback(_one_answered)

    def _hold(self, call: Call[S], key: str) -> Hold[S]:
        name = (call, key)
        hold = self._held.get(name)
        if hold is None:
            hold = self._held[name] = Hold(self._held, name, self._best(key, ()))
        return hold

    def _best(self, key: str, tried: tuple[str, ...]) -> Peer[S] | None:
        if tried:
            return self._choose_of(key, [peer for name, peer in self.live.items() if name not in tried])
        peer = self._first.get(key)
        if peer is None:
            if len(self._first) >= REMEMBERED_KEYS:
                self._first.clear()
            peer = self._choose_of(key, list(self.live.values()))
            if peer is not None:
                self._first[key] = peer
        return peer

    def _choose_of(self, key: str, left: list[Peer[S]]) -> Peer[S] | None:
        if not left:
            return None
        healthy = [peer for peer in left if peer.healthy] or left
        return self._choose(key, [peer for peer in healthy if not peer.info.draining] or healthy)

    def _route(self, call: Call[S], lane: str, entry: Entry) -> None:
        if not self.live:
            entry.fail("no such node is known")
            return
        peer = self._best(entry.key, entry.tried) if entry.hold is None else entry.hold.peer
        if peer is None:
            self._pause(call, lane, entry)
        else:
            self._put(call, lane, peer, entry)

    def _put(self, call: Call[S], name: str, peer: Peer[S], entry: Entry) -> None:
        lane = peer.lanes.get((call, name))
        if lane is None:
            lane = peer.lanes[call, name] = self._open_lane(call, name, peer)
        try:
            lane.put(entry)
        except UnavailableError as full:
            entry.fail(str(full))

    def _open_lane(self, call: Call[S], name: str, peer: Peer[S]) -> Lane:
        def send(items: list[Any]) -> Deferred[list[Any]]:
            return maybeDeferred(call.send, peer.service, items)

        def gave_up(entries: list[Entry]) -> None:
            self._given_up(call, name, peer, entries)

        def moved(entries: list[Entry]) -> None:
            self._move(call, name, entries)

        return Lane(self._clock, send, call.timeout, self._settings, gave_up, moved, call.most)

    def _given_up(self, call: Call[S], lane: str, peer: Peer[S], entries: list[Entry]) -> None:
        self._suspect(peer)
        now = self._clock.seconds()
        for entry in entries:
            entry.tried = (*entry.tried, peer.info.id)
            if entry.until <= now or not call.moves:
                entry.fail(f"{peer.info.id} did not answer in time")
            else:
                entry.limit(self._clock)
        self._move(call, lane, entries)

    def _move(self, call: Call[S], lane: str, entries: list[Entry]) -> None:
        """Find another peer for these, each key's in order and to one peer."""
        moved = set()
        for entry in entries:
            if entry.done.called:
                entry.end()
                continue
            if entry.hold is not None and entry.key not in moved:
                moved.add(entry.key)
                entry.hold.peer = self._best(entry.key, entry.tried)
            self._route(call, lane, entry)

    def _pause(self, call: Call[S], lane: str, entry: Entry) -> None:
        """All peers have failed this call: try them again in a moment, as long as it makes sense."""
        entry.tried = ()
        if entry.until <= self._clock.seconds() + RETRY_PAUSE_SECONDS:
            entry.fail("no peer answered in time")
            return
        if not self._paused:
            self._clock.callLater(RETRY_PAUSE_SECONDS, self._resume)
        self._paused.append((call, lane, entry))

    def _resume(self) -> None:
        paused, self._paused = self._paused, []
        for call, lane, entry in paused:
            if entry.done.called:
                entry.end()
                continue
            if entry.hold is not None and entry.hold.peer is None:
                entry.hold.peer = self._best(entry.key, ())
            self._route(call, lane, entry)

    def _suspect(self, peer: Peer[S]) -> None:
        if peer.healthy and peer.info.id in self.live:
            peer.healthy = False
            self._first.clear()
            log.warn("{peer} does not answer; others are asked until it does", peer=peer.info.id)
            if not self._probe.running:
                self._probe.start(self._settings.ping, now=False)

    def _ping_unhealthy(self) -> None:
        unhealthy = [peer for peer in self.live.values() if not peer.healthy]
        if not unhealthy:
            self._probe.stop()
        for peer in unhealthy:
            ping = within(self._settings.call_timeout, maybeDeferred(peer.service.ping), self._clock)
            ping.addCallbacks(lambda _, peer=peer: self._recovered(peer), lambda _: None)

    def _recovered(self, peer: Peer[S]) -> None:
        if not peer.healthy:
            peer.healthy = True
            self._first.clear()
            log.info("{peer} answers again", peer=peer.info.id)


def _one_answered(outcome: Any) -> None:
    """What a DeferredList gives: a pair where one has answered, else all failures."""
    if isinstance(outcome, list):
        raise UnavailableError(outcome[0][1].getErrorMessage())


def _unavailable(failure: Failure, name: str) -> Any:
    if failure.check(UnavailableError):  # type: ignore[no-untyped-call]
        return failure
    raise UnavailableError(f"{name} did not answer: {failure.getErrorMessage() or failure.type}")
