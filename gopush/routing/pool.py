"""The live peers of one kind: their batchers, and what happens to calls when one of them fails."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from operator import methodcaller
from typing import Any, Generic, TypeVar

from twisted.internet.defer import CancelledError, Deferred, TimeoutError, fail, maybeDeferred
from twisted.python.failure import Failure

from gopush.errors import UnavailableError
from gopush.hashing import Shards
from gopush.membership.view import View
from gopush.model import NodeInfo
from gopush.net.clock import Clock, within
from gopush.routing.batcher import Batcher
from gopush.routing.peer import BatchCall, HealthChecker, Peer, Service, one_of
from gopush.routing.pending import PendingCalls, Refusal, Waiting, pass_on, singles_of
from gopush.routing.router import Choose, Router
from gopush.routing.stat import BatcherStats
from gopush.rpc.codec import MAX_ITEMS
from gopush.rpc.settings import RpcSettings

RETRY_PAUSE_SECONDS = 0.1

S = TypeVar("S", bound=Service)
T = TypeVar("T")


class Peers(Generic[S]):
    """Calls peers through batchers. `choose` picks the peer for a key among those that may still be tried."""

    def __init__(
        self, clock: Clock, connect: Callable[[NodeInfo], S], choose: Choose[S], settings: RpcSettings
    ) -> None:
        self.live: dict[str, Peer[S]] = {}
        self.numbers = BatcherStats(self._waiting)
        self._clock = clock
        self._connect = connect
        self._settings = settings
        self._router = Router(self.live, choose)
        self._shards = Shards()
        self._paused: dict[BatchCall[S], _Paused] = {}
        self._health = HealthChecker(clock, self.live, settings, self._router.forget)

    @property
    def busy(self) -> bool:
        """Whether a call has no answer yet."""
        busy = (batcher.busy for peer in self.live.values() for batcher in peer.batchers.values())
        return bool(self._paused) or any(busy)

    def _waiting(self) -> tuple[int, int]:
        waiting = [batcher.waiting for peer in self.live.values() for batcher in peer.batchers.values()]
        waiting += [(paused.count, paused.size) for paused in self._paused.values()]
        return sum(calls for calls, _ in waiting), sum(size for _, size in waiting)

    def adopt(self, view: View, infos: Iterable[NodeInfo]) -> None:
        """Adopt the peers of a new view, and its stores."""
        self.update(infos)
        if view.stores != self._shards.weights:
            self._shards = Shards(view.stores, view.shards)

    def update(self, infos: Iterable[NodeInfo]) -> None:
        """Adopt the peers of a new view; what waits for one that is gone, or drains, moves to the others.

        One that has other addresses is gone, and new: the connection to it goes to those that it had.
        """
        self._router.forget()
        wanted = {info.id: info for info in infos}
        stay = {name for name, peer in self.live.items() if name in wanted and wanted[name].rpc == peer.info.rpc}
        gone = [self.live.pop(name) for name in list(self.live) if name not in stay]
        draining = []
        for name, info in wanted.items():
            if name not in self.live:
                self.live[name] = Peer(info, self._connect(info))
                continue
            peer = self.live[name]
            if info.draining and not peer.info.draining:
                draining.append(peer)
            peer.info = info
        self._router.forget()
        for peer in gone:
            for batcher in list(peer.batchers.values()):
                batcher.give_up()
            peer.service.stop()
        self._router.forget()
        for peer in draining:
            for (call, _), batcher in list(peer.batchers.items()):
                if call.moves:
                    batcher.hand_over()

    def stop(self) -> None:
        """Let go of all peers; what waits fails."""
        paused, self._paused = self._paused, {}
        for pending in [one for some in paused.values() for calls in some.calls.values() for one in calls]:
            pending.refuse("stopped")
        self.update(())
        self._health.stop()

    def call(
        self, call: BatchCall[S], key: str, item: Any, size: int, until: float, batcher: str = ""
    ) -> Deferred[Any]:
        """Have one item answered, as by send(), together with what else is called in this turn."""
        done: Deferred[Any] = Deferred()
        pending = PendingCalls((key,), (item,), lambda _: (size,), until, partial(_fire, done))
        for whole in self._router.spread(call, pending):
            self._route(call, batcher, whole)
        return done

    def send(self, call: BatchCall[S], pending: PendingCalls, batcher: str = "") -> None:
        """Have the items, gathered in this turn, answered by the best peers that answer in time; perhaps in parts.

        `batcher` tells apart what must not wait for each other at one peer.
        """
        settings = self._settings
        most = min(call.most or MAX_ITEMS, settings.batch_messages, settings.lane_messages)
        whole = len(pending.items) <= most and pending.size <= settings.batch_bytes
        for piece in (pending,) if whole else pending.cut(most, settings.batch_bytes):
            parts = deque(self._router.spread(call, piece))  # not before: the one before it may have moved its keys
            self._router.going.append((call, parts))
            while parts:
                self._route(call, batcher, parts.popleft(), gathered=True)
            self._router.going.pop()

    def send_by_store(self, call: BatchCall[S], pending: PendingCalls) -> None:
        """send(), by a batcher for each server of the store: none waits for another one."""
        if self._shards.ring is None:
            self.send(call, pending)
            return
        for shard, mine in self._shards.spread(pending.keys).items():
            self.send(call, pending if len(mine) == len(pending.keys) else pending.part(mine), shard)

    def call_peer(self, call: BatchCall[S], name: str, item: Any, size: int) -> Deferred[Any]:
        """Have `item` answered by this peer, or fail."""
        peer = self.live.get(name)
        if peer is None:
            return fail(UnavailableError(f"{name} is gone"))
        done: Deferred[Any] = Deferred()
        until = self._clock.seconds() + call.timeout
        pending = PendingCalls(("",), (item,), lambda _: (size,), until, partial(_fire, done))
        pending.peer = peer
        self._route(call, "", pending)
        return done

    def ask(self, name: str, call: Callable[[S], Deferred[T]]) -> Deferred[T]:
        """Call this peer without a batcher: for rare calls about no key. Fails with UnavailableError."""
        peer = self.live.get(name)
        if peer is None:
            return fail(UnavailableError(f"{name} is gone"))
        asked = within(self._settings.call_timeout, maybeDeferred(call, peer.service), self._clock)
        return asked.addErrback(_unavailable, name)

    def ping(self) -> Deferred[None]:
        """Fires as soon as one peer answers. Fails with UnavailableError where none does."""
        return one_of([self.ask(name, methodcaller("ping")) for name in self.live])

    def _route(self, call: BatchCall[S], batcher: str, pending: PendingCalls, gathered: bool = False) -> None:
        if not self.live:
            pending.refuse("no such node is known")
            return
        peer = pending.peer
        if peer is None:
            self._pause(call, batcher, pending)
            return
        way = peer.batchers.get((call, batcher))
        if way is None:
            way = peer.batchers[call, batcher] = self._open_batcher(call, batcher, peer)
        way.put(pending, gathered)

    def _open_batcher(self, call: BatchCall[S], name: str, peer: Peer[S]) -> Batcher:
        receiving = getattr(type(peer.service), "receiving", None)  # a peer in this process has no such thing
        going_on = partial(receiving, peer.service) if call.long and receiving else None
        return Batcher(
            self._clock,
            partial(call.send, peer.service),
            call.timeout,
            self._settings,
            partial(self._given_up, call, name, peer),
            partial(self._move, call, name),
            call.most,
            self.numbers,
            call.refused,
            partial(self._sent_back, call, name, peer),
            going_on,
            peer.waiting.setdefault(call, Waiting()),
        )

    def _given_up(
        self, call: BatchCall[S], batcher: str, peer: Peer[S], pendings: list[PendingCalls], said: str
    ) -> None:
        self._health.add(peer, "refuses calls" if said else "does not answer")
        now = self._clock.seconds()
        left, dead = [], []
        for pending in pendings:
            pending.tried = (*pending.tried, peer.info.id)
            if pending.until <= now or not call.moves:
                dead.append(pending)
            else:
                pending.limit(self._clock)
                left.append(pending)
        self.numbers.counters.given_up += 0 if said else len(left) + len(dead)
        self.numbers.counters.retried += len(left)
        self._move(call, batcher, left)
        for pending in dead:  # last: whoever hears of it may call again, and must not come before those that moved
            pending.fail(said or f"{peer.info.id} did not answer in time")

    def _sent_back(
        self, call: BatchCall[S], batcher: str, peer: Peer[S], refusals: list[Refusal], behind: list[PendingCalls]
    ) -> None:
        """Ask the others, this one not first for a while; where none is left, `again` or its refusal is the answer."""
        if len(self.live) > 1:
            self._health.add(peer, "refuses calls")
        left, final = [], []
        for pending, answer in refusals:
            if pending.ended:
                continue
            pending.tried = (*pending.tried, peer.info.id)
            other = self._router.best(pending.keys[0], pending.tried)
            if call.moves and pending.until > self._clock.seconds() and (other is not None or call.again(answer)):
                pending.limit(self._clock)
                left.append(pending)
            else:
                final.append((pending, answer))
        self.numbers.counters.retried += len(left)
        self._move(call, batcher, [*left, *behind])
        for pending, answer in final:
            pending.answer([answer])

    def _move(self, call: BatchCall[S], batcher: str, pendings: list[PendingCalls]) -> None:
        """Find another peer for these single calls, each key's in order and to one peer."""
        self._router.move(call, pendings)
        for pending in pendings:
            self._route(call, batcher, pending)

    def _pause(self, call: BatchCall[S], batcher: str, pending: PendingCalls) -> None:
        """All peers have failed this call: try them again in a moment, as long as it makes sense."""
        pending.tried = ()
        if pending.until <= self._clock.seconds() + RETRY_PAUSE_SECONDS:
            pending.fail("no peer answered in time")
            return
        if not self._paused:
            self._clock.callLater(RETRY_PAUSE_SECONDS, self._resume)
        paused, count = self._paused.setdefault(call, _Paused()), len(pending.items)
        if paused.count + count > self._settings.lane_messages or paused.size > self._settings.lane_bytes:
            self.numbers.counters.refused += count
            pending.refuse("too many calls wait for a peer")
            return
        paused.calls.setdefault(batcher, []).extend(pending.singles())
        paused.count += count
        paused.size += pending.size

    def _resume(self) -> None:
        paused, self._paused = self._paused, {}
        for call, some in paused.items():
            for batcher, calls in some.calls.items():
                singles = singles_of(calls)
                pass_on(singles, self._move, call, batcher, singles)


class _Paused:
    """Calls of one kind that wait until their peers are tried again, each by itself, by batcher; `size` in bytes."""

    __slots__ = ("calls", "count", "size")

    def __init__(self) -> None:
        self.calls: dict[str, list[PendingCalls]] = {}
        self.count = 0
        self.size = 0


def _fire(done: Deferred[Any], _: Sequence[int], results: Sequence[Any] | UnavailableError) -> None:
    if isinstance(results, UnavailableError):
        done.errback(results)
    else:
        done.callback(results[0])


def _unavailable(failure: Failure, name: str) -> Any:
    if failure.check(UnavailableError):
        return failure
    if failure.check(TimeoutError, CancelledError):
        raise UnavailableError(f"{name} did not answer in time")
    raise UnavailableError(f"{name} did not answer: {failure.getErrorMessage() or failure.type}")
