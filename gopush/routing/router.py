"""Which peer a key's calls go to.

All calls about one key that must keep their order go through one batcher at a time: a key moves to another peer only
when nothing of it is unanswered, or, when a peer is given up, with all of it, first and in order. Where something
changes that the choice depends on, the keys of all unanswered calls are held where they are: only move() changes that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

from gopush.membership.view import REMEMBERED_KEYS
from gopush.routing.peer import BatchCall, Peer, Service
from gopush.routing.pending import Hold, PendingCalls

S = TypeVar("S", bound=Service)

Choose = Callable[[str, Sequence[Peer[S]]], Peer[S]]


class Router(Generic[S]):
    """Chooses among the `live` peers. `choose` picks the one for a key among those that may still be tried."""

    def __init__(self, live: Mapping[str, Peer[S]], choose: Choose[S]) -> None:
        self.going: list[tuple[BatchCall[S], Iterable[PendingCalls]]] = []
        """What has a peer and is not in its batcher yet: where one before it fails, forget() holds these keys, too."""
        self._live = live
        self._choose = choose
        self._first: dict[str, Peer[S]] = {}  # what best() chose, until something changes
        self._held: dict[BatchCall[S], dict[str, Hold]] = {}  # of ordered calls, the keys that must not move

    def spread(self, call: BatchCall[S], pending: PendingCalls) -> Sequence[PendingCalls]:
        """The call with its peer chosen (None: all have failed its keys), in parts where there are several.

        A key that is held goes to its peer, and stays held where that is not the best one.
        """
        held = self._held.get(call)
        if not held and (len(pending.keys) == 1 or len(self._live) == 1):
            key = pending.keys[0]
            pending.peer = self._first.get(key) or self.best(key)
            return (pending,)
        peers = [self._first.get(key) or self.best(key) for key in pending.keys]
        if not held:
            return _parts(pending, peers)
        holds = map(held.get, pending.keys)
        peers = [peer if hold is None else hold.peer for peer, hold in zip(peers, holds, strict=True)]
        parts = _parts(pending, peers)
        for part in parts:
            if any(key in held and self.best(key) is not part.peer for key in part.keys):
                part.hold(held)
        return parts

    def best(self, key: str, tried: tuple[str, ...] = ()) -> Peer[S] | None:
        """The best peer for the key that is not among the `tried`; None where there is none."""
        if tried:
            return self._choose_of(key, [peer for name, peer in self._live.items() if name not in tried])
        peer = self._first.get(key)
        if peer is None:
            if len(self._first) >= REMEMBERED_KEYS:
                self.forget()
            peer = self._choose_of(key, list(self._live.values()))
            if peer is not None:
                self._first[key] = peer
        return peer

    def move(self, call: BatchCall[S], pendings: Sequence[PendingCalls]) -> None:
        """Choose anew for these single calls, each key's together."""
        chosen: dict[str, Peer[S] | None] = {}
        for pending in pendings:
            (key,) = pending.keys
            if not call.ordered:
                pending.peer = self.best(key, pending.tried)
                continue
            if key not in chosen:
                chosen[key] = self.best(key, pending.tried)
            pending.peer = chosen[key]
            self._hold(call, (pending,))
            self._held[call][key].peer = pending.peer

    def forget(self) -> None:
        """Something has changed: choose anew, but for the keys of ordered calls that have no answer yet."""
        self._first.clear()
        for peer in self._live.values():
            for (call, _), batcher in peer.batchers.items():
                if call.ordered:
                    self._hold(call, batcher.unanswered)
        for call, parts in self.going:
            if call.ordered:
                self._hold(call, parts)

    def _hold(self, call: BatchCall[S], pendings: Iterable[PendingCalls]) -> None:
        held = self._held.setdefault(call, {})
        for pending in pendings:
            pending.hold(held)

    def _choose_of(self, key: str, left: list[Peer[S]]) -> Peer[S] | None:
        if not left:
            return None
        healthy = [peer for peer in left if peer.healthy] or left
        return self._choose(key, [peer for peer in healthy if not peer.info.draining] or healthy)


def _parts(pending: PendingCalls, peers: Sequence[Peer[S] | None]) -> list[PendingCalls]:
    if peers.count(peers[0]) == len(peers):
        pending.peer = peers[0]
        return [pending]
    indexes: dict[Peer[S] | None, list[int]] = {}
    for index, peer in enumerate(peers):
        indexes.setdefault(peer, []).append(index)
    parts = []
    for peer, mine in indexes.items():
        part = pending.part(mine)
        part.peer = peer
        parts.append(part)
    return parts
