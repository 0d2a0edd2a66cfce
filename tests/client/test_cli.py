from __future__ import annotations

import io
import json
import os
import re
import shutil
import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

import gopush
from gopush.__main__ import main as command
from gopush.client import administration, cli, load
from gopush.client.address import Server
from gopush.client.options import ROLES
from gopush.client.output import NoReaderError
from gopush.client.subscriber import Subscriber
from gopush.errors import NoNodeError, ParameterError, UnavailableError
from tests.servers.authority import Authority

ETC = Path(__file__).resolve().parents[2] / "etc"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the command asked of gopush, which answers two messages and the mid 32."""
    calls: list[Any] = []

    def messages(device: Subscriber, follow: bool) -> Iterator[bytes]:
        calls.append((device.web, device.key, device.token, device.heartbeat, device.cursor, follow))
        device.tell("subscribed")
        yield from (b"16", b"32")

    def push(*given: object) -> int:
        calls.append(given)
        return 32

    def history(*given: object) -> list[bytes]:
        calls.append(given)
        return [b"16", b"32"]

    monkeypatch.setattr(Subscriber, "messages", messages)
    monkeypatch.setattr(cli, "push", push)
    monkeypatch.setattr(cli, "history", history)
    return calls


def test_sub_prints_messages(calls: list[Any], capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sub", "key"]) == 0
    assert calls == [("localhost:8090", "key", "", 30, None, True)]
    assert capfd.readouterr() == ("16\n32\n", "gopush: subscribed\n")


def test_sub_takes_what_a_device_may_say(calls: list[Any], capfd: pytest.CaptureFixture[str]) -> None:
    options = ["--web", "w:1", "--token", "t", "--heartbeat", "60", "--mid", "0", "--count", "1", "--once"]
    assert cli.main(["sub", "key", *options]) == 0
    assert calls == [("w:1", "key", "t", 60, 0, False)]
    assert capfd.readouterr().out == "16\n"


def test_push_says_nothing_or_the_mid(calls: list[Any], capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["push", "key", '{"ü":1}']) == 0
    assert cli.main(["push", "key", "1", "--expire", "0", "--id", "once", "--admin", "a:1", "--mid"]) == 0
    assert calls == [
        (Server("localhost:8091"), "key", '{"ü":1}'.encode(), 600, calls[0][4]),
        (Server("a:1"), "key", b"1", 0, "once"),
    ]
    assert capfd.readouterr().out == "32\n"


def test_an_id_that_is_given_stays_also_where_it_is_empty(web: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """A script's `--id "$UNSET"` became a new id each time, so that a repeat was stored again; gopush refuses it."""
    web.RequestHandlerClass.answer = b'{"ret":65534}'
    assert cli.main(["push", "key", "1", "--id", "", "--admin", f"127.0.0.1:{web.server_port}"]) == 3
    assert "65534" in capfd.readouterr().err
    assert web.RequestHandlerClass.asked.endswith("&id=")


def test_push_tries_again_with_one_id_for_as_long_as_it_is_asked(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """protocol.md, section 10: a repeat with the same id stores nothing."""
    failures: list[Exception] = [NoNodeError("no node"), UnavailableError("down")]
    ids = []

    def push(admin: Server, key: str, body: bytes, expire: int, id: str) -> int:
        ids.append(id)
        if failures:
            raise failures.pop(0)
        return 32

    monkeypatch.setattr(cli, "push", push)
    monkeypatch.setattr("gopush.client.http.RETRY_SECONDS", 0.001)
    assert cli.main(["push", "key", "1", "--wait", "60", "--mid"]) == 0
    assert capfd.readouterr() == ("32\n", "")
    assert len(ids) == 3
    assert len(set(ids)) == 1
    failures.append(UnavailableError("down"))
    assert cli.main(["push", "key", "1"]) == 1
    assert len(ids) == 4
    assert ids[3] not in ids[:3]


def test_push_reads_no_endless_stdin(
    calls: list[Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gopush.client.output.MOST_STDIN_BYTES", 1 << 20)
    with open("/dev/zero") as endless:
        monkeypatch.setattr("sys.stdin", endless)
        with pytest.raises(SystemExit) as ended:
            cli.main(["push", "key", "-"])
    assert ended.value.code == 2
    assert capfd.readouterr().err == "gopush: stdin has 1,048,576 bytes or more: no message is so large\n"
    assert calls == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "--role", "web", "-c"],
        ["convert", "--role", "web"],
        ["nodes", "--admin", "localhost:1", "--api-key-file"],
    ],
)
def test_a_file_that_does_not_end_is_refused(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*arguments, "/dev/zero"]) == 3
    assert capfd.readouterr().err == "gopush: /dev/zero: has 16 MiB or more: this is another file\n"


def test_push_reads_stdin(calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"[1,\n2]\n")))
    assert cli.main(["push", "key", "-"]) == 0
    assert calls[0][2] == b"[1,\n2]\n"


def test_push_makes_no_more_room_for_stdin_than_it_needs(calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    class Piecewise(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            assert size is not None
            assert 0 < size <= 1 << 20
            return super().read(size)

    body = b'"' + b"a" * (5 << 19) + b'"'
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(Piecewise(body)))
    assert cli.main(["push", "key", "-"]) == 0
    assert calls[0][2] == body


@pytest.mark.parametrize(
    ("command", "call", "query"),
    [
        (["weight", "node1", "3"], "node/weight", {"node": "node1", "weight": "3"}),
        (["drain", "node1"], "node/drain", {"node": "node1"}),
        (["undrain", "node1"], "node/undrain", {"node": "node1"}),
        (["close", "k"], "key/close", {"key": "k"}),
    ],
)
def test_nodes_are_administered(
    command: list[str],
    call: str,
    query: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    asked: list[Any] = []

    def administer(*given: Any) -> dict[str, Any]:
        asked.append(given)
        return {"closed": "2"} if given[1] == "key/close" else {}

    monkeypatch.setattr(cli, "administer", administer)
    (tmp_path / "key").write_text("secret\n")
    assert cli.main([*command, "--admin", "a:1", "--api-key-file", str(tmp_path / "key")]) == 0
    assert asked == [(Server("a:1", "secret"), call, query)]
    assert capfd.readouterr() == ("2\n" if call == "key/close" else "", "")


def test_nodes_are_listed_in_columns(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    names = ("role", "node", "state", "weight", "connections", "channels", "age", "version")
    comet = dict(zip(names, ("comet", "node1", "active", "1", "12345", "9", "60", "1.0.0"), strict=True))
    silent = comet | dict.fromkeys(names[4:])
    monkeypatch.setattr(cli, "nodes", lambda *_: [comet | {"rpc": ["c:1"]}, silent | {"rpc": ["c:2", "c:3"]}])
    assert cli.main(["nodes"]) == 0
    assert capfd.readouterr().out.splitlines() == [
        "role   node   state   weight  connections  channels  age  version  rpc",
        "comet  node1  active  1       12345        9         60   1.0.0    c:1",
        "comet  node1  active  1       -            -         -    -        c:2",
    ]


RAW = '{"msg":"\x7f\x9b2J\u061c\u202e\u2066\u200f\u2028 \u00fc\u05d0\U0001f600","mid":16,"gid":0}'
SHOWN = '{"msg":"\\u007f\\u009b2J\\u061c\\u202e\\u2066\\u200f\\u2028 \u00fc\u05d0\U0001f600","mid":16,"gid":0}'


@pytest.mark.parametrize("command", ["history", "sub"])
@pytest.mark.parametrize(("terminal", "expected"), [(True, SHOWN), (False, RAW)])
def test_a_message_does_nothing_to_the_terminal_that_shows_it(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, expected: str, command: str
) -> None:
    """U+009B begins a command to it, U+202E turns around what follows; escaped, it is the same JSON."""
    assert json.loads(SHOWN) == json.loads(RAW)
    monkeypatch.setattr(cli, "history", lambda *_: [RAW.encode()])
    monkeypatch.setattr(Subscriber, "messages", lambda *_, **__: iter([RAW.encode()]))
    reader, writer = os.openpty() if terminal else os.pipe()
    with open(writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert cli.main([command, "key"]) == 0
        assert os.read(reader, 1000).decode().rstrip() == expected
    os.close(reader)


def test_history_prints_messages(calls: list[Any], capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["history", "key", "--after", "15", "--web", "w:1", "--token", "t"]) == 0
    assert calls == [(Server("w:1"), "key", 15, "t")]
    assert capfd.readouterr().out == "16\n32\n"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UnavailableError("down"), 1),
        (NoNodeError("down"), 1),
        (ParameterError("down"), 3),
        (NoReaderError("down"), 0),
    ],
)
def test_the_exit_status_says_how_it_ended(
    error: BaseException, status: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def history(*given: object) -> None:
        raise error

    monkeypatch.setattr(cli, "history", history)
    monkeypatch.setattr("os.dup2", lambda *given: None)
    assert cli.main(["history", "key"]) == status
    assert capfd.readouterr().err == ("gopush: down\n" if status in (1, 3) else "")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nothing"],
        ["sub"],
        ["sub", "key", "--mid", "-1"],
        ["sub", "key", "--mid", str(2**63)],
        ["sub", "key", "--count", "0"],
        ["token", "list", "key", "--life", "5"],
        ["push", "key"],
        ["push", "key", "1", "--expire", "soon"],
        ["check"],
    ],
)
def test_wrong_usage_is_status_2(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert "usage: gopush" in capfd.readouterr().err


@pytest.mark.parametrize("role", ROLES)
def test_check_knows_a_role_by_the_files_name(role: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = ETC / f"{role}.ini"
    assert cli.main(["check", "-c", str(path)]) == 0
    assert capfd.readouterr().out == f"{path}: good for {role}\n"


@pytest.mark.parametrize("endpoint", ["systemd:domain=INET:index=0", "systemd:INET6:1", "systemd:UNIX:name=web"])
def test_check_has_no_sockets_of_systemd(endpoint: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "web.ini"
    path.write_text(f"[base]\nhttp.bind =\n  {endpoint}\n  haproxy:{endpoint}\n")
    assert cli.main(["check", "-c", str(path)]) == 0
    assert capfd.readouterr().out == f"{path}: good for web\n"


def test_check_says_what_is_wrong(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "comet-1.ini").write_text("[base]\nweight = heavy\n")
    (tmp_path / "some.ini").write_text("")
    assert cli.main(["check", "-c", str(tmp_path / "comet-1.ini")]) == 3
    assert "[base] weight: 'heavy' is not a whole number" in capfd.readouterr().err
    assert cli.main(["check", "-c", str(tmp_path / "some.ini")]) == 3
    assert "use --role" in capfd.readouterr().err
    assert cli.main(["check", "-c", str(tmp_path / "some.ini"), "--role", "web"]) == 0


@pytest.mark.parametrize("content", ["", "# nothing\n", "[base]\n# weight = 2\n"])
def test_check_warns_of_a_file_that_holds_no_option(
    content: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Who writes it may have failed: a disk is full, a template is broken."""
    path = tmp_path / "gopush.ini"
    path.write_text(content)
    assert cli.main(["check", "-c", str(path)]) == 0
    assert f"gopush: {path}: holds no option: all are the defaults\n" in capfd.readouterr().err
    path.write_text("[base]\nuser =\n")
    assert cli.main(["check", "-c", str(path)]) == 0
    assert capfd.readouterr().err == ""


TLS_FILES = "tls.ca = /no/ca\ntls.cert = /no/cert\ntls.key = /no/key\n"
NOT_USED = "tls.ca, tls.cert, tls.key are set, and not used"


@pytest.mark.parametrize(
    ("role", "content", "warning"),
    [
        ("web", f"[zookeeper]\n{TLS_FILES}", f"[zookeeper] {NOT_USED}: [zookeeper] tls = yes would use them"),
        (
            "web",
            "[zookeeper]\ntls = yes\ntls.key = /no/key\n",
            "[zookeeper] tls.key is set, and not used: [zookeeper] tls.cert would use it",
        ),
        ("gopush", f"[rpc]\n{TLS_FILES}", f"[rpc] {NOT_USED}: [zookeeper] addr would use them"),
        (
            "message",
            f"[redis]\n{TLS_FILES}",
            f"[redis] {NOT_USED}: rediss@ or rediss-sentinel@ in [redis] source would use them",
        ),
        (
            "message",
            "[redis]\nsentinel.password = secret\n",
            "[redis] sentinel.password is set, and not used: sentinel@ or rediss-sentinel@ in [redis] source would use "
            "it",
        ),
        (
            "message",
            f"[storage]\ntype = hbase\n[hbase]\n{TLS_FILES}",
            f"[hbase] {NOT_USED}: [hbase] tls = yes would use them",
        ),
        *(
            (
                role,
                "[token]\nsigned.key = /no/key\n",
                "[token] signed.key is set, and not used: [token] signed.alg would use it",
            )
            for role in ("comet", "web", "gopush")
        ),
        ("message", f"[storage]\ntype = memory\n[redis]\n{TLS_FILES}[hbase]\n{TLS_FILES}", ""),
        (
            "web",
            "[zookeeper]\ntimeout = 2s\n",
            "[zookeeper] timeout: 2 s is too short to keep: look-ups may name a dead process for 2.5 s (let it be 3s "
            "or more, or settle shorter)",
        ),
        ("web", "[zookeeper]\ntimeout = 3s\n", ""),
    ],
)
def test_check_warns_of_what_hardly_anybody_means(
    role: str, content: str, warning: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Somebody may believe that what is not used protects something. One line, and no error: it does no harm itself."""
    path = tmp_path / f"{role}.ini"
    path.write_text(f"[base]\nuser =\n{content}")
    assert cli.main(["check", "-c", str(path)]) == 0
    assert capfd.readouterr().err == (f"gopush: {path}: {warning}\n" if warning else "")


def test_check_warns_of_certificates_that_have_ended(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    authority = Authority(tmp_path)
    late, good = authority.issue("late", expired=True), authority.issue("good")
    path = tmp_path / "web.ini"
    bound = "ssl:1:interface=127.0.0.1:privateKey="
    path.write_text(
        f"[base]\nuser =\nhttp.bind = {bound}{late.key}:certKey={late.certificate}\n"
        f"admin.bind = {bound.replace('1', '2', 1)}{good.key}:certKey={good.certificate}\n"
        f"[rpc]\ntls.ca = {authority.path}\ntls.cert = {late.certificate}\ntls.key = {late.key}\n"
    )
    assert cli.main(["check", "-c", str(path)]) == 0
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 2
    for line, option in zip(said, ("[base] http.bind", "[rpc] tls.cert"), strict=True):
        start = re.escape(f"gopush: {path}: {option}: {late.certificate}: the certificate has ended at ")
        assert re.fullmatch(start + r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC: renew it .*", line), line


def test_check_names_a_file_that_is_not_there(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("nofile", "comet.ini"):
        assert cli.main(["check", "-c", str(tmp_path / name)]) == 3
        assert capfd.readouterr().err.lower().startswith(f"gopush: {tmp_path / name}: cannot be read: ")


OPEN = "rpc.bind = 0.0.0.0:7000\nrpc.advertise = 10.0.0.1:7000\n"


@pytest.mark.parametrize(
    ("role", "content", "complaint"),
    [
        ("web", "[base]\nadmin.bind = 0.0.0.0:8091\n", "[base] admin.bind: tcp:8091:interface=0.0.0.0"),
        ("web", "[admin]\nkeys = /no/such/file\n", "[admin] keys: the file cannot be read: No such file"),
        (
            "web",
            "[rpc]\ntls.ca = /no/ca\ntls.cert = /no/cert\ntls.key = /no/key\n",
            "[rpc] tls.ca, tls.cert, tls.key: /no/",
        ),
        (
            "message",
            "[redis]\nsource = node1:1 rediss@localhost:6379\ntls.ca = /no/such/file\n",
            "[redis] tls.ca: /no/such/file: cannot be read: No such file",
        ),
        ("web", "[base]\nhttp.bind = ssl:443:privateKey=/none:certKey=/none\n", "[base] http.bind: ssl:443:"),
        ("comet", "[base]\ntcp.bind = 0.0.0.0:6969\n", "others cannot connect to that; set tcp.advertise"),
        ("comet", f"[base]\n{OPEN}", "[base] rpc.bind: tcp:7000:interface=0.0.0.0"),
        ("message", f"[base]\n{OPEN}", "[base] rpc.bind: tcp:7000:interface=0.0.0.0"),
        ("comet", "[token]\nsigned.alg = HS256\nsigned.key = /no/such/file\n", "signed.key: the file cannot be read"),
        ("comet", "[zookeeper]\naddr = 10.0.0.1:2181\n", "[zookeeper] addr: 10.0.0.1:2181 can be reached"),
        ("comet", "[zookeeper]\ntls = yes\ntls.ca = /no/such/file\n", "[zookeeper] tls.ca"),
        ("web", "[zookeeper]\naddr = zk..example:2181\n", "'zk..example:2181': this is not a valid host name"),
        *(
            (role, f"[zookeeper]\naddr = {none}\n", f"[zookeeper] addr: '{none}' names no server (try localhost:2181;")
            for role in ("comet", "message", "web")
            for none in ("", ",")
        ),
        ("web", "[http]\nbody.size = 0\n", "[http] body.size: '0' is too small for a push, 256 bytes at least"),
        ("gopush", "[http]\nmprivate.size = 16\n", "[http] mprivate.size: '16' is too small for a push"),
        ("web", f"[zookeeper]\naddr = {'z' * 64}.example:2181\n", "this is not a valid host name"),
        ("gopush", "[base]\nadmin.bind = 0.0.0.0:8091\n", "[base] admin.bind: tcp:8091:interface=0.0.0.0"),
        ("web", "[base]\nhttp.bind = fd:3\n", "a socket that systemd hands over is systemd:domain=INET:index=0"),
    ],
)
def test_check_refuses_what_the_start_refuses(
    role: str, content: str, complaint: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It makes all that a process is made of, and starts nothing."""
    path = tmp_path / f"{role}.ini"
    path.write_text(content)
    assert cli.main(["check", "-c", str(path)]) == 3
    reported = capfd.readouterr().err
    assert reported.startswith(f"gopush: {path}: ")
    assert complaint in reported


@pytest.mark.parametrize("role", ["message", "gopush"])
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("missing/store.sqlite", "there is no such directory"),
        ('"store.sqlite"', "there is no such directory"),
        ("directory", "Is a directory"),
        ("text", "file is not a database"),
        ("pipe", "not seekable"),
        ("/dev/null", "is no file on a disk"),
        ("locked/store.sqlite", "this user cannot write to its directory"),
        ("locked/there.sqlite", "this user cannot write to its directory"),
        ("link", "there is no such directory"),
    ],
)
def test_check_looks_at_the_database(
    role: str, name: str, why: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked" / "there.sqlite").touch()
    (tmp_path / "link").symlink_to("missing/store.sqlite")
    (tmp_path / "text").write_text("no database")
    os.mkfifo(tmp_path / "pipe")
    # Root may write anywhere.
    monkeypatch.setattr(os, "access", lambda path, _: Path(path).name != "locked")
    path = tmp_path / f"{role}.ini"
    leads = f" (a link to {tmp_path}/missing/store.sqlite)" if name == "link" else ""
    file = f'"{tmp_path}/store.sqlite"' if name.startswith('"') else str(tmp_path / name)
    path.write_text(f"[base]\nuser =\n[storage]\ntype = sqlite\n[sqlite]\npath = {file}\n")
    assert cli.main(["check", "-c", str(path)]) == 3
    reported = capfd.readouterr().err
    assert reported.startswith(f"gopush: {path}: [sqlite] path: {file}{leads}: cannot be opened: ")
    assert why in reported


@pytest.mark.parametrize("role", ["web", "gopush"])
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("missing/socket", "there is no such directory"),
        ("x" * 108, "the path has more than 107 bytes"),
        ("text", "something that is no socket has this name"),
        ("directory", "something that is no socket has this name"),
        ("locked/socket", "this user cannot write to its directory"),
    ],
)
def test_check_looks_at_the_paths_of_unix_sockets(
    role: str, name: str, why: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for directory in ("directory", "locked"):
        (tmp_path / directory).mkdir()
    (tmp_path / "text").write_text("no socket")
    monkeypatch.setattr(os, "access", lambda path, _: Path(path).name != "locked")
    path = tmp_path / f"{role}.ini"
    for endpoint in (f"unix:{tmp_path}/{name}", f"haproxy:unix:address={tmp_path}/{name}:mode=660"):
        path.write_text(f"[base]\nuser =\nhttp.bind = {endpoint}\n")
        assert cli.main(["check", "-c", str(path)]) == 3
        assert f"gopush: {path}: [base] http.bind: {endpoint}: {why}" in capfd.readouterr().err


def test_check_takes_a_unix_socket_that_is_there(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "web.ini"
    path.write_text(f"[base]\nhttp.bind = unix:{tmp_path}/there unix:{tmp_path}/new\n")
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(str(tmp_path / "there"))
        assert cli.main(["check", "-c", str(path)]) == 0
    assert not (tmp_path / "new").exists()


def test_check_makes_no_database_and_lets_one_be(tmp_path: Path) -> None:
    path, store = tmp_path / "gopush.ini", tmp_path / "store.sqlite"
    path.write_text(f"[sqlite]\npath = {store}\n")
    assert cli.main(["check", "-c", str(path)]) == 0
    assert not store.exists()
    with closing(sqlite3.connect(store)) as connection:
        connection.execute("PRAGMA user_version = 1")
    written = store.read_bytes()
    assert cli.main(["check", "-c", str(path)]) == 0
    assert store.read_bytes() == written
    store.write_bytes(b"")
    assert cli.main(["check", "-c", str(path)]) == 0


@pytest.mark.parametrize("role", ["comet", "message", "gopush"])
def test_check_compares_the_names_of_the_certificate_with_the_advertised_address(
    role: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Others look for that in it: with another name nobody could call this process."""
    authority = Authority(tmp_path)
    path = tmp_path / f"{role}.ini"

    def check(advertised: str, *names: str) -> str:
        issued = authority.issue("own", *names)
        path.write_text(
            f"[base]\nuser =\nrpc.bind = 0.0.0.0:7000\nrpc.advertise = {advertised}:7000\n"
            f"[zookeeper]\naddr = 127.0.0.1:2181\n[storage]\ntype = redis\n"
            f"[rpc]\ntls.ca = {authority.path}\ntls.cert = {issued.certificate}\ntls.key = {issued.key}\n"
        )
        if role == "comet":
            path.write_text(path.read_text().replace("[storage]\ntype = redis\n", ""))
        cli.main(["check", "-c", str(path)])
        return capfd.readouterr().err

    assert check("10.0.0.2", "node1.example.org", "10.0.0.2") == ""
    assert check("node1.example.org", "node1.example.org") == ""
    for advertised, named in (("10.0.0.2", "10.0.0.3"), ("node1.example.org", "node2.example.org")):
        said = check(advertised, named)
        assert said.startswith(f"gopush: {path}: [rpc] tls.cert: {tmp_path / 'own.crt'}: is not for {advertised}, ")


@pytest.mark.parametrize(
    "endpoint", ["203.0.113.9:5000", "ssl:5000:interface=203.0.113.9:privateKey={0}/own.key:certKey={0}/own.crt"]
)
def test_check_warns_of_an_address_that_this_machine_lacks(
    endpoint: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not more: it may be checked on another machine than it is for, and addresses move between machines."""
    Authority(tmp_path).issue("own")
    path = tmp_path / "gopush.ini"
    path.write_text(f"[base]\nstat.bind = {endpoint.format(tmp_path)} localhost:5000\n")
    assert cli.main(["check", "-c", str(path)]) == 0
    out, err = capfd.readouterr()
    assert out == f"{path}: good for gopush\n"
    assert re.fullmatch(
        r"gopush: \S+: \[base\] stat.bind: \S+203\.0\.113\.9\S*: as this machine is now, a start fails: "
        r"cannot assign requested address\n",
        err,
    ), err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_check_warns_root_of_a_user_that_cannot_read_gopush(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not more: who starts it as another user is not concerned."""
    locked = tmp_path / "locked"
    locked.mkdir(0o700)
    (locked / "gopush.py").touch()
    monkeypatch.setattr(gopush, "__file__", str(locked / "gopush.py"))
    path = tmp_path / "message.ini"
    for content, warning in (
        (
            "",
            r"'nobody' cannot read /.+, as it must \(empty: stay root\): good only where another user than "
            r"root starts it\n",
        ),
        ("user = daemon\n", r"'daemon' cannot read /.+: root may not be able to start it\n"),
        ("user =\n", None),
    ):
        path.write_text(f"[base]\n{content}[node]\nweight = 1\n")
        assert cli.main(["check", "-c", str(path)]) == 0
        out, err = capfd.readouterr()
        assert out == f"{path}: good for message\n"
        if warning:
            assert re.fullmatch(f"gopush: {re.escape(str(path))}: \\[base\\] user: {warning}", err), err
        else:
            assert err == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize(
    ("role", "lines", "why"),
    [
        (
            "gopush",
            "[sqlite]\npath = {}/mine/x",
            "[sqlite] path: {}/mine/x: cannot be opened: this user cannot write to its",
        ),
        (
            "message",
            "[storage]\ntype = sqlite\n[sqlite]\npath = {}/mine/x",
            "[sqlite] path: {}/mine/x: cannot be opened",
        ),
        (
            "web",
            "[token]\nsigned.alg = HS256\nsigned.key = {}/secret",
            "[token] signed.key: the file cannot be read: Perm",
        ),
        ("comet", "tcp.bind = ssl:1:interface=127.0.0.1:privateKey={0}/own.key:certKey={0}/own.crt", "{}/own.key: "),
    ],
)
def test_check_warns_root_of_what_the_user_cannot_read_or_write_once_the_process_runs(
    role: str, lines: str, why: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Root reads keys and certificates, and then the user reads them anew; the user alone opens the database."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        (directory / "mine").mkdir(0o755)
        Authority(directory).issue("own").key.chmod(0o600)
        (directory / "secret").write_text("s" * 64)
        (directory / "secret").chmod(0o600)
        path = directory / f"{role}.ini"

        def check(user: str) -> tuple[int, str]:
            path.write_text(f"[base]\nuser = {user}\n{lines.format(name)}\n")
            return cli.main(["check", "-c", str(path)]), capfd.readouterr().err

        status, said = check("nobody")
        assert status == 0
        assert f"gopush: {path}: [base] user: once the process is 'nobody': " in said
        assert why.format(name) in said
        assert check("") == (0, "")
        for made in (directory / "mine", directory / "own.key", directory / "secret"):
            shutil.chown(made, "nobody")
        assert "once the process" not in check("nobody")[1]


def test_ini_prints_a_file_that_can_be_used(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ini", "comet"]) == 0
    (tmp_path / "comet.ini").write_text(capfd.readouterr().out)
    assert cli.main(["check", "-c", str(tmp_path / "comet.ini")]) == 0


def test_names_its_version(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capfd.readouterr().out == f"gopush {gopush.__version__}\n"


INTERRUPT = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a run in a shell's background ignores it
class Interrupt:
    def find_spec(self, name, *_):
        if name == "gopush.client.http":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
from gopush.__main__ import main
sys.exit(main())
"""


def test_a_command_that_is_interrupted_while_it_is_read_ends_without_a_traceback() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ETC.parent)}
    ended = subprocess.run([sys.executable, "-c", INTERRUPT], capture_output=True, env=environment, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, b"", b"")


def test_a_command_that_is_interrupted_later_ends_so_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "main", interrupted)
    assert command() == 130


def test_a_reader_that_has_seen_enough_ends_it_quietly() -> None:
    command = [sys.executable, "-c", "import sys; from gopush.client.cli import main; sys.exit(main(['ini', 'comet']))"]
    environment = {**os.environ, "PYTHONPATH": str(ETC.parent)}
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        ended = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, env=environment, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, b"")


class Web(BaseHTTPRequestHandler):
    """Stores every push, and counts them; `asked` is the latest path, `answer` what it says."""

    asked = ""
    answer = b'{"ret":0,"data":{"mid":32}}'
    pushes = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        type(self).pushes += 1
        type(self).asked = self.path
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.answer)))
        self.end_headers()
        self.wfile.write(self.answer)

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.answer)))
        self.end_headers()
        self.wfile.write(self.answer)

    def log_message(self, format: str, *words: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[Any]:
    class Own(Web):
        pass

    with HTTPServer(("127.0.0.1", 0), Own) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("role", ROLES)
def test_ready_asks_the_process_of_the_file(
    web: Any, role: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    address = f"127.0.0.1:{web.server_address[1]}"
    path = tmp_path / f"{role}.ini"
    path.write_text(f"[base]\nstat.bind = {address}\n")
    for answer, why in (
        (b'{"alive":true,"ready":false,"reason":"store: away"}', "is not ready: store: away"),
        (b"[]", "did not answer as gopush does"),
    ):
        web.RequestHandlerClass.answer = answer
        assert cli.main(["ready", "-c", str(path)]) == 1
        assert capfd.readouterr().err == f"gopush: {address} {why}\n"
    ready = threading.Timer(0.2, setattr, (web.RequestHandlerClass, "answer", b'{"alive":true,"ready":true}'))
    ready.start()
    assert cli.main(["ready", "-c", str(path), "--wait", "30"]) == 0
    ready.join()


@pytest.mark.parametrize("clients", [False, True], ids=["anybody", "clients with certificates"])
def test_ready_asks_over_tls(web: Any, clients: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """As docs/monitoring has it: the certificate is for the name that others use, and clients need one of the CA."""
    authority = Authority(tmp_path)
    own = authority.issue("comet", "comet1.example.org")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.path))
    context.load_cert_chain(*own)
    context.verify_mode = ssl.CERT_REQUIRED if clients else ssl.CERT_NONE
    web.socket = context.wrap_socket(web.socket, server_side=True)
    path = tmp_path / "comet.ini"
    asks = f":clientCA={authority.path}" if clients else ""
    path.write_text(f"[base]\nstat.bind = ssl:{web.server_port}:{own.endpoint}{asks}:interface=127.0.0.1\n")
    web.RequestHandlerClass.answer = b'{"alive":true,"ready":false,"reason":"store: away"}'
    assert cli.main(["ready", "-c", str(path)]) == 1
    assert capfd.readouterr().err == f"gopush: https://127.0.0.1:{web.server_port} is not ready: store: away\n"
    web.RequestHandlerClass.answer = b'{"alive":true,"ready":true}'
    assert cli.main(["ready", "-c", str(path)]) == 0
    if clients:
        own.key.unlink()
        assert cli.main(["ready", "-c", str(path)]) == 3
        assert "comet.crt: cannot be shown, with " in capfd.readouterr().err


def test_ready_says_who_cannot_be_asked(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "web.ini"
    path.write_text("[base]\nstat.bind = localhost:1\n")
    assert cli.main(["ready", "-c", str(path)]) == 1
    assert capfd.readouterr().err == "gopush: 127.0.0.1:1 cannot be reached: Connection refused\n"
    path.write_text("[base]\nstat.bind = unix:/run/socket\n")
    assert cli.main(["ready", "-c", str(path)]) == 3
    assert "web.ini: [base] stat.bind: holds no TCP address" in capfd.readouterr().err


def run(*arguments: str | bytes, shell: str = "", seconds: float = 30) -> subprocess.CompletedProcess[bytes]:
    """The command in a process of its own, with its streams as `shell` has them."""
    command = [sys.executable, "-m", "gopush", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ETC.parent)}
    return subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {shell}', "sh", *command], capture_output=True, env=environment, timeout=seconds
    )


@pytest.mark.parametrize("shell", [">&-", ">/dev/full", ">&- 2>&-", ">/dev/full 2>/dev/full"])
@pytest.mark.parametrize("more", [(), ("--mid",)], ids=["plain", "mid"])
def test_a_push_that_was_stored_is_status_0(web: Any, shell: str, more: tuple[str, ...]) -> None:
    """Who is told to try again would push it twice."""
    admin = f"127.0.0.1:{web.server_port}"
    ended = run("push", "key", "1", "--admin", admin, *more, shell=shell)
    assert (ended.returncode, web.RequestHandlerClass.pushes) == (0, 1)
    assert b"Traceback" not in ended.stderr
    if more and "2>" not in shell:
        assert ended.stderr.startswith(b"gopush: the message is stored, but stdout ")


@pytest.mark.parametrize("shell", [">&-", ">/dev/full"])
@pytest.mark.parametrize(
    ("command", "data", "status", "done"),
    [
        ("close key", {"closed": 1}, 0, "the connections are closed"),
        ("weight node1 2", {"nodes": 1}, 0, "the weight is changed"),
        ("drain node1", {"nodes": 1}, 0, "the node drains"),
        ("undrain node1", {"nodes": 1}, 0, "the node is taken back"),
        ("backup file", {"state": "done", "size": 1}, 0, "the copy is made"),
        ("token create key", {"token": "t", "expires": 1}, 1, "a token is made"),
    ],
)
def test_what_was_done_is_said_where_its_outcome_cannot_be_written(
    web: Any, command: str, data: dict[str, Any], status: int, done: str, shell: str
) -> None:
    """Only who has asked for a token has nothing then."""
    web.RequestHandlerClass.answer = json.dumps({"ret": 0, "data": data}).encode()
    ended = run(*command.split(), "--admin", f"127.0.0.1:{web.server_port}", shell=shell)
    assert ended.stderr.startswith(f"gopush: {done}, but stdout ".encode())
    assert (ended.returncode, ended.stderr.count(b"\n")) == (status, 1)


@pytest.mark.parametrize(
    ("name", "why"),
    [(b"removed", " has no name (No such file or directory)"), (b"\xff", "'s name is not UTF-8")],
    ids=["removed", "not UTF-8"],
)
def test_a_backup_goes_to_a_file_with_a_name(
    name: bytes, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []

    def ask(*given: Any) -> dict[str, Any]:
        asked.append(given)
        return {"state": "done", "size": 1}

    monkeypatch.setattr(administration, "ask", ask)
    directory = tmp_path / os.fsdecode(name)
    directory.mkdir()
    monkeypatch.chdir(directory)
    if name == b"removed":
        directory.rmdir()
    assert cli.main(["backup", "file"]) == 3
    assert capfd.readouterr().err == f"gopush: the working directory{why}: name the file with its whole path\n"
    assert cli.main(["backup", "/file"]) == 0
    assert [query["file"] for _, _, _, query, _ in asked] == ["/file"]


def unread(*arguments: str) -> int:
    """The status of a command whose stdout is a pipe that nobody reads any more."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout, pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", stdout)
        return cli.main(arguments)


@pytest.mark.parametrize(
    ("command", "data", "status", "done"),
    [
        ("push key 1 --mid", {"mid": 32}, 0, "the message is stored"),
        ("drain node1", {"nodes": 1}, 0, "the node drains"),
        ("backup file", {"state": "done", "size": 1}, 0, "the copy is made"),
        ("token create key", {"token": "t", "expires": 1}, 1, "a token is made"),
    ],
)
def test_what_was_done_is_said_where_nobody_reads_its_outcome_any_more(
    web: Any, command: str, data: dict[str, Any], status: int, done: str, capfd: pytest.CaptureFixture[str]
) -> None:
    web.RequestHandlerClass.answer = json.dumps({"ret": 0, "data": data}).encode()
    assert unread(*command.split(), "--admin", f"127.0.0.1:{web.server_port}") == status
    assert capfd.readouterr().err == f"gopush: {done}, but stdout cannot be written: Broken pipe\n"


def test_a_table_is_made_also_where_nobody_reads_of_it_any_more(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gopush.message.hbase.create.create", lambda *_: "the table gopush is made, regions: 1")
    assert unread("hbase", "create") == 0
    assert capfd.readouterr().err == "gopush: the table is there, but stdout cannot be written: Broken pipe\n"


def test_a_bench_that_lost_deliveries_is_status_1_also_where_nobody_reads_its_report(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def run(runner: load.Runner) -> None:
        runner.began = runner.pushed_for = 1.0
        for _ in range(2):
            runner.figures.failed("a subscriber's connection was closed")

    monkeypatch.setattr(load.Runner, "run", run)
    assert unread("bench") == 1
    assert "gopush: 2 x a subscriber's connection was closed\n" in capfd.readouterr().err


@pytest.mark.parametrize("answer", [b'{"ret":0}', b'{"ret":0,"data":{"mid":null}}'])
def test_a_push_whose_mid_is_not_reported_is_stored_all_the_same(web: Any, answer: bytes) -> None:
    web.RequestHandlerClass.answer = answer
    ended = run("push", "key", "1", "--mid", "--admin", f"127.0.0.1:{web.server_port}")
    assert (ended.returncode, ended.stderr) == (0, b"")


@pytest.mark.parametrize(
    "arguments",
    [["history", "key", "--web"], ["sub", "key", "--once", "--web"], ["nodes", "--admin"], ["drain", "a", "--admin"]],
    ids=lambda arguments: arguments[0],
)
@pytest.mark.parametrize(
    "answer", [b'{"ret":0}', b'{"ret":0,"data":{"msgs":["', b'{"ret":0,"data":[1]}', b"[]", b"\xff"]
)
def test_what_is_no_answer_of_gopush_is_one_line(web: Any, arguments: list[str], answer: bytes) -> None:
    web.RequestHandlerClass.answer = answer
    ended = run(*arguments, f"127.0.0.1:{web.server_port}")
    assert b"Traceback" not in ended.stderr
    assert ended.stderr.count(b"\n") == (ended.returncode == 1)


@pytest.mark.parametrize("shell", [">&-", ">/dev/full"])
@pytest.mark.parametrize("arguments", [["ini", "comet"], ["key", "name"], ["check", "-c", str(ETC / "web.ini")]])
def test_what_cannot_be_written_is_one_line_and_status_1(arguments: list[str], shell: str) -> None:
    ended = run(*arguments, shell=shell)
    assert (ended.returncode, ended.stderr.count(b"\n")) == (1, 1)
    assert ended.stderr.startswith(b"gopush: stdout ")


def test_nobody_subscribes_without_a_stdout() -> None:
    ended = run("sub", "key", "--web", "127.0.0.1:1", shell=">&-")
    assert (ended.returncode, ended.stderr) == (1, b"gopush: stdout is closed\n")


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_what_argparse_writes_into_a_full_disk_makes_no_traceback(option: str) -> None:
    """Whether it hides the error, or leaves it to the end, is a matter of buffers."""
    ended = run(option, shell=">/dev/full")
    assert ended.returncode in (0, 1)
    assert ended.stderr in (b"", b"gopush: stdout cannot be written: No space left on device\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["sub", b"k\xff"],
        ["sub", "key", "--token", b"\xff"],
        ["sub", "key", "--web", "ftp://localhost:8090"],
        ["sub", "key", "--web", "http://localhost:8090/path"],
        ["sub", "key", "--web", "localhost"],
        ["sub", "key", "--web", "a..b:8090"],
        ["sub", "key", "--heartbeat", str(2**63)],
        ["sub", "key", "--heartbeat", "1e400"],
        ["push", "key", "1", "--admin", "https://user:hunter2@localhost:8091/", "--wait", "60"],
        ["push", "key", "1", "--admin", "localhost:65536"],
        ["push", "key", "1", "--wait", "nan"],
        ["push", "key", "1", "--wait", "inf"],
        ["push", "key", "1", "--expire", "9" * 5000],
        ["push", "key", "1", "--id", b"\xff"],
        ["history", b"\xff", "--after", "0"],
        ["close", b"\xff"],
        ["bench", "--web", "http://:8090"],
    ],
    ids=str,
)
def test_what_can_never_work_is_status_2_at_once(arguments: list[str | bytes]) -> None:
    ended = run(*arguments)
    assert ended.returncode == 2
    assert b"Traceback" not in ended.stderr
    assert ended.stderr.startswith(b"usage: gopush")


def test_the_longest_heartbeat_is_no_error() -> None:
    """Here: no more than a server that is not there."""
    ended = run("sub", "key", "--heartbeat", str(2**63 - 1), "--once", "--web", "127.0.0.1:1")
    assert (ended.returncode, ended.stderr.count(b"\n")) == (1, 1)


def test_a_token_whose_option_is_misspelt_is_not_shown() -> None:
    ended = run("sub", "key", "--tokn", "hunter2")
    assert ended.returncode == 2
    assert b"hunter2" not in ended.stderr


def test_who_makes_a_key_hears_that_its_line_belongs_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    """Which `[admin] keys` names: who wrote the line there was told that the file cannot be read."""
    assert cli.main(["key", "billing", "--scope", "push"]) == 0
    _, key, where, line = capsys.readouterr().out.splitlines()
    assert where == "# The line, for the file that [admin] keys names:"
    assert line == f"billing:{sha256(key.encode()).hexdigest()}::push"


@pytest.mark.parametrize("text", ["", "\n \n", "# The key itself, which nobody can read from the line:\n"])
@pytest.mark.parametrize("named", ["--api-key-file", "GOPUSH_API_KEY_FILE"])
def test_a_file_without_any_key_is_not_taken_for_no_key(
    named: str, text: str, web: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A port that wants a key then said that one has to be given."""
    path = tmp_path / "key"
    path.write_text(text)
    option = [named, str(path)] if named.startswith("-") else []
    if not option:
        monkeypatch.setenv(named, str(path))
    assert cli.main(["push", "key", "1", "--admin", f"127.0.0.1:{web.server_port}", *option]) == 3
    assert capfd.readouterr().err == f"gopush: {path}: holds no key\n"
    assert web.RequestHandlerClass.pushes == 0


def test_a_file_that_holds_no_api_key_is_refused_without_showing_it(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("hunter2 \u00fc\u4e00\n")
    ended = run("push", "key", "1", "--admin", "127.0.0.1:1", "--api-key-file", str(tmp_path / "key"))
    assert (ended.returncode, ended.stderr.count(b"hunter2")) == (3, 0)
    assert b"line 1 is no API key" in ended.stderr


def test_check_reads_a_file_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It may be a pipe: `-c <(...)` keeps secrets off the disk."""
    path = tmp_path / "gopush.ini"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=["[base]\nuser =\n"], daemon=True)
    writer.start()
    checking = subprocess.run(
        [sys.executable, "-m", "gopush", "check", "-c", str(path)], timeout=60, capture_output=True, text=True
    )
    assert (checking.returncode, checking.stderr) == (0, "")
