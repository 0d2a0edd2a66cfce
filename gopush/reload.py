"""SIGHUP: a process reads its ini file, keys and certificates anew. What is wrong with them is told, and all stays.

SIGUSR1: it writes to a new log file. A second SIGTERM or SIGINT, when it leaves already, changes nothing.
"""

from __future__ import annotations

import signal
from typing import Any

from twisted.application.service import Service
from twisted.logger import Logger
from twisted.python.logfile import LogFile

from gopush import files
from gopush.errors import SettingsError
from gopush.logs import reopen
from gopush.process import RoleOptions
from gopush.settings import adopt, load

log = Logger()


class Reload(Service):
    """Listens for SIGHUP and SIGUSR1 from its start to the end of the process, leaving included.

    `file`: what the log is written to, None where that is no file of ours.
    """

    def __init__(self, reactor: Any, options: RoleOptions, file: LogFile | None = None) -> None:
        self._reactor = reactor
        self._options = options
        self._file = file

    def startService(self) -> None:
        """Listen."""
        super().startService()  # type: ignore[no-untyped-call]
        for number, act in ((signal.SIGHUP, self.reload), (signal.SIGUSR1, self._log_moved)):
            signal.signal(number, lambda *_, act=act: self._reactor.callFromThread(act))
        self._reactor.callWhenRunning(_stop_once)  # by then the reactor listens for what stops it

    def _log_moved(self) -> None:
        if self._file is not None:
            reopen(self._file)

    def reload(self) -> None:
        """Read now. The ini file is checked first: where it is wrong, nothing at all is taken from it."""
        settings = self._options.settings
        try:
            adopted, fixed = adopt(settings, load(type(settings), self._options.path))
        except SettingsError as wrong:
            log.error("{wrong}; what was read before stays", wrong=str(wrong))
        else:
            log.info("settings read anew; changed: {adopted}", adopted=", ".join(adopted) or "none")
            if fixed:
                log.warn("changed in the file, but only a restart changes it here: {fixed}", fixed=", ".join(fixed))
        files.reload()


def _stop_once() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        stop: Any = signal.getsignal(number)
        if callable(stop):
            signal.signal(number, _Once(stop))


class _Once:
    """A signal's handler that hears the first one of them alone: a reactor that stops cannot be stopped."""

    _heard = False

    def __init__(self, stop: Any) -> None:
        self._stop = stop

    def __call__(self, *signalled: Any) -> None:
        if not _Once._heard:
            _Once._heard = True
            self._stop(*signalled)
