"""A copy of the database while it serves: SQLite's online backup, a slice at a time, between what the store does."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from gopush.errors import UnavailableError
from gopush.message.sqlite.disk import PAGE_BYTES, expect_room
from gopush.message.store import StoreCounters
from gopush.reports import Backup

SLICE_PAGES = 128
PAUSE_SECONDS = 0.005
"""Between two slices, and before a slice is tried again that met a transaction."""
SYNC_SLICES = 16
"""After so many slices the copy goes to the disk: the commit at its end, for which others wait, then has little to
write.
"""

PART = ".part"
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What file systems without hard links say (FAT, some of FUSE and of the network)."""

log = Logger()


class RefusedError(Exception):
    """No repeat of the call can make this copy."""


def check_target(path: str) -> None:
    """Raise RefusedError where no copy can be written to `path`: it must be absolute, new, and in a directory."""
    if not os.path.isabs(path) or "\0" in path or path.endswith("/"):
        raise RefusedError("a backup needs the absolute path of its file")
    if not os.path.isdir(Path(path).parent):
        raise RefusedError(f"{path}: the process that has the database sees no such directory, or may not enter it")
    if _is_too_long(path + PART):
        raise RefusedError(f"the name of the file is too long ({PART} stands behind it until the copy is complete)")
    if os.path.lexists(path):
        raise RefusedError(f"{path}: is there already; a backup overwrites nothing")
    if os.path.lexists(path + PART):
        raise RefusedError(
            f"{path}{PART}: is there already: another backup runs, or was cut off (then remove the file)"
        )


def _is_too_long(path: str) -> bool:
    try:
        os.lstat(path)
    except OSError as wrong:
        return wrong.errno == errno.ENAMETOOLONG
    return False


def copy(source: sqlite3.Connection, path: str, report: Callable[[int, int], None], ended: Callable[[], bool]) -> int:
    """Copy all of `source` to a new file, in a thread beside that of the store.

    SQLite locks the connection for a slice and puts into the copy what the store commits meanwhile, so it is as the
    store is at the end. `report` hears how many bytes are copied, and of how many; it gives up once `ended` says so.
    Answers how many bytes the copy has.
    Raises RefusedError, UnavailableError, OSError or sqlite3.Error, and leaves no file then.
    """
    check_target(path)
    part = path + PART
    with _new_file(part) as file:
        expect_room(part, _pages(source) * PAGE_BYTES)
        target = sqlite3.connect(part, isolation_level=None)
        slices = 0

        def after_slice(_: int, remaining: int, pages: int) -> None:
            nonlocal slices
            slices += 1
            if ended():
                raise UnavailableError("the process stops")
            if slices % SYNC_SLICES == 0:
                expect_room(part, 0)
                os.fdatasync(file)
            report((pages - remaining) * PAGE_BYTES, pages * PAGE_BYTES)
            time.sleep(PAUSE_SECONDS)

        try:
            # What is cut off is removed, and what is done is synced below: SQLite need do neither while others wait.
            target.execute("PRAGMA journal_mode = OFF").fetchall()
            target.execute("PRAGMA synchronous = OFF")
            source.backup(target, pages=SLICE_PAGES, progress=after_slice, sleep=PAUSE_SECONDS)
        finally:
            target.close()
        os.fsync(file)
        _name(part, path)
        return os.fstat(file).st_size


def _name(part: str, path: str) -> None:
    try:
        os.link(part, path)  # unlike a renaming it overwrites nothing
    except OSError as wrong:
        if wrong.errno not in NO_LINKS:
            raise
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        os.rename(part, path)


def _pages(source: sqlite3.Connection) -> int:
    return int(source.execute("PRAGMA page_count").fetchone()[0])


@contextmanager
def _new_file(path: str) -> Iterator[int]:
    """A file for this user alone; in the end its name is removed."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        yield file
    finally:
        os.close(file)
        with suppress(FileNotFoundError):
            os.unlink(path)
        directory = os.open(Path(path).parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


class Backups:
    """The backups of one store: one at a time, counted and logged."""

    def __init__(self, reactor: Any, counters: StoreCounters) -> None:
        self._reactor = reactor
        self._counters = counters
        self._id = ""
        self._path = ""
        self._last = Backup("done")
        self._stopped = False
        self._ended: list[Deferred[None]] = []

    def backup(self, source: sqlite3.Connection, path: str, id: str) -> Backup:
        """See BackupService."""
        if id and id == self._id:
            return self._last
        if self._last.state == "running":
            return self._refused(f"a backup to {self._path} is under way")
        try:
            check_target(path)
        except RefusedError as wrong:
            return self._refused(str(wrong))
        self._id, self._path, self._last, self._stopped = id, path, Backup("running"), False
        log.info("a backup to {path} begins", path=path)
        pool = ThreadPool(1, 1, "backup")
        pool.start()
        began = self._reactor.seconds()
        copied = deferToThreadPool(self._reactor, pool, copy, source, path, self._report, lambda: self._stopped)
        copied.addCallbacks(self._done, self._failed, callbackArgs=(began,)).addBoth(self._end, pool)
        return self._last

    def stop(self) -> Deferred[None]:
        """Give up what is under way; fires when its thread has left the database alone."""
        if self._last.state != "running":
            return succeed(None)
        self._stopped = True
        ended: Deferred[None] = Deferred()
        self._ended.append(ended)
        return ended

    def _report(self, copied: int, size: int) -> None:
        """In the thread."""
        self._last = Backup("running", copied, size)

    def _done(self, size: int, began: float) -> None:
        self._last = Backup("done", size, size)
        self._counters.backups += 1
        seconds = self._reactor.seconds() - began
        log.info("the backup {path} is complete: {size} bytes in {s:.1f} s", path=self._path, size=size, s=seconds)

    def _failed(self, failure: Failure) -> None:
        refused = failure.check(RefusedError, FileExistsError)
        if not refused and not failure.check(UnavailableError, OSError, sqlite3.Error):
            log.failure("a backup failed", failure)
        said = getattr(failure.value, "strerror", None) or failure.getErrorMessage()
        why = said if said.startswith(self._path) else f"{self._path}: {said}"
        self._last = Backup("refused" if refused else "failed", why=why)
        self._count_failed(why)

    def _refused(self, why: str) -> Backup:
        self._count_failed(why)
        return Backup("refused", why=why)

    def _count_failed(self, why: str) -> None:
        self._counters.failed_backups += 1
        log.warn("a backup failed: {why}", why=why)

    def _end(self, _: None, pool: ThreadPool) -> None:
        pool.stop()
        ended, self._ended = self._ended, []
        for waiting in ended:
            waiting.callback(None)
