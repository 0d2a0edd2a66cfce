"""Twisted's reactor on epoll, with a leaner turn (docs/performance.md). Importable where there is an epoll."""

from __future__ import annotations

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import installReactor
from twisted.logger import Logger

log = Logger()


class LeanReactor(EPollReactor):
    """Calls who is ready, and no more: Twisted makes a context for twisted.python.log around each call."""

    def doPoll(self, timeout: float | None) -> None:
        """Wait for events, at most `timeout` seconds (None: as long as it takes), and have them dealt with."""
        try:
            events = self._poller.poll(timeout, len(self._selectables))
        except InterruptedError:
            return
        for descriptor, event in events:
            selectable = self._selectables.get(descriptor)
            if selectable is None:  # what came before in this turn has closed it
                continue
            try:
                self._doReadOrWrite(selectable, descriptor, event)  # type: ignore[no-untyped-call]
            except Exception:
                log.failure("an event could not be dealt with")

    doIteration = doPoll


def install() -> None:
    """Make it the reactor of this process, which has none yet."""
    installReactor(LeanReactor())  # type: ignore[no-untyped-call]
