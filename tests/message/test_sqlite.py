"""What only the SQLite store does: its file, its thread, and what kill -9 leaves of it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gopush.errors import StartError, UnavailableError
from gopush.message.sqlite.file import UPGRADES, open_file
from gopush.message.sqlite.settings import SqliteSettings
from gopush.message.sqlite.store import SqliteStore
from gopush.message.store import StoreSettings
from gopush.model import Head
from tests.conftest import reactor
from tests.message.conftest import OpenStore
from tests.message.subject import FakeTime, Subject

PROCESSES = 5
ROUNDS = 4


def open_sqlite(in_reactor: Any, path: Path, store: int = 20) -> Subject:
    clock = FakeTime()
    clock.seconds = time.time()

    def make() -> SqliteStore:
        return SqliteStore(StoreSettings(store), SqliteSettings(str(path)), reactor, clock)

    return Subject("sqlite", in_reactor, make, clock)


def test_kill_9_loses_nothing_that_was_acknowledged(in_reactor: Any, tmp_path: Path) -> None:
    """20 times: five processes, each killed and followed by another one on the same file four times."""
    paths = [tmp_path / f"{n}.sqlite" for n in range(PROCESSES)]
    acknowledged: dict[Path, list[int]] = {path: [] for path in paths}
    for _ in range(ROUNDS):
        writers = {path: _start_writer(path) for path in paths}
        first = {path: writer.stdout.readline() for path, writer in writers.items() if writer.stdout}
        time.sleep(0.2)
        for path, writer in writers.items():
            writer.kill()
            rest = writer.communicate()[0]
            reported = [int(line) for line in (first[path] + rest).split()]
            assert len(reported) > 10, "it was killed before it wrote anything to speak of"
            acknowledged[path] += reported
    for path in paths:
        subject = open_sqlite(in_reactor, path, 1_000_000)
        stored = [message.mid for message in subject.read()]
        subject.close()
        assert stored == sorted(set(stored))
        assert set(acknowledged[path]) <= set(stored)


def _start_writer(path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "tests.message.writer", str(path)], stdout=subprocess.PIPE)


def test_a_second_process_is_refused(in_reactor: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    writer = _start_writer(path)
    try:
        assert writer.stdout
        assert writer.stdout.readline()
        with pytest.raises(StartError) as refused:
            open_sqlite(in_reactor, path)
        assert str(refused.value) == f"[sqlite] path: {path}: is in use by another process"
    finally:
        writer.kill()
        writer.communicate()
    open_sqlite(in_reactor, path).close()


def test_a_link_and_what_it_names_are_one_database(in_reactor: Any, tmp_path: Path) -> None:
    link, path = tmp_path / "link.sqlite", tmp_path / "x.sqlite"
    link.symlink_to(path)  # which is not there yet
    subject = open_sqlite(in_reactor, link)
    subject.push()
    assert {file.name for file in tmp_path.glob("link*")} == {link.name}
    assert (tmp_path / "x.sqlite-wal").stat().st_size
    for name in (link, path):
        with pytest.raises(StartError, match=f"{name}: is in use by another process"):
            open_sqlite(in_reactor, name)
    subject.close()
    link.unlink()
    link.symlink_to(tmp_path / "nowhere" / "x.sqlite")
    with pytest.raises(StartError, match=r"\(a link to \S*/nowhere/x.sqlite\): .* there is no such directory"):
        open_sqlite(in_reactor, link)


def test_a_file_that_cannot_be_used_is_refused_in_one_line(in_reactor: Any, tmp_path: Path) -> None:
    text = tmp_path / "text.sqlite"
    text.write_text("no database at all, but longer than a header would be" * 100)
    broken = tmp_path / "broken.sqlite"
    broken.write_bytes(b"SQLite format 3\0" + b"\xff" * 4080)
    newer = tmp_path / "newer.sqlite"
    connection = sqlite3.connect(newer)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    for path, words in [
        (tmp_path / "nowhere" / "x.sqlite", "there is no such directory"),
        (tmp_path / ("n" * 256) / "x.sqlite", "there is no such directory"),
        (tmp_path, "Is a directory"),
        (text, "file is not a database"),
        (broken, "file is not a database"),
        (newer, f"written by a newer gopush (schema 99, this one knows {len(UPGRADES)})"),
    ]:
        with pytest.raises(StartError) as refused:
            open_sqlite(in_reactor, path)
        assert str(refused.value).startswith(f"[sqlite] path: {path}: ")
        assert words in str(refused.value)
        assert "\n" not in str(refused.value)


def _without_tables(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {len(UPGRADES)}")


def _with_a_broken_page(path: Path, table: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", [table]).fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 4096)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_without_tables, "no such table"),
        (partial(_with_a_broken_page, table="ids"), "malformed"),
    ],
)
def test_what_is_found_broken_after_it_was_opened_is_refused_in_one_line(
    in_reactor: Any, tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    path = tmp_path / "x.sqlite"
    if words == "malformed":
        open_sqlite(in_reactor, path).close()
    damage(path)
    with pytest.raises(StartError, match=words) as refused:
        open_sqlite(in_reactor, path)
    assert str(refused.value).startswith(f"[sqlite] path: {path}: cannot be opened: ")
    with closing(sqlite3.connect(path, timeout=0)) as connection:  # it is let go of
        connection.execute("BEGIN IMMEDIATE")


@pytest.mark.parametrize("version", range(len(UPGRADES)))
def test_every_older_schema_is_brought_up_to_date(tmp_path: Path, version: int) -> None:
    path = tmp_path / "old.sqlite"
    old = sqlite3.connect(path)
    for upgrade in UPGRADES[:version]:
        old.executescript(upgrade)
    old.execute(f"PRAGMA user_version = {version}")
    old.close()
    connection = open_file(str(path))
    assert connection.execute("PRAGMA user_version").fetchone() == (len(UPGRADES),)
    assert connection.execute("SELECT count(*) FROM logs").fetchone() == (0,)
    connection.close()


def test_every_commit_is_on_the_disk(tmp_path: Path) -> None:
    connection = open_file(str(tmp_path / "x.sqlite"))
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    connection.close()


def test_a_store_that_is_not_open_is_unavailable(in_reactor: Any, tmp_path: Path) -> None:
    store = SqliteStore(StoreSettings(), SqliteSettings(str(tmp_path / "x.sqlite")), reactor)
    with pytest.raises(UnavailableError):
        in_reactor(store.heads, ["k"])
    in_reactor(store.stop)


def test_a_failing_commit_changes_nothing_and_the_next_one_works(
    in_reactor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = open_sqlite(in_reactor, tmp_path / "x.sqlite")
    first = subject.push(id="a")
    with monkeypatch.context() as patch:
        patch.setattr("gopush.message.sqlite.log._ADD_IDS", "INSERT INTO absent VALUES (?)")
        with pytest.raises(UnavailableError, match="no such table"):
            subject.push(id="b")
    assert subject.head() == Head(first.mid, 0)
    assert len(subject.read()) == 1
    assert not subject.push(id="b").repeat
    subject.close()


def test_what_expired_leaves_the_file(open_store: OpenStore) -> None:
    subject = open_store("sqlite", head_life=10)
    for n in range(5):
        subject.append(*[subject.item(f"key{n}{m}", id=f"{m}", expire=m % 3, dedupe=5) for m in range(200)])
    subject.push("own", expire=1, id="own", dedupe=0)
    subject.create_token("k", b"d", int(subject.now()) + 5)
    subject.wait(100)
    for _ in range(20):
        subject.purge()
    store: Any = subject.store
    logs = store._logs
    assert logs._firsts == {}
    for table in ("logs", "messages", "ids", "tokens"):
        assert logs._connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


def test_what_is_alive_stays_in_the_file(open_store: OpenStore) -> None:
    subject = open_store("sqlite", head_life=10)
    subject.append(*[subject.item(f"key{m}", id=f"{m}", expire=600, dedupe=60) for m in range(100)])
    subject.wait(50)
    for _ in range(20):
        subject.purge()
    assert all(len(subject.read(f"key{m}")) == 1 for m in range(100))
    assert all(answer.repeat for answer in subject.append(*[subject.item(f"key{m}", id=f"{m}") for m in range(100)]))


def test_its_files_are_nobody_elses(tmp_path: Path) -> None:
    """twistd sets a umask where it makes a daemon, and none in the foreground."""
    before = os.umask(0o022)
    try:
        opened = open_file(str(tmp_path / "store"))
        opened.execute("INSERT INTO tokens VALUES ('k', 'd', 1)")
        assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
        opened.close()
    finally:
        os.umask(before)
