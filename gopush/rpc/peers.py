"""The live peers of one kind: their lanes, and what happens to calls when one of them fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred, DeferredList, fail, maybeDeferred
from twisted.python.failure import Failure

from gopush.clock import Clock, within
from gopush.errors import UnavailableError
from gopush.rpc.batch import MAX_ITEMS
from gopush.rpc.choices import Choice, Choices
from gopush.rpc.counters import LaneNumbers
from gopush.rpc.entry import Entry
from gopush.rpc.lane import Lane, Refusal
from gopush.rpc.model import NodeInfo
from gopush.rpc.peer import Call, Peer, Service
from gopush.rpc.settings import RpcSettings
from gopush.rpc.suspects import Suspects

RETRY_PAUSE_SECONDS = 0.1

S = TypeVar("S", bound=Service)
T = TypeVar("T")


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
        self._settings = settings
        self._choices = Choices(self.live, choose)
        self._paused: list[tuple[Call[S], str, Entry]] = []
        self._suspects = Suspects(clock, self.live, settings, self._choices.forget)

    @property
    def busy(self) -> bool:
        """Whether a call has no answer yet."""
        return bool(self._paused) or any(lane.busy for peer in self.live.values() for lane in peer.lanes.values())

    def _waiting(self) -> tuple[int, int]:
        waiting = [lane.waiting for peer in self.live.values() for lane in peer.lanes.values()]
        return sum(calls for calls, _ in waiting), sum(size for _, size in waiting)

    def update(self, infos: Iterable[NodeInfo]) -> None:
        """Adopt the peers of a new view; what waits for one that is gone, or drains, moves to the others."""
        self._choices.forget()
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
            self._choices.forget()
            for lane in list(peer.lanes.values()):
                lane.give_up()
            peer.service.stop()
        self._choices.forget()
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
        """Have one item answered, as by send(), together with what else is called in this turn."""
        done: Deferred[Any] = Deferred()
        entry = Entry((key,), (item,), lambda _: size, until, partial(_fire, done))
        for whole in self._choices.spread(call, entry):
            self._route(call, lane, whole)
        return done

    def send(self, call: Call[S], entry: Entry, lane: str = "") -> None:
        """Have the items, gathered in this turn, answered by the best peers that answer in time; perhaps in parts.

        `lane` tells apart what must not wait for each other at one peer.
        """
        settings = self._settings
        most = min(call.most or MAX_ITEMS, settings.batch_messages, settings.lane_messages)
        for piece in entry.cut(most, settings.batch_bytes):
            for part in self._choices.spread(call, piece):
                self._route(call, lane, part, gathered=True)

    def call_peer(self, call: Call[S], name: str, item: Any, size: int) -> Deferred[Any]:
        """Have `item` answered by this peer, or fail."""
        peer = self.live.get(name)
        if peer is None:
            return fail(UnavailableError(f"{name} is gone"))
        done: Deferred[Any] = Deferred()
        until = self._clock.seconds() + call.timeout
        entry = Entry(("",), (item,), lambda _: size, until, partial(_fire, done))
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

    def _route(self, call: Call[S], lane: str, entry: Entry, gathered: bool = False) -> None:
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
        way.put(entry, gathered)

    def _open_lane(self, call: Call[S], name: str, peer: Peer[S]) -> Lane:
        def send(items: list[Any]) -> Deferred[list[Any]]:
            return maybeDeferred(call.send, peer.service, items)

        def gave_up(entries: list[Entry]) -> None:
            self._given_up(call, name, peer, entries)

        def moved(entries: list[Entry]) -> None:
            self._move(call, name, entries)

        def sent_back(refusals: list[Refusal], behind: list[Entry]) -> None:
            self._sent_back(call, name, peer, refusals, behind)

        receiving = getattr(type(peer.service), "receiving", None)  # a peer in this process has no such thing
        going_on = partial(receiving, peer.service) if call.long and receiving else None
        return Lane(
            self._clock,
            send,
            call.timeout,
            self._settings,
            gave_up,
            moved,
            call.most,
            self.numbers,
            call.refused,
            sent_back,
            going_on,
        )

    def _given_up(self, call: Call[S], lane: str, peer: Peer[S], entries: list[Entry]) -> None:
        self._suspects.add(peer, "does not answer")
        now = self._clock.seconds()
        left, dead = [], []
        for entry in _singles(entries):
            entry.tried = (*entry.tried, peer.info.id)
            if entry.until <= now or not call.moves:
                dead.append(entry)
            else:
                entry.limit(self._clock)
                left.append(entry)
        self.numbers.counters.given_up += len(left) + len(dead)
        self.numbers.counters.retried += len(left)
        self._move(call, lane, left)
        for entry in dead:  # last: whoever hears of it may call again, and must not come before those that moved
            entry.fail(f"{peer.info.id} did not answer in time")

    def _sent_back(self, call: Call[S], lane: str, peer: Peer[S], refusals: list[Refusal], behind: list[Entry]) -> None:
        """Ask the others, this one not first for a while; where none is left, its refusal is the answer."""
        if len(self.live) > 1:
            self._suspects.add(peer, "refuses what it is asked")
        now = self._clock.seconds()
        left, final = [], []
        for entry, answer in refusals:
            if entry.ended:
                continue
            entry.tried = (*entry.tried, peer.info.id)
            if call.moves and entry.until > now and self._choices.best(entry.keys[0], entry.tried) is not None:
                entry.limit(self._clock)
                left.append(entry)
            else:
                final.append((entry, answer))
        self.numbers.counters.retried += len(left)
        self._move(call, lane, [*left, *behind])
        for entry, answer in final:
            entry.answer([answer])

    def _move(self, call: Call[S], lane: str, entries: list[Entry]) -> None:
        """Find another peer for these, each key's in order and to one peer."""
        left = _singles(entries)
        self._choices.move(call, left)
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
        self._paused += [(call, lane, single) for single in entry.singles()]

    def _resume(self) -> None:
        paused, self._paused = self._paused, []
        left = [one for one in paused if not one[2].ended]
        for _, _, entry in left:
            entry.peer = self._choices.best(entry.keys[0])
        for call, lane, entry in left:
            self._route(call, lane, entry)


def _singles(entries: Iterable[Entry]) -> list[Entry]:
    """Each call that has no answer yet."""
    return [single for entry in entries if not entry.ended for single in entry.singles()]


def _fire(done: Deferred[Any], _: Sequence[int], results: Sequence[Any] | UnavailableError) -> None:
    if isinstance(results, UnavailableError):
        done.errback(results)
    else:
        done.callback(results[0])


def _one_answered(outcome: Any) -> None:
    """What a DeferredList gives: a pair where one has answered, else all failures."""
    if isinstance(outcome, list):
        raise UnavailableError(outcome[0][1].getErrorMessage())


def _unavailable(failure: Failure, name: str) -> Any:
    if failure.check(UnavailableError):  # type: ignore[no-untyped-call]
        return failure
    raise UnavailableError(f"{name} did not answer: {failure.getErrorMessage() or failure.type}")
