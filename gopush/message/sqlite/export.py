"""What a database of this store keeps, read from beside it: also while a process serves from it, which locks it."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from gopush.errors import SettingsError, UnavailableError
from gopush.message.rules import KeptLog
from gopush.message.sqlite.disk import expect_room, size_of
from gopush.message.sqlite.file import UPGRADES
from gopush.model import Token

WAL_HEADER_BYTES = 32
COPIES = 20
"""How often a copy is tried: one during which the log of writes began anew is not whole."""


@contextmanager
def opened(path: Path) -> Iterator[tuple[sqlite3.Connection, bool]]:
    """The database, and whether it is at rest: then nobody can open it meanwhile. Else it is as it was a moment ago.

    Raises SettingsError where it is none that can be read, UnavailableError where it changes too fast.
    """
    if not path.is_file():
        raise SettingsError(f"{path}: there is no such file")
    path = path.resolve()  # SQLite keeps its log beside the file itself, not beside a link
    try:
        with closing(_connect(path)) as connection:
            try:
                connection.execute("PRAGMA locking_mode = EXCLUSIVE")
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as wrong:
                if "locked" not in str(wrong):
                    raise
            else:
                _check(path, connection)
                _remove_copy(path)
                yield connection, True
                return
        with _beside(path) as directory, closing(_connect(_copy(path, directory))) as connection:
            _check(path, connection)
            yield connection, False
    except sqlite3.Error as wrong:
        raise SettingsError(f"{path}: {wrong}") from None


def _remove_copy(path: Path) -> None:
    """The one that somebody has left who was killed; nobody may need it any more."""
    if _directory(path).is_dir():
        with suppress(UnavailableError), _beside(path):
            pass


def _directory(path: Path) -> Path:
    return path.with_name(f"{path.name}-migrate")


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A directory for a copy of the database, without what somebody has left there who was killed."""
    directory = _directory(path)
    with _said(path):
        directory.mkdir(mode=0o700, exist_ok=True)
        lock = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UnavailableError(f"{directory}: another one moves this database already") from None
        for file in directory.iterdir():
            file.unlink()
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)
    finally:
        os.close(lock)


@contextmanager
def _said(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, UnavailableError) as wrong:
        why = getattr(wrong, "strerror", None) or wrong
        raise UnavailableError(f"{path}: it cannot be copied beside itself: {why}") from None


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=0, isolation_level=None)


def _check(path: Path, connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version != len(UPGRADES):
        raise SettingsError(f"{path}: is no database of this gopush (schema {version}, this one has {len(UPGRADES)})")


def _copy(path: Path, directory: Path) -> Path:
    """The pages of a database, then the log of its writes, which repairs those that changed meanwhile."""
    log = path.with_name(f"{path.name}-wal")
    copy = directory / "copy"
    for _ in range(COPIES):
        with _said(path):
            before = _head(log)
            for older in directory.iterdir():  # of the try before
                older.unlink()
            expect_room(str(copy), size_of(path) + size_of(log))
            shutil.copyfile(path, copy)
            if log.exists():
                shutil.copyfile(log, copy.with_name("copy-wal"))
            if _head(log) == before:
                return copy
    raise UnavailableError(f"{path}: it changes faster than it can be copied")


def _head(log: Path) -> bytes:
    try:
        with log.open("rb") as file:
            return file.read(WAL_HEADER_BYTES)
    except FileNotFoundError:
        return b""


def logs(connection: sqlite3.Connection, now: float, at_rest: bool) -> Iterator[KeptLog]:
    """All keys, with what has not expired. Tokens only of a database at rest: in another they may be revoked yet."""
    ids = defaultdict(list)
    for key, *rest in connection.execute(
        "SELECT key, id, mid, previous, until FROM ids WHERE until > ? ORDER BY seq", [now]
    ):
        ids[key].append(tuple(rest))
    tokens: defaultdict[str, list[Token]] = defaultdict(list)
    live = "SELECT key, digest, expires FROM tokens WHERE expires > ? AND ?"
    for key, digest, expires in connection.execute(live, [now, at_rest]):
        tokens[key].append(Token(digest, expires))
    for log, key, last, trimmed, ends in connection.execute(
        "SELECT id, key, last, trimmed, ends FROM logs ORDER BY id"
    ):
        messages = connection.execute(
            "SELECT mid, expires, body FROM messages WHERE log = ? AND expires > ? ORDER BY mid", [log, now]
        ).fetchall()
        yield KeptLog(key, last, trimmed, ends, messages, ids.pop(key, []), tokens.pop(key, []))
    for key in {**ids, **tokens}:  # its log was forgotten, which these outlive
        last = max((mid for _, mid, _, _ in ids[key]), default=0)
        ends = max((until for _, _, _, until in ids[key]), default=now)
        yield KeptLog(key, last, 0, ends, [], ids[key], tokens[key])
