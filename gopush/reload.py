"""SIGHUP: a process reads its ini file, keys and certificates anew. What is wrong with them is told, and all stays."""

from __future__ import annotations

import signal
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from gopush import files
from gopush.errors import SettingsError
from gopush.process import RoleOptions
from gopush.settings import adopt, load

log = Logger()


class Reload(Service):
    """Listens for SIGHUP as long as it runs."""

    def __init__(self, reactor: Any, options: RoleOptions) -> None:
        self._reactor = reactor
        self._options = options
        self._before: Any = signal.SIG_DFL

    def startService(self) -> None:
        """Listen."""
        super().startService()  # type: ignore[no-untyped-call]
        self._before = signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self.reload))

    def stopService(self) -> Deferred[None] | None:
        """Listen no more."""
        signal.signal(signal.SIGHUP, self._before)
        super().stopService()  # type: ignore[no-untyped-call]
        return None

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
