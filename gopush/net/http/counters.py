"""What an HTTP interface counts: how often its bounds were met."""

from __future__ import annotations

from dataclasses import dataclass, field


def _by_status() -> dict[int, int]:
    return dict.fromkeys((400, 413, 414, 431), 0)


@dataclass(slots=True)
class HttpCounters:
    """Plain integers that only grow. `refused` by status: the door (401, 403, 429) has counters of its own besides."""

    refused: dict[int, int] = field(
        default_factory=_by_status,
        metadata={"label": "status", "meaning": "requests that were refused before they were read"},
    )
    idle_closed: int = field(default=0, metadata={"meaning": "idle connections closed"})
    slow_closed: int = field(
        default=0, metadata={"meaning": "connections closed because their client did not read its answer"}
    )

    def refuse(self, status: int) -> None:
        """A request was answered so and its connection closed, whatever was still to come of it."""
        self.refused[status] = self.refused.get(status, 0) + 1
