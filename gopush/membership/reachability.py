"""Whether the others can call this process: it calls itself where it is advertised."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from gopush.errors import UnavailableError
from gopush.net.clock import Clock, within
from gopush.rpc.client import Remote

CHECK_SECONDS = 2.0
MISSED = 2
"""So many calls in a row must fail."""

log = Logger()


class Reachability:
    """Calls `itself`, this process through its advertised addresses. A call may take `timeout` seconds."""

    def __init__(self, clock: Clock, itself: Remote, timeout: float) -> None:
        self.lost = False
        """Whether nobody answers there."""
        self._clock = clock
        self._itself = itself
        self._timeout = timeout
        self._missed = 0
        self._checking = LoopingCall(self._check)
        self._checking.clock = cast(Any, clock)

    def start(self) -> None:
        """Begin to look."""
        self._checking.start(CHECK_SECONDS, now=False)

    def stop(self) -> None:
        """Look no more."""
        if self._checking.running:
            self._checking.stop()
        self._itself.stop()

    def check(self) -> None:
        """Raise UnavailableError where nobody answers: for the process's health."""
        if self.lost:
            raise UnavailableError(f"nobody answers where this process is advertised, {self._where}")

    @property
    def _where(self) -> str:
        return ", ".join(self._itself.info.rpc)

    def _check(self) -> Deferred[None]:
        call: Deferred[Any] = within(self._timeout, self._itself.identity(), self._clock)
        return call.addCallbacks(self._answered, self._missing)

    def _answered(self, _: str) -> None:
        self._missed = 0
        if self.lost:
            self.lost = False
            log.info("this process answers again where it is advertised, {where}", where=self._where)

    def _missing(self, failure: Failure) -> None:
        self._missed += 1
        if self._missed >= MISSED and not self.lost:
            self.lost = True
            log.error(
                "nobody answers where this process is advertised, {where}: {reason}; others cannot tell it of messages "
                "([base] rpc.advertise, rpc.bind, a firewall?)",
                where=self._where,
                reason=failure.getErrorMessage(),
            )
