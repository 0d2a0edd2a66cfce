"""A distribution that is counted as plain integers: cheap enough for what comes very often. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

SECONDS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class Histogram:
    """`counts[i]` observations of at most `bounds[i]`, the last one of all that were more; `total` is their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count one, or several; what a clock that was set back makes less than nothing counts as nothing."""
        if value < 0:
            value = 0.0
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def shown(self) -> dict[str, float | None]:
        """How many there were, their sum, and the bounds that half and 99% of them keep (None: beyond all bounds)."""
        return {
            "count": sum(self.counts),
            "total": round(self.total, 6),
            "p50": self._at_most(0.5),
            "p99": self._at_most(0.99),
        }

    def _at_most(self, share: float) -> float | None:
        left = share * sum(self.counts)
        for bound, count in zip(self.bounds, self.counts, strict=False):
            left -= count
            if left <= 0:
                return bound
        return None
