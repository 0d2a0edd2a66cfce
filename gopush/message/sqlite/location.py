"""Where a SQLite database lies: a reserve for deleting when the disk is full, and whether its files still stand."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path

from gopush.config.reload import lasting
from gopush.errors import UnavailableError

RESERVE_BYTES = 16 << 20
"""Deleting writes, too: some pages for each message, whatever its size. On a small disk it is an eighth of it."""

PAGE_BYTES = 4096


class DatabaseFiles:
    """The files of a database, once it is open. What fails for want of space can be tried again after make_room()."""

    def __init__(self, path: str, connection: sqlite3.Connection) -> None:
        self._path = lasting(path)
        self._connection = connection
        self._reserve = Path(f"{self._path}-reserve")
        self._files: dict[Path, tuple[int, int]] = {}
        disk = os.statvfs(self._path.parent)
        self._bytes = min(RESERVE_BYTES, disk.f_blocks * disk.f_frsize // 8)
        if self._bytes < RESERVE_BYTES:  # let the write-ahead log stay small, so that it can be copied back
            connection.execute(f"PRAGMA wal_autocheckpoint = {max(self._bytes // 2 // PAGE_BYTES, 1)}")
        self.check()
        self.lay_in()

    def check(self) -> None:
        """Fail with UnavailableError where the files are not those that were opened: what is written is lost soon."""
        for path in (self._path, Path(f"{self._path}-wal")):
            try:
                found = os.stat(path)
            except FileNotFoundError:
                if path not in self._files:
                    continue
                raise UnavailableError(_gone(path, "removed")) from None
            if self._files.setdefault(path, (found.st_dev, found.st_ino)) != (found.st_dev, found.st_ino):
                raise UnavailableError(_gone(path, "replaced"))

    def make_room(self) -> None:
        """Give up the reserve."""
        self._reserve.unlink(missing_ok=True)

    def tidy(self) -> None:
        """After something has gone: give back what the write-ahead log takes, where that can be copied back."""
        log = Path(f"{self._path}-wal")
        if log.exists() and log.stat().st_size <= self._free:
            with suppress(sqlite3.Error):
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self.lay_in(1)

    def lay_in(self, times: int = 2) -> None:
        """Lay in the reserve, where it is missing and the disk has so many times its size left."""
        if self._reserve.exists() or self._free < times * self._bytes:
            return
        with suppress(OSError):
            file = os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                os.posix_fallocate(file, 0, self._bytes)
            except OSError:
                self._reserve.unlink()
            finally:
                os.close(file)

    @property
    def _free(self) -> int:
        disk = os.statvfs(self._path.parent)
        return disk.f_bavail * disk.f_frsize


def is_full(wrong: sqlite3.Error) -> bool:
    """Whether it failed for want of space."""
    return getattr(wrong, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL


def _gone(path: Path, what: str) -> str:
    return f"{path} was {what} while gopush had it open: nothing that is written now would last; restart gopush"
