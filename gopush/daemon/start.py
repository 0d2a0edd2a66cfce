"""How a process of any role starts: its command line, its settings, its user, and how it says clearly why it cannot.

A process that cannot start ends with one line on stderr and exit status 1, also where twistd makes a daemon of it. What
a daemon learns from servers and other processes only once its reactor runs is in its log alone.
"""

from __future__ import annotations

import atexit
import os
import pwd
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NoReturn

from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.usage import Options, UsageError
from twisted.python.util import switchUID

import gopush
import twisted
from gopush.config.reload import lasting
from gopush.config.schema import load_file
from gopush.errors import SettingsError, StartError, naming

log = Logger()


class _Console:
    """`has_log`: whether the log goes where stderr goes too, to a terminal or the journal: a line in both would show
    twice.
    """

    has_log = False

    def __init__(self) -> None:
        self._kept: IO[str] | None = None

    def keep(self) -> None:
        """Keep the way to the operator, which a daemon gives up before it binds: twistd passes on only a hundred
        bytes of what stops it then."""
        with suppress(AttributeError, OSError, ValueError):  # there may be no stderr
            self._kept = os.fdopen(os.dup(sys.__stderr__.fileno()), "w")  # type: ignore[union-attr]

    def let_go(self) -> None:
        """The process has started: who waits for the end of its output waits no longer."""
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.close()

    def tell(self, line: str) -> None:
        """Say it to the operator: once twistd logs, sys.stderr is part of the log."""
        with suppress(OSError):
            print(line, file=self._kept or sys.__stderr__, flush=True)


console = _Console()


class CannotStartError(SystemExit, Exception):
    """Ends a start. As a SystemExit it leaves one line instead of a traceback, as an Exception twistd cleans up."""


@contextmanager
def start_errors(path: Path | None = None) -> Iterator[None]:
    """Turn what stops a start on purpose into CannotStartError. Around the making of a service from an ini file."""
    try:
        yield
    except (SettingsError, StartError) as wrong:
        raise CannotStartError(f"{path}: {wrong}" if path else str(wrong)) from None


def refuse(line: str) -> NoReturn:
    """Stop a process before its reactor runs."""
    console.tell(line)
    raise CannotStartError(1 if console.has_log else line)


def give_up(reactor: Any, wrong: SettingsError | StartError) -> None:
    """End a process whose reactor runs already, for a reason that waiting cannot mend: one line, exit status 1."""
    if not console.has_log:
        log.critical("{wrong}", wrong=str(wrong))
    console.tell(str(wrong))
    # twistd has no exit status of its own: it would be 0.
    atexit.register(os._exit, 1)
    with suppress(ReactorNotRunning):
        reactor.stop()


def end_where_it_fails(start: Deferred[Any], reactor: Any) -> None:
    """End a process whose `start` fails: with CannotStartError where it has done so already, for which twistd's parent
    waits; else it would stay, of no use, with its reactor running.
    """
    failed = start.result if start.called else None
    if isinstance(failed, Failure):
        start.addErrback(lambda _: None)
        refuse(str(_explained(failed)))
    start.addErrback(lambda failure: give_up(reactor, _explained(failure)))


def _explained(failure: Failure) -> StartError:
    """Why a start failed; with a traceback in the log where that is an error of ours: nobody else would hear of it."""
    if not failure.check(StartError):
        log.failure("the start failed", failure)
    return StartError(failure.getErrorMessage())


class DaemonOptions(Options):
    """`twistd ROLE [--config FILE]`. A role names its settings class in `role` and finds them read in `settings`.

    `path`: of the file, good to read it again from any working directory. `is_empty`: it held no option.
    """

    role: type[Any]
    settings: Any
    path: Path | None
    is_empty: bool
    optParameters = [["config", "c", None, "The ini file; the defaults hold where there is none."]]  # noqa: RUF012

    def parseOptions(self, options: Any = None) -> None:
        """Refuse a wrong command line like a wrong ini file: old twistds end with status 0 then."""
        try:
            super().parseOptions(options)  # type: ignore[no-untyped-call]
        except UsageError as wrong:
            raise CannotStartError(f"{str(wrong).rstrip('.')} (see --help)") from None

    def postOptions(self) -> None:
        """Read the settings and say to twistd which user to become."""
        twistd: Any = self.parent or {}
        if not twistd.get("nodaemon"):
            console.keep()
        console.has_log = bool(twistd.get("nodaemon")) and twistd.get("logfile") in (None, "-")
        path = None if self["config"] is None else Path(self["config"])
        with start_errors():
            self.settings, self.is_empty = load_file(self.role, path)
            self.path = path and lasting(path)
            _become(self.settings, path, self.parent)


def _become(settings: Any, path: Path | None, twistd: Any) -> None:
    """Have twistd change to `[base] user` once the ports are bound; what its own command line says comes first."""
    if settings.user and os.geteuid() != 0:
        log.info("[base] user: {user} is ignored, only root can become another user", user=settings.user)
    elif settings.user:
        where = str(path or "the defaults")
        with naming(where):
            pending = find_user(settings.user)
        if twistd["uid"] is None:
            twistd["uid"] = pending.pw_uid
        if twistd["gid"] is None:
            twistd["gid"] = pending.pw_gid
        unfit = unfit_user(settings.user, twistd["uid"], twistd["gid"])
        if unfit and is_default(settings):
            raise SettingsError(f"{where}: {unfit}")
        if unfit:
            log.warn("{where}: {unfit}", where=where, unfit=unfit)  # an operator who names a user may know better


def is_default(settings: Any) -> bool:
    """Whether the user is the one that nobody named."""
    return bool(settings.user == type(settings)().user)


def find_user(user: str) -> pwd.struct_passwd:
    """The user that `[base] user` names. Raises SettingsError where there is none."""
    try:
        return pwd.getpwnam(user)
    except KeyError:
        raise SettingsError(f"[base] user: {user!r} is no user of this system (empty: stay root)") from None


def unfit_user(user: str, uid: int, gid: int) -> str | None:
    """What is wrong with a user that cannot read a part of the library: imports would fail once the process has become
    that user. None: it can. Only root may ask.
    """
    parts = [str(module.__file__) for module in (os, twisted, gopush)]
    part = as_user(uid, gid, lambda: next((part for part in parts if not os.access(part, os.R_OK)), ""))
    return f"[base] user: {user!r} cannot read {part}, as it must (empty: stay root)" if part else None


def as_user(uid: int, gid: int, ask: Callable[[], str]) -> str:
    """What `ask` answers in a child that has become that user, with its groups, as twistd does; empty where it fails.
    Only root may do so.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            switchUID(uid, gid)
            os.write(writing, os.fsencode(ask()))
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as answer:
        answered = os.fsdecode(answer.read())
    os.waitpid(child, 0)
    return answered
