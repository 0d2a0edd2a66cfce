"""Which peer a key's calls go to.

All calls about one key that must keep their order go through one lane at a time: a key moves to another peer only
when nothing of it is unanswered, or, when a peer is given up, with all of it, first and in order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

from gopush.rpc.coordination import REMEMBERED_KEYS
from gopush.rpc.entry import Entry
from gopush.rpc.peer import Call, Peer, Service

S = TypeVar("S", bound=Service)

Choice = Callable[[str, Sequence[Peer[S]]], Peer[S]]


class Choices(Generic[S]):
    """Chooses among the `live` peers. `choose` picks the one for a key among those that may still be tried."""

    def __init__(self, live: Mapping[str, Peer[S]], choose: Choice[S]) -> None:
        self._live = live
        self._choose = choose
        self._first: dict[str, Peer[S]] = {}  # what best() chose, until something changes
        self._held: dict[Call[S], dict[str, Entry]] = {}  # of ordered calls, the last one of keys that must not move

    def spread(self, call: Call[S], entry: Entry) -> Sequence[Entry]:
        """The entry with its peer chosen (None: all have failed its keys), in parts where there are several.

        A key stays where its last ordered call went until that is answered.
        """
        held = self._held.get(call)
        if not held and len(entry.keys) == 1:
            entry.peer = self.best(entry.keys[0])
            return (entry,)
        peers = [self._first.get(key) or self.best(key) for key in entry.keys]
        if not held:
            return _parts(entry, peers)
        lasts = map(held.get, entry.keys)
        peers = [peer if last is None else last.peer for peer, last in zip(peers, lasts, strict=True)]
        parts = _parts(entry, peers)
        for part in parts:
            part.hold(held, [key for key in part.keys if key in held and self.best(key) is not part.peer])
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

    def move(self, call: Call[S], entries: Sequence[Entry]) -> None:
        """Choose anew for these single calls, each key's together."""
        chosen: dict[str, Peer[S] | None] = {}
        for entry in entries:
            (key,) = entry.keys
            if not call.ordered:
                entry.peer = self.best(key, entry.tried)
                continue
            if key not in chosen:
                chosen[key] = self.best(key, entry.tried)
            entry.peer = chosen[key]
            entry.hold(self._held.setdefault(call, {}), entry.keys)

    def forget(self) -> None:
        """Something has changed: choose anew, but for the keys of ordered calls that have no answer yet."""
        self._first.clear()
        for peer in self._live.values():
            for (call, _), lane in peer.lanes.items():
                if call.ordered:
                    for entry in lane.unanswered:
                        entry.hold(self._held.setdefault(call, {}), entry.keys)

    def _choose_of(self, key: str, left: list[Peer[S]]) -> Peer[S] | None:
        if not left:
            return None
        healthy = [peer for peer in left if peer.healthy] or left
        return self._choose(key, [peer for peer in healthy if not peer.info.draining] or healthy)


def _parts(entry: Entry, peers: Sequence[Peer[S] | None]) -> list[Entry]:
    if peers.count(peers[0]) == len(peers):
        entry.peer = peers[0]
        return [entry]
    places: dict[Peer[S] | None, list[int]] = {}
    for place, peer in enumerate(peers):
        places.setdefault(peer, []).append(place)
    parts = []
    for peer, mine in places.items():
        part = entry.part(mine)
        part.peer = peer
        parts.append(part)
    return parts
