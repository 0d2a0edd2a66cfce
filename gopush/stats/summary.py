"""What happens too often for a line each time: every few seconds a few lines of some, and a count of others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from twisted.application.service import Service
from twisted.logger import Logger

from gopush.net.clock import Clock, repeating
from gopush.stats.counting import labelled

TELL_SECONDS = 10.0

log = Logger()


class PeriodicSummary(Service):
    """Warns of the fields of `counters` that have grown, in the words of `meanings` (by field, after a number)."""

    def __init__(self, clock: Any, counters: object, meanings: Mapping[str, str]) -> None:
        self._counters = counters
        self._meanings = meanings
        self._reported = self._read()
        self._telling = repeating(self._tell, clock)

    def startService(self) -> None:
        """Begin."""
        super().startService()  # type: ignore[no-untyped-call]
        self._telling.start(TELL_SECONDS, now=False)

    def stopService(self) -> None:
        """Tell the rest."""
        super().stopService()  # type: ignore[no-untyped-call]
        self._telling.stop()
        self._tell()

    def _read(self) -> dict[str, int]:
        return {name: getattr(self._counters, name) for name in self._meanings}

    def _tell(self) -> None:
        before, self._reported = self._reported, self._read()
        for name, meaning in self._meanings.items():
            if count := self._reported[name] - before[name]:
                log.warn("{count} {meaning}", count=count, meaning=meaning, counter=name)


LINES = 10
SECONDS = 10.0
FORGET_SECONDS = 600.0
"""A peer that was refused and then not for so long is written of anew; as long a summary may wait."""
MOST_WRITTEN = 1000
"""Peers and reasons that are remembered."""


@dataclass
class ComplaintCounters:
    """What was refused to strangers at the ports for calls, and to processes that this one calls."""

    complaints: dict[str, int] = labelled(
        "refusals between nodes; the log has a line for each, or one for many",
        "source",
        keys=("call", "connection", "login"),
    )


complained = ComplaintCounters()
"""Of this process."""


class Complaints:
    """Warns LINES times in SECONDS at most, once of each peer and reason, and sums up the rest: after SECONDS, then
    more and more seldom while that goes on. `complained` counts all of them.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lines = 0
        self._left_out = 0
        self._since = 0.0
        self._pause = SECONDS
        self._timer: Any = None
        self._written: dict[tuple[str, ...], float] = {}
        """When what was written of a peer came last."""

    def warn(self, source: str, format: str, about: str = "", **values: Any) -> None:
        """As Logger.warn(), of a call, a connection or a login. `about`: which peer; "" for no one in particular."""
        complained.complaints[source] += 1
        now = self._clock.seconds()
        if self._timer is None:
            self._timer = self._clock.callLater(SECONDS, self._look)
        if self._lines == LINES or (about and self._known((source, format, about, str(values.get("reason"))), now)):
            if not self._left_out:
                self._since = now
            self._left_out += 1
            return
        self._lines += 1
        log.warn(format, **values)

    def _known(self, what: tuple[str, ...], now: float) -> bool:
        last = self._written.pop(what, float("-inf"))
        self._written[what] = now
        if len(self._written) > MOST_WRITTEN:
            del self._written[next(iter(self._written))]
        return now - last < FORGET_SECONDS

    def stop(self) -> None:
        """Sum up now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._sum_up()

    def _look(self) -> None:
        self._timer = None
        self._lines = 0
        waited = self._clock.seconds() - self._since
        if self._left_out and waited < self._pause - SECONDS / 2:
            self._timer = self._clock.callLater(SECONDS, self._look)
        elif self._left_out:
            self._sum_up()
            self._pause = min(2 * self._pause, FORGET_SECONDS)
        elif waited > FORGET_SECONDS:
            self._pause = SECONDS

    def _sum_up(self) -> None:
        if self._left_out:
            log.warn(
                "{count} more calls or connections between nodes were refused in {seconds:.0f} s",
                count=self._left_out,
                seconds=max(self._clock.seconds() - self._since, SECONDS),
            )
        self._left_out = 0
