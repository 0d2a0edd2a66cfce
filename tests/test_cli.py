from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gopush
from gopush import cli
from gopush.__main__ import main as command
from gopush.client.subscriber import Subscriber
from gopush.errors import NoNodeError, ParameterError, UnavailableError

ETC = Path(__file__).resolve().parent.parent / "etc"


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
        ("localhost:8091", "key", '{"ü":1}'.encode(), 600, calls[0][4], ""),
        ("a:1", "key", b"1", 0, "once", ""),
    ]
    assert capfd.readouterr().out == "32\n"


def test_push_tries_again_with_one_id_for_as_long_as_it_is_told(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """protocol.md, section 10: a repeat with the same id stores nothing."""
    failures: list[Exception] = [NoNodeError("no node"), UnavailableError("down")]
    ids = []

    def push(admin: str, key: str, body: bytes, expire: int, id: str, api_key: str) -> int:
        ids.append(id)
        if failures:
            raise failures.pop(0)
        return 32

    monkeypatch.setattr(cli, "push", push)
    monkeypatch.setattr(cli, "RETRY_SECONDS", 0.001)
    assert cli.main(["push", "key", "1", "--wait", "60", "--mid"]) == 0
    assert capfd.readouterr() == ("32\n", "")
    assert len(ids) == 3
    assert len(set(ids)) == 1
    failures.append(UnavailableError("down"))
    assert cli.main(["push", "key", "1"]) == 1
    assert len(ids) == 4
    assert ids[3] not in ids[:3]


def test_push_reads_stdin(calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"[1,\n2]\n")))
    assert cli.main(["push", "key", "-"]) == 0
    assert calls[0][2] == b"[1,\n2]\n"


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
    assert asked == [("a:1", call, query, "secret")]
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


def test_history_prints_messages(calls: list[Any], capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["history", "key", "--after", "15", "--web", "w:1", "--token", "t"]) == 0
    assert calls == [("w:1", "key", 15, "t")]
    assert capfd.readouterr().out == "16\n32\n"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UnavailableError("down"), 1),
        (NoNodeError("down"), 1),
        (ParameterError("down"), 3),
        (BrokenPipeError(), 0),
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


@pytest.mark.parametrize("role", cli.ROLES)
def test_check_knows_a_role_by_the_files_name(role: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = ETC / f"{role}.ini"
    assert cli.main(["check", "-c", str(path)]) == 0
    assert capfd.readouterr().out == f"{path}: good for {role}\n"


def test_check_says_what_is_wrong(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "comet-1.ini").write_text("[base]\nweight = heavy\n")
    (tmp_path / "some.ini").write_text("")
    assert cli.main(["check", "-c", str(tmp_path / "comet-1.ini")]) == 3
    assert "[base] weight: 'heavy' is not a whole number" in capfd.readouterr().err
    assert cli.main(["check", "-c", str(tmp_path / "some.ini")]) == 3
    assert "use --role" in capfd.readouterr().err
    assert cli.main(["check", "-c", str(tmp_path / "some.ini"), "--role", "web"]) == 0


OPEN = "rpc.bind = 0.0.0.0:7000\nrpc.advertise = 10.0.0.1:7000\n"


@pytest.mark.parametrize(
    ("role", "content", "complaint"),
    [
        ("web", "[base]\nadmin.bind = 0.0.0.0:8091\n", "[base] admin.bind: tcp:8091:interface=0.0.0.0"),
        ("web", "[admin]\nkeys = /no/such/file\n", "/no/such/file: cannot be read: No such file"),
        ("web", "[base]\nhttp.bind = ssl:443:privateKey=/none:certKey=/none\n", "[base] http.bind: ssl:443:"),
        ("comet", "[base]\ntcp.bind = 0.0.0.0:6969\n", "others cannot connect to that; set tcp.advertise"),
        ("comet", f"[base]\n{OPEN}", "[base] rpc.bind: tcp:7000:interface=0.0.0.0"),
        ("message", f"[base]\n{OPEN}", "[base] rpc.bind: tcp:7000:interface=0.0.0.0"),
        ("comet", "[token]\nsigned.alg = HS256\nsigned.key = /no/such/file\n", "signed.key: the file cannot be read"),
        ("comet", "[zookeeper]\naddr = 10.0.0.1:2181\n", "[zookeeper] addr: 10.0.0.1:2181 can be reached"),
        ("comet", "[zookeeper]\ntls = yes\ntls.ca = /no/such/file\n", "[zookeeper] tls.ca"),
        ("web", "[zookeeper]\naddr = zk..example:2181\n", "'zk..example:2181': such a host name cannot be"),
        ("web", f"[zookeeper]\naddr = {'z' * 64}.example:2181\n", "such a host name cannot be"),
        ("gopush", "[base]\nadmin.bind = 0.0.0.0:8091\n", "[base] admin.bind: tcp:8091:interface=0.0.0.0"),
    ],
)
def test_check_refuses_what_the_start_refuses(
    role: str, content: str, complaint: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It makes all that a process is made of, and starts nothing."""
    path = tmp_path / f"{role}.ini"
    path.write_text(content)
    assert cli.main(["check", "-c", str(path)]) == 3
    told = capfd.readouterr().err
    assert told.startswith(f"gopush: {path}: ")
    assert complaint in told


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
class Interrupt:
    def find_spec(self, name, *_):
        if name == "gopush.client.web":
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
    command = [sys.executable, "-c", "import sys; from gopush.cli import main; sys.exit(main(['ini', 'comet']))"]
    environment = {**os.environ, "PYTHONPATH": str(ETC.parent)}
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        ended = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, env=environment, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, b"")
