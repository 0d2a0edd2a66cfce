"""The live peers of one kind: their lanes, and what happens to calls when one of them fails.

All calls about one key that must keep their order go through one lane at a time: a key moves to another peer only
when nothing of it is unanswered, or, when a peer is given up, with all of it, first and in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred, DeferredList, fail, maybeDeferred
from twisted.python.failure import Failure

from gopush.clock import Clock, within
from gopush.errors import UnavailableError
from gopush.rpc.coordination import REMEMBERED_KEYS
from gopush.rpc.counters import LaneNumbers
from gopush.rpc.lane import Answered, Entry, Lane
from gopush.rpc.model import NodeInfo
from gopush.rpc.peer import Call, Peer, Service
from gopush.rpc.settings import RpcSettings
from gopush.rpc.suspects import Suspects

RETRY_PAUSE_SECONDS = 0.1

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
        self.numbers = LaneNumbers(self._waiting)
        self._clock = clock
        self._connect = connect
        self._choose = choose
        self._settings = settings
        self._first: dict[str, Peer[S]] = {}  # what _best() chose, until something changes
        self._last: dict[Call[S], dict[str, Entry]] = {}  # of each ordered call, the last unanswered one of each key
        self._paused: list[tuple[Call[S], str, Entry]] = []
        self._suspects = Suspects(clock, self.live, settings, self._first.clear)

    @property
    def busy(self) -> bool:
        """Whether a call has no answer yet."""
        return bool(self._paused) or any(lane.busy for peer in self.live.values() for lane in peer.lanes.values())

    def _waiting(self) -> tuple[int, int]:
        waiting = [lane.waiting for peer in self.live.values() for lane in peer.lanes.values()]
        return sum(calls for calls, _ in waiting), sum(size for _, size in waiting)

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
        self._suspects.stop()

    def call(self, call: Call[S], key: str, item: Any, size: int, until: float, lane: str = "") -> Deferred[Any]:
        """As send(), with a Deferred: for what is not called for every message."""
        done: Deferred[Any] = Deferred()
        self.send(call, key, item, size, until, partial(_fire, done), lane)
        return done

    def send(
        self, call: Call[S], key: str, item: Any, size: int, until: float, answered: Answered, lane: str = ""
    ) -> None:
        """Have `item` answered by the best peer that answers by `until`; else `answered` gets an UnavailableError.

        `lane` tells apart what must not wait for each other at one peer.
        """
        entry = Entry(key, item, size, until, answered)
        if call.ordered:
            last = self._last.get(call)
            if last is None:
                last = self._last[call] = {}
            before = last.get(key)
            last[key] = entry
            entry.last = last
        else:
            before = None
        # A key stays where its last call went until that is answered.
        entry.peer = self._best(key, ()) if before is None else before.peer
        self._route(call, lane, entry)

    def call_peer(self, call: Call[S], name: str, item: Any, size: int) -> Deferred[Any]:
        """Have `item` answered by this peer, or fail."""
        peer = self.live.get(name)
        if peer is None:
            return fail(UnavailableError(f"{name} is gone"))
        done: Deferred[Any] = Deferred()
        entry = Entry("", item, size, self._clock.seconds() + call.timeout, partial(_fire, done))
        entry.peer = peer
        self._route(call, "", entry)
        return done

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
        peer = entry.peer
        if peer is None:
            self._pause(call, lane, entry)
            return
        way = peer.lanes.get((call, lane))
        if way is None:
            way = peer.lanes[call, lane] = self._open_lane(call, lane, peer)
        way.put(entry)

    def _open_lane(self, call: Call[S], name: str, peer: Peer[S]) -> Lane:
        def send(items: list[Any]) -> Deferred[list[Any]]:
            return maybeDeferred(call.send, peer.service, items)

        def gave_up(entries: list[Entry]) -> None:
            self._given_up(call, name, peer, entries)

        def moved(entries: list[Entry]) -> None:
            self._move(call, name, entries)

        return Lane(self._clock, send, call.timeout, self._settings, gave_up, moved, call.most, self.numbers)

    def _given_up(self, call: Call[S], lane: str, peer: Peer[S], entries: list[Entry]) -> None:
        self._suspects.add(peer)
        now = self._clock.seconds()
        left, dead = [], []
        for entry in entries:
            entry.tried = (*entry.tried, peer.info.id)
            if entry.until <= now or not call.moves:
                dead.append(entry)
            else:
                entry.limit(self._clock)
                left.append(entry)
        self.numbers.counters.given_up += len(entries)
        self.numbers.counters.retried += len(left)
        self._move(call, lane, left)
        for entry in dead:  # last: whoever hears of it may call again, and must not come before those that moved
            entry.fail(f"{peer.info.id} did not answer in time")

    def _move(self, call: Call[S], lane: str, entries: list[Entry]) -> None:
        """Find another peer for these, each key's in order and to one peer."""
        chosen: dict[str, Peer[S] | None] = {}
        left = [entry for entry in entries if not entry.ended]
        for entry in left:
            if not call.ordered:
                entry.peer = self._best(entry.key, entry.tried)
                continue
            if entry.key not in chosen:
                chosen[entry.key] = self._best(entry.key, entry.tried)
            entry.peer = chosen[entry.key]
        for entry in left:
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
        left = [one for one in paused if not one[2].ended]
        for _, _, entry in left:
            entry.peer = self._best(entry.key, ())
        for call, lane, entry in left:
            self._route(call, lane, entry)


def _fire(done: Deferred[Any], result: Any) -> None:
    if isinstance(result, UnavailableError):
        done.errback(result)
    else:
        done.callback(result)


def _one_answered(outcome: Any) -> None:
    """What a DeferredList gives: a pair where one has answered, else all failures."""
    if isinstance(outcome, list):
        raise UnavailableError(outcome[0][1].getErrorMessage())


def _unavailable(failure: Failure, name: str) -> Any:
    if failure.check(UnavailableError):  # type: ignore[no-untyped-call]
        return failure
    raise UnavailableError(f"{name} did not answer: {failure.getErrorMessage() or failure.type}")
