"""The database file: opened for one process alone, brought up to date, or refused in one line; a reserve for deleting
when the disk is full; and whether the files that were opened still stand.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gopush.config.reload import lasting
from gopush.errors import StartError, UnavailableError

_MAGIC = b"SQLite format 3\0"
"""What every database begins with that is not empty."""

NEEDED_SQLITE = (3, 38, 0)
"""The first version that has the operator ->>, RETURNING and UPDATE FROM."""

UPGRADES = (
    """
    CREATE TABLE logs (
        id INTEGER PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,
        last INTEGER NOT NULL,     -- the highest mid ever given
        trimmed INTEGER NOT NULL,  -- the highest mid trimmed away
        kept INTEGER NOT NULL,     -- how many messages are here, expired ones included
        due REAL NOT NULL,         -- not after its first message expires; without messages: not after `ends`
        ends REAL NOT NULL         -- when it may be forgotten, once it has no messages
    );
    CREATE INDEX logs_due ON logs (due);
    CREATE TABLE messages (
        seq INTEGER PRIMARY KEY,   -- at the end of the file: half the price of the place in the log
        log INTEGER NOT NULL,
        mid INTEGER NOT NULL,
        expires REAL NOT NULL,
        body BLOB NOT NULL
    );
    CREATE UNIQUE INDEX messages_mid ON messages (log, mid);
    CREATE TABLE ids (
        seq INTEGER PRIMARY KEY,
        key TEXT NOT NULL,
        id TEXT NOT NULL,
        mid INTEGER NOT NULL,
        previous INTEGER NOT NULL,
        until REAL NOT NULL        -- an id may be here twice, with another `until`; the later one counts
    );
    CREATE TABLE tokens (
        key TEXT NOT NULL,
        digest BLOB NOT NULL,
        expires INTEGER NOT NULL,
        PRIMARY KEY (key, digest)
    ) WITHOUT ROWID;
    CREATE INDEX tokens_expires ON tokens (expires);
    """,
)
"""What each version of the schema adds to the one before; user_version counts them. Append, never change."""

_PRAGMAS = (
    "locking_mode = EXCLUSIVE",
    "journal_mode = WAL",
    "synchronous = FULL",
    # Else deleting would write all pages of a message, and need more room than there is.
    "secure_delete = OFF",
)


def refuse_unfit(path: str) -> None:
    """Raise StartError where no database can be, as far as that shows without opening or making one."""
    begins, directory = b"", Path(path).parent
    if not os.path.isdir(directory):
        raise _cannot_open(path, "there is no such directory, or none that this user can reach")
    try:
        with open(path, "r+b") as file:
            begins = file.read(len(_MAGIC))
            if not os.path.isfile(path):
                raise OSError("is no file on a disk")
    except FileNotFoundError:
        if not os.access(directory, os.W_OK | os.X_OK):
            raise _cannot_open(path, "this user cannot write to its directory") from None
    except OSError as wrong:
        raise _cannot_open(path, wrong.strerror or wrong) from None
    if begins not in (b"", _MAGIC):
        raise _cannot_open(path, "file is not a database")


def open_file(path: str) -> sqlite3.Connection:
    """Open or make the database. Raises StartError."""
    if sqlite3.sqlite_version_info < NEEDED_SQLITE:
        raise StartError(f"SQLite {sqlite3.sqlite_version} is too old ({'.'.join(map(str, NEEDED_SQLITE))} is needed)")
    refuse_unfit(path)
    with suppress(OSError):  # SQLite meets it again, and says which
        # Messages are nobody else's, in the foreground too, where twistd sets no umask; the files beside it follow it.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    try:
        connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as wrong:
        raise _refused(path, wrong) from None
    with opening(path, connection):
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        _upgrade(path, connection)
    return connection


@contextmanager
def opening(path: str, connection: sqlite3.Connection) -> Iterator[None]:
    """What fails in the block closes the database, and is a StartError: it will fail the next time, too."""
    try:
        yield
    except Exception as wrong:
        connection.close()
        if isinstance(wrong, sqlite3.Error):
            raise _refused(path, wrong) from None
        if isinstance(wrong, OSError | UnavailableError):
            raise _cannot_open(path, wrong) from None
        raise


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing of what is done in the block; on the disk when it ends."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def identity(connection: sqlite3.Connection) -> int:
    """A number that tells this database from others; it gets one where it has none, and the disk has room."""
    (found,) = connection.execute("PRAGMA application_id").fetchone()
    if not found:
        found = secrets.randbelow(2**31 - 1) + 1
        with suppress(sqlite3.Error):
            connection.execute(f"PRAGMA application_id = {found}")
    return int(found)


def _upgrade(path: str, connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(UPGRADES):
        raise StartError(
            f"[sqlite] path: {path}: was written by a newer gopush (schema {version}, this one knows {len(UPGRADES)})"
        )
    if version == len(UPGRADES):
        connection.execute("BEGIN IMMEDIATE")  # whether it can be locked is known now; a full disk is no reason
        connection.execute("ROLLBACK")
        return
    with transaction(connection):
        for upgrade in UPGRADES[version:]:
            for statement in _statements(upgrade):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(UPGRADES)}")


def _statements(script: str) -> Iterator[str]:
    """executescript() would end the transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _refused(path: str, wrong: sqlite3.Error) -> StartError:
    if "locked" in str(wrong):
        return StartError(f"[sqlite] path: {path}: is in use by another process")
    return _cannot_open(path, wrong)


def _cannot_open(path: str, why: object) -> StartError:
    return StartError(f"[sqlite] path: {path}: cannot be opened: {why}")


RESERVE_BYTES = 16 << 20
"""Deleting writes, too: some pages for each message, whatever its size. On a small disk it is an eighth of it, and
there is none where the file system does not say how large it is.
"""

LOG_BYTES, ROOMY_BYTES = 40 << 20, 256 << 20
"""The write-ahead log is copied back once it is so long: pushes wait for that, and most of its pages change at every
commit. Where the disk has less room than the other it is as long as half of the reserve: so it can always be copied.
"""

PAGE_BYTES, MOST_PAGES = 4096, 2**30 - 1
"""The latter is SQLite's own bound of a database."""


class DatabaseFiles:
    """The files of a database, once it is open. What fails for want of space can be tried again after make_room()."""

    def __init__(self, path: str, connection: sqlite3.Connection) -> None:
        self._path = lasting(path)
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
        for path in (self._path, self._log):
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


def _gone(path: Path, what: str) -> str:
    return f"{path} was {what} while gopush had it open: nothing that is written now would last; restart gopush"
