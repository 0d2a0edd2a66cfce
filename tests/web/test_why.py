"""Who asks for it is told why a call is refused (protocol.md, section 10); nobody else sees another byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gopush.client.cli import main
from gopush.membership.view import View
from gopush.model import NodeInfo
from gopush.net.limits import ConnectionSettings
from gopush.web.keys import make
from tests.http.client import Answer, Client
from tests.leaping import LeapingClock
from tests.web.conftest import MakeWorld, World

SECRET = "hunter2-hunter2"
EXPIRE = "expire is not a whole number from 0 to 4294967295"
PUSH = "/1/admin/push/private"
MANY = "/1/admin/push/mprivate"
HALF_PAIR = "holds half of a surrogate pair, which is no text"

ADMIN = (
    ("POST", f"{PUSH}?key=k", b"1", f"{EXPIRE} (it is missing)"),
    ("POST", f"{PUSH}?key=k&expire=soon", b"1", f"{EXPIRE} (found: 'soon')"),
    ("POST", f"{PUSH}?key=k&expire={'9' * 60}", b"1", f"{EXPIRE} (found: '{'9' * 40}'...)"),
    ("POST", f"{PUSH}?expire=0", b"1", "key is missing: it names the key"),
    ("POST", f"{PUSH}?key={'k' * 256}&expire=0", b"1", "key has 256 bytes, and a key at most 255"),
    ("POST", f"{PUSH}?key=%01&expire=0", b"1", "key holds a control character, which no key does"),
    ("POST", f"{PUSH}?key=%ff&expire=0", b"1", "key is not UTF-8"),
    (
        "POST",
        f"{PUSH}?key=%zz&expire=0",
        b"1",
        "key is not form-encoded: two hexadecimal digits must follow a %",
    ),
    ("POST", f"{PUSH}?key=k&expire=0", b"", "the message is empty, and must be JSON"),
    ("POST", f"{PUSH}?key=k&expire=0", b'{"a":1', "the message is not JSON (at character 6)"),
    ("POST", f"{PUSH}?key=k&expire=0", b"1 2", "the message is not JSON (at character 2)"),
    ("POST", f"{PUSH}?key=k&expire=0", b'"\xff"', "the message is not UTF-8 (at byte 1)"),
    ("POST", f"{PUSH}?key=k&expire=0&id=", b"1", "id is not a text of 1 to 255 bytes without control characters"),
    ("POST", f"{MANY}?expire=x", b'{"m":"1","k":"a"}', f"{EXPIRE} (found: 'x')"),
    ("POST", f"{MANY}?expire=0", b"[]", "the body is not a JSON object"),
    ("POST", f"{MANY}?expire=0", b'{"k":"a"}', "m must be a string that holds the message's JSON"),
    ("POST", f"{MANY}?expire=0", b'{"m":"{","k":"a"}', "m is not JSON (at character 1)"),
    ("POST", f"{MANY}?expire=0", b'{"m":"1"}', 'k names no keys: "k1,k2", or a list of strings'),
    ("POST", f"{MANY}?expire=0", b'{"m":"1","k":["\\u0001"]}', "k has an item that is no key"),
    ("POST", f"{MANY}?expire=0", b'{"m":"1","k":["\\ud800"]}', f"m or k {HALF_PAIR}"),
    ("POST", f"{MANY}?expire=0", b'{"m":"\\ud800","k":"a"}', f"m or k {HALF_PAIR}"),
    ("POST", "/1/admin/presence", b'{"k":["\\ud800"]}', f"one of k {HALF_PAIR}"),
    ("POST", "/1/admin/msg/del", b"", "key is missing: it names the key"),
    ("POST", "/1/admin/token?key=k&life=x", b"", "life is not a whole number from 0 to 4294967295 (found: 'x')"),
    ("DELETE", "/1/admin/token?key=k", b"", "token is missing, and digest is not 64 hexadecimal digits"),
    (
        "POST",
        "/1/admin/node/weight?node=node1&weight=0",
        b"",
        "weight is not a whole number from 1 to 1000 (found: '0')",
    ),
    ("POST", "/1/admin/node/weight?weight=1", b"", "node is missing"),
    ("POST", "/1/admin/node/weight?node=node9&weight=1", b"", "no process of this name is registered (found: 'node9')"),
    ("POST", "/1/admin/backup?file=rel", b"", "id is missing: it tells this backup from others"),
    ("POST", "/1/admin/backup?file=rel&id=%00", b"", "id is not a text of 1 to 255 bytes without control characters"),
    ("POST", "/1/admin/node/drain?node=node1", b"", "the last comets, or the last message nodes, cannot drain"),
    ("GET", "/1/admin/key", b"", "key is missing: it names the key"),
)
PUBLIC = (
    ("/1/server/get?k=k&p=3", "p is neither 1 (WebSocket) nor 2 (TCP) (found: '3')"),
    ("/server/get?key=k", "proto is neither 1 (WebSocket) nor 2 (TCP) (it is missing)"),
    ("/1/msg/get?k=k&m=x", "m is not a whole number from 0 to 9223372036854775807 (found: 'x')"),
    ("/msg/get?mid=0", "key is missing: it names the key"),
    ("/1/time/get?cb=a-b", "cb is not the name of a JavaScript function of at most 64 characters"),
)


def ask(port: int, method: str, target: str, body: bytes = b"", fields: str = "", *, pieces: bool = False) -> Answer:
    """`pieces`: cut so that twisted.web reads it, not the short cut."""
    with Client(port) as client:
        if not pieces:
            return client.request(method, target, body, fields)
        head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n{fields}Content-Length: {len(body)}\r\n"
        client.send(head.encode())
        client.send(b"\r\n" + body)
        return client.answer()


def why(target: str) -> str:
    return f"{target}{'&' if '?' in target else '?'}why=1"


def reason(answer: Answer, plain: Answer) -> str:
    """What the one says and the other does not: nothing else differs."""
    assert (answer.status, plain.status) == (200, 200)
    said: dict[str, Any] = json.loads(answer.body)
    found = said.pop("why")
    assert json.loads(plain.body) == said
    assert answer.body.decode().replace(f',"why":{json.dumps(found, ensure_ascii=False)}', "", 1) == plain.body.decode()
    return str(found)


@pytest.mark.parametrize(("method", "target", "body", "expected"), ADMIN)
def test_an_admin_call_says_why(world: World, method: str, target: str, body: bytes, expected: str) -> None:
    """protocol.md, sections 5 and 10."""
    port = world.admin.port
    plain = ask(port, method, target, body)
    said = ask(port, method, why(target), body)
    assert reason(said, plain).startswith(expected)
    assert ask(port, method, target, body, "Prefer: respond-async, Why\r\n").body == said.body
    assert ask(port, method, target, body, "Prefer: why\r\n", pieces=True).body == said.body
    assert ask(port, method, target, body, pieces=True).body == plain.body
    assert b'"why"' not in ask(port, method, why(target) + "0", body, "Prefer: whyever\r\n").body


@pytest.mark.parametrize(("target", "expected"), PUBLIC)
def test_a_public_call_says_why(world: World, target: str, expected: str) -> None:
    """protocol.md, section 4: also in the form before 1.0."""
    port = world.public.port
    plain = ask(port, "GET", target)
    said = ask(port, "GET", why(target))
    assert reason(said, plain) == expected
    assert ask(port, "GET", target, fields="Prefer: why\r\n", pieces=True).body == said.body


def test_a_callback_is_given_the_reason(world: World) -> None:
    said = ask(world.public.port, "GET", "/1/server/get?k=k&p=%E2%80%A8&cb=f&why=1").body.decode()
    assert said == 'f({"ret":65534,"why":"p is neither 1 (WebSocket) nor 2 (TCP) (found: \'\\\\u2028\')"})'


def test_what_is_found_is_no_script_and_no_line(world: World) -> None:
    said = ask(world.admin.port, "POST", f"{PUSH}?key=k&expire=%22%3C/script%3E%0A%00&why=1", b"1").body
    assert json.loads(said)["why"] == f"{EXPIRE} (found: '\"</script>\\n\\x00')"
    assert said.count(b"\n") == 0


def test_a_push_that_nobody_took_says_why(world: World) -> None:
    for ret, expected in (
        (1001, "no comet is known (/health of this port says why)"),
        (65535, "it was not stored in time (a comet's /health says"),
    ):
        world.comets.refuse = {"k": ret}.__getitem__
        plain = ask(world.admin.port, "POST", f"{PUSH}?key=k&expire=0", b"1")
        assert plain.body == b'{"ret":%d}' % ret
        assert reason(ask(world.admin.port, "POST", f"{PUSH}?key=k&expire=0&why=1", b"1"), plain).startswith(expected)


def test_a_push_that_is_stored_is_answered_the_same(world: World) -> None:
    assert ask(world.admin.port, "POST", f"{PUSH}?key=k&expire=0&why=1", b"1").body == b'{"ret":0}'


def test_a_key_with_too_many_pushes_hears_so(make_world: MakeWorld) -> None:
    world = make_world(key_rate=1)
    answers = [ask(world.admin.port, "POST", f"{PUSH}?key=k&expire=0&why=1", b"1").body for _ in range(2)]
    assert answers[0] == b'{"ret":0}'
    assert "[push] key.rate" in json.loads(answers[1])["why"]


def test_what_is_away_is_named_without_its_place(world: World) -> None:
    """Strangers learn no address of the cluster."""
    world.messages.down = True
    for said in (
        ask(world.public.port, "GET", "/1/msg/get?k=k&m=0&why=1"),
        ask(world.admin.port, "POST", "/1/admin/msg/del?why=1", b"key=k"),
    ):
        assert json.loads(said.body) == {"ret": 65535, "why": json.loads(said.body)["why"]}
        assert "try again" in json.loads(said.body)["why"]


def test_a_line_of_a_bulk_call_says_why(world: World) -> None:
    lines = b'{"k":"a","m":1,"expire":0}\n{"m":1}\n\n{"k":"a","m":1,"expire":"soon"}\n{"k":1,"m":1,"expire":0}\n[\n'
    lines += b'{"k":"a\\udc00b","m":1,"expire":0}\n'
    port = world.admin.port
    plain = ask(port, "POST", "/1/admin/push/bulk", lines).body.splitlines()
    said = [json.loads(line) for line in ask(port, "POST", "/1/admin/push/bulk?why=1", lines).body.splitlines()]
    assert plain[1:] == [b'{"ret":65534}'] * 6
    assert said[0]["ret"] == 0
    assert [one["why"] for one in said[1:]] == [
        "the line lacks expire, k",
        "the line is empty, or longer than 4194304 bytes",
        f"{EXPIRE} (found: '\"soon\"')",
        "k is not a string, as a key is",
        "the line is not a JSON object",
        f"k {HALF_PAIR}",
    ]


def test_a_missing_token_and_a_wrong_one(make_world: MakeWorld) -> None:
    world = make_world(auth=True)
    port = world.public.port
    assert json.loads(ask(port, "GET", "/1/msg/get?k=k&m=0&why=1").body)["why"] == "the token is missing"
    said = ask(port, "GET", f"/1/msg/get?k=k&m=0&t={SECRET}&why=1").body
    assert json.loads(said)["why"] == "the token is not a valid one of this key"


def test_no_reason_shows_what_is_secret(make_world: MakeWorld, tmp_path: Path) -> None:
    """Bodies, tokens, API keys: whatever is wrong about them."""
    key, line = make("a")
    (tmp_path / "keys").write_text(line)
    world = make_world(auth=True, api_keys=str(tmp_path / "keys"))
    shown = f"X-Api-Key: {key}\r\nPrefer: why\r\n"
    for method, target, body, fields in (
        ("POST", f"{PUSH}?key=k&expire=0", f'{{"a":{SECRET}}}', shown),
        ("POST", f"{MANY}?expire=0", json.dumps({"m": SECRET, "k": "k"}), shown),
        ("POST", f"{MANY}?expire=0", SECRET, shown),
        ("POST", "/1/admin/push/bulk", f'{{"k":"k","m":{SECRET},"expire":0}}\n{SECRET}\n', shown),
        ("DELETE", f"/1/admin/token?key=&token={SECRET}", "", shown),
        ("DELETE", f"/1/admin/token?key=k&digest={SECRET}", "", shown),
        ("GET", "/1/admin/nodes", "", f"X-Api-Key: {SECRET}\r\nPrefer: why\r\n"),
        ("GET", "/1/admin/nothing", SECRET, f"X-Api-Key: {SECRET}\r\nPrefer: why\r\n"),
    ):
        said = ask(world.admin.port, method, target, body.encode(), fields)
        assert SECRET.encode() not in said.body
        assert key.encode() not in said.body
    assert SECRET.encode() not in ask(world.public.port, "GET", f"/1/msg/get?k=k&m=0&t={SECRET}&why=1").body


def test_a_status_says_why(make_world: MakeWorld, tmp_path: Path) -> None:
    """Its text goes on behind the name of the status; that of 401 always does."""
    key, line = make("a")
    (tmp_path / "keys").write_text(f"{line}:1")
    site = "Origin: https://evil.example\r\n"
    locked, free = make_world(LeapingClock(), api_keys=str(tmp_path / "keys")), make_world()
    listed = make_world(connections=ConnectionSettings(origins=("https://a.example",)))
    many = b"1" * (4 << 20) + b"1"
    keyed = f"X-Api-Key: {key}\r\n"
    assert ask(locked.admin.port, "POST", f"{PUSH}?key=k&expire=0", b"1", keyed).body == b'{"ret":0}'
    for world, method, target, body, fields, before, after in (
        (locked.admin, "GET", "/nothing", b"", "", "Not Found", "this port has no such call"),
        (free.public, "POST", "/1/time/get", b"", "", "Method Not Allowed", "this call takes GET, HEAD"),
        (
            free.admin,
            "GET",
            "/1/admin/nodes",
            b"",
            site,
            "Forbidden",
            "pages of this web site may not call it ([admin]",
        ),
        (listed.public, "GET", "/1/time/get", b"", site, "Forbidden", "pages of this web site may not call it ([conn"),
        (free.admin, "POST", PUSH, many, "", "Request Entity Too Large", "a body may have 4194304 bytes here"),
        (
            locked.admin,
            "GET",
            "/1/admin/nodes",
            b"",
            keyed,
            "Too Many Requests",
            "this API key may push 1 times a second",
        ),
    ):
        assert ask(world.port, method, target, body, fields).body == f"{before}\n".encode()
        said = ask(world.port, method, target, body, f"{fields}Prefer: why\r\n").body.decode()
        assert said.startswith(f"{before}: {after}")
        assert said.endswith("\n")


def test_401_names_the_header_that_it_wants(make_world: MakeWorld, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(make("a")[1])
    said = ask(make_world(api_keys=str(tmp_path / "keys")).admin.port, "GET", "/1/admin/nodes")
    assert (said.status, said.headers["www-authenticate"]) == (401, 'Bearer realm="gopush"')
    assert b"Authorization: Bearer KEY" in said.body
    assert b"X-Api-Key: KEY" in said.body


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["weight", "node1", "0"], "weight is not a whole number from 1 to 1000 (found: '0')"),
        (["drain", "node1"], "the last comets, or the last message nodes, cannot drain"),
        (["push", "k", "1", "--expire", "-1"], f"{EXPIRE} (found: '-1')"),
        (["push", "k", "{"], "the message is not JSON (at character 1)"),
        (["push", "", "1"], "key is missing"),
        (["close", ""], "key is missing"),
    ],
    ids=str,
)
def test_the_command_prints_the_reason(
    world: World, command: list[str], expected: str, capfd: pytest.CaptureFixture[str]
) -> None:
    world.in_reactor(world.coordination.adopt, View([NodeInfo("node1", 0, ("a:1",))], [NodeInfo("m", 0, ("m:1",))]))
    assert main([*command, "--admin", f"127.0.0.1:{world.admin.port}"]) == 3
    said = capfd.readouterr().err
    assert said.startswith(f"gopush: 127.0.0.1:{world.admin.port} refused: {expected}")
    assert said.count("\n") == 1


def test_the_command_prints_the_reason_of_a_missing_token(
    make_world: MakeWorld, capfd: pytest.CaptureFixture[str]
) -> None:
    world = make_world(auth=True)
    assert main(["history", "k", "--web", f"127.0.0.1:{world.public.port}"]) == 3
    assert "refused: the token is missing (65534)" in capfd.readouterr().err
    assert main(["nodes", "--admin", f"127.0.0.1:{world.public.port}"]) == 3
    assert "answered 404 Not Found: this port has no such call" in capfd.readouterr().err


def test_401_names_the_option(make_world: MakeWorld, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "keys").write_text(make("a")[1])
    world = make_world(api_keys=str(tmp_path / "keys"))
    assert main(["nodes", "--admin", f"127.0.0.1:{world.admin.port}"]) == 3
    assert "--api-key-file FILE" in capfd.readouterr().err
