"""What happens too often for a line each time: every few seconds a few lines of some, and a count of others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
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

    def stopService(self) -> Deferred[None] | None:
        """Tell the rest."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._telling.running:
            self._telling.stop()
        self._tell()
        return None

    def _read(self) -> dict[str, int]:
        return {name: getattr(self._counters, name) for name in self._meanings}

    def _tell(self) -> None:
        before, self._reported = self._reported, self._read()
        for name, meaning in self._meanings.items():
            if count := self._reported[name] - before[name]:
                log.warn("{count} {meaning}", count=count, meaning=meaning, counter=name)


LINES = 10
SECONDS = 10.0


@dataclass
class ComplaintCounters:
    """What was refused to strangers at the ports for calls, and to processes that this one calls."""

    complaints: dict[str, int] = field(
        default_factory=lambda: {"call": 0, "connection": 0, "login": 0},
        metadata=labelled(
            "refusals between nodes; the log has a line for each, or one for many",
            "source",
        ),
    )


complained = ComplaintCounters()
"""Of this process."""


class Complaints:
    """Warns LINES times in SECONDS at most, and sums up the rest in one line. `complained` counts all of them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lines = 0
        self._left_out = 0
        self._timer: Any = None

    def warn(self, source: str, format: str, **values: Any) -> None:
        """As Logger.warn(), of a call, a connection or a login."""
        complained.complaints[source] += 1
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
