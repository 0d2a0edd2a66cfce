"""The disk under the database: a reserve for deleting when it is full, how much the database may take, and whether the
files that were opened still stand.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path

from gopush.config.reload import lasting
from gopush.errors import UnavailableError

RESERVE_BYTES = 16 << 20
"""Deleting writes, too: some pages for each message, whatever its size. On a small disk it is an eighth of it, and
there is none where the file system does not say how large it is.
"""

LOG_BYTES, ROOMY_BYTES = 40 << 20, 256 << 20
"""The write-ahead log is copied back once it is so long: pushes wait for that, and most of its pages change at every
commit. Where the disk has less room than the other it is as long as half of the reserve: so it can always be copied.
"""

PAGE_BYTES = 4096
MOST_PAGES = 2**30 - 1
"""SQLite's own bound of a database."""


class DatabaseFiles:
    """The files of a database, once it is open. What fails for want of space can be tried again after make_room()."""

    def __init__(self, path: str, connection: sqlite3.Connection) -> None:
        self._name = lasting(path)  # perhaps a link, which the next start follows
        self._path = Path(os.path.realpath(path))  # SQLite has its log beside the file itself
        self._connection = connection
        self._reserve = Path(f"{self._path}-reserve")
        self._log = Path(f"{self._path}-wal")
        self._files: dict[Path, tuple[int, int]] = {}
        self.reserve_bytes = _reserve_of(os.statvfs(self._path.parent))
        self._log_bytes = 0
        self.check()
        if self._reserve.exists() and self._reserve.stat().st_blocks * 512 < self.reserve_bytes:
            self._reserve.unlink()  # a start was killed before it had its blocks, or a copy left them out
        self.lay_in()

    def check(self) -> None:
        """Fail with UnavailableError where the files are not those that were opened: what is written is lost soon."""
        for path in (self._name, self._log):
            try:
                found = os.stat(path)
            except FileNotFoundError:
                if path not in self._files:
                    continue
                raise UnavailableError(self._gone(path, "removed")) from None
            if self._files.setdefault(path, (found.st_dev, found.st_ino)) != (found.st_dev, found.st_ino):
                raise UnavailableError(self._gone(path, "replaced"))

    def _gone(self, path: Path, what: str) -> str:
        """Behind the name of the store, which is that of the database."""
        which = "" if path == self._name else f"{path} "
        return f"{which}was {what} while gopush had it open: nothing that is written now would last; restart gopush"

    def make_room(self) -> None:
        """Give up the reserve."""
        self._reserve.unlink(missing_ok=True)
        self._connection.execute(f"PRAGMA max_page_count = {MOST_PAGES}")

    def tidy(self) -> None:
        """After something has gone: give back what the write-ahead log takes, where that can be copied back."""
        if size_of(self._log) <= self._free:
            with suppress(sqlite3.Error):
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self.lay_in()

    def lay_in(self) -> None:
        """Lay in the reserve, where it is missing and the disk has room for it and the write-ahead log; and bound that
        log, and the database, which must leave the log room: it never gives back what it has taken.
        """
        self._bound_log(LOG_BYTES if self._free >= ROOMY_BYTES else self.reserve_bytes // 2)
        if self.reserve_bytes and not self._reserve.exists() and self._free >= self.reserve_bytes * 3 // 2:
            self._allocate()
        kept = self.reserve_bytes if self._reserve.exists() else 2 * self.reserve_bytes
        most = size_of(self._path) + size_of(self._log) + self._free - kept
        self._connection.execute(f"PRAGMA max_page_count = {min(max(most // PAGE_BYTES, 1), MOST_PAGES)}")

    def _bound_log(self, size: int) -> None:
        if size != self._log_bytes:
            self._log_bytes = size
            self._connection.execute(f"PRAGMA wal_autocheckpoint = {max(size // PAGE_BYTES, 1)}")
            self._connection.execute(f"PRAGMA journal_size_limit = {size}")

    def _allocate(self) -> None:
        with suppress(OSError):
            file = os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                os.posix_fallocate(file, 0, self.reserve_bytes)
            except OSError:
                self._reserve.unlink()
            finally:
                os.close(file)

    @property
    def _free(self) -> int:
        return _free_of(os.statvfs(self._path.parent))


def _reserve_of(disk: os.statvfs_result) -> int:
    return min(RESERVE_BYTES, disk.f_blocks * disk.f_frsize // 8)


def _free_of(disk: os.statvfs_result) -> int:
    """A file system that does not say how large it is (ramfs, some of FUSE) has no bound."""
    return disk.f_bavail * disk.f_frsize if disk.f_blocks else MOST_PAGES * PAGE_BYTES


def size_of(path: Path) -> int:
    """The bytes of a file; 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def expect_room(path: str, size: int) -> None:
    """Raise UnavailableError where a copy would take the last space of a disk, which may be the database's: pushes need
    it more.
    """
    disk = os.statvfs(Path(path).parent)
    free, left = _free_of(disk), _reserve_of(disk)
    if free < size + left:
        raise UnavailableError(
            f"the disk has too little room: {free >> 20} MiB are free, {size + left >> 20} MiB are needed"
        )


def is_full(wrong: sqlite3.Error) -> bool:
    """Whether it failed for want of space, or may have: SQLite tells no quota from a disk that is broken."""
    return getattr(wrong, "sqlite_errorcode", None) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE)
