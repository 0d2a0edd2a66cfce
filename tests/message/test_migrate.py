"""`gopush migrate`: what one process kept in SQLite, in Redis or HBase, as it was."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from twisted.internet.defer import Deferred, succeed

from gopush.client import cli
from gopush.client import migrate as client
from gopush.message import migrate as message
from gopush.message.rules import NO_HEAD, KeptLog
from gopush.message.sqlite.settings import SqliteSettings
from gopush.message.sqlite.store import SqliteStore
from gopush.message.store import StoreSettings
from gopush.model import Append, Push
from tests.chaos.cluster import Ini, Node
from tests.clients import TcpClient
from tests.conftest import InReactor, reactor
from tests.integration.systems import settle
from tests.integration.test_administration import http
from tests.message.older import SQLITE
from tests.servers.hbase import ThriftServer
from tests.servers.redis import RedisServer


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


class Target(NamedTuple):
    """A store to move to: as the command is told of it, and as a process is."""

    named: str
    ini: Ini


@pytest.fixture(params=["redis", "hbase"])
def target(request: pytest.FixtureRequest) -> Target:
    if request.param == "redis":
        source = f"node1:1 {request.getfixturevalue('redis').source}"
        return Target(f"redis:{source}", {"storage": {"type": "redis", "store": "50"}, "redis": {"source": source}})
    thrift = request.getfixturevalue("thrift")
    table = f"table{time.time_ns()}"
    thrift.create(table, "m", "i", "t")
    # All shares two cores: HBase answers late.
    hbase = {"thrift": thrift.address, "table": table, "timeout": "5s"}
    slow = {"timeout": "20s", "attempt": "25s", "deadline": "30s"}
    return Target(
        f"hbase:{thrift.address}/{table}",
        {"storage": {"type": "hbase", "store": "50"}, "hbase": hbase, "rpc": slow},
    )


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Node]:
    """A process alone, on SQLite."""
    node = Node("gopush", "gopush", tmp_path, {"storage": {"store": "50"}})
    node.start()
    settle([node], comets=1, messages=1)
    yield node
    node.kill()


def started(tmp_path: Path, target: Target) -> Node:
    """A process alone on the store."""
    node = Node("gopush", "target", tmp_path, target.ini)
    node.start()
    settle([node], comets=1, messages=1)
    return node


def push(node: Node, key: str, body: Any, **more: str) -> int:
    query = {"key": key, "expire": "600", "mid": "1", **more}
    _, answer = http(node.address("admin"), "POST", "/1/admin/push/private", body=json.dumps(body).encode(), **query)
    assert answer["ret"] == 0, answer
    return int(answer["data"]["mid"])


def kept(node: Node, key: str) -> list[tuple[int, Any]]:
    _, answer = http(node.address("http"), "GET", "/1/msg/get", k=key, m="0")
    return [(one["mid"], one["msg"]) for one in answer.get("data", {}).get("msgs", [])]


def tokens_of(node: Node, key: str) -> list[Any]:
    _, answer = http(node.address("admin"), "GET", "/1/admin/key", key=key)
    found: list[Any] = answer["data"]["tokens"]
    return found


def migrate(tmp_path: Path, target: Target) -> int:
    return cli.main(["migrate", "--from", f"sqlite:{tmp_path / 'gopush.sqlite'}", "--to", target.named])


def test_all_moves_while_the_source_serves_and_the_rest_when_it_is_stopped(
    tmp_path: Path, source: Node, target: Target, capfd: pytest.CaptureFixture[str]
) -> None:
    for number in range(60):
        push(source, "trimmed", number)  # 50 are kept
    for number in range(40):
        push(source, f"key-{number}", {"number": number, "text": "\u00e4\u2028"}, id=f"id-{number}")
    push(source, "short", "soon gone", expire="1")
    http(source.address("admin"), "POST", "/1/admin/token", key="guarded", expire="600")
    assert migrate(tmp_path, target) == 1
    assert "in use: stop it, and make a last pass" in capfd.readouterr().out
    assert migrate(tmp_path, target) == 1, "again: nothing is there twice"
    again = capfd.readouterr().out
    assert re.search(r"of 4\d keys [01], 0 messages, [1-9]\d+ ids, ", again), "short may have ended"
    for number in range(5):
        push(source, f"key-{number}", "later")
    http(source.address("admin"), "POST", "/1/admin/msg/del", body=b"key=key-7")
    keys = ["trimmed", "guarded", *(f"key-{number}" for number in range(40))]
    before = {key: kept(source, key) for key in keys}
    tokens = tokens_of(source, "guarded")
    assert len(tokens) == 1
    time.sleep(1.1)  # until what is short is gone
    source.stop()
    capfd.readouterr()
    assert migrate(tmp_path, target) == 0
    assert "at rest: this was the last pass" in capfd.readouterr().out
    moved = started(tmp_path, target)
    try:
        assert {key: kept(moved, key) for key in keys} == before
        assert len(before["trimmed"]) == 50
        assert before["key-7"] == []
        assert kept(moved, "short") == []
        assert tokens_of(moved, "guarded") == tokens
        # An id is known, a head goes on, and what was trimmed is told.
        assert push(moved, "key-3", "a repeat", id="id-3") == before["key-3"][0][0]
        assert push(moved, "key-3", "new") > before["key-3"][-1][0]
        with TcpClient(moved.ports["tcp"]) as device:
            device.subscribe("trimmed", "30", "", "1", "16")
            assert device.read(4) == b"+g\r\n"
            assert [json.loads(device.message())["msg"] for _ in range(50)] == list(range(10, 60))
    finally:
        moved.kill()
    # What the target has given since stays, whatever is moved once more.
    assert migrate(tmp_path, target) == 0
    moved = started(tmp_path, target)
    try:
        assert [body for _, body in kept(moved, "key-3")][-2:] == ["later", "new"]
    finally:
        moved.kill()


def test_a_token_that_was_revoked_before_the_last_pass_is_not_moved(
    tmp_path: Path, source: Node, target: Target
) -> None:
    admin = source.address("admin")
    _, made = http(admin, "POST", "/1/admin/token", key="guarded", expire="600")
    http(admin, "POST", "/1/admin/token", key="guarded", expire="600")
    assert migrate(tmp_path, target) == 1
    _, revoked = http(admin, "DELETE", "/1/admin/token", key="guarded", token=made["data"]["token"])
    assert revoked["ret"] == 0
    left = tokens_of(source, "guarded")
    assert len(left) == 1
    source.stop()
    assert migrate(tmp_path, target) == 0
    moved = started(tmp_path, target)
    try:
        assert tokens_of(moved, "guarded") == left
    finally:
        moved.kill()


def test_an_id_that_outlives_its_log_is_moved(
    tmp_path: Path, in_reactor: InReactor, target: Target, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = StoreSettings(head_life=0.001)
    store = SqliteStore(settings, SqliteSettings(str(tmp_path / "gopush.sqlite")), reactor)
    in_reactor(store.start)
    try:
        push_with_id = Push("forgotten", b"1", 0, "the-id", 3600, time.time() + 60)
        (first,) = in_reactor(lambda: store.append([Append(push_with_id, 0)]))
        while in_reactor(lambda: store.heads(["forgotten"])) != [NO_HEAD]:
            in_reactor(store.purge)
    finally:
        in_reactor(store.stop)
    assert migrate(tmp_path, target) == 0
    assert "of 1 keys 1, 0 messages, 1 ids, 0 tokens moved" in capfd.readouterr().out
    time.sleep(1.1)  # its head stays as long as its ids
    assert migrate(tmp_path, target) == 0
    assert "of 1 keys 0, 0 messages, 1 ids, 0 tokens moved" in capfd.readouterr().out
    moved = started(tmp_path, target)
    try:
        assert push(moved, "forgotten", "a repeat", id="the-id") == first.mid
        assert kept(moved, "forgotten") == []
        assert push(moved, "forgotten", "new", id="another") > first.mid
    finally:
        moved.kill()


def test_what_was_pushed_there_between_two_passes_stays(tmp_path: Path, source: Node, target: Target) -> None:
    """Although nobody should, before the last pass."""
    push(source, "k", "first")
    push(source, "gone", "deleted")
    assert migrate(tmp_path, target) == 1
    early = started(tmp_path, target)
    try:
        acknowledged = push(early, "k", "there")
    finally:
        early.kill()
    push(source, "k", "last")
    http(source.address("admin"), "POST", "/1/admin/msg/del", body=b"key=gone")
    push(source, "gone", "new")
    source.stop()
    for _ in range(2):
        assert migrate(tmp_path, target) == 0
        moved = started(tmp_path, target)
        try:
            found = kept(moved, "k")
            assert [body for _, body in found] == ["first", "there", "last"]
            assert found[1][0] == acknowledged
            assert [body for _, body in kept(moved, "gone")] == ["new"]
        finally:
            moved.kill()


@pytest.mark.parametrize(
    ("source", "to", "complaint"),
    [
        ("none.sqlite", "redis:node1:1 HERE", "none.sqlite: there is no such file"),
        ("text.sqlite", "redis:node1:1 HERE", "text.sqlite: file is not a database"),
        ("empty.sqlite", "redis:node1:1 HERE", "is no database of this gopush"),
        ("empty.sqlite", "redis:127.0.0.1:6379", "which is not name:weight"),
        ("empty.sqlite", "mysql:somewhere", "is neither redis:SOURCE nor the ini file"),
        ("empty.sqlite", "/nowhere/gopush-nod1.ini", "--to: '/nowhere/gopush-nod1.ini' is neither redis:SOURCE nor"),
        ("empty.sqlite", "/nowhere/gopush-nod1.ini", ": as a file it cannot be read: No such file or directory"),
        ("empty.sqlite", "/", ": as a file it cannot be read: Is a directory"),
        ("empty.sqlite", "redi:node1:1 tcp@HOST#hunter2", "--to: (hidden) is neither redis:SOURCE nor"),
        (
            "empty.sqlite",
            "hbase:localhost",
            "--to hbase: 'localhost' holds 'localhost', which is not host:port (try loc",
        ),
        ("empty.sqlite", "hbase:localhost:9090/", "--to hbase: 'localhost:9090/' names no table behind its /"),
    ],
)
def test_what_cannot_be_moved_is_said(
    tmp_path: Path, redis: RedisServer, capfd: pytest.CaptureFixture[str], source: str, to: str, complaint: str
) -> None:
    (tmp_path / "text.sqlite").write_text("no database at all" * 100)
    sqlite3.connect(tmp_path / "empty.sqlite").close()
    (tmp_path / "empty.sqlite").touch()
    to = to.replace("HERE", redis.source)
    assert cli.main(["migrate", "--from", f"sqlite:{tmp_path / source}", "--to", to]) == 3
    assert complaint in capfd.readouterr().err


def test_without_redis_nothing_moves(tmp_path: Path, source: Node, capfd: pytest.CaptureFixture[str]) -> None:
    to = "redis:node1:1 tcp@127.0.0.1:1"
    assert cli.main(["migrate", "--from", f"sqlite:{tmp_path / 'gopush.sqlite'}", "--to", to]) == 1
    assert "gopush: Redis (--to): cannot be reached at 127.0.0.1:1: " in capfd.readouterr().err
    assert source.pid


@pytest.mark.parametrize(
    ("to", "status", "complaint"),
    [
        ("hbase:127.0.0.1:1", 1, "gopush: HBase: Thrift server 127.0.0.1:1: cannot be reached"),
        ("hbase:THRIFT/nowhere", 3, "there is no table nowhere (gopush hbase create makes it)"),
        ("hbase:nowhere", 3, "--to hbase: 'nowhere' "),
    ],
)
def test_without_a_table_nothing_moves(
    tmp_path: Path, thrift: ThriftServer, capfd: pytest.CaptureFixture[str], to: str, status: int, complaint: str
) -> None:
    shutil.copyfile(SQLITE, tmp_path / "gopush.sqlite")
    to = to.replace("THRIFT", thrift.address)
    assert cli.main(["migrate", "--from", f"sqlite:{tmp_path / 'gopush.sqlite'}", "--to", to]) == status
    assert complaint in capfd.readouterr().err


class Taken:
    """A store that takes over, in memory; `logs`: what it has taken. `reactor`: that of the pass."""

    reactor: Any
    most_body = 100

    def __init__(self) -> None:
        self.logs: list[KeptLog] = []

    def on(self, reactor: Any) -> Taken:
        self.reactor = reactor
        return self

    async def start(self) -> None:
        pass

    def stop(self) -> Deferred[None]:
        return succeed(None)

    async def take(self, logs: Sequence[KeptLog], now: float) -> list[KeptLog]:
        self.logs += logs
        return list(logs)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Taken:
    """The target of each pass, in calls of one log."""
    taken = Taken()
    monkeypatch.setattr(client, "_target", lambda _: taken.on)
    monkeypatch.setattr(message, "CALL_LOGS", 1)
    return taken


@pytest.mark.parametrize(
    ("stdout", "why"),
    [
        ("no reader", "stdout cannot be written: Broken pipe"),
        ("full", "stdout cannot be written: No space left on device"),
        ("closed", "stdout is closed"),
    ],
)
def test_a_pass_ends_whatever_becomes_of_what_it_prints(
    tmp_path: Path,
    taken: Taken,
    stdout: str,
    why: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    shutil.copyfile(SQLITE, tmp_path / "gopush.sqlite")
    reader, writer = os.pipe()
    os.close(reader)
    with open("/dev/full", "w") as full, os.fdopen(writer, "w") as unread:
        monkeypatch.setattr("sys.stdout", {"no reader": unread, "full": full, "closed": None}[stdout])
        monkeypatch.setattr(message, "TELL_SECONDS", -1.0)
        assert cli.main(["migrate", "--from", f"sqlite:{tmp_path / 'gopush.sqlite'}", "--to", "redis:none"]) == 0
    *progress, last = capfd.readouterr().err.splitlines()
    assert {log.key for log in taken.logs} == {"trimmed", "id", "deleted", "sequenced", "guarded"}
    assert [line.split(",")[0] for line in progress] == [f"gopush: {keys} keys looked at" for keys in range(1, 6)]
    assert last == f"gopush: the pass is over, but {why}"


def test_a_message_that_is_too_large_for_the_target_is_named_and_stops_no_other(
    tmp_path: Path, taken: Taken, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copyfile(SQLITE, tmp_path / "gopush.sqlite")
    command = ["migrate", "--from", f"sqlite:{tmp_path / 'gopush.sqlite'}", "--to", "redis:none"]
    assert cli.main(command) == 0
    bodies, taken.logs = [body for log in taken.logs for _, _, body in log.messages], []
    largest = max(map(len, bodies))
    taken.most_body = largest - 1
    assert cli.main(command) == 3
    assert [body for log in taken.logs for _, _, body in log.messages] == [one for one in bodies if len(one) < largest]
    assert " messages were not moved, and never can be (keys: '" in capfd.readouterr().err


def test_a_pass_keeps_time_by_a_clock_that_nobody_sets(tmp_path: Path, taken: Taken) -> None:
    shutil.copyfile(SQLITE, tmp_path / "gopush.sqlite")
    assert cli.main(["migrate", "--from", f"sqlite:{tmp_path / 'gopush.sqlite'}", "--to", "redis:none"]) == 0
    assert abs(taken.reactor.seconds() - time.monotonic()) < 60


@pytest.mark.parametrize("name", ["comet.ini", "web.ini", "node1.ini"])
def test_an_ini_file_without_a_store_is_none_to_move_to(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    shutil.copyfile(SQLITE, tmp_path / "gopush.sqlite")
    ini = tmp_path / name
    ini.write_text("[base]\nrpc.bind = localhost:6970\n[zookeeper]\naddr = localhost:2181\n")
    assert cli.main(["migrate", "--from", f"sqlite:{tmp_path / 'gopush.sqlite'}", "--to", str(ini)]) == 3
    assert f"{name}: has no store ([storage]): name a message node's file" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("storage", "complaint"), [("sqlite", "is no store to move to (set redis or hbase)"), ("redis", "")]
)
def test_the_ini_file_of_who_will_serve_names_the_store(
    tmp_path: Path, redis: RedisServer, capfd: pytest.CaptureFixture[str], storage: str, complaint: str
) -> None:
    """As README.md calls a member's: its name tells no role."""
    shutil.copyfile(SQLITE, tmp_path / "gopush.sqlite")
    ini = tmp_path / "node1.ini"
    ini.write_text(f"[storage]\ntype = {storage}\n[redis]\nprefix = other:\nsource = node1:1 {redis.source}\n")
    status = cli.main(["migrate", "--from", f"sqlite:{tmp_path / 'gopush.sqlite'}", "--to", str(ini)])
    assert status == (3 if complaint else 0)
    assert complaint in capfd.readouterr().err
    assert (redis.call("EXISTS", "other:h:trimmed") == 1) == (not complaint)


def test_a_database_that_cannot_be_copied_is_said(
    tmp_path: Path, source: Node, redis: RedisServer, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gopush.sqlite-migrate").write_text("in the way")
    assert source.pid
    assert (
        cli.main(["migrate", "--from", f"sqlite:{tmp_path / 'gopush.sqlite'}", "--to", f"redis:a:1 {redis.source}"])
        == 1
    )
    assert "gopush.sqlite: it cannot be copied beside itself: File exists" in capfd.readouterr().err


def test_a_pass_at_rest_removes_the_copy_that_somebody_left_who_was_killed(tmp_path: Path, redis: RedisServer) -> None:
    shutil.copyfile(SQLITE, tmp_path / "gopush.sqlite")
    copy = tmp_path / "gopush.sqlite-migrate"
    copy.mkdir()
    (copy / "copy").write_text("left behind")
    command = ["migrate", "--from", f"sqlite:{tmp_path / 'gopush.sqlite'}", "--to", f"redis:a:1 {redis.source}"]
    assert cli.main(command) == 0
    assert not copy.exists()


def test_one_moves_a_database_at_a_time(
    tmp_path: Path, source: Node, redis: RedisServer, capfd: pytest.CaptureFixture[str]
) -> None:
    """What somebody left who was killed goes; what somebody needs who is at it stays."""
    command = ["migrate", "--from", f"sqlite:{tmp_path / 'gopush.sqlite'}", "--to", f"redis:a:1 {redis.source}"]
    assert source.pid
    copy = tmp_path / "gopush.sqlite-migrate"
    copy.mkdir()
    (copy / "copy").write_text("left behind")
    lock = os.open(copy, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    assert cli.main(command) == 1
    assert "another one moves this database already" in capfd.readouterr().err
    assert [file.name for file in copy.iterdir()] == ["copy"]
    os.close(lock)
    assert cli.main(command) == 1
    assert "in use: stop it, and make a last pass" in capfd.readouterr().out
    assert not copy.exists()
