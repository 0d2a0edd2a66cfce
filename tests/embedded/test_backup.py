"""A copy of the SQLite store, asked for by the command line while the process serves."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gopush.client import cli
from gopush.comet.settings import SubscriberSettings
from gopush.config.values import listeners
from gopush.embedded.node import EmbeddedNode
from gopush.embedded.settings import EmbeddedSettings
from gopush.message.sqlite.settings import SqliteSettings
from gopush.web.settings import HttpSettings
from tests.conftest import InReactor, reactor
from tests.http.client import Client
from tests.servers import free_port

BODY = b'"' + b"x" * 100_000 + b'"'
FILLED = 60


class World:
    """A whole gopush on a file, or in memory."""

    def __init__(self, in_reactor: InReactor, path: Path, storage: str = "sqlite") -> None:
        self.path = path
        self.ports = {name: free_port() for name in ("tcp", "websocket", "stat", "http", "admin")}
        bind = {f"{name}_bind": listeners(f"localhost:{port}") for name, port in self.ports.items()}
        http = {name: bind.pop(name) for name in ("http_bind", "admin_bind")}
        settings = EmbeddedSettings(
            subscribers=SubscriberSettings(**bind),  # type: ignore[arg-type]
            http=HttpSettings(**http),  # type: ignore[arg-type]
            storage=storage,
            sqlite=SqliteSettings(str(path)),
        )
        self._in_reactor = in_reactor
        self._node = in_reactor(EmbeddedNode, reactor, settings)
        in_reactor(self._node.startService)

    def push(self, key: str, body: bytes = b"1") -> int:
        with Client(self.ports["admin"]) as client:
            answer = client.request("POST", f"/1/admin/push/private?key={key}&expire=600&mid=1", body)
        return int(json.loads(answer.body)["data"]["mid"])

    def kept(self, key: str) -> list[int]:
        with Client(self.ports["http"]) as client:
            answer = client.request("GET", f"/1/msg/get?k={key}&m=0")
        return [message["mid"] for message in json.loads(answer.body).get("data", {}).get("msgs", [])]

    def backup(self, file: Path) -> int:
        return cli.main(["backup", str(file), "--admin", f"localhost:{self.ports['admin']}"])

    def metrics(self) -> str:
        with Client(self.ports["stat"]) as client:
            return client.request("GET", "/metrics").body.decode()

    def close(self) -> None:
        self._in_reactor(self._node.stopService)


@pytest.fixture
def world(in_reactor: InReactor, tmp_path: Path) -> Iterator[World]:
    world = World(in_reactor, tmp_path / "gopush.sqlite")
    yield world
    world.close()


def test_the_copy_starts_as_a_store_with_all_that_was_acknowledged(
    world: World, in_reactor: InReactor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pushes go on meanwhile: each is answered before the backup is done."""
    before = {f"k{n}": world.push(f"k{n}", BODY) for n in range(FILLED)}
    copy = tmp_path / "copy.sqlite"
    during: dict[str, int] = {}
    done = threading.Event()

    def go_on() -> None:
        while not done.is_set():
            key = f"d{len(during)}"
            during[key] = world.push(key)

    pushing = threading.Thread(target=go_on)
    pushing.start()
    try:
        assert world.backup(copy) == 0
    finally:
        done.set()
        pushing.join()
    assert len(during) > 1
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert f"{copy}  {copy.stat().st_size} bytes" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir() if "copy" in path.name) == ["copy.sqlite"]
    assert 'gopush_message_store_backups_total{store="sqlite"} 1.0' in world.metrics()
    after = world.push("after")

    restored = World(in_reactor, copy)
    try:
        assert {key: restored.kept(key) for key in before} == {key: [mid] for key, mid in before.items()}
        # Of what came during it a first part is there, and nothing in between is missing.
        there = [restored.kept(key) == [mid] for key, mid in during.items()]
        assert there == sorted(there, reverse=True)
        assert restored.kept("after") == []
        assert restored.push("after") >= after
    finally:
        restored.close()


def test_nothing_is_overwritten(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = tmp_path / "taken"
    taken.write_text("mine")
    os.symlink("nowhere", tmp_path / "link")
    for file, why in (
        (taken, "is there already; a backup overwrites nothing"),
        (tmp_path / "link", "is there already; a backup overwrites nothing"),
        (tmp_path / "none" / "file", "sees no such directory"),
    ):
        assert world.backup(file) == cli.REFUSED
        said = capsys.readouterr().err
        assert (said.count("\n"), str(file) in said, why in said) == (1, True, True), said
    assert taken.read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()
    assert 'gopush_message_store_failed_backups_total{store="sqlite"} 3.0' in world.metrics()


def test_a_directory_that_cannot_be_looked_at_is_refused(world: World, tmp_path: Path) -> None:
    """A name that is too long stands for one that this user may not enter: there the system refuses even the look."""
    with Client(world.ports["admin"]) as client:
        path = f"/1/admin/backup?file={tmp_path}/{'n' * 256}/file&id=1"
        answer = client.request("POST", path, b"", "Prefer: why\r\n")
    assert json.loads(answer.body)["ret"] == 65534
    assert b"sees no such directory" in answer.body


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_a_file_system_needs_no_hard_links(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    """FAT and exFAT have none. There, too, nothing is overwritten, also not what came during the backup."""
    came: list[Path] = []

    def refuse(part: str, path: str) -> None:
        for file in came:
            file.write_text("mine")
        raise OSError(number, os.strerror(number), part, None, path)

    monkeypatch.setattr(os, "link", refuse)
    assert world.backup(tmp_path / "copy") == 0
    came.append(tmp_path / "other")
    assert world.backup(tmp_path / "other") == cli.REFUSED
    assert f"{tmp_path / 'other'}: File exists" in capsys.readouterr().err
    assert (tmp_path / "other").read_text() == "mine"
    assert (tmp_path / "copy").read_bytes().startswith(b"SQLite format 3")
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("size", [251, 256])
def test_a_name_that_is_too_long_is_refused(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], size: int
) -> None:
    """Also where only the name of the part is."""
    assert world.backup(tmp_path / ("n" * size)) == cli.REFUSED
    assert "the name of the file is too long (.part stands behind it" in capsys.readouterr().err
    assert world.backup(tmp_path / ("n" * 250)) == 0


def test_a_relative_file_is_refused_by_the_process(world: World) -> None:
    """Its working directory is nobody's business; the command makes paths absolute."""
    with Client(world.ports["admin"]) as client:
        answer = client.request("POST", "/1/admin/backup?file=copy&id=1", b"", "Prefer: why\r\n")
    assert json.loads(answer.body)["ret"] == 65534
    assert b"absolute path" in answer.body


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
def test_a_full_disk_is_said_in_one_line_and_leaves_nothing(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for n in range(20):
        world.push(f"k{n}", BODY)
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=True)
    try:
        assert world.backup(disk / "copy") == cli.FAILED
        said = capsys.readouterr().err
        assert (said.count("\n"), "the disk has too little room" in said) == (1, True), said
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    world.push("still")
    assert len(world.kept("still")) == 1


def test_a_store_in_memory_says_that_there_is_nothing_to_save(
    in_reactor: InReactor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(in_reactor, tmp_path / "none.sqlite", "memory")
    try:
        assert world.backup(tmp_path / "copy") == cli.REFUSED
        assert "there is nothing to save" in capsys.readouterr().err
    finally:
        world.close()
