"""The time of day of the store, as its mids tell it: the clock of this machine may be slow, ahead, or step."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from gopush.model import MIDS_PER_SECOND, mid_at
from gopush.net.clock import Clock

REMEMBERED = 16
"""So many mids that were given last: some keys' run ahead of the store's clock, so the earliest counts."""


class StoreTime:
    """Kept on a steady clock. `now`: this machine's own time of day, for as long as the store has given no mid."""

    __slots__ = ("_clock", "_now", "_offsets")

    def __init__(self, clock: Clock, now: Callable[[], float]) -> None:
        self._clock = clock
        self._now = now
        self._offsets: deque[float] = deque(maxlen=REMEMBERED)

    def gave(self, mid: int) -> None:
        """The store has given this mid just now."""
        self._offsets.append(mid / MIDS_PER_SECOND - self._clock.seconds())

    def mid_before(self, seconds: float) -> int:
        """The mid of so many seconds ago; what the store has given since then is above it."""
        steady = self._clock.seconds()
        time_of_day = steady + min(self._offsets) if self._offsets else self._now()
        return mid_at(time_of_day - seconds)
