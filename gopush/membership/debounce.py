"""How a view is adopted: with care, for what is seen may be half the truth for a moment; then with its rings. Pure.

- Processes that are new are adopted at once, and so is another process of the same node in the place of one that went.
- A node that is gone is kept until it was missing for `settle` seconds without a break; longer after distrust().
- No comet at all, or no message node at all, is never believed: the last ones known stay.
- A view that lacks this process itself is not acted on: it must register again first.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from gopush.hashing import POINTS_PER_WEIGHT, SLICE_POINTS, HashRing, Share, needed, points
from gopush.membership.view import View
from gopush.model import NodeInfo


class ViewDebouncer:
    """Turns the views that are seen into those that are adopted. Times are seconds of any one steady clock."""

    def __init__(self, settle: float) -> None:
        self.view = View()
        self.mine: tuple[NodeInfo, ...] = ()
        """What this process registers as: a comet, a message node, or both."""
        self._settle = settle
        self._seen: View | None = None
        self._missing: dict[tuple[str, str], float] = {}
        self._distrusted_until = float("-inf")
        self._patience = 0.0

    def offer(self, seen: View, now: float) -> View | None:
        """A view that was seen; gives the one to adopt, None: nothing changes for now."""
        if self.lacks_me(seen):
            self._seen = None
            self._missing.clear()
            return None
        self._seen = seen
        return self.tick(now)

    def lacks_me(self, seen: View) -> bool:
        """Whether this process must register again before it acts on what it sees."""
        return not set(seen.registered).issuperset(self.mine)

    def distrust(self, now: float, away: float, seconds: float) -> None:
        """Remove nothing for `seconds`: the coordinator was `away`, and the others are on their way back to it.

        Who was missing before that has waited already, but for the time in which nobody could come back.
        """
        self._distrusted_until, self._patience = now + seconds, seconds
        self._missing = {key: then + away for key, then in self._missing.items()}

    @property
    def due(self) -> float | None:
        """When to call tick(), if nothing new is seen until then."""
        return min(map(self._believed_at, self._missing.values())) if self._missing else None

    def tick(self, now: float) -> View | None:
        """As offer(), for the view that was seen last."""
        if self._seen is None:
            return None
        comets = self._keep("comet", self.view.comets, self._seen.comets, now)
        messages = self._keep("message", self.view.messages, self._seen.messages, now)
        adopted = View(comets, messages)
        if adopted == self.view:
            return None
        self.view = adopted
        return adopted

    def _keep(self, kind: str, current: Sequence[NodeInfo], seen: Sequence[NodeInfo], now: float) -> Sequence[NodeInfo]:
        present = {info.node for info in seen} or {info.node for info in current}
        gone = {info.node for info in current} - present
        since = {(kind, node): self._missing.get((kind, node), now) for node in gone}
        since = {key: then for key, then in since.items() if now < self._believed_at(then)}
        self._missing = {key: then for key, then in self._missing.items() if key[0] != kind} | since
        held = [info for info in current if (kind, info.node) in since]
        return [*seen, *held] if seen else current

    def _believed_at(self, missing_since: float) -> float:
        return max(missing_since + self._settle, min(self._distrusted_until, missing_since + self._patience))


class Rings:
    """Turns the views that are believed into those that can be used."""

    def __init__(self) -> None:
        self.view = View()
        """The last one that can be used."""
        self._ring = self._shards = HashRing({})
        self._known: dict[Share, array[int]] = {}
        self._wanted: View | None = None
        self._computing: Iterator[None] = iter(())
        self._merging: Iterator[None] = iter(())

    def offer(self, view: View) -> View | None:
        """A view that is believed; gives the one to use from now on, None: the one before, until step() gives it."""
        self._wanted = view
        missing = self._missing(view)
        if sum(weight for _, weight in missing) * POINTS_PER_WEIGHT <= SLICE_POINTS:
            for share in missing:
                for _ in self._compute(share):
                    pass
            self._wanted = None
            return self._use(view)
        meanwhile = self._without_new(view)
        usable = bool(self.view.comets) and meanwhile != self.view and not self._missing(meanwhile)
        return self._use(meanwhile) if usable else None

    def step(self) -> View | None:
        """Do a slice of what is left to do; gives the view to use from now on, where that is another one."""
        if next(self._computing, self) is not self:
            return None
        if self._wanted is None:
            next(self._merging, None)
            return None
        if missing := self._missing(self._wanted):
            self._computing = self._compute(missing[0])
            return None
        wanted, self._wanted = self._wanted, None
        return self._use(wanted)

    @property
    def busy(self) -> bool:
        """Whether step() has something to do."""
        return self._wanted is not None or not (self._ring.merged and self._shards.merged)

    def _missing(self, view: View) -> list[Share]:
        return [share for share in _shares(view) if share not in self._known]

    def _compute(self, share: Share) -> Iterator[None]:
        self._known[share] = yield from points(*share)

    def _without_new(self, view: View) -> View:
        """What holds until all points are there: nodes on the ring keep their weights, others drain, new ones wait."""
        missing = set(self._missing(view))
        before, here = self._ring.weights, {info.place for info in self.view.comets}
        weights = {
            name: before.get(name) if (name, weight) in missing else weight for name, weight in view.weights.items()
        }
        comets = [_weighing(info, weights.get(info.node, info.weight), info.place in here) for info in view.comets]
        return View((info for info in comets if info is not None), view.messages)

    def _use(self, view: View) -> View:
        before = self._ring, self._shards
        if view.weights != self._ring.weights:
            self._ring = HashRing(view.weights, self._known)
        if dict(view.stores) != self._shards.weights:
            self._shards = HashRing(dict(view.stores), self._known)
        if before != (self._ring, self._shards):
            self._merging = chain(self._ring.merge(), self._shards.merge())
        view.prepare(self._ring, self._shards, self.view)
        self.view = view
        kept = {share for one in (view, self._wanted) if one for share in _shares(one)}
        self._known = {share: mine for share, mine in self._known.items() if share in kept}
        return view


def _shares(view: View) -> Iterable[Share]:
    """Those whose points the rings of the view need, each once."""
    return dict.fromkeys(needed(view.weights) + needed(dict(view.stores)))


def _weighing(info: NodeInfo, weight: int | None, here: bool) -> NodeInfo | None:
    if weight is not None:
        return info._replace(weight=weight)
    return info._replace(draining=True) if here else None
