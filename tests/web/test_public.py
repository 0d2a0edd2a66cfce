"""protocol.md, section 4: the public port."""

from __future__ import annotations

import json
import time
from pathlib import Path

import jwt
import pytest
from twisted.internet.task import Clock

from gopush.membership.view import View
from gopush.model import NodeInfo, mid_at
from gopush.net.limits import ConnectionSettings
from gopush.rpc.settings import TokenSettings
from tests.http.client import Client
from tests.web.conftest import MakeWorld, World, data
from tests.web.fakes import NOW

PARAMETER = b'{"ret":65534}'
JSON = "application/json;charset=utf-8"
JAVASCRIPT = "application/javascript;charset=utf-8"

NEW_PATHS = ["/1/server/get", "/2/server/get", "/1/msg/get", "/1/time/get"]
OLD_PATHS = ["/server/get", "/msg/get", "/time/get"]


def test_server_get(world: World) -> None:
    answer = world.get("/1/server/get", k="Terry-Mao", p="2")
    assert (answer.status, answer.headers["content-type"]) == (200, JSON)
    assert answer.body == b'{"ret":0,"data":{"server":"push.example.org:6969"}}'
    assert world.get("/1/server/get", k="x", p="1").body == b'{"ret":0,"data":{"server":"push.example.org:6968"}}'


def test_server_get_of_version_2_names_all_addresses(world: World) -> None:
    assert world.get("/2/server/get", k="x", p="2").body == (
        b'{"ret":0,"data":{"server":["push.example.org:6969","10.0.0.1:6969"]}}'
    )


def test_server_get_in_its_old_form(world: World) -> None:
    assert world.get("/server/get", key="x", proto="2").body == (
        b'{"ret":0,"msg":"ok","data":{"server":"push.example.org:6969"}}'
    )
    assert world.get("/server/get", k="x", p="2").body == b'{"ret":65534,"msg":"ok"}'


@pytest.mark.parametrize("query", ["p=2", "k=&p=2", "k=x", "k=x&p=0", "k=x&p=3", "k=x&p=tcp", "k=x&p=", "k=x&p=2.0"])
def test_server_get_with_wrong_parameters(world: World, query: str) -> None:
    assert world.get(f"/1/server/get?{query}").body == PARAMETER
    assert world.get(f"/2/server/get?{query}").body == PARAMETER


@pytest.mark.parametrize("key", ["%00", "a%0ab", "%ff", "k" * 256, "%C2%80", "%E2%80%A8", "%zz"])
def test_what_is_no_key(world: World, key: str) -> None:
    assert world.get(f"/1/server/get?k={key}&p=2").body == PARAMETER
    assert world.get(f"/1/msg/get?k={key}&m=0").body == PARAMETER


def test_server_get_follows_the_view(world: World) -> None:
    """protocol.md, section 4: 1001 no node for this key."""
    other = NodeInfo("node2", 1, ("r",), ("second:6969",), ())
    world.coordination.adopt(View([other]))
    assert data(world.get("/1/server/get", k="x", p="2")) == {"server": "second:6969"}
    assert world.get("/1/server/get", k="x", p="1").body == b'{"ret":1001}'
    world.coordination.adopt(View())
    assert world.get("/1/server/get", k="x", p="2").body == b'{"ret":1001}'
    assert world.get("/server/get", key="x", proto="2").body == b'{"ret":1001,"msg":"ok"}'


def test_server_get_spreads_keys_over_the_ring(world: World) -> None:
    """protocol.md, section 8: the ring spreads keys over comets."""
    view = View([NodeInfo(name, 0, (name,), (f"{name}:1",)) for name in ("node1", "node2")])
    world.coordination.adopt(view)
    for number in range(20):
        owner = view.owner(f"k{number}")
        assert owner is not None
        assert data(world.get("/1/server/get", k=f"k{number}", p="2")) == {"server": owner.tcp[0]}


def test_msg_get(world: World) -> None:
    mids = [world.messages.append("x", body) for body in (b'{"a":\n 1}', b"1e400", '"\u4f60\u2028"'.encode())]
    answer = world.get("/1/msg/get", k="x", m="0")
    assert answer.headers["content-type"] == JSON
    assert (
        answer.body
        == (
            f'{{"ret":0,"data":{{"msgs":[{{"msg":{{"a": 1}},"mid":{mids[0]},"gid":0}},'
            f'{{"msg":1e400,"mid":{mids[1]},"gid":0}},{{"msg":"\u4f60\u2028","mid":{mids[2]},"gid":0}}]}}}}'
        ).encode()
    )
    assert [message["mid"] for message in data(world.get("/1/msg/get", k="x", m=str(mids[0])))["msgs"]] == mids[1:]


def test_msg_get_without_messages_has_no_data(world: World) -> None:
    mid = world.messages.append("x", b"1")
    assert world.get("/1/msg/get", k="x", m=str(mid)).body == b'{"ret":0}'
    assert world.get("/1/msg/get", k="nobody", m="0").body == b'{"ret":0}'
    assert world.get("/msg/get", key="x", mid=str(mid), pmid="0").body == b'{"ret":0,"msg":"ok"}'


def test_the_last_mid_comes_without_a_message(make_world: MakeWorld) -> None:
    """protocol.md, section 10: who begins with what is new reads no log of many MiB for its end."""
    world = make_world(auth=True)
    mid = [world.messages.append("x", b"%d" % number) for number in range(10)][-1]
    token = data(world.post("/1/admin/token", key="x"))["token"]
    found = b'{"ret":0,"data":{"msgs":[{"msg":null,"mid":%d,"gid":0}]}}' % mid
    assert world.get("/1/msg/get", k="x", m="0", head="1", t=token).body == found
    assert world.get("/1/msg/get", k="x", m=str(mid - 16), head="1", wait="60", t=token).body == found
    assert world.get("/1/msg/get", k="x", m=str(mid), head="1", t=token).body == b'{"ret":0}'
    assert world.get("/1/msg/get", k="x", m="0", head="1", t="wrong").body == PARAMETER
    assert world.get("/1/msg/get", k="x", m="", head="1", t=token).body == PARAMETER
    assert not world.messages.reads
    assert len(data(world.get("/1/msg/get", k="x", m="0", head="0", t=token))["msgs"]) == 10
    world.messages.down = True
    assert world.get("/1/msg/get", k="x", m="0", head="1", t=token).body == b'{"ret":65535}'


def test_msg_get_reads_page_by_page_to_the_end(world: World) -> None:
    mids = [world.messages.append("x", b"%d" % number) for number in range(10)]
    assert [message["mid"] for message in data(world.get("/1/msg/get", k="x", m="0"))["msgs"]] == mids
    assert len(world.messages.reads) == 4


@pytest.mark.parametrize("off", [-7, -1, 0, 1, 8 - 1])
def test_a_cursor_that_went_through_a_double_is_snapped(world: World, off: int) -> None:
    """protocol.md, section 3: snap an incoming cursor to the nearest multiple of 16."""
    mids = [world.messages.append("x", b"%d" % number) for number in range(3)]
    found = data(world.get("/1/msg/get", k="x", m=str(mids[0] + off)))["msgs"]
    assert [message["mid"] for message in found] == mids[1:]


def test_the_largest_cursor_is_taken(world: World) -> None:
    """protocol.md, section 3: saturating at the ends of int64."""
    world.messages.append("x", b"1")
    for cursor in (str(2**63 - 1), "0" * 5000 + str(2**63 - 1)):
        assert world.get("/1/msg/get", k="x", m=cursor).body == b'{"ret":0}'
    assert world.messages.reads == [("x", 2**63 - 16)] * 2


@pytest.mark.parametrize(
    "cursor", ["", "-1", "+0", "+1", "1.0", "0x1", " 1", "1_0", "\u0661", str(2**63), "9" * 5000, "a"]
)
def test_m_is_a_decimal_int64_from_0_else_65534(world: World, cursor: str) -> None:
    """protocol.md, section 4: `m` is a decimal int64 from 0, else 65534."""
    assert world.get("/1/msg/get", k="x", m=cursor).body == PARAMETER
    assert world.get("/msg/get", key="x", mid=cursor, pmid="0").body == b'{"ret":65534,"msg":"ok"}'
    assert world.get("/1/msg/get", k="x").body == PARAMETER


def test_msg_get_in_its_old_form(world: World) -> None:
    first = world.messages.append("x", b'{"a": "b\\n"}\n')
    answer = world.get("/msg/get", key="x", mid="0", pmid="0")
    message = f'{{"msg":"{{\\"a\\": \\"b\\\\n\\"}}\\n","mid":{first},"gid":0}}'
    assert answer.body == b'{"ret":0,"msg":"ok","data":{"msgs":[%b],"pmsgs":[]}}' % json.dumps(message).encode()
    (found,) = data(answer)["msgs"]
    assert json.loads(found) == {"msg": '{"a": "b\\n"}\n', "mid": first, "gid": 0}
    assert world.get("/msg/get", key="x", mid="0").body == answer.body


def test_msg_get_while_the_store_is_away(world: World) -> None:
    """protocol.md, section 4: 65535 internal error; the old form says "msg":"ok" on errors too."""
    world.messages.down = True
    assert world.get("/1/msg/get", k="x", m="0").body == b'{"ret":65535}'
    assert world.get("/msg/get", key="x", mid="0", pmid="0").body == b'{"ret":65535,"msg":"ok"}'


def test_time_get(world: World) -> None:
    assert world.get("/1/time/get").body == b'{"ret":0,"data":{"timeid":%d}}' % mid_at(NOW)
    assert world.get("/time/get").body == b'{"ret":0,"msg":"ok","data":{"timeid":%d}}' % mid_at(NOW)


def test_msg_get_with_auth_wants_the_token(make_world: MakeWorld) -> None:
    """protocol.md, section 4: with `auth` on, `/msg/get` wants the token (`t` in `/1`, `token` in the old form)."""
    world = make_world(auth=True)
    mid = world.messages.append("x", b"1")
    token = data(world.post("/1/admin/token", key="x"))["token"]
    found = b'{"ret":0,"data":{"msgs":[{"msg":1,"mid":%d,"gid":0}]}}' % mid
    assert world.get("/1/msg/get", k="x", m="0", t=token).body == found
    assert world.get("/msg/get", key="x", mid="0", token=token).body.startswith(b'{"ret":0,"msg":"ok","data"')
    for wrong in ("", "wrong", token + "x"):
        assert world.get("/1/msg/get", k="x", m="0", t=wrong).body == PARAMETER
        assert world.get("/msg/get", key="x", mid="0", token=wrong).body == b'{"ret":65534,"msg":"ok"}'
    assert world.get("/1/msg/get", k="x", m="0").body == PARAMETER
    assert world.get("/1/msg/get", k="other", m="0", t=token).body == PARAMETER
    world.messages.down = True
    assert world.get("/1/msg/get", k="x", m="0", t=token).body == b'{"ret":65535}'


@pytest.mark.parametrize("down", [False, True])
def test_every_answer_is_200_and_one_line(world: World, down: bool) -> None:
    """protocol.md, section 4: HTTP 200, no blanks between tokens, no newline at the end; `ret` 0, or what is wrong."""
    world.messages.append("x", b'"a"')
    world.messages.down = down
    rets = set()
    for path, good in (
        ("/1/server/get", "k=x&p=2"),
        ("/2/server/get", "k=x&p=1"),
        ("/1/msg/get", "k=x&m=0"),
        ("/1/time/get", ""),
        ("/server/get", "key=x&proto=2"),
        ("/msg/get", "key=x&mid=0&pmid=0"),
        ("/time/get", ""),
    ):
        for query in (good, "k=&key="):
            answer = world.get(f"{path}?{query}")
            assert (answer.status, answer.headers["content-type"]) == (200, JSON)
            found = json.loads(answer.body)
            assert answer.body == json.dumps(found, separators=(",", ":")).encode()
            rets.add(found["ret"])
    assert rets == ({0, 65534, 65535} if down else {0, 65534})


# Callbacks


@pytest.mark.parametrize("callback", ["cb", "GoPushCli.callback_1", "$._a.b9", "j" * 64])
def test_a_callback(world: World, callback: str) -> None:
    """protocol.md, section 4: with a callback `application/javascript;charset=utf-8` and `cb({...})`."""
    for path, name, middle in (("/1/time/get", "cb", b""), ("/time/get", "callback", b',"msg":"ok"')):
        answer = world.get(path, **{name: callback})
        assert answer.headers["content-type"] == JAVASCRIPT
        assert answer.body == b'%b({"ret":0%b,"data":{"timeid":%d}})' % (callback.encode(), middle, mid_at(NOW))
    assert world.get("/1/server/get", cb=callback).body == callback.encode() + b'({"ret":65534})'


@pytest.mark.parametrize("callback", ["a b", "1a", "a.", ".a", "a..b", "a()", "a;b", "<x>", "a\n", "\u00e9", "j" * 65])
def test_a_callback_is_an_identifier_path_of_at_most_64_characters(world: World, callback: str) -> None:
    for path in NEW_PATHS:
        answer = world.get(path, k="x", p="2", m="0", cb=callback)
        assert (answer.body, answer.headers["content-type"]) == (PARAMETER, JSON)
    for path in OLD_PATHS:
        answer = world.get(path, key="x", proto="2", mid="0", callback=callback)
        assert (answer.body, answer.headers["content-type"]) == (b'{"ret":65534,"msg":"ok"}', JSON)


def test_an_empty_callback_is_none(world: World) -> None:
    assert world.get("/1/time/get?cb=").headers["content-type"] == JSON
    assert world.get("/1/time/get?cb=%ff").body == PARAMETER


def test_javascript_has_no_line_separators(world: World) -> None:
    world.messages.append("x", '"\u2028\u2029"'.encode())
    body = world.get("/1/msg/get", k="x", m="0", cb="c").body
    assert b'"\\u2028\\u2029"' in body
    assert json.loads(body[2:-1])["data"]["msgs"][0]["msg"] == "\u2028\u2029"


# HTTP


def test_other_methods_and_paths(world: World) -> None:
    """protocol.md, section 4: another method answers 405, an unknown path 404; HEAD as GET without a body."""
    with Client(world.public.port) as client:
        for path in (*NEW_PATHS, *OLD_PATHS):
            assert client.request("POST", path, b"x").status == 405
            assert client.request("DELETE", path).status == 405
            head = client.request("HEAD", path)
            assert (head.status, head.body) == (200, b"")
        for path in ("/", "/1/server", "/3/server/get", "/1/server/get/", "/1/admin/push/private"):
            assert client.request("GET", path).status == 404


def test_queries_are_form_encoded(world: World) -> None:
    """protocol.md, section 4: `+` is a blank, of repeated names the first counts, unknown names are ignored."""
    mid = world.messages.append("a b+\u4f60", b"1")
    for query in ("k=a+b%2b%e4%bd%a0&m=0", "k=a%20b%2B\u4f60&m=0&k=other&m=x&z=%ff&%ff=z"):
        with Client(world.public.port) as client:
            answer = client.request("GET", f"/1/msg/get?{query}")
            assert answer.body == b'{"ret":0,"data":{"msgs":[{"msg":1,"mid":%d,"gid":0}]}}' % mid
    with Client(world.public.port) as client:
        assert client.request("GET", "/1/msg/get?k=a+b%2b%e4%bd%a0;m=0").body == PARAMETER


def test_an_idle_connection_is_closed_after_10_s_on_both_ports(make_world: MakeWorld) -> None:
    """protocol.md, section 4: "An idle connection, half a request included, is closed after 10 s, on both ports"."""
    world = make_world(Clock())
    for server in (world.public, world.admin):
        with Client(server.port) as client:
            client.send(b"GET /1/time")
            assert client.silent(0.2)
            server.advance(9)
            assert client.silent(0.2)
            server.advance(2.5)
            assert client.closed()


@pytest.mark.parametrize("fields", ["Host: localhost\r\nX: a\n", "Host: localhost\n", "X: a\nHost: localhost\r\n"])
def test_a_line_feed_without_its_cr_is_400_on_both_ports(world: World, fields: str) -> None:
    """protocol.md, section 4."""
    for server in (world.public, world.admin):
        with Client(server.port) as client:
            client.send(f"GET /1/time/get HTTP/1.1\r\n{fields}\r\n".encode())
            assert client.answer().status == 400
            assert client.closed()


def test_what_is_counted(world: World) -> None:
    world.get("/1/server/get", k="x", p="2")
    world.get("/1/msg/get", k="x", m="0")
    world.get("/msg/get", key="x", mid="0")
    assert (world.web.counters.lookups, world.web.counters.reads) == (1, 2)


def test_offline_messages_are_read_with_a_signed_token(make_world: MakeWorld, tmp_path: Path) -> None:
    """protocol.md, sections 4 and 10: `/msg/get` wants the token; a signed one needs no look-up."""
    (tmp_path / "secret").write_text("s" * 32)
    world = make_world(auth=True, tokens=TokenSettings(algorithm="HS256", key_file=str(tmp_path / "secret")))

    def ret(sub: str, secret: str = "s" * 32, **claims: int) -> int:
        token = jwt.encode({"sub": sub, "exp": int(time.time()) + 600} | claims, secret, algorithm="HS256")
        return int(json.loads(world.get("/1/msg/get", k="k", m="0", t=token).body)["ret"])

    assert ret("k") == 0
    assert [ret("j"), ret("k", exp=1), ret("k", "t" * 32)] == [65534] * 3
    assert world.web.counters.refused_tokens == 3


def test_pages_of_other_sites_get_nothing_where_sites_are_listed(make_world: MakeWorld) -> None:
    """A page's script (JSONP) bears no Origin but a Referer; a device bears neither."""
    sites = ConnectionSettings(origins=("https://www.example.org",))
    world = make_world(connections=sites)
    anybody = make_world()

    def status(here: World, headers: str) -> int:
        with Client(here.public.port) as client:
            return client.request("GET", "/1/server/get?k=k&p=1&cb=f", b"", headers).status

    good = ("", "Origin: https://www.example.org\r\n", "Referer: https://www.example.org/page?a=//b\r\n")
    bad = ("Origin: https://evil.example\r\n", "Referer: https://evil.example/https://www.example.org\r\n")
    assert [status(world, headers) for headers in good] == [200] * 3
    assert [status(world, headers) for headers in bad] == [403] * 2
    assert world.web.counters.foreign_origins == 2
    assert [status(anybody, headers) for headers in good + bad] == [200] * 5


@pytest.mark.parametrize("callback", ["", "f"])
def test_a_large_log_is_read_page_by_page(world: World, callback: str) -> None:
    """protocol.md, section 4: in chunks, and what they make up is what one piece would be."""
    bodies = [b'"%d \xe2\x80\xa8"' % number for number in range(250)]
    mids = [world.messages.append("big", body) for body in bodies]
    for path, names in (("/1/msg/get", ("k", "m", "cb")), ("/msg/get", ("key", "mid", "callback"))):
        values = dict(zip(names, ("big", "0", callback), strict=True))
        answer = world.get(path, **values)
        assert answer.headers["transfer-encoding"] == "chunked"
        text = answer.body.decode().removeprefix(f"{callback}(").removesuffix(")" if callback else "")
        assert ("\u2028" in text) is not bool(callback)
        messages = json.loads(text)["data"]["msgs"]
        found = messages if path == "/1/msg/get" else [json.loads(message) for message in messages]
        assert [message["mid"] for message in found] == mids
