"""The store in a SQLite file, which one process owns: a thread of its own, and one commit for all that waits."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, execute, fail, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from gopush.errors import UnavailableError
from gopush.message.rules import REFUSED
from gopush.message.sqlite.backup import Backups
from gopush.message.sqlite.disk import DatabaseFiles, is_full
from gopush.message.sqlite.file import identity, open_file, opening
from gopush.message.sqlite.log import SqliteLogs
from gopush.message.sqlite.settings import SqliteSettings
from gopush.message.store import Gatherer, StoreNumbers, StoreSettings, Troubles
from gopush.model import Append, Appended
from gopush.reports import Backup

_READING = (SqliteLogs.read, SqliteLogs.heads, SqliteLogs.tokens, SqliteLogs.check_token, SqliteLogs.opened)

T = TypeVar("T")
P = ParamSpec("P")


class FullError(UnavailableError):
    """The file has no room, so that nothing was stored: whoever asks again meets the same."""


def _in_thread(call: Callable[Concatenate[SqliteLogs, P], T]) -> Callable[Concatenate[SqliteStore, P], Deferred[T]]:
    """A call that a store has its thread make."""

    def method(store: SqliteStore, /, *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        return store._call(call, *args, **kwargs)

    return method


class SqliteStore:
    """A Store in a file. `now`: the clock, in seconds since the epoch; it is asked in the thread."""

    shards: tuple[tuple[str, int], ...] = ()

    def __init__(
        self, store: StoreSettings, settings: SqliteSettings, reactor: Any, now: Callable[[], float] = time.time
    ) -> None:
        self.numbers = {"sqlite": StoreNumbers()}
        self._store = store
        self.name = self._path = settings.path
        self._reactor = reactor
        self._now = now
        self._pool = ThreadPool(1, 1, "sqlite")
        self._logs: SqliteLogs | None = None
        self._backups = Backups(reactor, self.numbers["sqlite"].counters)
        self.identity = ""
        self._troubles = Troubles(settings.path, reactor)
        self._gatherer = Gatherer(self._append)

    def start(self) -> Deferred[None]:
        """See Store. It is open, or refused, at once: while a process starts its reactor has nothing else to do, and
        twistd's parent waits for that alone.
        """
        return execute(self._open).addCallback(self._begin_thread)

    def _open(self) -> None:
        connection = open_file(self._path)
        with opening(self._path, connection):
            self.identity = f"{identity(connection):08x}"
            files = DatabaseFiles(self._path, connection)
            self._logs = SqliteLogs(connection, files, self._store, self._now, self.numbers["sqlite"].counters)

    def _begin_thread(self, _: None) -> None:
        self._pool = ThreadPool(1, 1, "sqlite")  # a stopped one starts no more
        self._pool.start()

    def stop(self) -> Deferred[None]:
        """See Store."""
        if not self._pool.started:
            return succeed(None)
        closed = self._backups.stop().addCallback(lambda _: self._gatherer.drained())
        closed.addCallback(lambda _: self._call(SqliteLogs.close))
        return closed.addErrback(lambda _: None).addBoth(self._end_thread)

    def _end_thread(self, result: T) -> T:
        self._logs = None
        self._pool.stop()
        return result

    def append(self, appends: Sequence[Append]) -> Deferred[list[Appended]]:
        """See MessageService. All that waits for the thread is committed together."""
        return self._gatherer.append(appends)

    def _append(self, appends: Sequence[Append]) -> Deferred[list[Appended]]:
        return self._call(SqliteLogs.append, appends).addErrback(self._not_appended, len(appends))

    @staticmethod
    def _not_appended(failure: Failure, count: int) -> Any:
        return [REFUSED] * count if isinstance(failure.value, FullError) else failure

    # See MessageService.
    read = _in_thread(SqliteLogs.read)
    heads = _in_thread(SqliteLogs.heads)
    delete = _in_thread(SqliteLogs.delete)
    create_token = _in_thread(SqliteLogs.create_token)
    revoke_token = _in_thread(SqliteLogs.revoke_token)
    tokens = _in_thread(SqliteLogs.tokens)
    check_token = _in_thread(SqliteLogs.check_token)

    def backup(self, path: str, id: str) -> Deferred[Backup]:
        """See BackupService."""
        return self._call(SqliteLogs.opened).addCallback(self._backups.backup, path, id)

    def ping(self) -> Deferred[None]:
        """See MessageService."""
        return self._call(SqliteLogs.ping).addCallback(self._still_in_trouble)

    def _still_in_trouble(self, _: None) -> None:
        """A store that fails now and then is not ready before it has worked for a while, though a small write may
        succeed.
        """
        if trouble := self._troubles.now.get("writes"):
            raise UnavailableError(f"{self._path}: {trouble}")

    def purge(self) -> Deferred[None]:
        """See Store. In pieces, so that appends get in between."""
        return self._call(SqliteLogs.purge).addCallback(lambda more: self.purge() if more else None)

    def _call(self, method: Callable[Concatenate[SqliteLogs, P], T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Have the thread call."""
        if not self._pool.started:
            return fail(UnavailableError(f"{self._path} is not open"))

        def call() -> T:
            if self._logs is None:
                raise UnavailableError(f"{self._path} is not open")
            return method(self._logs, *args, **kwargs)

        part = "reads" if method in _READING else "writes"
        called = deferToThreadPool(self._reactor, self._pool, call)
        lucky = part == "writes" and method is not SqliteLogs.append
        called.addCallbacks(self._well, self._unavailable, callbackArgs=(part, lucky), errbackArgs=(part,))
        return self.numbers["sqlite"].timed(method.__name__, called, self._reactor)

    def _well(self, answer: T, part: str, lucky: bool) -> T:
        if self._troubles.now:
            self._troubles.end(part, calm=True, lucky=lucky)
        return answer

    def _unavailable(self, failure: Failure, part: str) -> Any:
        """A disk that is full fails every call that writes: say so once."""
        if not isinstance(failure.value, (sqlite3.Error, UnavailableError)):
            return failure
        trouble = str(failure.value)
        if self._logs is not None:
            self._troubles.begin(part, trouble)
        full = isinstance(failure.value, sqlite3.Error) and is_full(failure.value)
        raise (FullError if full else UnavailableError)(f"{self._path}: {trouble}") from None
