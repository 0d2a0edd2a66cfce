"""protocol.md, section 5: the admin port."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import pytest

from gopush.model import OnPushed, Push
from gopush.net.http.request import Form
from gopush.routing.messages import Messages
from gopush.web.settings import HttpSettings
from gopush.web.tokens import Tokens
from tests.http.client import Client
from tests.web.conftest import MakeWorld, World, data
from tests.web.fakes import NOW, FakeMessages

OK = b'{"ret":0}'
PARAMETER = b'{"ret":65534}'
PUSH_PATHS = ["/1/admin/push/private", "/admin/push"]
PUSH, MANY = PUSH_PATHS[0], "/1/admin/push/mprivate"


@pytest.mark.parametrize("path", PUSH_PATHS)
def test_push(world: World, path: str) -> None:
    """protocol.md, section 5: the body is the message, as it is; section 4: exactly `{"ret":0}` without data."""
    body = b' {"a": 1e400,\n"a":"\xe4\xbd\xa0"} '
    answer = world.post(path, body, key="Terry-Mao", expire="600")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json;charset=utf-8")
    assert answer.body == OK
    (push,) = world.comets.pushes
    assert push == Push("Terry-Mao", body, 600, push.id, 0, NOW + 4)


@pytest.mark.parametrize("path", PUSH_PATHS)
@pytest.mark.parametrize("body", ["", "{", "nope", "{} {}", b"\xff", b"\xef\xbb\xbf{}", "NaN", '"a\nb"', "'a'"])
def test_a_body_that_is_not_json_is_65534(world: World, path: str, body: str | bytes) -> None:
    """protocol.md, section 5: a body that is not JSON (UTF-8) is 65534, not 65535."""
    assert world.post(path, body, key="x", expire="600").body == PARAMETER
    assert not world.comets.pushes


@pytest.mark.parametrize("body", ["1e400", "9" * 10_000, '"\\ud800"', "[" * 100_000 + "]" * 100_000, '{"a":1,"a":2}'])
def test_any_json_passes_as_it_is(world: World, body: str) -> None:
    """protocol.md, section 3: valid JSON is valid whatever its size."""
    assert world.post(PUSH, body, key="x", expire="0").body == OK
    assert world.comets.pushes[0].body == body.encode()


@pytest.mark.parametrize(
    "expire", ["", "-1", "+1", "1.5", "1s", "4294967296", "9" * 5000, "\u0661", " 1", "0x10", "0" * 5000 + "x"]
)
def test_expire_is_a_plain_decimal_from_0_to_4294967295_else_65534(world: World, expire: str) -> None:
    assert world.post(PUSH, "{}", key="x", expire=expire).body == PARAMETER
    many = json.dumps({"m": "{}", "k": "x"})
    assert world.post(MANY, many, expire=expire).body == PARAMETER
    assert world.post(PUSH, "{}", key="x").body == PARAMETER
    assert not world.comets.pushes


def test_the_ends_of_expire(world: World, make_world: MakeWorld) -> None:
    assert world.post(PUSH, "{}", key="x", expire="0").body == OK
    assert world.post(PUSH, "{}", key="x", expire="4294967295").body == OK
    assert world.post(PUSH, "{}", key="x", expire="0" * 5000 + "4294967295").body == OK
    assert world.post(MANY, '{"m":"1","k":"x"}', expire="0" * 5000).body == OK
    assert [push.expire for push in world.comets.pushes] == [0, 2**32 - 1, 2**32 - 1, 0]
    bounded = make_world(max_expire=100)
    assert bounded.post(PUSH, "{}", key="x", expire="100").body == OK
    assert bounded.post(PUSH, "{}", key="x", expire="101").body == PARAMETER


@pytest.mark.parametrize("key", ["", "%00", "%ff", "k" * 256, "a%7f"])
def test_what_is_no_key(world: World, key: str) -> None:
    """protocol.md, section 4: 65534 parameter error."""
    assert world.post(f"{PUSH}?expire=1&key={key}", "{}").body == PARAMETER
    assert world.post("/1/admin/msg/del", f"key={key}").body == PARAMETER
    assert not world.comets.pushes


@pytest.mark.parametrize("ret", [1001, 65535])
def test_what_a_comet_refuses_with_passes_through(world: World, ret: int) -> None:
    """protocol.md, section 4: 1001 no node for this key, 65535 internal error."""
    world.comets.refuse = lambda key: ret
    assert world.post(PUSH, "{}", key="x", expire="1").body == b'{"ret":%d}' % ret
    assert world.post(PUSH, "{}", key="x", expire="1", mid="1").body == b'{"ret":%d}' % ret


def test_the_mid_is_reported_to_who_asks(world: World) -> None:
    mid = data(world.post(PUSH, "{}", key="x", expire="1", mid="1"))["mid"]
    assert mid == world.messages.logs["x"][0].mid
    assert world.post(PUSH, "{}", key="x", expire="1", mid="0").body == OK


def test_an_id_tells_repeats_apart(world: World) -> None:
    first = world.post(PUSH, "1", key="x", expire="1", mid="1", id="a\u4f60").body
    assert world.post(PUSH, "2", "Idempotency-Key: a\u4f60\r\n", key="x", expire="1", mid="1").body == first
    assert world.post(PUSH, "3", "Idempotency-Key: b\r\n", key="x", expire="1", mid="1", id="a\u4f60").body == first
    assert world.post(PUSH, "4", key="other", expire="1", mid="1", id="a\u4f60").status == 200
    assert [message.body for message in world.messages.logs["x"]] == [b"1"]
    assert {push.dedupe for push in world.comets.pushes} == {60}
    assert len(world.messages.logs["other"]) == 1


def test_an_id_has_at_most_255_bytes(world: World) -> None:
    assert world.post(PUSH, "1", key="x", expire="1", id="i" * 255).body == OK
    for wrong in ("i" * 256, "\u4f60" * 86, ""):
        assert world.post(PUSH, "1", key="x", expire="1", id=wrong).body == PARAMETER
        assert world.post(PUSH, "1", f"Idempotency-Key: {wrong}\r\n", key="x", expire="1").body == PARAMETER
    assert world.post(f"{PUSH}?key=x&expire=1&id=%ff", "1").body == PARAMETER


@pytest.mark.parametrize("char", ["\0", "\x01", "\t", "\n", "\r", "\x7f", "\x85", "\u2028"])
def test_an_id_has_no_control_characters(world: World, char: str) -> None:
    """SQLite ended an id at U+0000: a new message was taken for a repeat, and never stored."""
    wrong = f"a{char}b"
    assert world.post(PUSH, "1", key="x", expire="1", id=wrong).body == PARAMETER
    assert world.post(MANY, '{"m":"1","k":"a,b"}', expire="1", id=wrong).body == PARAMETER
    if char not in "\r\n":
        refused = world.post(PUSH, "1", f"Idempotency-Key: {wrong}\r\n", key="x", expire="1")
        assert (refused.status, refused.body) == (200, PARAMETER) or refused.status == 400
    line = json.dumps({"k": "x", "m": 1, "expire": 1, "id": wrong})
    assert world.post("/1/admin/push/bulk", line).body == b'{"ret":65534}\n'
    assert world.comets.pushes == []


@pytest.mark.parametrize("dedupe", [0.0, 0.5, 3.0])
def test_an_id_is_remembered_for_longer_than_its_push_may_be_stored(make_world: MakeWorld, dedupe: float) -> None:
    """Else a second attempt of web's own, within the deadline, stores it once more."""
    world = make_world(dedupe=dedupe)
    assert world.post(PUSH, "1", key="x", expire="1", id="i").body == OK
    (push,) = world.comets.pushes
    assert push.dedupe >= push.deadline - NOW > 0


def test_without_an_id_each_push_gets_one_of_its_own(world: World, make_world: MakeWorld) -> None:
    other = make_world()
    for _ in range(3):
        assert world.post(PUSH, "1", key="x", expire="1").body == OK
        assert other.post(PUSH, "1", key="x", expire="1").body == OK
    pushes = world.comets.pushes + other.comets.pushes
    assert len({push.id for push in pushes}) == 6
    assert {push.dedupe for push in pushes} == {0}
    assert len(world.messages.logs["x"]) == 3


# Multiple


def test_push_to_many(world: World) -> None:
    body = '{"m":"{\\"a\\": 1.0}","k":"k1,k2,k3"}'
    assert world.post(MANY, body, expire="600").body == OK
    assert [(push.key, push.body, push.expire) for push in world.comets.pushes] == [
        (key, b'{"a": 1.0}', 600) for key in ("k1", "k2", "k3")
    ]


@pytest.mark.parametrize(
    ("body", "query"),
    [
        ("{", {"expire": "1"}),
        ('{"m":"1","k":"a,b"}', {"expire": "x"}),
        ('{"m":"1","k":"a,b"}', {"expire": "1", "id": ""}),
    ],
)
def test_a_call_for_many_keys_that_is_refused_counts_once(world: World, body: str, query: dict[str, str]) -> None:
    """It was in no counter, so that nobody was told of a publisher that does it wrong."""
    assert world.post(MANY, body, **query).body == PARAMETER
    pushes = world.web.counters.pushes
    assert (pushes[65534], sum(pushes.values())) == (1, 1)


def test_failed_keys_are_named(world: World) -> None:
    """protocol.md, section 5: `{"fk":["k2"]}` only when some keys failed."""
    world.comets.refuse = lambda key: 65535 if key == "k2" else 0
    answer = world.post(MANY, '{"m":"1","k":"k1,k2,k3"}', expire="600")
    assert answer.body == b'{"ret":0,"data":{"fk":["k2"]}}'
    bad = "x" * 256
    answer = world.post(MANY, json.dumps({"m": "1", "k": ["k1", bad, "a\nb", "k3"]}), expire="600")
    assert data(answer) == {"fk": [bad, "a\nb"]}
    assert world.web.counters.pushes[65534] == 2


@pytest.mark.parametrize(("rets", "ret"), [((1001,), 1001), ((65535,), 65535), ((1001, 65535), 65535)])
def test_where_nothing_was_stored_ret_is_not_0(world: World, rets: tuple[int, ...], ret: int) -> None:
    """protocol.md, section 5: `ret` 0 means stored."""
    world.comets.refuse = lambda key: rets[int(key) % len(rets)]
    answer = world.post(MANY, '{"m":"1","k":"0,1"}', expire="600")
    assert answer.body == b'{"ret":%d,"data":{"fk":["0","1"]}}' % ret
    assert json.loads(world.post(MANY, '{"m":"1","k":["\\n"]}', expire="1").body)["ret"] == 65534


def test_keys_may_be_a_list_and_hold_commas(world: World) -> None:
    """protocol.md, section 5: `k` may also be a JSON list, so that a key may hold a comma."""
    assert world.post(MANY, '{"k":["a,b","\\u4f60"],"m":"1"}', expire="1").body == OK
    assert list(world.messages.logs) == ["a,b", "\u4f60"]


def test_duplicate_keys_count_once(world: World) -> None:
    """protocol.md, section 5: duplicate keys in `k` count once."""
    assert world.post(MANY, '{"m":"1","k":"a,b,a,a"}', expire="1").body == OK
    assert [push.key for push in world.comets.pushes] == ["a", "b"]
    world.comets.refuse = lambda key: 65535 if key == "a" else 0
    assert data(world.post(MANY, '{"m":"1","k":["a","b","a"]}', expire="1")) == {"fk": ["a"]}


def test_mids_of_many(world: World) -> None:
    world.comets.refuse = lambda key: 65535 if key == "b" else 0
    found = data(world.post(MANY, '{"m":"1","k":"a,b,c\\u4f60"}', expire="1", mid="1"))
    assert found == {"fk": ["b"], "mids": {key: world.messages.logs[key][0].mid for key in ("a", "c\u4f60")}}


def test_an_id_holds_for_each_key(world: World) -> None:
    for _ in range(2):
        assert world.post(MANY, '{"m":"1","k":"a,b"}', expire="1", id="i").body == OK
    assert {key: len(log) for key, log in world.messages.logs.items()} == {"a": 1, "b": 1}
    assert world.post(MANY, '{"m":"1","k":"a,b"}', expire="1", id="i" * 256).body == PARAMETER
    for _ in range(2):
        world.post(MANY, '{"m":"1","k":"a,b"}', expire="1")
    assert len({(push.key, push.id) for push in world.comets.pushes[-4:]}) == 4


@pytest.mark.parametrize(
    "body",
    [
        *(
            "",
            "[]",
            "1",
            "{",
            "{}",
            '{"m":"1"}',
            '{"k":"a"}',
            '{"m":1,"k":"a"}',
            '{"M":"1","k":"a"}',
            '{"m":"1","K":"a"}',
            '{"m":{},"k":"a"}',
            '{"m":null,"k":"a"}',
        ),
        *(
            '{"m":"","k":"a"}',
            '{"m":"nope","k":"a"}',
            '{"m":"\\ud800","k":"a"}',
            '{"m":"1","k":""}',
            '{"m":"1","k":[]}',
        ),
        *(
            '{"m":"1","k":[1]}',
            '{"m":"1","k":1}',
            '{"m":"1","k":{"a":1}}',
            '{"m":"1","k":null}',
            '{"m":"1","k":["\\ud800"]}',
        ),
        *('{"m":"1","k":"a"}x', '{"m":"1","k":"a","x":NaN}', '{"m":"1","k":[""]}'),
    ],
)
def test_a_wrong_envelope_is_65534_as_a_whole(world: World, body: str) -> None:
    """protocol.md, section 5: `m` is a JSON *string* that holds JSON, else the whole call is 65534."""
    assert world.post(MANY, body, expire="600").body == PARAMETER
    assert not world.comets.pushes


def test_a_message_that_is_too_large_is_not_read(make_world: MakeWorld) -> None:
    world = make_world(body=9)
    why = world.post(MANY, json.dumps({"m": "x" * 10, "k": "a"}), "Prefer: why\r\n", expire="600").body
    assert b"m has 10 bytes, and a message at most 9" in why


@pytest.mark.parametrize(
    "body",
    [
        b'{"m":"1","k":"a",%b"b":1}' % (b'"x":1,' * 1_000_000),
        b'{"m":"1","k":{%b"b":1}}' % (b'"x":1,' * 1_000_000),
        b'{"m":"1","k":[%b"b"]}' % (b'"a",' * 2_000_000),
        b'{"m":"1","k":"a","x":[%b1]}' % (b"[]," * 2_000_000),
    ],
    ids=range(4),
)
def test_a_large_envelope_is_refused_at_a_glance(world: World, body: bytes) -> None:
    """protocol.md, section 5: so many members are 65534, and so much beside the message and the keys."""
    assert world.post(MANY, body, expire="600").body == PARAMETER
    assert not world.comets.pushes


def test_many_keys_go_out_in_bounded_groups(world: World) -> None:
    keys = [f"k{number}" for number in range(2_500)]
    assert world.post(MANY, json.dumps({"m": "1", "k": keys}), expire="1").body == OK
    assert [push.key for push in world.comets.pushes] == keys
    world.comets.hold = True
    with Client(world.admin.port) as client:
        body = json.dumps({"m": "1", "k": keys}).encode()
        client.send(b"POST %b?expire=1 HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (MANY.encode(), len(body)) + body)
        while client.silent(0.05):
            world.in_reactor(world.comets.answer_all)
        assert client.answer().body == OK
    assert world.comets.most_held == 1_000


def test_sizes(world: World) -> None:
    """protocol.md, section 5: a single message and its envelope may have 4 MiB, mprivate 16."""
    mib = 1 << 20
    message = '"' + "x" * (4 * mib - 2) + '"'
    assert world.post(PUSH, message, key="x", expire="1").body == OK
    assert world.post(PUSH, message + " ", key="x", expire="1").status == 413
    assert world.post(MANY, json.dumps({"m": message, "k": "x"}), expire="1").body == OK
    assert world.post(MANY, json.dumps({"m": message + " ", "k": "x"}), expire="1").body == PARAMETER
    envelope = json.dumps({"m": "1", "k": "x"})
    assert world.post(MANY, envelope.ljust(16 * mib), expire="1").body == OK
    assert world.post(MANY, envelope.ljust(16 * mib + 1), expire="1").status == 413


# Deleting


@pytest.mark.parametrize("path", ["/1/admin/msg/del", "/admin/msg/clean"])
def test_delete(world: World, path: str) -> None:
    """protocol.md, section 5: form `key=K`; also closes the key's subscribers, before it answers."""
    world.post(PUSH, "1", key="a b", expire="1")
    assert world.post(path, "x=1&key=a+b&key=c", "Content-Type: text/html\r\n").body == OK
    assert "a b" not in world.messages.logs
    assert world.comets.closed == ["a b"]
    assert world.post(path, "").body == PARAMETER
    assert world.post(path, "", key="a").body == PARAMETER
    world.messages.down = True
    assert world.post(path, "key=a").body == b'{"ret":65535}'


def test_the_keys_of_a_call_are_bounded(make_world: MakeWorld) -> None:
    world = make_world(multi_keys=1500)
    for keys in (",".join(map(str, range(1500))), [str(number) for number in range(1500)]):
        assert world.post(MANY, json.dumps({"m": "1", "k": keys}), expire="0").body == OK
    assert len(world.comets.pushes) == 3000
    for keys in (",".join(map(str, range(1501))), [str(number) for number in range(1501)], "," * 3_000_000):
        assert world.post(MANY, json.dumps({"m": "1", "k": keys}), expire="0").body == b'{"ret":65534}'
    assert len(world.comets.pushes) == 3000


def test_a_key_that_is_named_often_counts_once(make_world: MakeWorld) -> None:
    """protocol.md, section 5: also where there are more names than keys that a call may have."""
    world = make_world(multi_keys=1500)
    for keys in (["x"] * 1501, [str(number % 1500) for number in range(15_000)]):
        world.comets.pushes.clear()
        for named in (keys, ",".join(keys)):
            assert world.post(MANY, json.dumps({"m": "1", "k": named}), expire="0").body == OK
        assert len(world.comets.pushes) == 2 * len(set(keys))
    for named in (["x"] * 15_001, ",".join(["x"] * 15_001)):
        assert b"65534" in world.post(MANY, json.dumps({"m": "1", "k": named}), expire="0").body


def test_many_keys_go_in_several_turns(make_world: MakeWorld) -> None:
    """Others are served between them."""
    world = make_world()
    turns: list[int] = []
    push = world.comets.push
    publisher = world.web.publisher
    asked: list[int] = []
    soon = publisher.soon

    def tracked(pushes: Sequence[Push], answered: OnPushed) -> None:
        turns.append(len(pushes))
        push(pushes, answered)

    def tracked_soon(call: Callable[[], None]) -> None:
        asked.append(len(turns))
        soon(call)

    with patch.object(world.comets, "push", tracked), patch.object(publisher, "soon", tracked_soon):
        keys = ",".join(map(str, range(5000)))
        assert world.post(MANY, json.dumps({"m": "1", "k": keys}), expire="0").body == OK
    assert turns == [500] * 10
    assert asked == [2, 4, 6, 8]


# HTTP


def test_keep_alive_chunks_and_expect(world: World) -> None:
    """protocol.md, section 5: keep-alive works; chunked bodies and `Expect: 100-continue` are taken."""
    with Client(world.admin.port) as client:
        for number in range(3):
            answer = client.request("POST", f"{PUSH}?key=x&expire=1", b"%d" % number, "Content-Type: text/html\r\n")
            assert answer.body == OK
        client.send(f"POST {PUSH}?key=x&expire=1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n".encode())
        client.send(b"Expect: 100-continue\r\n\r\n")
        assert client.answer().status == 100
        client.send(b"1\r\n[\r\n1\r\n]\r\n0\r\n\r\n")
        assert client.answer().body == OK
    assert [message.body for message in world.messages.logs["x"]] == [b"0", b"1", b"2", b"[]"]


def test_other_methods_and_paths(world: World) -> None:
    """protocol.md, section 4: another method answers 405, an unknown path 404."""
    with Client(world.admin.port) as client:
        for path in (*PUSH_PATHS, MANY, "/1/admin/msg/del", "/admin/msg/clean", "/1/admin/push/bulk"):
            answer = client.request("GET", path)
            assert (answer.status, answer.headers["allow"]) == (405, "POST")
            assert client.request("HEAD", path).status == 405
        assert client.request("POST", "/1/server/get").status == 404
        assert client.request("GET", "/pages/").status == 404


def test_requests_of_web_pages_pass_only_from_our_own_addresses(world: World) -> None:
    """protocol.md, section 5: a request that carries an `Origin` passes only from the admin page's own addresses."""
    port = world.admin.port
    target = f"{PUSH}?key=x&expire=1"
    with Client(port) as client:
        for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}"):
            for scheme in ("http", "https"):
                assert client.request("POST", target, b"1", f"Origin: {scheme}://{host}\r\n").body == OK
    pushed = len(world.comets.pushes)
    foreign = ["http://evil.example", "null", "", f"http://evil.example:{port}", "http://localhost", "http://h"]
    foreign += [f"http://localhost:{port}, http://localhost:{port}", f"http://localhost:{port}/", "http://localhost:1"]
    for origin in foreign:
        for path, body in ((target, b"1"), ("/1/admin/push/bulk", b""), ("/1/admin/msg/del", b"key=x")):
            headers = f"Host: {origin.partition('//')[2]}\r\nOrigin: {origin}\r\n"
            with Client(port) as client:
                assert client.request("POST", path, body, headers).status == 403
    assert len(world.comets.pushes) == pushed
    assert world.web.counters.foreign_origins == 3 * len(foreign)


def test_the_admin_port_is_read_by_names_that_cannot_be_rebound(make_world: MakeWorld) -> None:
    """protocol.md, section 5: a GET only where Host is an address, `localhost` or listed, a POST whatever."""
    world = make_world(admin_hosts=("push.example.org",))

    def status(method: str, host: str) -> int:
        with Client(world.admin.port) as client:
            target = f"{PUSH}?key=k&expire=0" if method == "POST" else "/1/admin/nodes"
            client.send(f"{method} {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1\r\n\r\n1".encode())
            return client.answer(head_only=method == "HEAD").status

    good = (
        "localhost",
        "LOCALHOST:8091",
        "127.0.0.1:8091",
        "192.0.2.1",
        "[::1]:8091",
        "[2001:db8::1]",
        "push.example.org:1",
    )
    bad = (
        "evil.example",
        "evil.example:8091",
        "localhost.evil.example",
        "127.0.0.1.nip.example",
        "[::1",
        "",
        "a@localhost",
    )
    for method in ("GET", "HEAD"):
        assert [status(method, host) for host in good] == [200] * len(good)
        assert [status(method, host) for host in bad] == [403] * len(bad)
    with Client(world.admin.port) as client:
        client.send(b"GET /1/admin/nodes HTTP/1.0\r\n\r\n")
        assert client.answer().status == 200
    assert world.web.counters.foreign_hosts == 2 * len(bad)
    assert [status("POST", host) for host in bad] == [200] * len(bad)


def test_other_sites_may_be_let_in(make_world: MakeWorld) -> None:
    """protocol.md, section 5: the admin page's own addresses and `[admin] origins`."""
    world = make_world(admin_origins=("https://ops.example.org",))
    for origin, status in (("https://ops.example.org", 200), ("https://www.example.org", 403)):
        with Client(world.admin.port) as client:
            answer = client.request("POST", f"{PUSH}?key=k&expire=0", b"1", f"Origin: {origin}\r\n")
            assert answer.status == status


def test_tokens_are_created_listed_and_revoked(world: World) -> None:
    """protocol.md, section 9: token life 30 days; section 10: tokens."""
    found = data(world.post("/1/admin/token", key="x", life="60"))
    assert len(found["token"]) == 43
    assert found["expires"] == int(NOW) + 60
    default = data(world.post("/1/admin/token", key="x"))
    assert default["expires"] == int(NOW) + 30 * 86400
    listed = data(world.call_admin("GET", "/1/admin/token", key="x"))["tokens"]
    assert [token["expires"] for token in listed] == [found["expires"], default["expires"]]
    assert found["token"] not in repr(world.messages.kept_tokens)
    for named in ({"token": found["token"]}, {"digest": listed[1]["digest"]}):
        assert data(world.call_admin("DELETE", "/1/admin/token", key="x", **named)) == {"revoked": True}
        assert data(world.call_admin("DELETE", "/1/admin/token", key="x", **named)) == {"revoked": False}
    assert data(world.call_admin("GET", "/1/admin/token", key="x")) == {"tokens": []}


def test_a_token_lives_no_shorter_than_it_was_asked_to() -> None:
    """Ends are whole seconds."""
    messages = FakeMessages()
    tokens = Tokens(cast(Messages, messages), HttpSettings(token_life=0.5), lambda: 1000.7)
    create = cast(Any, tokens.routes()["/1/admin/token"]["POST"]).handler
    for query, expires in (b"key=x&life=1", 1002), (b"key=x", 1002), (b"key=x&life=300", 1301):
        create(SimpleNamespace(query=Form(query), origin=None))
        assert messages.kept_tokens["x"][-1].expires == expires


@pytest.mark.parametrize(
    ("method", "query"),
    [
        *(("POST", ""), ("POST", "key=x&life=-1"), ("POST", "key=x&life=x"), ("POST", "key=x&life=4294967296")),
        *(("GET", "key="), ("DELETE", "key=x"), ("DELETE", "key=x&digest=ab"), ("DELETE", "token=t")),
    ],
)
def test_wrong_token_calls(world: World, method: str, query: str) -> None:
    assert world.call_admin(method, f"/1/admin/token?{query}").body == PARAMETER


def test_what_is_counted(world: World) -> None:
    world.post(PUSH, "1", key="x", expire="1")
    world.post(PUSH, "nope", key="x", expire="1")
    world.comets.refuse = lambda key: 1001 if key == "a" else 65535
    world.post(MANY, '{"m":"1","k":"a,b,c"}', expire="1")
    assert world.web.counters.pushes == {0: 1, 65534: 1, 1001: 1, 65535: 2}


def test_a_key_may_be_pushed_to_so_often_in_a_second(make_world: MakeWorld) -> None:
    world = make_world(key_rate=2)

    def ret(key: str) -> int:
        answer = world.post("/1/admin/push/private", b"1", key=key, expire="0")
        return int(json.loads(answer.body)["ret"])

    assert [ret("busy") for _ in range(4)] == [0, 0, 65535, 65535]
    assert ret("calm") == 0
    assert (
        world.web.counters.limited_pushes
        == world.web.counters.pushes_over_limit
        == world.web.counters.pushes[65535]
        == 2
    )


def test_a_mistake_of_ours_is_an_internal_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """protocol.md, section 4: every answer is HTTP 200; 65535 is an internal error."""

    def mistaken(_: bytes) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("gopush.web.params.check_json", mistaken)
    answer = world.post("/1/admin/push/private?key=k&expire=60", "{}")
    assert (answer.status, answer.body) == (200, b'{"ret":65535}')
