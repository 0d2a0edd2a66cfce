"""A role as twistd runs it: its node, SIGHUP, its log, and the lines with which that begins and ends."""

from __future__ import annotations

import os
import platform
from typing import Any

from twisted.application.service import MultiService
from twisted.copyright import version as twisted_version
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, Logger
from twisted.python.logfile import LogFile
from twisted.scripts._twistd_unix import UnixAppLogger

import gopush
from gopush.logs import Lines
from gopush.process import RoleOptions
from gopush.reload import Reload

log = Logger()


class Role(MultiService):
    """What a tap gives to twistd."""

    def __init__(self, reactor: Any, options: RoleOptions, node: MultiService, name: str) -> None:
        """`node` does the work of the role; `name` is what its log calls it."""
        super().__init__()  # type: ignore[no-untyped-call]
        twistd: Any = options.parent
        self._observer = _observer(twistd, Lines(options.settings.log, twistd.subCommand, name))
        for service in (node, Reload(reactor, options, _file(self._observer))):
            service.setServiceParent(self)  # type: ignore[no-untyped-call]

    def setServiceParent(self, parent: Any) -> None:
        """Join twistd's application, which is asked who writes the log."""
        if self._observer is not None:
            parent.setComponent(ILogObserver, self._observer)
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]

    def privilegedStartService(self) -> None:
        """Say what starts, then bind."""
        log.info(
            "gopush {version} starts as process {pid}, on Python {python} and Twisted {twisted}",
            version=gopush.__version__,
            pid=os.getpid(),
            python=platform.python_version(),
            twisted=twisted_version,
        )
        super().privilegedStartService()  # type: ignore[no-untyped-call]

    def stopService(self) -> Deferred[None]:
        """Stop all, and say so."""
        log.info("stopping")
        stopping: Deferred[None] = super().stopService()  # type: ignore[no-untyped-call]
        return stopping.addCallback(lambda _: log.info("stopped"))


def _observer(twistd: Any, lines: Lines) -> Any:
    """Writes `lines` where twistd's command line (its options) says; None where it names another logger."""
    if twistd["logger"] is not None or twistd["syslog"]:
        return None
    # Which file that is, is twistd's affair; how an event reads is ours.
    observer: Any = UnixAppLogger(twistd)._getLogObserver()  # type: ignore[no-untyped-call]
    observer.formatEvent = lines
    return observer


def _file(observer: Any) -> LogFile | None:
    out = getattr(observer, "_outFile", None)
    return out if isinstance(out, LogFile) else None
