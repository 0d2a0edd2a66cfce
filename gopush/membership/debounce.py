"""The care with which a view is adopted: what a coordinator shows may be half the truth for a moment. Pure.

- Processes that are new are adopted at once, and so is another process of the same node in the place of one that went.
- A node that is gone is kept until it was missing for `settle` seconds without a break; longer after distrust().
- No comet at all, or no message node at all, is never believed: the last ones known stay.
- A view that lacks this process itself is not acted on: it must register again first.
"""

from __future__ import annotations

from collections.abc import Sequence

from gopush.membership.view import View
from gopush.model import NodeInfo


class ViewDebouncer:
    """Turns the views that are seen into those that are adopted. Times are seconds of any one steady clock."""

    def __init__(self, settle: float) -> None:
        self.view = View()
        self.mine: NodeInfo | None = None
        """This process, while it wants to be seen."""
        self._settle = settle
        self._seen: View | None = None
        self._missing: dict[tuple[str, str], float] = {}
        self._distrusted_until = float("-inf")

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
        return self.mine is not None and self.mine not in seen.comets and self.mine not in seen.messages

    def distrust(self, until: float) -> None:
        """Remove nothing before this time: the coordinator was away, and the others are on their way back to it."""
        self._distrusted_until = until

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
        return max(missing_since + self._settle, self._distrusted_until)
