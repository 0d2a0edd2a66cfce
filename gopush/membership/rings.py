"""How the views of a process come by their rings: in slices, beside the view that holds meanwhile. Pure.

- The points of a node are computed once, and kept as long as it is on the ring; a ring that does not change is reused.
- A view is used once its rings are ready. Who left, drains or took over need not wait for a node that is new: until
  the points of that one are there it is left out, and a changed weight is as it was.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import chain

from gopush.hashing import POINTS_PER_WEIGHT, SLICE_POINTS, HashRing, Share, needed, points
from gopush.membership.view import View
from gopush.model import NodeInfo


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
        shares = dict.fromkeys([*needed(view.weights), *needed(dict(view.stores))])
        return [share for share in shares if share not in self._known]

    def _compute(self, share: Share) -> Iterator[None]:
        self._known[share] = yield from points(*share)

    def _without_new(self, view: View) -> View:
        """The view without the nodes whose points are not there yet; those on the ring now keep their weights."""
        missing = set(self._missing(view))
        before = self._ring.weights
        weights = {
            name: before.get(name) if (name, weight) in missing else weight for name, weight in view.weights.items()
        }
        comets = [_weighing(info, weights.get(info.node, info.weight)) for info in view.comets]
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
        kept = {
            share for one in (view, self._wanted) if one for share in needed(one.weights) + needed(dict(one.stores))
        }
        self._known = {share: mine for share, mine in self._known.items() if share in kept}
        return view


def _weighing(info: NodeInfo, weight: int | None) -> NodeInfo | None:
    return None if weight is None else info._replace(weight=weight)
