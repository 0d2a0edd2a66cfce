"""protocol.md, section 10: server-sent events, as a strict reader sees them, and what becomes of who reads badly."""

from __future__ import annotations

import json
import re
import time
from typing import Any
from urllib.parse import quote

import pytest

from gopush.event_stream import COMMENT
from gopush.net.limits import ConnectionSettings
from tests.event_source import Event, Stream, wait_for
from tests.http.client import Answer, Client
from tests.web.whole import MakeWhole, Whole, make_whole, whole

__all__ = ["make_whole", "whole"]

SITE = "https://www.example.org"


def message(mid: int, msg: Any) -> Event:
    return Event("message", f'{{"msg":{json.dumps(msg)},"mid":{mid},"gid":0}}', str(mid))


def reason(stream: Stream) -> str:
    """Why a stream was refused; nothing follows."""
    events = list(stream.events())
    assert [event.type for event in events] == ["refused"]
    found: str = json.loads(events[0].data)["reason"]
    return found


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    return f"{request.node.name[:80]}-{time.monotonic_ns()}"


def test_two_lines_of_javascript_want_this(whole: Whole, key: str) -> None:
    with whole.stream(key) as stream:
        assert stream.status == 200
        assert stream.headers["content-type"] == "text/event-stream"
        assert stream.headers["cache-control"] == "no-store, no-transform"
        assert stream.headers["x-accel-buffering"] == "no"
        assert stream.headers["transfer-encoding"] == "chunked"
        assert "content-length" not in stream.headers
        stream.began()
        assert re.fullmatch(rb"retry: [0-9]{4}\nid: [0-9]+\n\n", stream.raw)
        assert 1000 <= (stream.parser.retry_ms or 0) <= 3000
        first, second = whole.push(key, b'{"a":\r\n1}'), whole.push(key, b'"\xe4\xbd\xa0"', expire=0)
        assert stream.event() == Event("message", f'{{"msg":{{"a":1}},"mid":{first},"gid":0}}', str(first))
        assert stream.event() == Event("message", f'{{"msg":"\u4f60","mid":{second},"gid":0}}', str(second))
        assert stream.raw.endswith(b'id: %d\ndata: {"msg":"\xe4\xbd\xa0","mid":%d,"gid":0}\n\n' % (second, second))


def test_when_to_come_back_is_random_and_never_at_once(whole: Whole, key: str) -> None:
    found = set()
    for number in range(12):
        with whole.stream(f"{key}{number}") as stream:
            found.add(stream.began().parser.retry_ms)
    assert len(found) > 6
    assert all(1000 <= (retry or 0) <= 3000 for retry in found)


def test_who_is_cut_before_its_first_message_loses_none(whole: Whole, key: str) -> None:
    """It has seen nothing, but knows where it was."""
    before = whole.push(key, b'"before"')
    with whole.stream(key) as stream:
        seen = stream.began().parser.last_id
    assert seen == str(before)
    missed = whole.push(key, b'"missed"')
    with whole.stream(key, fields=f"Last-Event-ID: {seen}\r\n") as stream:
        assert stream.event() == message(missed, "missed")


def test_the_last_id_wins_over_mid(whole: Whole, key: str) -> None:
    mids = [whole.push(key, b"%d" % number) for number in range(4)]
    for more, fields, first in (
        ("&mid=0", "", 0),
        (f"&mid={mids[1]}", "", 2),
        (f"&mid={mids[1] - 3}", "", 2),  # as a double has it
        (f"&mid={mids[0]}", f"Last-Event-ID: {mids[2]}\r\n", 3),
        (f"&mid={mids[2]}", "Last-Event-ID: \r\n", 3),
        ("&mid=x", f"Last-Event-ID: {mids[2]}\r\n", 3),
    ):
        with whole.stream(key, more, fields) as stream:
            events = stream.events()
            assert [next(events) for _ in mids[first:]] == [message(mids[at], at) for at in range(first, 4)]


def test_a_gap_is_reported(make_whole: MakeWhole, key: str) -> None:
    whole = make_whole()
    mids = [whole.push(key, b"%d" % number) for number in range(25)]  # 20 are kept
    with whole.stream(key, f"&mid={mids[0]}") as stream:
        events = stream.events()
        assert next(events) == Event("gap", "{}", str(mids[0]))
        assert [next(events) for _ in range(20)] == [message(mids[at], at) for at in range(5, 25)]


@pytest.mark.parametrize("more", ["", "&mid=0"])
def test_who_is_cut_before_its_first_message_hears_of_a_gap(whole: Whole, key: str, more: str) -> None:
    """The id it goes on from is never 0, which would mean all that is kept."""
    with whole.stream(key, more) as stream:
        seen = stream.began().parser.last_id
    mids = [whole.push(key, b"%d" % number) for number in range(25)]  # 20 are kept
    with whole.stream(key, more, fields=f"Last-Event-ID: {seen}\r\n") as stream:
        events = stream.events()
        assert next(events) == Event("gap", "{}", seen)
        assert next(events) == message(mids[5], 5)


@pytest.mark.parametrize("more", ["", "&mid=0"])
def test_a_stream_that_web_resumes_before_its_first_message_hears_of_a_gap(
    whole: Whole, key: str, more: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gopush.web.follower.FIRST_PAUSE_SECONDS", 3.0)
    with whole.stream(key, more) as stream:
        stream.began()
        whole.in_reactor(whole.comet.close, [key])
        mids = [whole.push(key, b"%d" % number) for number in range(25)]  # 20 are kept
        events = stream.events()
        assert next(events).type == "gap"
        assert next(events) == message(mids[5], 5)


def test_who_finds_no_comet_at_a_key_without_messages_hears_of_a_gap(make_whole: MakeWhole, key: str) -> None:
    whole = make_whole()
    with whole.stream(f"{key}-first") as stream:
        stream.began()
    whole.in_reactor(setattr, whole.comet, "owns", lambda _: False)
    with whole.stream(key) as stream:
        assert reason(stream) == "comet away"
        assert stream.parser.last_id == "16"


@pytest.mark.parametrize(
    "query",
    [
        "",
        "key=k",
        "key=&heartbeat=30",
        "key=k&heartbeat=29",
        "key=k&heartbeat=x",
        "key=k&heartbeat=%2030",
        "key=k%00&heartbeat=30",
        "key=k&heartbeat=30&mid=x",
        "key=k&heartbeat=30&mid=",
        "key=k&heartbeat=30&mid=9223372036854775808",
        f"key=k&heartbeat=30&token={'t' * 4097}",
        "key=k&heartbeat=30&mid=9000000000000000000",
    ],
)
def test_what_must_not_be_repeated_is_400(whole: Whole, query: str) -> None:
    """protocol.md, section 1: -p. An EventSource stops for good."""
    with Stream(whole.host, f"/sub?{query}") as stream:
        assert (stream.status, stream.headers["content-type"]) == (400, "text/plain;charset=utf-8")
    with Stream(whole.host, "/sub?key=k&heartbeat=30", "Last-Event-ID: now\r\n") as stream:
        assert stream.status == 400


def test_tokens(make_whole: MakeWhole, key: str) -> None:
    """-c is 403, -a is 401, in plain text: so a client tells them from a proxy's."""
    whole = make_whole({"auth": True}, auth=True)
    with whole.stream(key) as stream:
        assert (stream.status, stream.headers["content-type"]) == (403, "text/plain;charset=utf-8")
    token = whole.token(key)
    for wrong in ("", "&token=wrong"):
        with whole.stream(key, wrong) as stream:
            assert (stream.status, stream.headers["content-type"]) == (401, "text/plain;charset=utf-8")
    with whole.stream(key, f"&token={token}") as stream:
        assert stream.began().status == 200


def refused(whole: Whole, target: str, fields: str = "") -> tuple[str, Answer]:
    """What a stream's refusal says, with and without `why`: nothing else differs."""
    with Client(whole.ports["http"]) as client:
        plain = client.request("GET", target, headers=fields)
        said = client.request("GET", f"{target}&why=1", headers=fields)
        asked = client.request("GET", target, headers=f"{fields}Prefer: why\r\n")
    assert (said.status, said.body) == (asked.status, asked.body)
    assert said.status == plain.status
    return said.body.decode(), plain


@pytest.mark.parametrize(
    ("query", "fields", "why"),
    [
        ("key=k", "", "the heartbeat is not a decimal int64"),
        ("key=k&heartbeat=29", "", "the heartbeat is below 30 seconds"),
        ("key=k&heartbeat=30&mid=x", "", "the mid is not a decimal int64"),
        ("key=%ff&heartbeat=30", "", "key is not UTF-8"),
        (
            "key=k&heartbeat=30",
            "Last-Event-ID: 9000000000000000000\r\n",
            "the mid is above the key's last one, and more",
        ),
    ],
)
def test_400_says_why(whole: Whole, query: str, fields: str, why: str) -> None:
    """protocol.md, section 10: behind the name of the status, to who asks."""
    said, plain = refused(whole, f"/sub?{query}", fields)
    assert (plain.status, plain.body) == (400, b"Bad Request\n")
    assert said.startswith(f"Bad Request: {why}")


def test_401_and_403_say_why(make_whole: MakeWhole, key: str) -> None:
    """401 names what is wanted in any case."""
    whole = make_whole({"auth": True}, auth=True)
    said, plain = refused(whole, f"/sub?key={key}&heartbeat=30")
    assert (plain.status, plain.body) == (403, b"Forbidden\n")
    assert said == "Forbidden: nobody created this key: there is neither a token nor a kept message for it\n"
    token = whole.token(key)
    said, plain = refused(whole, f"/sub?key={key}&heartbeat=30", f"Authorization: Bearer {token}\r\n")
    assert plain.status == 401
    assert plain.headers["www-authenticate"] == 'Bearer realm="gopush"'
    wanted = "Unauthorized: this stream wants a token of its key, token=TOKEN in the query"
    assert plain.body.decode() == f"{wanted}\n"
    assert said == f"{wanted}: it is missing, or not a valid one\n"
    assert token not in said


def test_pages_of_other_sites(make_whole: MakeWhole, key: str) -> None:
    """protocol.md, section 4: CORS."""
    with make_whole().stream(key, fields="Origin: https://any.example\r\n") as stream:
        assert stream.began().headers["access-control-allow-origin"] == "https://any.example"
    whole = make_whole({"connections": ConnectionSettings(origins=(SITE,))})
    with whole.stream(key, fields=f"Origin: {SITE}\r\n") as stream:
        assert stream.began().headers["access-control-allow-origin"] == SITE
        assert stream.headers["vary"] == "Origin"
    with whole.stream(key, fields="Origin: https://evil.example\r\n") as stream:
        assert stream.status == 403
    asked = "Access-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: last-event-id\r\n"
    with Client(whole.ports["http"]) as client:
        answer = client.request("OPTIONS", "/sub?key=k&heartbeat=30", headers=f"Origin: {SITE}\r\n{asked}")
    assert (answer.status, answer.headers["access-control-allow-headers"]) == (204, "last-event-id")


def test_other_methods(whole: Whole) -> None:
    with Client(whole.ports["http"]) as client:
        for method in ("POST", "HEAD"):
            refused = client.request(method, "/sub?key=k&heartbeat=30")
            assert (refused.status, refused.headers["allow"]) == (405, "GET")
        assert client.request("GET", "/1/time/get").status == 200
        asked = f"Origin: {SITE}\r\nAccess-Control-Request-Method: GET\r\n"
        answer = client.request("OPTIONS", "/sub?key=k&heartbeat=30", headers=asked)
    assert answer.headers["access-control-allow-methods"] == "GET"


def test_one_too_many_comes_back_later(make_whole: MakeWhole, key: str) -> None:
    """protocol.md, section 1: -l. Only what must not be repeated has a status of its own."""
    whole = make_whole(max_subscribers=2)
    with whole.stream(key).began(), whole.stream(key).began(), whole.stream(key) as third:
        assert third.status == 200
        assert reason(third) == "limit"
        assert 15_000 <= (third.parser.retry_ms or 0) <= 30_000
    wait_for(lambda: whole.subscribers(key) == 0)


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("field", ["", "Connection: keep-alive\r\n"], ids=["short", "long"])
def test_a_client_behind_a_proxy_that_has_all_its_connections_comes_back_later(
    make_whole: MakeWhole, key: str, version: str, field: str
) -> None:
    """protocol.md, section 10: as the one too many of a key: at 429 an EventSource would stop for good."""
    whole = make_whole({"connections": ConnectionSettings(most_of_address=1, proxies=("127.0.0.0/8",))})
    fields = f"{field}X-Forwarded-For: 203.0.113.7\r\n"
    with whole.stream(key, fields=fields).began():
        with whole.stream(key, fields=fields, version=version) as second:
            assert second.status == 200
            assert second.headers["content-type"] == "text/event-stream"
            assert second.headers["cache-control"] == "no-store, no-transform"
            assert reason(second) == "limit"
            assert 15_000 <= (second.parser.retry_ms or 0) <= 30_000
        assert (whole.counters().streams_refused, whole.counters().streams_opened) == (1, 1)
        with whole.stream(key, fields="X-Forwarded-For: 203.0.113.8\r\n").began():
            pass
    wait_for(lambda: whole.subscribers(key) == 0)
    with whole.stream(key, fields=fields).began():
        pass


def test_a_stream_that_a_clients_limit_refuses_leaves_the_proxy_its_connection(make_whole: MakeWhole, key: str) -> None:
    whole = make_whole({"connections": ConnectionSettings(most_of_address=1, proxies=("127.0.0.0/8",))})
    fields = "X-Forwarded-For: 203.0.113.7\r\n"
    target = f"/sub?key={key}&heartbeat=30"
    with Client(whole.ports["http"]) as proxy:
        with whole.stream(key, fields=fields).began():
            assert [proxy.request("GET", target, headers=fields).status for _ in range(3)] == [200] * 3
            for method, path in (("HEAD", target), ("POST", target), ("GET", "/1/time/get")):
                assert proxy.request(method, path, headers=fields).status == 429
            assert proxy.request("GET", "/1/time/get").status == 200
        wait_for(lambda: whole.subscribers(key) == 0)
        assert proxy.request("GET", "/1/time/get", headers=fields).status == 200


def test_no_comet(make_whole: MakeWhole, key: str) -> None:
    whole = make_whole()
    whole.in_reactor(whole.node._coordination.adopt, type(whole.node._coordination.view)())
    with whole.stream(key) as stream:
        assert stream.status == 200
        assert reason(stream) == "no comet"
        assert 1000 <= (stream.parser.retry_ms or 0) <= 3000


def test_a_refused_stream_is_one_piece(make_whole: MakeWhole, key: str) -> None:
    """Who reads its opening by itself would take it for a live one."""
    whole = make_whole(max_subscribers=1)
    with whole.stream(key).began(), whole.stream(key) as second:
        piece = second.piece()
        assert piece.startswith(b"retry: ")
        assert piece.endswith(b'\n\nevent: refused\ndata: {"reason":"limit"}\n\n')


@pytest.mark.parametrize("more", ["", "&mid=0"])
def test_a_store_that_is_away(make_whole: MakeWhole, key: str, more: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from twisted.internet.defer import fail

    from gopush.errors import UnavailableError

    whole = make_whole()
    messages = whole.node._messages
    for name in ("head", "read"):
        monkeypatch.setattr(messages, name, lambda *_: fail(UnavailableError("away")))
    with whole.stream(key, more) as stream:
        assert stream.status == 200
        assert reason(stream) == "store away"
    assert whole.subscribers(key) == 0


def test_leaving(make_whole: MakeWhole, key: str) -> None:
    """At SIGTERM streams end with a word, and the process ends with them."""
    whole = make_whole()
    streams = [whole.stream(f"{key}{number % 3}").began() for number in range(12)]
    started = time.monotonic()
    whole.close()
    assert time.monotonic() - started < 10
    for stream in streams:
        assert reason(stream) == "leaving"
        stream.close()


@pytest.mark.parametrize(("heartbeat", "seconds"), [(30, 30), (2**63 - 1, 600)])
def test_heartbeats(whole: Whole, key: str, heartbeat: int, seconds: int) -> None:
    """A comment from our side, whatever else goes on: this client cannot speak. One that is gone leaves its place in
    ten minutes.
    """
    with Stream(whole.host, f"/sub?key={key}&heartbeat={heartbeat}") as stream:
        stream.began()
        (found,) = [one for one in whole.node._web.streams.streams if one.key == key]

        def bring_forward() -> None:
            found.deadline = 0.0
            whole.node._web.streams.wheel.add(found)

        def left() -> float:
            return float(found.deadline - whole.node._web.streams.followers.clock.seconds())

        wait_for(lambda: seconds - 5 < left() <= seconds)
        for number in range(2):
            whole.in_reactor(bring_forward)
            stream.until(lambda number=number: stream.parser.comments == number + 1)  # type: ignore[misc]
        assert stream.raw.endswith(COMMENT)
        assert seconds - 5 < left() <= seconds
        mid = whole.push(key, b"1")
        assert stream.event() == message(mid, 1)


def test_http_1_0_goes_on_until_the_end(whole: Whole, key: str) -> None:
    with whole.stream(key, version="1.0") as stream:
        assert stream.headers["connection"] == "close"
        assert "transfer-encoding" not in stream.headers
        stream.began()
        mid = whole.push(key, b"1")
        assert stream.event() == message(mid, 1)
    wait_for(lambda: whole.subscribers(key) == 0)


def test_behind_other_requests_and_before_them(whole: Whole, key: str) -> None:
    """Nothing is answered behind a stream, and what was asked before it is answered first."""
    with Client(whole.ports["http"]) as client:
        ask = "GET {} HTTP/1.1\r\nHost: a\r\n\r\n"
        target = f"/sub?key={key}&heartbeat=30"
        client.send((ask.format("/1/time/get") + ask.format(target) + ask.format("/1/time/get")).encode())
        assert client.answer().body.startswith(b'{"ret":0')
        wait_for(lambda: whole.subscribers(key) == 1)
        whole.push(key, b"1")
        head = client._until(b"\r\n\r\n")
        assert b"text/event-stream" in head
        while b'"msg":1' not in client._data:
            client._receive()
        client._data = b""
        assert client.silent()
    wait_for(lambda: whole.subscribers(key) == 0)


def test_who_hangs_up_is_gone_at_once(whole: Whole, key: str) -> None:
    """A browser says no more than the end of its side; a key has only so many places."""
    import socket

    stream = whole.stream(key).began()
    assert whole.subscribers(key) == 1
    stream.socket.shutdown(socket.SHUT_WR)
    wait_for(lambda: whole.subscribers(key) == 0)
    stream.close()


def test_deleting_closes_and_the_stream_goes_on(whole: Whole, key: str) -> None:
    """protocol.md, section 5: msg/del closes the subscribers. A stream subscribes again, as a device would."""
    with whole.stream(key) as stream:
        stream.began()
        resumed = whole.counters().streams_resumed
        with Client(whole.ports["admin"]) as client:
            client.request("POST", "/1/admin/msg/del", f"key={key}".encode())
        mids = [whole.push(key, b"%d" % number) for number in range(3)]
        events = stream.events()
        assert [next(events) for _ in mids] == [message(mid, at) for at, mid in enumerate(mids)]
        assert whole.counters().streams_resumed == resumed + 1


def test_who_does_not_read_is_closed(make_whole: MakeWhole, key: str) -> None:
    """What waits is bounded in bytes, by [channel] msgbuf, as for every other subscriber."""
    whole = make_whole(msgbuf_bytes=256 << 10)
    with whole.stream(key, rcvbuf=4096) as deaf, whole.stream(key) as reader:
        deaf.began()
        reader.began()
        body = b'"%b"' % (b"x" * (200 << 10))
        mids: list[int] = []
        got: list[Event] = []
        events = reader.events()
        for _ in range(60):
            mids.append(whole.push(key, body, expire=0))
            got.append(next(events))  # who reads as it comes is behind by nothing, however busy the machine is
        assert [event.id for event in got] == [str(mid) for mid in mids]
        wait_for(lambda: whole.subscribers(key) == 1)
    assert slow_closed(whole) == (1, 1, 0)


def slow_closed(whole: Whole) -> tuple[int, int, int]:
    """Subscribers whom the comet, event streams that whoever, and connections that the port closed as slow."""
    web = whole.node._web
    return whole.comet.counters.slow_closed, web.counters.streams_slow, web.public.counters.slow_closed


def test_who_does_not_read_is_closed_by_the_port_where_nothing_new_comes(
    make_whole: MakeWhole, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gopush.net.http.bounds._LOOK_SECONDS", 0.1)
    whole = make_whole({"idle": 0.5})
    with whole.stream(key, rcvbuf=4096) as deaf:
        deaf.began()
        whole.push(key, b'"%b"' % (b"x" * (1 << 20)))
        wait_for(lambda: whole.subscribers(key) == 0)
        assert slow_closed(whole) == (0, 1, 1)


def test_a_backlog_goes_out_as_its_reader_reads(make_whole: MakeWhole, key: str) -> None:
    """It counts for no limit, and is not held all at once."""
    whole = make_whole(msgbuf_bytes=256 << 10)
    body = b'"%b"' % (b"x" * (1 << 20))
    mids = [whole.push(key, body) for _ in range(12)]
    with whole.stream(key, "&mid=0", rcvbuf=4096) as stream:
        time.sleep(1)
        (found,) = [one for one in whole.node._web.streams.streams if one.key == key]
        waiting = whole.in_reactor(found.waiting)
        assert waiting is not None
        assert waiting[0] < 6 << 20
        events = stream.events()
        assert [next(events).id for _ in mids] == [str(mid) for mid in mids]
        live = whole.push(key, b"1")
        assert next(events) == message(live, 1)


@pytest.mark.parametrize("rate", [100_000, 10_000])
@pytest.mark.parametrize("target", ["/sub?heartbeat=30&mid=0&key=", "/1/msg/get?m=0&k="])
def test_who_reads_a_large_log_slowly_is_not_closed(make_whole: MakeWhole, key: str, target: str, rate: int) -> None:
    """Far less than a third of the kernel's buffer in the time that it has, or than it asks for at once."""
    whole = make_whole({"idle": 2.0})
    for _ in range(8):
        whole.push(key, b'"%b"' % (b"x" * (1 << 20)))
    with Client(whole.ports["http"], rcvbuf=4096) as client:
        client.send(f"GET {target}{quote(key)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        for _ in range(50):
            assert client.socket.recv(rate // 10)
            time.sleep(0.1)
        (channel,) = whole.node._web.public.channels
        assert not channel.deaf
        assert whole.node._web.public.counters.slow_closed == 0


def test_many_of_many_keys_get_their_own(whole: Whole, key: str) -> None:
    streams = {f"{key}{number}": whole.stream(f"{key}{number}").began() for number in range(40)}
    for name in streams:
        whole.push(name, json.dumps(name).encode())
    for name, stream in streams.items():
        assert json.loads(stream.event().data)["msg"] == name
        stream.close()
    wait_for(lambda: all(whole.subscribers(name) == 0 for name in streams))
    counters = whole.counters()
    wait_for(lambda: counters.streams_opened == counters.streams_closed)


def test_metrics(whole: Whole) -> None:
    with Client(whole.ports["stat"]) as client:
        text = client.request("GET", "/metrics").body.decode()
    for name in ("opened", "closed", "resumed", "refused", "slow"):
        assert f"gopush_web_streams_{name}_total" in text
