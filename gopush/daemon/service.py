"""What twistd runs in every role: the node, its signals and its log.

SIGHUP: a process reads its ini file, keys and certificates anew. Where they are wrong, the log says so, and all stays.
SIGUSR1: it writes to a new log file. A second SIGTERM or SIGINT, while it leaves, changes nothing.
"""

from __future__ import annotations

import os
import platform
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.application.service import MultiService
from twisted.copyright import version as twisted_version
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, Logger
from twisted.python.logfile import LogFile
from twisted.scripts._twistd_unix import UnixAppLogger

import gopush
from gopush.config import reload as files
from gopush.config.reload import lasting
from gopush.config.schema import adopt, load_file
from gopush.daemon.gc import collector
from gopush.daemon.logs import Lines, reopen
from gopush.daemon.oversights import oversights
from gopush.daemon.start import DaemonOptions, console, start_errors
from gopush.errors import SettingsError, StartError
from gopush.net.clock import steady

log = Logger()


def reload(options: DaemonOptions) -> None:
    """Read the ini file and all watched files now. Where a line of the ini file is wrong, take nothing at all from it;
    what else a start refuses is for `gopush check` to say: it makes all of a process, which may block this one."""
    settings = options.settings
    try:
        read, is_empty = load_file(type(settings), options.path)
        if is_empty and not options.is_empty:  # the defaults are nobody's wish then
            raise SettingsError(f"{options.path}: is empty: it holds no option")
        adopted, fixed = adopt(settings, read)
    except SettingsError as wrong:
        log.error("{wrong}; gopush keeps what it read before", wrong=str(wrong))
    else:
        log.info("settings read anew; changed: {adopted}", adopted=", ".join(adopted) or "none")
        if fixed:
            log.warn("changed in the file, but needs a restart: {fixed}", fixed=", ".join(fixed))
    files.reload()


def _stop_once() -> None:
    """Pass only the first signal on: a reactor that stops cannot be stopped."""
    heard = False

    def once(stop: Any, *signalled: Any) -> None:
        nonlocal heard
        if not heard:
            heard = True
            stop(*signalled)

    for number in (signal.SIGTERM, signal.SIGINT):
        stop: Any = signal.getsignal(number)
        if callable(stop):
            signal.signal(number, partial(once, stop))


class DaemonService(MultiService):
    """What a role's makeService() gives to twistd."""

    def __init__(self, reactor: Any, options: DaemonOptions, node: MultiService, name: str) -> None:
        """`node` does the work of the role; `name` is what its log calls it. Raises StartError."""
        super().__init__()  # type: ignore[no-untyped-call]
        twistd: Any = options.parent
        self._reactor = reactor
        self._options = options
        self._observer = _observer(twistd, Lines(options.settings.log, twistd.subCommand, name))
        node.setServiceParent(self)

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

    def startService(self) -> None:
        """All ports are bound. Listen for SIGHUP and SIGUSR1, until the end of the process: before that, one ends it,
        and a node may take a while to start. Raises CannotStartError where the store is a file that cannot be opened.
        """
        for number, act in ((signal.SIGHUP, partial(reload, self._options)), (signal.SIGUSR1, self._log_moved)):
            signal.signal(number, lambda *_, act=act: self._reactor.callFromThread(act))
        self._reactor.callWhenRunning(_stop_once)  # by then the reactor listens for what stops it
        super().startService()  # type: ignore[no-untyped-call]
        console.let_go()

    def _log_moved(self) -> None:
        file = getattr(self._observer, "_outFile", None)
        if isinstance(file, LogFile):
            reopen(file)

    def stopService(self) -> Deferred[None]:
        """Stop all, and say so."""
        log.info("stopping")
        stopping: Deferred[None] = super().stopService()  # type: ignore[no-untyped-call]
        return stopping.addCallback(lambda _: log.info("stopped"))


def make_service(reactor: Any, options: DaemonOptions, make_node: Callable[[Any, Any], Any]) -> DaemonService:
    """The service of a process: `make_node` makes what does its work, which has a `log_name`."""
    reactor = steady(reactor)
    with start_errors(options.path):
        node = make_node(reactor, options.settings)
        for oversight in oversights(options.settings, options.is_empty):
            log.warn("{path}: {oversight}", path=str(options.path or "the defaults"), oversight=oversight)
    collector.freeze()
    with start_errors():
        return DaemonService(reactor, options, node, node.log_name)


def _observer(twistd: Any, lines: Lines) -> Any:
    """Writes `lines` where twistd's command line (its options) says; None where it names another logger. Raises
    StartError where that is a file that cannot be opened."""
    if twistd["logger"] is not None or twistd["syslog"]:
        return None
    if twistd["logfile"] not in (None, "-"):
        twistd["logfile"] = str(lasting(twistd["logfile"]))
    # twistd chooses the file, gopush the format of an event.
    try:
        observer: Any = UnixAppLogger(twistd)._getLogObserver()
    except OSError as wrong:
        raise StartError(f"--logfile: {wrong.filename}: cannot be opened: {wrong.strerror}") from None
    observer.formatEvent = lines
    return observer
