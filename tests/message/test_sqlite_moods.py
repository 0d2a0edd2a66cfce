"""A disk that is full, files that are taken away, many tokens: what SQLite does then."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import pytest

from gopush.config.schema import load
from gopush.errors import RET_OK, SettingsError, UnavailableError
from gopush.message.rules import REFUSED
from gopush.message.sqlite.disk import expect_room
from gopush.message.sqlite.export import opened
from gopush.message.sqlite.settings import SqliteSettings
from gopush.message.sqlite.store import SqliteStore
from gopush.message.store import StoreSettings
from tests.conftest import InReactor, reactor
from tests.fixtures import lines_logged
from tests.message.subject import FakeTime, Subject

DISK_BYTES = 24 << 20
MOST_TOKENS = 1000
BIG = b"x" * 1_000_000


def open_sqlite(in_reactor: InReactor, path: Path, store: int = 1000) -> Subject:
    def make() -> SqliteStore:
        return SqliteStore(StoreSettings(store), SqliteSettings(str(path)), reactor)

    return Subject("sqlite", in_reactor, make, None)


def logged() -> AbstractContextManager[list[str]]:
    """What is logged of SQLite meanwhile."""
    return lines_logged(lambda line: ".sqlite: " in line)


@pytest.fixture
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A small disk, for root; see pytest_pyfunc_call() for others."""
    size = getattr(request, "param", DISK_BYTES)
    index = tmp_path / "disk"
    index.mkdir()
    if os.geteuid():
        yield index
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(index)], check=True)
    try:
        yield index
    finally:
        subprocess.run(["umount", "-l", str(index)], check=True)


def fill(subject: Subject, body: bytes = BIG) -> int:
    """Push until the disk is full; how many were stored."""
    for number in range(200):
        if subject.push(f"k{number}", body) == REFUSED:
            return number
    raise AssertionError("the disk is not full")


def test_a_full_disk_is_said_once_and_messages_can_be_deleted(in_reactor: InReactor, disk: Path) -> None:
    subject = open_sqlite(in_reactor, disk / "x.sqlite")
    with logged() as lines:
        stored = fill(subject)
        for _ in range(10):
            assert subject.push("more", BIG) == REFUSED
            subject.purge()
            subject.read("k0")
        with pytest.raises(UnavailableError, match="full"):
            in_reactor(subject.store.ping)
        assert len(lines) == 1
        for number in range(stored):
            subject.delete(f"k{number}")
        assert subject.push("again", BIG).ret == RET_OK
        assert len(subject.read("again")) == 1
        assert lines[1:] == [f"{disk / 'x.sqlite'}: all is well again"]
    subject.close()


def test_what_may_have_been_stored_is_not_refused(in_reactor: InReactor, tmp_path: Path) -> None:
    """A commit that did not reach the disk for certain may be there after a crash: a comet compares the log."""
    subject = open_sqlite(in_reactor, tmp_path / "x.sqlite")
    store: Any = subject.store

    def unsynced(_: object) -> None:
        wrong = sqlite3.OperationalError("disk I/O error")
        wrong.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
        raise wrong

    store._logs._write = unsynced
    with pytest.raises(UnavailableError, match="disk I/O error"):
        subject.push()
    subject.close()


def test_a_full_disk_lets_a_process_start(in_reactor: InReactor, disk: Path) -> None:
    path = disk / "x.sqlite"
    subject = open_sqlite(in_reactor, path)
    fill(subject)
    subject.close()
    with (disk / "filler").open("wb", buffering=0) as filler, suppress(OSError):
        while filler.write(b"x" * 4096):
            pass
    subject = open_sqlite(in_reactor, path)
    assert len(subject.read("k0")) == 1
    subject.delete("k0")
    assert subject.read("k0") == []
    subject.close()


@pytest.mark.parametrize(("size", "store"), [(30_000, 20), (200, 1000)], ids=["long", "many"])
def test_a_full_disk_is_of_use_again_once_messages_have_expired(
    in_reactor: InReactor, disk: Path, size: int, store: int
) -> None:
    clock = FakeTime()

    def make() -> SqliteStore:
        return SqliteStore(StoreSettings(store), SqliteSettings(str(disk / "x.sqlite")), reactor, clock)

    subject = Subject("sqlite", in_reactor, make, clock)
    stored = [0] * 4
    for turn in range(4):
        while stored[turn] < 1000:
            key = f"{turn}-{stored[turn]}"
            if REFUSED in subject.append(*[subject.item(key, b"x" * size, expire=60) for _ in range(store)]):
                break
            stored[turn] += 1
        clock.seconds += 120
        subject.purge()
    assert 0.9 * stored[0] < min(stored) < 1000
    subject.close()


@pytest.mark.parametrize("disk", [4 << 20], indirect=True, ids=["4m"])
def test_messages_that_lie_apart_expire_on_a_tiny_disk(in_reactor: InReactor, disk: Path) -> None:
    """Each of them leaves a page that others are in: to delete it writes that page, and the reserve must hold them."""
    clock = FakeTime()

    def make() -> SqliteStore:
        return SqliteStore(StoreSettings(), SqliteSettings(str(disk / "x.sqlite")), reactor, clock)

    subject = Subject("sqlite", in_reactor, make, clock)
    for number in range(200):
        items = [subject.item(f"{number}-{i}", b"x" * 1800, expire=(60, 6000)[i % 2]) for i in range(20)]
        if REFUSED in subject.append(*items):
            break
    for _ in range(2):
        clock.seconds += 5000
        subject.purge()
    assert subject.push("again", b"x" * 200_000).ret == RET_OK
    subject.close()


def test_room_that_another_file_gives_back_is_not_all_taken(in_reactor: InReactor, disk: Path) -> None:
    """Where not even the reserve was enough meanwhile. What is missing for good afterwards is missing for expiry."""
    clock = FakeTime()

    def make() -> SqliteStore:
        return SqliteStore(StoreSettings(), SqliteSettings(str(disk / "x.sqlite")), reactor, clock)

    subject = Subject("sqlite", in_reactor, make, clock)
    store: Any = subject.store
    logs = store._logs
    purge = logs._purge

    def full() -> bool:
        wrong = sqlite3.OperationalError("database or disk is full")
        wrong.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise wrong

    logs._purge = full
    with pytest.raises(UnavailableError, match="full"):
        subject.purge()
    logs._purge = purge
    stored = fill(subject)
    assert (disk / "x.sqlite-reserve").exists()
    clock.seconds += 1000
    subject.purge()
    assert subject.read("k0") == []
    assert fill(subject) >= stored - 1
    subject.close()


def test_pushes_do_not_take_the_place_of_a_reserve_that_was_given_up(in_reactor: InReactor, disk: Path) -> None:
    subject = open_sqlite(in_reactor, disk / "x.sqlite")
    reserve = disk / "x.sqlite-reserve"
    size = reserve.stat().st_size
    reserve.unlink()
    with (disk / "filler").open("wb") as filler:
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        os.posix_fallocate(filler.fileno(), 0, free - size * 4 // 3)
    subject.purge()
    assert fill(subject, b"x" * 200_000) < 2
    (disk / "filler").unlink()
    subject.purge()
    assert reserve.exists()
    assert subject.push("again", BIG).ret == RET_OK
    subject.close()


@pytest.mark.parametrize("how", ["empty", "sparse"])
def test_a_reserve_without_its_blocks_is_made_anew(in_reactor: InReactor, disk: Path, how: str) -> None:
    """As a start leaves it that is killed, and a copy that leaves out what is all zeros."""
    open_sqlite(in_reactor, disk / "x.sqlite").close()
    reserve = disk / "x.sqlite-reserve"
    whole = reserve.stat()
    reserve.write_bytes(b"")
    if how == "sparse":
        os.truncate(reserve, whole.st_size)
    open_sqlite(in_reactor, disk / "x.sqlite").close()
    assert (reserve.stat().st_size, reserve.stat().st_blocks) == (whole.st_size, whole.st_blocks)


def test_a_file_system_that_does_not_say_how_large_it_is_has_no_bound(
    in_reactor: InReactor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result([4096, 4096, *[0] * 8]))
    subject = open_sqlite(in_reactor, tmp_path / "x.sqlite")
    for number in range(5):
        subject.push(f"k{number}", BIG)
    subject.purge()
    assert subject.push("more", BIG).ret == RET_OK
    subject.close()
    assert not list(tmp_path.glob("*-reserve"))
    expect_room(str(tmp_path / "copy"), 1 << 40)


def test_a_quota_is_a_full_disk_for_what_gives_room_back(in_reactor: InReactor, tmp_path: Path) -> None:
    """Of which SQLite only says that writing failed."""
    subject = open_sqlite(in_reactor, tmp_path / "x.sqlite")
    subject.push()
    store: Any = subject.store
    logs = store._logs
    delete, reserve = logs._delete, tmp_path / "x.sqlite-reserve"

    def within_quota(key: str) -> None:
        if reserve.exists():
            wrong = sqlite3.OperationalError("disk I/O error")
            wrong.sqlite_errorcode = sqlite3.SQLITE_IOERR_WRITE
            raise wrong
        delete(key)

    logs._delete = within_quota
    subject.delete("k")
    assert subject.read("k") == []
    subject.close()


def test_a_copy_to_move_from_takes_no_room_that_pushes_need(in_reactor: InReactor, disk: Path) -> None:
    subject = open_sqlite(in_reactor, disk / "x.sqlite")
    for number in range(9):
        subject.push(f"k{number}", BIG)
    with pytest.raises(UnavailableError, match="too little room"), opened(disk / "x.sqlite"):
        pass
    assert not list(disk.glob("*-migrate"))
    assert subject.push("more", BIG).ret == RET_OK
    subject.close()


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_files_that_are_taken_away_are_noticed(in_reactor: InReactor, tmp_path: Path, how: str) -> None:
    """What is written into a file without a name is gone when the process ends: it must not be acknowledged."""
    path = tmp_path / "x.sqlite"
    subject = open_sqlite(in_reactor, path)
    subject.push()
    in_reactor(subject.store.ping)
    with logged() as lines:
        if how == "replaced":
            shutil.copy(path, tmp_path / "y.sqlite")
            os.replace(tmp_path / "y.sqlite", path)
        else:
            path.unlink()
        for _ in range(3):
            with pytest.raises(UnavailableError, match=how):
                subject.push()
            with pytest.raises(UnavailableError, match=how):
                in_reactor(subject.store.ping)
        assert len(lines) == 1
        assert lines[0].startswith(f"{path}: was {how} while")
    subject.close()


def test_a_link_is_followed_to_where_the_log_and_the_room_are(
    in_reactor: InReactor, tmp_path: Path, disk: Path
) -> None:
    link = tmp_path / "x.sqlite"
    link.symlink_to(disk / "x.sqlite")
    subject = open_sqlite(in_reactor, link)
    assert not list(tmp_path.glob("x.sqlite-*"))
    assert (disk / "x.sqlite-reserve").stat().st_size == DISK_BYTES // 8
    mid = subject.push().mid
    with opened(link) as (copy, at_rest):
        assert not at_rest
        assert copy.execute("SELECT mid FROM messages").fetchall() == [(mid,)]
    fill(subject)
    subject.delete("k")
    log = disk / "x.sqlite-wal"
    log.rename(disk / "elsewhere")
    with pytest.raises(UnavailableError, match=f"{log} was removed"):
        subject.push()
    subject.close()


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_link_that_names_another_file_is_noticed(in_reactor: InReactor, tmp_path: Path, how: str) -> None:
    """The next start would not find what is written now."""
    link = tmp_path / "link.sqlite"
    link.symlink_to(tmp_path / "x.sqlite")
    subject = open_sqlite(in_reactor, link)
    link.unlink()
    if how == "replaced":
        (tmp_path / "y.sqlite").touch()
        link.symlink_to(tmp_path / "y.sqlite")
    with pytest.raises(UnavailableError, match=f"^{link}: was {how} while"):
        subject.push()
    subject.close()


@pytest.mark.parametrize("taken", ["x.sqlite", "x.sqlite-wal"])
def test_what_failed_while_files_were_away_is_not_there_when_they_are_back(
    in_reactor: InReactor, tmp_path: Path, taken: str
) -> None:
    """Whoever repeats a push until it is acknowledged would have it stored once for each attempt."""
    subject = open_sqlite(in_reactor, tmp_path / "x.sqlite")
    subject.push(body=b"before")
    subject.create_token("k", b"digest", int(time.time()) + 1000)
    (tmp_path / taken).rename(tmp_path / "elsewhere")
    for _ in range(3):
        with pytest.raises(UnavailableError):
            subject.push(id="once", body=b"once")
        with pytest.raises(UnavailableError):
            subject.push(body=b"never")
        with pytest.raises(UnavailableError):
            subject.revoke_token("k", b"digest")
        with pytest.raises(UnavailableError):
            subject.delete("k")
        with pytest.raises(UnavailableError):
            subject.create_token("k", b"other", int(time.time()) + 1000)
    (tmp_path / "elsewhere").rename(tmp_path / taken)
    assert not subject.push(id="once", body=b"once").repeat
    assert subject.push(id="once", body=b"once").repeat
    assert subject.bodies("k") == [b"before", b"once"]
    assert [token.digest for token in subject.tokens("k")] == [b"digest"]
    subject.close()


@pytest.mark.parametrize("path", ["", ":memory:", "file:gopush.sqlite", "file::memory:?cache=shared"])
def test_what_would_end_with_the_process_is_no_database(tmp_path: Path, path: str) -> None:
    ini = tmp_path / "message.ini"
    ini.write_text(f"[sqlite]\npath = {path}\n")
    with pytest.raises(SettingsError, match=r"\[sqlite\] path: .* is no path of a file .* type = memory keeps"):
        load(SqliteSettings, ini)


@pytest.mark.parametrize("path", ["a\0b.sqlite", "a\x7fb", "a\n  b", "a\tb"])
def test_a_path_has_no_control_characters(tmp_path: Path, path: str) -> None:
    """SQLite refuses a NUL in its own way: the start ended with a traceback."""
    ini = tmp_path / "message.ini"
    ini.write_text(f"[sqlite]\npath = {path}\n")
    with pytest.raises(SettingsError, match=r"\[sqlite\] path: .* holds a control character"):
        load(SqliteSettings, ini)


def test_a_token_is_found_among_many(in_reactor: InReactor, tmp_path: Path) -> None:
    """Guessing must not cost more than the guess: the tokens of a key are bounded, and one is looked for by itself."""
    subject = open_sqlite(in_reactor, tmp_path / "x.sqlite")
    ends = int(time.time()) + 1000
    for number in range(MOST_TOKENS + 20):
        subject.create_token("k", b"%d" % number, ends + number)
    assert len(subject.tokens("k")) == MOST_TOKENS
    assert subject.store.numbers["sqlite"].counters.dropped_tokens == 20
    assert not subject.check_token("k", b"19").valid
    assert subject.check_token("k", b"20").valid
    statements: list[str] = []
    store: Any = subject.store
    in_reactor(store._logs._connection.set_trace_callback, statements.append)
    assert subject.check_token("k", b"wrong") == (True, False)
    in_reactor(store._logs._connection.set_trace_callback, None)
    plan = store._logs._connection.execute(f"EXPLAIN QUERY PLAN {statements[0]}").fetchall()
    assert not any("SCAN tokens" in row[-1] or "SCAN messages" in row[-1] for row in plan)
    subject.close()


def test_an_id_may_have_any_character(in_reactor: InReactor, tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    subject = open_sqlite(in_reactor, path)
    first = subject.push(id="a\0b", body=b"1")
    other = subject.push(id="a\0c", body=b"2")
    assert not other.repeat
    assert subject.push(id="a\0b").repeat
    assert subject.bodies() == [b"1", b"2"]
    subject.close()
    subject = open_sqlite(in_reactor, path)
    again = subject.push(id="a\0b")
    assert (again.repeat, again.mid) == (True, first.mid)
    assert not subject.push(id="a").repeat
    subject.close()
