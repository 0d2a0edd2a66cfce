"""What a bench measures: latencies, what is due to arrive, what fails. Pure: times come in."""

from __future__ import annotations

import math
from collections import Counter

BUCKETS_PER_E = 100
"""So many buckets for each factor of e keep latencies to 1 %: any number of them in little memory."""

PERCENTILES = {"p50": 0.5, "p99": 0.99, "p999": 0.999}


class Latencies:
    """How long things took, in seconds."""

    def __init__(self) -> None:
        self.count = 0
        self._buckets: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        """One more."""
        self.count += 1
        self._buckets[round(math.log(max(seconds, 1e-6)) * BUCKETS_PER_E)] += 1

    def quantile(self, share: float) -> float:
        """What this share of them did not exceed, in seconds; 0 where there are none."""
        left = share * self.count
        for bucket in sorted(self._buckets):
            left -= self._buckets[bucket]
            if left <= 0:
                return math.exp(bucket / BUCKETS_PER_E)
        return 0.0

    def words(self) -> str:
        """The percentiles, for people."""
        if not self.count:
            return ""
        return "  ".join(f"{name} {self.quantile(share) * 1000:.2f} ms" for name, share in PERCENTILES.items())


class Figures:
    """All that a bench has measured so far. A push has a number of its own."""

    def __init__(self) -> None:
        self.pushes = Latencies()
        self.deliveries = Latencies()
        self.errors: Counter[str] = Counter()
        self._due: dict[int, int] = {}  # deliveries that are still to come; below 0 before the push is answered

    def pushed(self, number: int, seconds: float, subscribers: int) -> None:
        """A push was acknowledged, and will reach so many subscribers."""
        self.pushes.add(seconds)
        self._expect(number, subscribers)

    def delivered(self, number: int, seconds: float) -> None:
        """It has reached one of them, so long after it was due."""
        self.deliveries.add(seconds)
        self._expect(number, -1)

    def failed(self, reason: str) -> None:
        """A push was not acknowledged, or a connection broke."""
        self.errors[reason] += 1

    @property
    def lost(self) -> int:
        """Deliveries of acknowledged pushes that have not come."""
        return sum(due for due in self._due.values() if due > 0)

    def progress(self, seconds: float) -> str:
        """One line, for who waits."""
        pushes, deliveries = self.pushes.count / seconds, self.deliveries.count / seconds
        return f"{seconds:.0f} s: {pushes:.0f} pushes/s, {deliveries:.0f} deliveries/s, {self.errors.total()} errors"

    def report(self, seconds: float) -> list[str]:
        """All of it after so many seconds of pushing, a line each."""
        lines = [
            f"{name:<10}  {found.count:>9}  {found.count / seconds:>9.1f}/s  {found.words()}".rstrip()
            for name, found in (("pushes", self.pushes), ("deliveries", self.deliveries))
        ]
        lines += [f"{'lost':<10}  {self.lost:>9}", f"{'errors':<10}  {self.errors.total():>9}"]
        return lines + [f"{'':<10}  {count:>9}  {reason}" for reason, count in self.errors.most_common()]

    def wrong(self) -> str:
        """How often what failed or was lost; "" where nothing was."""
        counts = [*([("a delivery was lost", self.lost)] if self.lost else []), *self.errors.most_common()]
        return "; ".join(f"{count} x {reason}" for reason, count in counts)

    def _expect(self, number: int, deliveries: int) -> None:
        due = self._due.get(number, 0) + deliveries
        if due:
            self._due[number] = due
        else:
            self._due.pop(number, None)
