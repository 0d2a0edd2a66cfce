"""Where the command's calls go, whom it trusts there, and what it never sends in the clear."""

from __future__ import annotations

import argparse
import io
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from twisted.internet.endpoints import serverFromString

from gopush.client.address import address
from gopush.client.cli import _parse, main
from gopush.web.keys import make
from tests.conftest import InReactor, reactor
from tests.servers.authority import Authority
from tests.web.conftest import MakeWorld, World, make_world, world

assert all((make_world, world))  # fixtures

VARIABLES = ("GOPUSH_WEB", "GOPUSH_ADMIN", "GOPUSH_API_KEY", "GOPUSH_API_KEY_FILE")


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


class Secure:
    """A web node whose admin port speaks TLS and wants a key."""

    def __init__(self, world: World, key: str, url: str, address: str) -> None:
        self.world, self.key, self.url, self.address = world, key, url, address


@pytest.fixture
def secure(make_world: MakeWorld, tmp_path: Path, authority: Authority, in_reactor: InReactor) -> Iterator[Secure]:
    key, line = make("shell")
    (tmp_path / "keys").write_text(line)
    (tmp_path / "key").write_text(key)
    world = make_world(api_keys=str(tmp_path / "keys"))
    issued = authority.issue("server")
    endpoint = f"ssl:0:interface=127.0.0.1:{issued.endpoint}"
    port = in_reactor(lambda: serverFromString(reactor, endpoint).listen(world.web.admin))
    where = f"127.0.0.1:{port.getHost().port}"
    yield Secure(world, key, f"https://{where}", where)
    in_reactor(port.stopListening)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("h:1", "h:1"),
        ("[::1]:8091", "[::1]:8091"),
        ("http://h:1", "h:1"),
        ("http://h", "h:80"),
        ("https://h", "https://h:443"),
        ("HTTPS://h:8091/", "https://h:8091"),
        ("https://[::1]", "https://[::1]:443"),
    ],
)
def test_an_address_is_a_host_and_a_port_or_a_url(value: str, expected: str) -> None:
    assert address(value) == expected


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("localhost", r"'localhost' names no port \(try localhost:8091\)"),
        ("ftp://h:1", "http:// or https://"),
        ("https://h:1/path", "without a path"),
        ("https://h:1?q", "without a path"),
        ("https://h:65536", "try localhost:8091, or https://push.example.org:8091"),
        ("http://", "without a path"),
        ("h:", "neither host:port nor a URL"),
        ("a..b:1", "neither host:port"),
        ("https://user:hunter2@h", r"\(hidden\)"),
    ],
)
def test_what_is_none_is_answered_with_what_would_be_right(value: str, words: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=words) as refused:
        address(value)
    assert "hunter2" not in str(refused.value)


def test_an_address_without_a_port_says_which_it_takes(capfd: pytest.CaptureFixture[str]) -> None:
    for option, command, port in (("--admin", "nodes", 8091), ("--web", "history k", 8090)):
        with pytest.raises(SystemExit):
            main([*command.split(), option, "localhost"])
        assert f"argument {option}: 'localhost' names no port (try localhost:{port})" in capfd.readouterr().err


def test_calls_go_over_tls_to_a_url(secure: Secure, authority: Authority, tmp_path: Path) -> None:
    command = ["push", "k", "1", "--admin", secure.url, "--api-key-file", str(tmp_path / "key")]
    assert main([*command, "--cacert", str(authority.path)]) == 0
    assert main([*command, "--insecure"]) == 0
    assert [push.key for push in secure.world.comets.pushes] == ["k", "k"]


def test_a_port_that_is_not_trusted_is_sent_nothing(
    secure: Secure, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    strange = Authority(tmp_path, "strange")
    command = ["push", "k", "1", "--admin", secure.url, "--api-key-file", str(tmp_path / "key")]
    for more in ([], ["--cacert", str(strange.path)]):
        assert main([*command, *more]) == 3
        assert f"{secure.url} is not trusted: " in (said := capfd.readouterr().err)
        assert "--cacert FILE" in said
    assert not secure.world.comets.pushes
    assert secure.world.web.counters.wrong_keys == 0
    for where in ([], ["--admin", "127.0.0.1:1"]):  # also where it would not be used
        assert main([*command, *where, "--cacert", str(tmp_path / "none")]) == 3
        assert f"--cacert {tmp_path / 'none'}: cannot be used" in capfd.readouterr().err


def eavesdrop(answer: Callable[[socket.socket], None]) -> tuple[str, list[bytes]]:
    """An address, and what comes there; each connection is answered so after its first bytes."""
    listener = socket.create_server(("127.0.0.1", 0))
    heard: list[bytes] = []

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(10)
                heard.append(connection.recv(1 << 16))
                answer(connection)

    threading.Thread(target=serve, daemon=True).start()
    return f"127.0.0.1:{listener.getsockname()[1]}", heard


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x15\x03\x03\x00\x02\x02\x46",
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 5\r\nConnection: close\r\n\r\nHTTPS",
    ],
    ids=["closed", "alert", "nginx"],
)
@pytest.mark.parametrize(
    ("command", "door", "api_key"),
    [
        *((command, "admin", "hunter2") for command in ("push k 1", "nodes", "token create k", "bench --seconds 1")),
        *((f"{command} k --token hunter2", "web", "") for command in ("history", "sub")),
        ("token revoke k hunter2", "admin", ""),
    ],
)
def test_no_secret_is_sent_in_the_clear_to_a_tls_port(
    answer: bytes,
    command: str,
    door: str,
    api_key: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("GOPUSH_API_KEY", api_key)
    where, heard = eavesdrop(lambda connection: connection.sendall(answer))
    assert main([*command.split(), f"--{door}", where]) == 3
    assert (
        f"{where} does not speak plain HTTP, and gopush sent it no secret (try https://{where})"
        in capfd.readouterr().err
    )
    assert heard
    assert not any(b"hunter2" in data for data in heard)


def test_a_key_is_not_sent_in_the_clear_to_our_own_tls_port(
    secure: Secure, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["nodes", "--admin", secure.address, "--api-key-file", str(tmp_path / "key")]) == 3
    assert f"(try https://{secure.address})" in capfd.readouterr().err
    assert main(["nodes", "--admin", secure.address]) == 1


def test_the_environment_says_what_the_command_line_does_not(
    make_world: MakeWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    key, line = make("shell")
    other, _ = make("other")
    (tmp_path / "keys").write_text(line)
    (tmp_path / "key").write_text(key)
    world = make_world(api_keys=str(tmp_path / "keys"))
    monkeypatch.setenv("GOPUSH_ADMIN", f"http://127.0.0.1:{world.admin.port}")
    monkeypatch.setenv("GOPUSH_WEB", f"127.0.0.1:{world.public.port}")
    assert main(["history", "k"]) == 0
    monkeypatch.setenv("GOPUSH_WEB", f"127.0.0.1:1,127.0.0.1:{world.public.port}")
    assert _parse(["sub", "k"]).web == f"127.0.0.1:1,127.0.0.1:{world.public.port}"
    assert main(["nodes"]) == 3
    assert "401 Unauthorized" in capfd.readouterr().err
    monkeypatch.setenv("GOPUSH_API_KEY_FILE", str(tmp_path / "key"))
    assert main(["nodes"]) == 0
    monkeypatch.setenv("GOPUSH_API_KEY", other)  # comes before the file
    assert main(["nodes"]) == 3
    assert main(["nodes", "--api-key-file", str(tmp_path / "key")]) == 0
    monkeypatch.setenv("GOPUSH_API_KEY", "hunter2 \u00fc")
    assert main(["nodes"]) == 3
    assert "GOPUSH_API_KEY is no API key" in (said := capfd.readouterr().err)
    assert "hunter2" not in said
    monkeypatch.setenv("GOPUSH_ADMIN", "localhost")
    with pytest.raises(SystemExit) as ended:
        main(["nodes"])
    assert ended.value.code == 2
    assert "GOPUSH_ADMIN: 'localhost' names no port" in capfd.readouterr().err
    monkeypatch.setenv("GOPUSH_ADMIN", "\udcff:1")
    with pytest.raises(SystemExit) as ended:
        main(["nodes"])
    assert ended.value.code == 2
    assert "GOPUSH_ADMIN: is not UTF-8" in capfd.readouterr().err


def test_a_mistyped_command_is_met_with_the_one_that_is_near(capfd: pytest.CaptureFixture[str]) -> None:
    for typed, words in (
        ("pusch", "did you mean push?"),
        ("histroy", "did you mean history?"),
        ("xyzzy", "there are sub,"),
    ):
        with pytest.raises(SystemExit) as ended:
            main([typed, "key"])
        assert ended.value.code == 2
        assert f"{typed!r} is no command; {words}" in capfd.readouterr().err


def test_tokens_are_created_listed_and_revoked(
    world: World, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    admin = ["--admin", f"127.0.0.1:{world.admin.port}"]

    def run(*command: str) -> str:
        assert main([*command, *admin]) == 0
        return capfd.readouterr().out

    token, other = run("token", "create", "k", "--life", "60").strip(), run("token", "create", "k").strip()
    (first, second) = run("token", "list", "k").splitlines()
    assert first.endswith("until 2023-11-14 22:14:20 UTC")
    assert token not in first
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{token}\n".encode())))
    assert run("token", "revoke", "k", "-") == ""
    assert run("token", "revoke", "k", second.split()[0]) == ""
    assert run("token", "list", "k") == ""
    assert main(["token", "revoke", "k", "gone", *admin]) == 3
    assert "knows no such token" in capfd.readouterr().err
    assert other
    for wrong in (["revoke", "k"], ["create", "k", "t"], ["lst", "k"]):
        with pytest.raises(SystemExit):
            main(["token", *wrong])


def test_a_key_is_shown_and_deleted(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    admin = ["--admin", f"127.0.0.1:{world.admin.port}"]
    assert main(["push", "k", '{"secret":1}', *admin]) == 0
    assert main(["key", "show", "k", *admin]) == 0
    said = capfd.readouterr().out
    assert json.loads(said)["messages"][0]["size"] == 12
    assert "secret" not in said
    assert main(["presence", "k", "l", *admin]) == 0
    assert capfd.readouterr().out == "k  0\nl  0\n"
    assert main(["delete", "k", *admin]) == 0
    assert world.messages.logs == {}
    assert world.comets.closed == ["k"]
    for wrong in (["key", "show"], ["key", "other", "k"]):
        with pytest.raises(SystemExit):
            main(wrong)


def test_words_may_stand_behind_options(
    world: World, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    admin = ["--admin", f"127.0.0.1:{world.admin.port}"]
    assert main(["key", "show", *admin, "k"]) == 0
    assert json.loads(capfd.readouterr().out)["messages"] == []
    assert main(["presence", "k", *admin, "l", "m"]) == 0
    assert capfd.readouterr().out == "k  0\nl  0\nm  0\n"
    assert main(["token", "create", "k", *admin]) == 0
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(capfd.readouterr().out.encode())))
    assert main(["token", "revoke", "k", *admin, "-"]) == 0
    for wrong, why in (
        (["key", "show", *admin, "k", "secret"], "(it takes fewer words, or other options: see --help)"),
        (["key", "shop", *admin, "secret"], "an API key has one name"),
        (["delete", "k", "secret"], "(it takes fewer words, or other options: see --help)"),
        (["delete", "k", "--life", "secret"], "unknown arguments --life"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(wrong)
        said = capfd.readouterr().err
        assert (ended.value.code, why in said, "secret" in said) == (2, True, False), said


def test_nodes_are_printed_as_json(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["nodes", "--json", "--admin", f"127.0.0.1:{world.admin.port}"]) == 0
    (node,) = json.loads(capfd.readouterr().out)
    assert (node["role"], node["weight"], node["rpc"]) == ("comet", 1, ["10.0.0.1:6970"])


def test_a_key_is_made_with_a_scope(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["key", "shop", "--limit", "100", "--scope", "push", "--prefix", "shop-"]) == 0
    assert capfd.readouterr().out.splitlines()[-1].endswith(":100:push:shop-")
    assert main(["key", "shop", "--limit", "many"]) == 3


def test_tls_of_python_is_as_it_should_be(tmp_path: Path) -> None:
    """Names are checked, unless nobody wants that."""
    from gopush.client.address import trust

    assert trust(None, False).check_hostname
    assert trust(None, False).verify_mode is ssl.CERT_REQUIRED
