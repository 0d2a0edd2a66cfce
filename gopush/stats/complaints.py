"""Log lines about strangers: a few of them, and how many more there were. They decide how often they come."""

from __future__ import annotations

from typing import Any

from twisted.logger import Logger

from gopush.net.clock import Clock

LINES = 10
SECONDS = 10.0

log = Logger()


class Complaints:
    """Warns LINES times in SECONDS at most, and sums up the rest in one line. `total` counts all of them."""

    def __init__(self, clock: Clock) -> None:
        self.total = 0
        self._clock = clock
        self._lines = 0
        self._left_out = 0
        self._timer: Any = None

    def warn(self, format: str, **values: Any) -> None:
        """As Logger.warn()."""
        self.total += 1
        if self._timer is None:
            self._timer = self._clock.callLater(SECONDS, self._sum_up)
        if self._lines == LINES:
            self._left_out += 1
            return
        self._lines += 1
        log.warn(format, **values)

    def stop(self) -> None:
        """Sum up now."""
        if self._timer is not None:
            self._timer.cancel()
            self._sum_up()

    def _sum_up(self) -> None:
        self._timer = None
        if self._left_out:
            log.warn(
                "{count} more calls or connections between nodes were refused in {seconds:g} s",
                count=self._left_out,
                seconds=SECONDS,
            )
        self._lines = self._left_out = 0
