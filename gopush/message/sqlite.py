"""The store in a SQLite file, which one process owns: a thread of its own, and one commit for all that waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from gopush.message.gather import Gatherer
from gopush.message.settings import SqliteSettings, StoreSettings
from gopush.message.sqlite_file import open_file
from gopush.message.sqlite_log import SqliteLogs
from gopush.rpc.model import Append, Appended, Head, Page, Read, Token, TokenState

T = TypeVar("T")
P = ParamSpec("P")


class SqliteStore:
    """A Store in a file. `now`: the clock, in seconds since the epoch; it is asked in the thread."""

    shards: tuple[tuple[str, int], ...] = ()

    def __init__(
        self, store: StoreSettings, settings: SqliteSettings, reactor: Any, now: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._path = settings.path
        self._reactor = reactor
        self._now = now
        self._pool = ThreadPool(1, 1, "sqlite")
        self._logs: SqliteLogs
        self._gatherer = Gatherer(lambda appends: self._call(SqliteLogs.append, appends))

    def start(self) -> Deferred[None]:
        """See Store."""
        self._pool.start()
        return deferToThreadPool(self._reactor, self._pool, self._open).addErrback(self._not_opened)

    def _open(self) -> None:
        self._logs = SqliteLogs(open_file(self._path), self._store, self._now)

    def _not_opened(self, failure: Failure) -> Failure:
        self._pool.stop()
        return failure

    def stop(self) -> Deferred[None]:
        """See Store."""
        closed = self._gatherer.drained().addCallback(lambda _: self._call(SqliteLogs.close))
        return closed.addBoth(self._closed)

    def _closed(self, result: Failure | None) -> Failure | None:
        self._pool.stop()
        return result

    def append(self, appends: Sequence[Append]) -> Deferred[list[Appended]]:
        """See MessageService. All that waits for the thread is committed together."""
        return self._gatherer.append(appends)

    def read(self, reads: Sequence[Read]) -> Deferred[list[Page]]:
        """See MessageService."""
        return self._call(SqliteLogs.read, reads)

    def heads(self, keys: Sequence[str]) -> Deferred[list[Head]]:
        """See MessageService."""
        return self._call(SqliteLogs.heads, keys)

    def delete(self, key: str) -> Deferred[None]:
        """See MessageService."""
        return self._call(SqliteLogs.delete, key)

    def create_token(self, key: str, token: Token) -> Deferred[None]:
        """See MessageService."""
        return self._call(SqliteLogs.create_token, key, token)

    def revoke_token(self, key: str, digest: bytes) -> Deferred[bool]:
        """See MessageService."""
        return self._call(SqliteLogs.revoke_token, key, digest)

    def tokens(self, key: str) -> Deferred[list[Token]]:
        """See MessageService."""
        return self._call(SqliteLogs.tokens, key)

    def check_token(self, key: str, digest: bytes) -> Deferred[TokenState]:
        """See MessageService."""
        return self._call(SqliteLogs.check_token, key, digest)

    def ping(self) -> Deferred[None]:
        """See MessageService."""
        return self._call(SqliteLogs.ping)

    def purge(self) -> Deferred[None]:
        """See Store."""
        return self._call(SqliteLogs.purge)

    def _call(self, method: Callable[Concatenate[SqliteLogs, P], T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        return deferToThreadPool(self._reactor, self._pool, method, self._logs, *args, **kwargs)
