"""What happens too often for a line each time: how often it did, in a line every few seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

TELL_SECONDS = 10.0

log = Logger()


class PeriodicSummary(Service):
    """Warns of the fields of `counters` that have grown, in the words of `meanings` (by field, after a number)."""

    def __init__(self, clock: Any, counters: object, meanings: Mapping[str, str]) -> None:
        self._counters = counters
        self._meanings = meanings
        self._reported = self._read()
        self._telling = LoopingCall(self._tell)
        self._telling.clock = clock

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
