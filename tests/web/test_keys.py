"""protocol.md, section 5: beyond loopback the admin port wants an API key."""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from gopush.client.cli import main
from gopush.config import reload as files
from gopush.errors import SettingsError, StartError
from gopush.membership.view import StaticCoordination
from gopush.net.exposure import refuse_open_admin
from gopush.web.keys import ApiKeys, Caller, make, parse
from gopush.web.node import WebNode
from gopush.web.pages import ASSETS, CLIENTS
from gopush.web.settings import WebSettings
from tests.clients import eventually
from tests.http.client import Client
from tests.leaping import LeapingClock
from tests.web.conftest import MakeWorld
from tests.web.test_bulk import chunk

DOCS = Path(__file__).resolve().parents[2] / "docs"
ADMIN_CALLS = (
    ("POST", "/1/admin/push/private?key=k&expire=0", b"1"),
    ("POST", "/admin/push?key=k&expire=0", b"1"),
    ("POST", "/1/admin/push/mprivate?expire=0", b'{"m":"1","k":"a,b"}'),
    ("POST", "/1/admin/push/bulk", b'{"k":"a","m":1,"expire":0}\n'),
    ("POST", "/1/admin/msg/del", b"key=k"),
    ("POST", "/admin/msg/clean", b"key=k"),
    ("POST", "/1/admin/token?key=k", b""),
    ("GET", "/1/admin/token?key=k", b""),
    ("DELETE", "/1/admin/token?key=k&token=t", b""),
)


def clock() -> float:
    return 0.0


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Changed files are noticed at once."""
    monkeypatch.setattr(files, "LOOK_SECONDS", 0.0)


def bearer(key: str) -> str:
    return f"Authorization: Bearer {key}\r\n"


@pytest.mark.parametrize(("method", "target", "body"), ADMIN_CALLS)
def test_every_admin_call_wants_a_key(
    make_world: MakeWorld, tmp_path: Path, method: str, target: str, body: bytes
) -> None:
    key, line = make("billing")
    world = make_world(api_keys=str(write(tmp_path / "keys", line)))
    path, _, query = target.partition("?")
    values = dict(pair.split("=") for pair in query.split("&")) if query else {}

    def status(headers: str) -> int:
        return world.admin_call(method, path, body, headers, **values).status

    other, _ = make("billing")
    for headers in (
        "",
        bearer(other),
        bearer(""),
        bearer(key[:-1]),
        f"Authorization: Basic {key}\r\n",
        "X-Api-Key: \r\n",
    ):
        assert status(headers) == 401
    counters = world.web.counters
    assert (counters.wrong_keys, counters.missing_keys) == (2, 4)
    assert not world.comets.pushes
    assert status(bearer(key)) == 200
    assert status(f"X-Api-Key: {key}\r\n") == 200


def test_nothing_else_is_open_without_a_key_but_the_page_and_health(make_world: MakeWorld, tmp_path: Path) -> None:
    """Of whatever the admin port ever answers."""
    world = make_world(api_keys=str(write(tmp_path / "keys", make("a")[1])))
    opened = set()
    for path, resource in world.web.admin.paths.items():
        for method in resource.methods:
            answer = world.admin_call(method.decode(), path.decode())
            if answer.status != 401:
                opened.add(path.decode())
    documents = {f"docs/{path.name}" for path in DOCS.glob("*.md")}
    shown = {"/", "/demo", *(f"/pages/{name}" for name in (*ASSETS, *documents)), *(f"/{name}" for name in CLIENTS)}
    assert opened == {*shown, "/health"}


def test_a_refusal_comes_before_the_body_and_names_the_scheme(make_world: MakeWorld, tmp_path: Path) -> None:
    world = make_world(api_keys=str(write(tmp_path / "keys", make("a")[1])))
    answer = world.post("/1/admin/push/private", b"1" * (1 << 20), key="k", expire="0")
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="gopush"'


def test_keys_are_added_and_taken_away_without_a_restart(make_world: MakeWorld, tmp_path: Path, looks: None) -> None:
    (first, first_line), (second, second_line) = make("first"), make("second")
    path = write(tmp_path / "keys", first_line)
    world = make_world(api_keys=str(path))

    def works(key: str) -> bool:
        return world.post("/1/admin/push/private", b"1", bearer(key), key="k", expire="0").status == 200

    assert (works(first), works(second)) == (True, False)
    write(path, "# both, while callers change", first_line, "", second_line)
    assert (works(first), works(second)) == (True, True)
    write(path, second_line)
    assert (works(first), works(second)) == (False, True)
    write(path, "what is this")  # an accident: the keys stay
    assert (works(first), works(second)) == (False, True)
    os.remove(path)
    assert works(second)


@pytest.mark.parametrize("more", ["", "::admin"], ids=("replaced", "of another scope"))
def test_a_key_that_is_taken_away_pushes_nothing_more_in_a_call_that_is_under_way(
    make_world: MakeWorld, tmp_path: Path, looks: None, more: str
) -> None:
    (key, line), (_, other) = make("here"), make("other")
    path = write(tmp_path / "keys", line)
    world = make_world(api_keys=str(path))
    head = f"POST /1/admin/push/bulk HTTP/1.1\r\n{bearer(key)}Transfer-Encoding: chunked\r\n\r\n".encode()
    push = chunk(b'{"k":"a","m":1,"expire":60}\n')
    world.comets.hold = True
    with Client(world.admin.port) as client:
        client.send(head + push * 2)
        eventually(lambda: len(world.comets.held) == 2)
        write(path, line + more if more else other)
        client.send(push)
        eventually(lambda: world.admin.factory.counters.received_bytes == len(head + push * 3))
        write(path, line)  # too late: the line before has no answer
        client.send(push)
        world.in_reactor(world.comets.answer_all)
        client._until(b"\r\n\r\n")
        answers = b"".join(iter(client._chunk, b"")).splitlines()
        assert [answer.startswith(b'{"ret":0,"mid":') for answer in answers] == [True, True]
    assert len(world.messages.logs["a"]) == 2


def test_a_reload_reads_what_looks_unchanged(tmp_path: Path) -> None:
    (first, first_line), (second, second_line) = make("key"), make("key")
    path = write(tmp_path / "keys", first_line)
    keys = ApiKeys(path, clock)
    write(path, second_line)
    files.reload()
    assert keys.find(first.encode()) is None
    found = keys.find(second.encode())
    assert found is not None
    assert found.name == "key"


def test_a_key_may_have_a_limit_of_pushes_per_second(make_world: MakeWorld, tmp_path: Path) -> None:
    key, line = make("slow")
    free, free_line = make("fast")
    time = LeapingClock()
    world = make_world(time, api_keys=str(write(tmp_path / "keys", f"{line}:2", free_line)))

    def push(key: str) -> int:
        return world.post("/1/admin/push/private", b"1", bearer(key), key="k", expire="0").status

    assert [push(key) for _ in range(4)] == [200, 200, 429, 429]
    assert [push(free) for _ in range(20)] == [200] * 20
    assert world.web.counters.limited_keys == 2
    assert world.web.counters.pushes_over_limit == world.web.counters.pushes[65535] == 0
    time.now += 1
    assert [push(key) for _ in range(3)] == [200, 200, 429]


def test_many_pushes_in_one_call_are_counted_one_by_one(make_world: MakeWorld, tmp_path: Path) -> None:
    key, line = make("slow")
    time = LeapingClock()
    world = make_world(time, api_keys=str(write(tmp_path / "keys", f"{line}:3")))
    many = world.post("/1/admin/push/mprivate", b'{"m":"1","k":"a,b,c,d,e,f"}', bearer(key), expire="0")
    assert many.status == 200
    assert world.post("/1/admin/push/private", b"1", bearer(key), key="k", expire="0").status == 429
    time.now += 1  # three of six are made up for
    assert world.post("/1/admin/push/private", b"1", bearer(key), key="k", expire="0").status == 429
    time.now += 1
    assert world.post("/1/admin/push/private", b"1", bearer(key), key="k", expire="0").status == 200


def test_a_limit_counts_while_a_call_goes_on(make_world: MakeWorld, tmp_path: Path) -> None:
    key, line = make("slow")
    world = make_world(LeapingClock(), api_keys=str(write(tmp_path / "keys", f"{line}:3")))
    names = [str(number) for number in range(900)]
    answer = world.post("/1/admin/push/mprivate", json.dumps({"m": "1", "k": names}), bearer(key), expire="0")
    assert json.loads(answer.body)["data"]["fk"] == names[500:]
    assert len(world.comets.pushes) == 500
    assert world.web.counters.limited_keys == world.web.counters.pushes[65535] == 400
    assert world.web.counters.pushes_over_limit == 400


def test_lines_beyond_the_limit_are_counted(make_world: MakeWorld, tmp_path: Path) -> None:
    key, line = make("slow")
    world = make_world(LeapingClock(), api_keys=str(write(tmp_path / "keys", f"{line}:2")))
    world.post("/1/admin/push/bulk", b'{"k":"a","m":1,"expire":0}\n' * 5, bearer(key))
    assert len(world.comets.pushes) == 2
    assert world.web.counters.limited_keys == world.web.counters.pushes[65535] == 3


def test_who_stays_in_the_file_keeps_what_it_has_taken(tmp_path: Path) -> None:
    key, line = make("slow")
    path = write(tmp_path / "keys", f"{line}:2")
    keys = ApiKeys(path, clock)
    first = keys.find(key.encode())
    assert first is not None
    first.take(5)
    write(path, f"{line}:2", make("more")[1])
    files.reload()
    again = keys.find(key.encode())
    assert again is not None
    assert not again.may_push


def test_no_limit_is_no_limit() -> None:
    caller = Caller("fast", b"", None, clock)
    caller.take(10**9)
    assert caller.may_push


@pytest.mark.parametrize(
    "text",
    [b"", b"# nothing\n", b"name", b"name:abc", b"name:" + b"g" * 64, b"a b:" + b"0" * 64, b"a:" + b"0" * 64 + b":0"],
)
def test_a_file_that_makes_no_sense_is_refused_and_not_shown(text: bytes) -> None:
    with pytest.raises(SettingsError) as refused:
        parse(text, "keys", clock)
    assert "gggg" not in str(refused.value)
    assert "0000" not in str(refused.value)


def test_a_call_without_a_key_has_none_whatever_the_file_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`printf %s "$KEY" | sha256sum` of a variable that is not set makes such a line."""
    _, good = make("good")
    text = f"{good}\nunset:{sha256(b'').hexdigest()}::push\n"
    with pytest.raises(SettingsError, match=r"^keys: line 2 is of an empty key, [^\n]*$"):
        parse(text.encode(), "keys", clock)
    nobody = Caller("unset", sha256(b"").digest(), None, clock)
    keys = ApiKeys(write(tmp_path / "keys", good), clock)
    monkeypatch.setattr(keys._file, "_value", [nobody])
    assert keys.find(b"") is None


def test_a_file_that_is_not_there_stops_the_start(make_world: MakeWorld, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^\[admin\] keys: the file cannot be read: No such file"):
        make_world(api_keys=str(tmp_path / "none"))


def test_a_key_in_the_place_of_its_file_is_not_shown(make_world: MakeWorld) -> None:
    for written in ("billing:hunter2", "billing:hunter2" * 50):
        with pytest.raises(SettingsError, match=r"^\[admin\] keys: the file cannot be read: ") as wrong:
            make_world(api_keys=written)
        assert "hunter2" not in str(wrong.value)


def test_what_is_wrong_with_the_file_names_the_option(make_world: MakeWorld, tmp_path: Path) -> None:
    path = write(tmp_path / "keys", "what is this")
    with pytest.raises(SettingsError, match=rf"^\[admin\] keys: {path}: line 1 is not"):
        make_world(api_keys=str(path))


@pytest.mark.parametrize(
    "endpoint", ["tcp:8091", "tcp:8091:interface=0.0.0.0", "tcp:8091:interface=10.0.0.1", "ssl:8091"]
)
def test_nobody_listens_to_the_world_without_keys(endpoint: str) -> None:
    with pytest.raises(StartError, match="gopush key"):
        refuse_open_admin([endpoint], "")
    refuse_open_admin([endpoint], "keys")
    refuse_open_admin(["tcp:8091:interface=127.0.0.1", "unix:/run/admin"], "")
    with pytest.raises(StartError, match="gopush key"):
        WebNode(Clock(), WebSettings(admin_bind=(endpoint,)), StaticCoordination())


def test_gopush_key_makes_a_key_and_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["key", "billing"]) == 0
    _, key, _, line = capsys.readouterr().out.splitlines()
    (caller,) = parse(line.encode(), "keys", clock)
    assert caller.name == "billing"
    assert len(key) == 43
    assert main(["key", "no name"]) == 3


def test_gopush_push_shows_the_key_of_a_file(make_world: MakeWorld, tmp_path: Path) -> None:
    key, line = make("shell")
    world = make_world(api_keys=str(write(tmp_path / "keys", line)))
    secret = write(tmp_path / "key", key)
    command = ["push", "k", "1", "--admin", f"127.0.0.1:{world.admin.port}", "--expire", "0"]
    assert main(command) == 3
    assert main([*command, "--api-key-file", str(secret)]) == 0


def test_who_has_a_key_passes_from_anywhere(tmp_path: Path, make_world: MakeWorld) -> None:
    """protocol.md, section 5: a request with a valid API key passes from anywhere; no browser sends one by itself."""
    key, line = make("a")
    world = make_world(api_keys=str(write(tmp_path / "keys", line)))
    foreign = "Host: evil.example\r\nOrigin: https://evil.example\r\n"
    assert world.admin_call("GET", "/1/admin/nodes", headers=foreign).status == 403
    assert world.admin_call("GET", "/1/admin/nodes", headers=f"{foreign}X-Api-Key: wrong\r\n").status == 403
    assert world.admin_call("GET", "/1/admin/nodes", headers=f"{foreign}X-Api-Key: {key}\r\n").status == 200
