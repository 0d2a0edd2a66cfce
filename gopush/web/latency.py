"""How long pushes take: counted for each, so it must cost next to nothing. Pure."""

from __future__ import annotations

from bisect import bisect_left

from gopush.metrics import SECONDS


class Latency:
    """A distribution of seconds: `counts[i]` of at most `bounds[i]`, the last one of all that were more."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self) -> None:
        self.bounds = SECONDS
        self.counts = [0] * (len(SECONDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """One push was answered after so long; a clock that was set back counts as no time."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += max(0.0, seconds)
