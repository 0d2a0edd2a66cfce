"""The database file: opened for one process alone, brought up to date, or refused in one line."""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

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
    begins = b""
    try:
        directory = Path(os.path.realpath(path)).parent  # SQLite follows a link
        if not os.path.isdir(directory):
            raise OSError("there is no such directory, or none that this user can reach")
        if not os.access(directory, os.W_OK | os.X_OK):  # its log is there, too
            raise OSError("this user cannot write to its directory")
        with suppress(FileNotFoundError), open(path, "r+b") as file:
            begins = file.read(len(_MAGIC))
            if not os.path.isfile(path):
                raise OSError("is no file on a disk")
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
            for statement in upgrade.split(";\n"):  # executescript() would end the transaction
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(UPGRADES)}")


def _refused(path: str, wrong: sqlite3.Error) -> StartError:
    if "locked" in str(wrong):
        return StartError(f"[sqlite] path: {path}: is in use by another process")
    return _cannot_open(path, wrong)


def _cannot_open(path: str, why: object) -> StartError:
    leads = f" (a link to {os.path.realpath(path)})" if os.path.islink(path) else ""
    return StartError(f"[sqlite] path: {path}{leads}: cannot be opened: {why}")
