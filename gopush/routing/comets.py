"""The comets of the cluster, as web and the other comets use them.

A push tries its key's owner first, then the comet in this process, then any other: each of them can have it stored
(delivery rule 8).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from operator import methodcaller
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred, fail, gatherResults

from gopush.errors import RET_INTERNAL, RET_NO_NODE, RET_OK, UnavailableError
from gopush.hashing import best
from gopush.membership.view import Coordination, View
from gopush.model import LATE, NOT_REACHED, Forward, NodeInfo, OnPushed, Push, Pushed
from gopush.net.clock import Clock
from gopush.reports import BusyKey, Presence, SlowConsumer
from gopush.routing.peer import BatchCall, Peer, Service, one_of
from gopush.routing.pending import OVERHEAD_BYTES, PendingCalls
from gopush.routing.pool import Peers
from gopush.routing.stat import BatcherCounters
from gopush.rpc.services import CometService, NodeService
from gopush.rpc.settings import RpcSettings

PRESENCE_KEYS = 1000
"""Keys that a comet is asked for at once: some milliseconds, in which it does nothing else."""

T = TypeVar("T")


class CometPeer(CometService, NodeService, Service, Protocol):
    """A comet service that can be let go."""


class Comets(Peers[CometPeer]):
    """Every live comet process, the standbys included."""

    def __init__(
        self,
        clock: Clock,
        coordination: Coordination,
        connect: Callable[[NodeInfo], CometPeer],
        settings: RpcSettings,
        now: Callable[[], float] = time.time,
        own: str = "",
    ) -> None:
        """`own`: the NodeInfo.id of a comet in this process: it takes what the owner did not."""
        self._push = BatchCall[CometPeer](
            lambda node, pushes: node.push(pushes),
            settings.attempt_timeout,
            ordered=True,
            refused=_refused,
            again=_again,
        )
        self._forward = BatchCall[CometPeer](_forward, settings.call_timeout, moves=False)
        self._close = BatchCall[CometPeer](lambda node, keys: node.close(keys), settings.call_timeout, moves=False)
        super().__init__(clock, connect, self._owner_first, settings)
        self._now = now
        self._own = own
        self._coordination = coordination
        self._forwards = Forwards(clock, self.live, self.forward, self.numbers.counters)
        coordination.watch(self._adopt)
        self._adopt(coordination.view)

    def push(self, pushes: Sequence[Push], answered: OnPushed) -> None:
        """Push through the owners, else through any others, until the deadline, which is one for all.

        `answered` hears of each of them once: the indexes of those that went together, and their answers. Never fails:
        see Pushed.ret.
        """
        until = self._clock.seconds() + pushes[0].deadline - self._now()
        keys = [push.key for push in pushes]
        self.send_by_store(self._push, PendingCalls(keys, pushes, _sizes, until, partial(self._pushed, answered)))

    def forward(self, name: str, forward: Forward, own: str = "") -> None:
        """Tell the comet `name` of a message: again where that fails, as long as it is in the view.

        `own`: the comet that tells. While `name` does not answer it, another one, which may reach it, is told, too.
        """
        around = self._forward_around(name, forward, own)
        sent = self.call_peer(self._forward, name, forward, OVERHEAD_BYTES + len(forward.body or b""))
        sent.addErrback(lambda _: self._not_forwarded(name, forward, "" if around else own))

    def _not_forwarded(self, name: str, forward: Forward, own: str) -> None:
        self._forwards.keep(name, forward)
        self._forward_around(name, forward, own)

    def _forward_around(self, name: str, forward: Forward, own: str) -> bool:
        """Whether `name` does not answer: then another comet, which may pass the message on, is told."""
        peer = self.live.get(name)
        if not own or not forward.hops or peer is None or peer.healthy:
            return False
        other = self.beside(own, forward.key)
        if other is not None and self.live[other.id].healthy:
            self.forward(other.id, forward)
        return True

    def beside(self, name: str, key: str) -> NodeInfo | None:
        """Another comet than `name`, the same one for a key, and one that answers if there is any."""
        others = {id: peer for id, peer in self.live.items() if id != name}
        others = {id: peer for id, peer in others.items() if peer.healthy} or others
        if not others:
            return None
        return others[best(key, [(id, peer.info.weight) for id, peer in others.items()])].info

    def close(self, key: str) -> Deferred[int]:
        """Close the key's subscribers wherever they are; how many there were. Comets that do not answer count 0."""
        closed = [self.call_peer(self._close, name, key, OVERHEAD_BYTES) for name in self.live]
        answers = [answer.addErrback(lambda _: 0) for answer in closed]
        return gatherResults(answers).addCallback(sum)

    def subscribers(self, key: str) -> Deferred[dict[str, int | None]]:
        """How many subscribers of the key each comet has, by NodeInfo.id; None of one that does not answer."""
        return self._ask_all(lambda node: node.subscribers([key]).addCallback(lambda counts: counts[0]))

    def presence(self, keys: Sequence[str]) -> Deferred[dict[str, Presence | None]]:
        """Who is subscribed to each key at its owner; None where that one is unknown, or does not answer."""
        view, batches = self._coordination.view, dict[str, list[str]]()
        for key in keys:
            owner = view.owner(key)
            if owner is not None:
                batches.setdefault(owner.id, []).append(key)
        answers = [Deferred.fromCoroutine(self._presence(name, batch)) for name, batch in batches.items()]
        nobody = dict[str, Presence | None](dict.fromkeys(keys))
        return gatherResults(answers).addCallback(lambda found: nobody | dict(chain.from_iterable(found)))

    async def _presence(self, name: str, keys: Sequence[str]) -> list[tuple[str, Presence]]:
        """Who is subscribed to keys of this comet: a group of them in a turn of it, until one is not answered."""
        there: list[tuple[str, Presence]] = []
        with suppress(UnavailableError):
            for start in range(0, len(keys), PRESENCE_KEYS):
                group = keys[start : start + PRESENCE_KEYS]
                try:
                    found: list[Presence] = await self.ask(name, methodcaller("presence", group))
                except UnavailableError:  # of an older release, perhaps, which does not know that call
                    found = list(map(Presence, await self.ask(name, methodcaller("subscribers", group))))
                there += zip(group, found, strict=True)
        return there

    def slowest(self, most: int) -> Deferred[dict[str, list[SlowConsumer] | None]]:
        """The connections that are furthest behind on each comet, as subscribers()."""
        return self._ask_all(lambda node: node.slowest(most))

    def keys(self, prefix: str, most: int) -> Deferred[dict[str, list[BusyKey] | None]]:
        """The busiest keys of each comet, as subscribers(); None of one of an older release, too."""
        return self._ask_all(lambda node: node.keys(prefix, most))

    def _ask_all(self, call: Callable[[CometPeer], Deferred[T]]) -> Deferred[dict[str, T | None]]:
        names = list(self.live)
        answers = [self.ask(name, call).addErrback(lambda _: None) for name in names]
        return gatherResults(answers).addCallback(lambda found: dict(zip(names, found, strict=True)))

    def ping(self) -> Deferred[None]:
        """Fires as soon as one comet answers, whether or not it reaches a message node. Fails with UnavailableError, as
        where look-ups name none.
        """
        if not (self.live or self._coordination.connected):
            return fail(UnavailableError("no comet is known, and ZooKeeper cannot be reached"))
        asked = [self.ask(name, methodcaller("subscribers", ())) for name in self.live]
        return one_of(asked).addCallback(self._answers)

    def _answers(self, _: None) -> None:
        """The last comet that stops drains for good in this view, but answers no more."""
        if self._coordination.view.all_drain:
            raise UnavailableError("all comets drain: subscribers find none (gopush undrain NODE)")

    def _pushed(
        self,
        answered: OnPushed,
        indexes: Sequence[int],
        results: Sequence[Pushed] | UnavailableError,
    ) -> None:
        if isinstance(results, UnavailableError):
            results = [Pushed(RET_INTERNAL if self.live else RET_NO_NODE, 0)] * len(indexes)
        answered(indexes, results)

    def _adopt(self, view: View) -> None:
        self.adopt(view, view.comets)

    def _owner_first(self, key: str, peers: Sequence[Peer[CometPeer]]) -> Peer[CometPeer]:
        """The owner, else the one in this process, which no lost link cuts off, else the one of rendezvous hashing."""
        owner = self._coordination.view.owner(key)
        by_name = {peer.info.id: peer for peer in peers}
        for name in (owner.id if owner is not None else "", self._own):
            if name in by_name:
                return by_name[name]
        return by_name[best(key, [(peer.info.id, peer.info.weight) for peer in peers])]


def _refused(pushed: Pushed) -> bool:
    """That comet could not have it stored; perhaps another one reaches a message node. What is late stays so."""
    return pushed.ret != RET_OK and pushed.mid != LATE


def _again(pushed: Pushed) -> bool:
    return pushed.mid == NOT_REACHED


def _sizes(pushes: Sequence[Push]) -> list[int]:
    return [OVERHEAD_BYTES + len(push.body) for push in pushes]


def _forward(node: CometPeer, forwards: list[Forward]) -> Deferred[list[None]]:
    return node.forward(forwards).addCallback(lambda _: [None] * len(forwards))


AGAIN_SECONDS = 0.5
MOST_KEYS = 10_000
"""Kept for one comet. Beyond that its own sweep finds what it was not told of."""


class Forwards:
    """Keeps one for each key of each comet: the log has the rest. `send`: by the comet's NodeInfo.id."""

    def __init__(
        self,
        clock: Clock,
        live: Mapping[str, Peer[Any]],
        send: Callable[[str, Forward], object],
        counters: BatcherCounters,
    ) -> None:
        self._clock = clock
        self._live = live
        self._send = send
        self._counters = counters
        self._kept: dict[str, dict[str, Forward]] = {}
        self._waiting = False

    def keep(self, name: str, forward: Forward) -> None:
        """This one did not arrive; its body is not kept."""
        kept = self._kept.setdefault(name, {})
        if name not in self._live or (forward.key not in kept and len(kept) >= MOST_KEYS):
            return
        before = kept.get(forward.key)
        if before is None or before.mid < forward.mid:
            kept[forward.key] = forward._replace(body=None)
        if not self._waiting:
            self._waiting = True
            self._clock.callLater(AGAIN_SECONDS, self._again)

    def _again(self) -> None:
        self._waiting = False
        kept, self._kept = self._kept, {}
        for name, forwards in kept.items():
            peer = self._live.get(name)
            if peer is None:
                continue
            if not peer.healthy:
                self._kept[name] = forwards
                continue
            self._counters.retried += len(forwards)
            for forward in forwards.values():
                self._send(name, forward)
        if self._kept and not self._waiting:
            self._waiting = True
            self._clock.callLater(AGAIN_SECONDS, self._again)
