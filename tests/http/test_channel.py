"""The HTTP channel over real sockets."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import cast
from unittest.mock import ANY

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, globalLogPublisher

from gopush.errors import ParameterError
from gopush.net.http.bounds import LEAST_BYTES, LINGER_SECONDS
from gopush.net.http.channel import MAX_TOGETHER, HttpChannel
from gopush.net.http.request import Promise, Request, Response
from gopush.net.http.routes import Route, Routes
from gopush.net.http.site import STOP_SECONDS
from gopush.net.transport import lag
from tests.conftest import InReactor
from tests.fixtures import Logged, eventually
from tests.http.client import PATIENCE, Answer, Client
from tests.http.conftest import Serve, Server
from tests.leaping import LeapingClock

BIG = 3 << 20


def text(body: bytes) -> Response:
    return Response(200, "text/plain", body)


def echo(request: Request) -> Response:
    parts = (request.method, request.path, request.query.text("q").encode(), request.body)
    return text(b"|".join(parts))


class Delayed:
    """A handler that answers when it is told to: by Deferreds, by plain calls, or by both in turn."""

    def __init__(self, *kinds: type[Deferred[Response] | Promise]) -> None:
        self.waiting: list[tuple[Request, Deferred[Response] | Promise]] = []
        self._kinds = kinds

    def __call__(self, request: Request) -> Deferred[Response] | Promise:
        answer = self._kinds[len(self.waiting) % len(self._kinds)]()
        self.waiting.append((request, answer))
        return answer

    def answer(self, index: int) -> None:
        request, answer = self.waiting[index]
        response = text(b"later " + request.query.text("q").encode())
        if isinstance(answer, Promise):
            answer.give(response)
        else:
            answer.callback(response)


def at_once(request: Request) -> Promise:
    delayed = Promise()
    delayed.give(echo(request))
    return delayed


def fails(request: Request) -> Response:
    raise RuntimeError("a handler's mistake")


def refuses(request: Request) -> Response:
    raise ParameterError("q is wrong")


def routes(delayed: Delayed | None = None) -> Routes:
    found = {
        "/echo": {"GET": Route(echo), "POST": Route(echo, 1000)},
        "/post": {"POST": Route(echo, 2 * BIG)},
        "/at-once": {"GET": Route(at_once)},
        "/fails": {"GET": Route(fails)},
        "/refuses": {"GET": Route(refuses)},
        "/big": {"GET": Route(lambda _: text(b"x" * BIG))},
    }
    return {**found, "/later": {"GET": Route(delayed)}} if delayed else found


@pytest.fixture
def server(serve: Serve) -> Server:
    return serve(routes())


@pytest.fixture
def leaping(serve: Serve) -> Server:
    """One where time only passes as `leap` says."""
    return serve(routes(), LeapingClock())


@pytest.fixture(params=[(Deferred,), (Promise,), (Promise, Deferred)], ids=["Deferred", "Later", "both"])
def delayed(request: pytest.FixtureRequest) -> Delayed:
    return Delayed(*request.param)


def unsent(channel: HttpChannel) -> int:
    behind = lag(channel.transport)
    return behind[0] if behind else 0


def poll(condition: Callable[[], object]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_an_answer_byte_for_byte(serve: Serve) -> None:
    with Client(serve(routes(), Clock()).port) as client:
        client.send(b"GET /echo?q=a+b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        assert client.rest() == (
            b"HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Type: text/plain\r\n"
            b"Connection: close\r\nContent-Length: 14\r\n\r\nGET|/echo|a b|"
        )


def test_keep_alive(server: Server) -> None:
    """protocol.md, section 5: keep-alive works."""
    with Client(server.port) as client:
        for number in range(10):
            answer = client.request("POST", f"/echo?q={number}", b"body")
            assert answer.body == b"POST|/echo|%d|body" % number
            assert "connection" not in answer.headers


def test_http_1_0_closes_unless_asked_not_to(server: Server) -> None:
    with Client(server.port) as client:
        client.send(b"GET /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert client.answer().headers["connection"] == "keep-alive"
        client.send(b"GET /echo HTTP/1.0\r\n\r\nGET /echo HTTP/1.0\r\n\r\n")
        assert client.answer().headers["connection"] == "close"
        assert client.closed()


def test_every_byte_in_a_segment_of_its_own(server: Server) -> None:
    with Client(server.port) as client:
        sent = b"POST /echo?q=x HTTP/1.1\r\nHost: h\r\nX-Empty:\r\nContent-Length: 4\r\n\r\nbody"
        for at in range(len(sent)):
            client.send(sent[at : at + 1])
            time.sleep(0.001)
        assert client.answer().body == b"POST|/echo|x|body"


def test_chunked_body_with_extensions_and_trailers(server: Server) -> None:
    """protocol.md, section 5: chunked bodies are taken."""
    with Client(server.port) as client:
        client.send(b"POST /echo HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n")
        client.send(b"2\r\nbo\r\n2;x=y\r\ndy\r\n0\r\nTrailer: t\r\n\r\n")
        assert client.answer().body == b"POST|/echo||body"
        assert client.request("GET", "/echo").status == 200


def test_expect_100_continue(server: Server) -> None:
    """protocol.md, section 5: chunked bodies and `Expect: 100-continue` are taken."""
    with Client(server.port) as client:
        client.send(b"POST /echo HTTP/1.1\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        assert client.answer().status == 100
        client.send(b"body")
        assert client.answer().body == b"POST|/echo||body"
        client.send(b"POST /echo HTTP/1.1\r\nContent-Length: 2000\r\nExpect: 100-continue\r\n\r\n")
        assert client.answer().status == 413


def test_head_is_get_without_a_body(server: Server) -> None:
    """protocol.md, section 4: HEAD answers 405 or as GET without a body."""
    with Client(server.port) as client:
        get, head = client.request("GET", "/big"), client.request("HEAD", "/big")
        assert head.status == 200
        assert head.headers["content-length"] == get.headers["content-length"] == str(BIG)
        assert client.request("HEAD", "/post").status == 405
        assert client.request("GET", "/echo").status == 200


def test_unknown_paths_and_methods(server: Server) -> None:
    """protocol.md, section 4: another method answers 405, an unknown path 404."""
    with Client(server.port) as client:
        assert client.request("GET", "/nothing").status == 404
        assert client.request("POST", "/nothing", b"some body").status == 404
        wrong = client.request("GET", "/post")
        assert (wrong.status, wrong.headers["allow"]) == (405, "POST")
        assert client.request("DELETE", "/echo").headers["allow"] == "GET, HEAD, POST"
        assert client.request("GET", "http://h:1/echo?q=1").body == b"GET|/echo|1|"
        assert client.request("GET", "/%65cho?q=1").body == b"GET|/%65cho|1|"
        assert client.request("OPTIONS", "*").status == 404


def test_an_absolute_target_is_that_of_its_path(serve: Serve) -> None:
    """RFC 9112, section 3.2.2; an empty path is `/` (RFC 9110, section 4.2.3)."""
    with Client(serve({**routes(), "/": {"GET": Route(echo)}}).port) as client:
        for target in ("http://h:1/echo?q=1", "HTTP://user@[::1]:80/echo?q=1", "x+y-z.1://h/echo?q=1"):
            assert client.request("GET", target).body == b"GET|/echo|1|"
        assert client.request("GET", "http://h/echo?q=http://x/y").body == b"GET|/echo|http://x/y|"
        assert client.request("GET", "http://h?q=1").body == b"GET|/|1|"
        assert client.request("GET", "http://h").body == b"GET|/||"
        assert client.request("GET", "http://h?q=/echo").body == b"GET|/|/echo|"


@pytest.mark.parametrize(
    "target",
    [
        *(
            "foo?x://h/echo",
            "a/b://h/echo",
            "1x://h/echo",
            "://h/echo",
            "x y://h/echo",
            "+x://h/echo",
            "%68ttp://h/echo",
        ),
        *("http:/echo", "http:///echo", "http://?q=1", "http://", "http://h#/echo", "echo", "?q=1", "h:80", "*/echo"),
    ],
)
def test_another_target_is_refused(server: Server, target: str) -> None:
    with Client(server.port) as client:
        assert client.request("GET", target).status == 400
        assert client.closed()


def test_an_upgrade_is_ignored(server: Server) -> None:
    """Java's own client offers h2c with its first request, whatever its method."""
    offer = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n"
    with Client(server.port) as client:
        assert client.request("GET", "/echo?q=1", headers=offer).body == b"GET|/echo|1|"
        assert client.request("POST", "/echo?q=2", b"body", headers=offer).body == b"POST|/echo|2|body"
        head = f"POST /echo HTTP/1.1\r\n{offer}Transfer-Encoding: chunked\r\n\r\n".encode()
        client.send((head + b"4\r\nbody\r\n0\r\n\r\n") * 3)
        assert [client.answer().body for _ in range(3)] == [b"POST|/echo||body"] * 3


MALFORMED = [
    b"GARBAGE\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET /echo\r\n\r\n",
    b"GET /echo HTTP/2.0\r\n\r\n",
    b"GET /echo HTTP/1.1\r\nX y: z\r\n\r\n",
    b"GET /echo HTTP/1.1\r\nno colon\r\n\r\n",
    b"GET /e cho HTTP/1.1\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
    b"POST /echo HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    b"POST /echo HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nContent-Length : 1\r\n\r\na",
    b"POST /echo HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nContent-Length: +1\r\n\r\na",
    b"POST /echo HTTP/1.1\r\nContent-Length: 1 1\r\n\r\na",
    b"POST /echo HTTP/1.1\r\nContent-Length: 99999999999999999999999999\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
    b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
    b"POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n",
]


@pytest.mark.parametrize("sent", MALFORMED, ids=lambda sent: repr(sent[:70]))
def test_what_is_malformed_or_ambiguous_is_refused_and_closed(leaping: Server, sent: bytes) -> None:
    with Client(leaping.port) as before, Client(leaping.port) as client:
        before.send(b"GET /echo?q=half")
        client.send(sent + b"GET /echo?q=smuggled HTTP/1.1\r\n\r\n")
        answer = client.answer()
        assert answer.status in (400, 405, 505)
        assert answer.headers["connection"] == "close"
        leaping.leap(LINGER_SECONDS + 1)  # they are looked at once a second
        assert client.closed()
        before.send(b" HTTP/1.1\r\n\r\n")
        assert before.answer().body == b"GET|/echo|half|"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"HEAD /echo HTTP/1.1\r\nX y: z\r\n\r\n", 400),
        (b"HEAD /echo HTTP/1.1\r\nHost: h\nX: y\r\n\r\n", 400),
        (b"HEAD /echo HTTP/1.1\r\n" + b"X: y\r\n" * 101 + b"\r\n", 431),
        (b"HEAD /echo HTTP/1.1\r\nX: " + b"y" * 17_000 + b"\r\n\r\n", 431),
        (b"HEAD echo HTTP/1.1\r\n\r\n", 400),
        (b"HEAD /echo HTTP/2.0\r\n\r\n", 505),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_refused_head_request_gets_no_body(leaping: Server, sent: bytes, status: int) -> None:
    """RFC 9110, section 9.3.2."""
    with Client(leaping.port) as client:
        client.send(sent)
        answer = client.answer(head_only=True)
        assert (answer.status, int(answer.headers["content-length"]) > 0) == (status, True)
        leaping.leap(LINGER_SECONDS + 1)  # they are looked at once a second
        assert client.closed()


@pytest.mark.parametrize("sent", [b"GARBAGE\r\n\r\n", b"GET /echo HTTP/1.1\r\nX y: z\r\n\r\n", b"GET /\n"])
def test_who_asked_for_a_head_before_gets_the_body_of_a_refusal(server: Server, sent: bytes) -> None:
    with Client(server.port) as client:
        assert client.request("HEAD", "/echo").status == 200
        client.send(sent)
        assert client.answer() == Answer(400, ANY, b"Bad Request\n")
        assert client.closed()


CHUNKED = b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"


@pytest.mark.parametrize("step", [1, 7, 100_000])
@pytest.mark.parametrize(
    ("trailer", "status"),
    [
        (b"A: b\r\nC:\r\n", 200),
        (b"A: b\r\n c\r\n", 400),
        (b"no colon\r\n", 400),
        (b"A : b\r\n", 400),
        (b"A: b\rc\r\n", 400),
        (b"A: b\r\n" * 101, 431),
        (b"A: %b\r\n" % (b"b" * (16 << 10)), 431),
        (b"%b: a\r\n" % (b"b" * 128), 200),
        (b"%b: a\r\n" % (b"b" * 129), 431),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_fields_behind_a_chunked_body_are_read_as_those_of_a_head(
    leaping: Server, trailer: bytes, status: int, step: int
) -> None:
    sent = CHUNKED + trailer + (b"\r\n" if status == 200 else b"")  # the others are refused before the end
    with Client(leaping.port) as client:
        for at in range(0, len(sent), step):
            client.send(sent[at : at + step])
            time.sleep(0.001 * (step < 100_000 and len(sent) < 1000))
        assert client.answer().status == status
        leaping.leap(LINGER_SECONDS + 1)  # they are looked at once a second
        assert status == 200 or client.closed()


@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize(
    "sent",
    [
        b"GET /echo?q=1 HTTP/1.1\n",
        b"GET /echo?q=1 HTTP/1.1\r\nX: y\n",
        b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\n",
        b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n\n\r\n1\n",
        b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\n",
    ],
)
def test_lines_that_lack_a_cr_are_refused_at_once(server: Server, sent: bytes, step: int) -> None:
    """They are not waited for: no more may come behind them."""
    with Client(server.port) as client:
        for at in range(0, len(sent), step):
            client.send(sent[at : at + step])
            time.sleep(0.001 * (step < 1000))
        assert client.answer().status == 400
        assert client.closed()


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_line_feeds_in_a_body_are_the_bodys(server: Server, step: int) -> None:
    body = b"\n\r\n\n\r"
    sent = b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n%b\r\n2\r\n\n\n\r\n0\r\n\r\n" % body
    with Client(server.port) as client:
        for at in range(0, len(sent), step):
            client.send(sent[at : at + step])
            time.sleep(0.001 * (step < 1000))
        assert client.answer().body.endswith(body + b"\n\n")


def test_a_good_request_before_a_malformed_one_is_answered_first(server: Server) -> None:
    with Client(server.port) as client:
        client.send(b"GET /echo?q=1 HTTP/1.1\r\n\r\nGARBAGE\r\n\r\n")
        assert client.answer().body == b"GET|/echo|1|"
        assert client.answer().status == 400
        assert client.closed()


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        (b"GET /" + b"a" * 17_000 + b" HTTP/1.1\r\n\r\n", (414, 431)),
        (b"GET /" + b"a" * 1_000_000, (400, 414, 431)),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5_000 + b"\r\n", (431,)),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 101 + b"\r\n", (431,)),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 17_000 + b"\r\n\r\n", (431,)),
        (b"GET / HTTP/1.1\r\n" + b"x" * 129 + b": y\r\n\r\n", (431,)),
        (b"GET /echo HTTP/1.1\r\n" + b"x" * 129 + b": y\r\n\r\n", (431,)),  # the short cut's
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 1_000_000, (400, 431)),
        (b"GET / HTTP/1.1\r\n" + b"y" * 1_000_000, (400, 431)),
        (b"\r\n" * 500_000, (400, 431)),
        (b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nT: " + b"t" * 1_000_000, (400, 431)),
        (b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"T: t\r\n" * 100_000, (400, 431)),
        (b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"0" * 1_000_000, (400, 431)),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_heads_are_bounded(serve: Serve, sent: bytes, statuses: tuple[int, ...]) -> None:
    server = serve(routes(), Clock())
    with Client(server.port) as client:
        try:
            client.send(sent)
            while client.silent(0.01):
                server.turn()
        except OSError:  # closed while we were sending
            return
        status = client.answer().status
        assert status in statuses
        while client.silent(0.05):
            server.advance(4)
        assert client.closed()
        assert server.factory.counters.refused[status] == 1


def test_a_hundred_fields_are_taken(server: Server) -> None:
    with Client(server.port) as client:
        client.send(b"GET /echo HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 99 + b"\r\n")
        assert client.answer().status == 200


def test_a_head_in_pieces_is_bounded_too(server: Server) -> None:
    with Client(server.port) as client:
        client.send(b"GET / HTTP/1.1\r\nX: ")
        refused = False
        for _ in range(100_000):
            refused = refused or not client.silent(0.0005)
            if refused:
                break
            client.send(b"y" * 100)
        assert refused


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_over_the_limit_is_413_and_closes(serve: Serve, declared: bool) -> None:
    server = serve(routes(), Clock())
    with Client(server.port) as client:
        body = b"x" * 2_000
        if declared:
            client.send(b"POST /echo HTTP/1.1\r\nContent-Length: 2000\r\n\r\n" + body)
        else:
            client.send(b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"7d0\r\n" + body + b"\r\n")
        answer = client.answer()
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        while client.silent(0.05):
            server.advance(4)
        assert client.closed()
        counters = server.factory.counters
        assert (counters.refused[413], sum(counters.refused.values()), counters.idle_closed) == (1, 1, 0)


def test_a_body_of_just_the_limit_passes(server: Server) -> None:
    with Client(server.port) as client:
        assert client.request("POST", "/echo", b"x" * 1000).status == 200
        assert client.request("POST", "/post", b"x" * 2 * BIG).body[12:] == b"x" * 2 * BIG


def test_who_still_sends_a_refused_body_can_read_the_answer(server: Server) -> None:
    """Closing while bytes come in would reset the connection, and the answer would be lost with it."""
    with Client(server.port) as client:
        client.send(b"POST /post HTTP/1.1\r\nContent-Length: 50000000\r\n\r\n")
        for _ in range(500):
            client.send(b"x" * 100_000)
        assert client.answer().status == 413


def test_the_status_of_an_unknown_path_outdoes_the_size_of_the_body(server: Server) -> None:
    with Client(server.port) as client:
        client.send(b"POST /nothing HTTP/1.1\r\nContent-Length: 5000000\r\n\r\n" + b"x" * 5_000_000)
        assert client.answer().status == 404


def test_errors_of_handlers(server: Server) -> None:
    logged = []

    def observe(event: dict[str, object]) -> None:
        if event.get("log_failure") is not None:
            logged.append(event)

    globalLogPublisher.addObserver(cast(ILogObserver, observe))
    try:
        with Client(server.port) as client:
            assert client.request("GET", "/fails?token=secret").status == 500
            refused = client.request("GET", "/refuses")
            assert (refused.status, refused.body) == (400, b"Bad Request\n")
            said = client.request("GET", "/refuses", headers="Prefer: why\r\n")
            assert (said.status, said.body) == (400, b"Bad Request: q is wrong\n")
            assert client.request("GET", "/echo").status == 200
    finally:
        globalLogPublisher.removeObserver(cast(ILogObserver, observe))
    assert len(logged) == 1
    assert "secret" not in repr({name: value for name, value in logged[0].items() if name != "log_failure"})


# Pipelining


def test_answers_come_in_the_order_of_the_requests(serve: Serve, in_reactor: InReactor, delayed: Delayed) -> None:
    with Client(serve(routes(delayed)).port) as client:
        requests = [b"/later?q=0", b"/echo?q=1", b"/later?q=2", b"/fails", b"/later?q=4", b"/echo?q=5"]
        client.send(b"".join(b"GET %b HTTP/1.1\r\n\r\n" % target for target in requests))
        poll(lambda: len(delayed.waiting) == 3)
        in_reactor(delayed.answer, 2)
        in_reactor(delayed.answer, 1)
        assert client.silent()
        in_reactor(delayed.answer, 0)
        bodies = [client.answer().body for _ in requests]
        assert bodies[:3] == [b"later 0", b"GET|/echo|1|", b"later 2"]
        assert bodies[4:] == [b"later 4", b"GET|/echo|5|"]


@pytest.mark.parametrize("path", [b"/echo", b"/at-once"])
def test_pipelined_answers_of_one_segment_go_out_in_order_and_at_once(server: Server, path: bytes) -> None:
    with Client(server.port) as client:
        client.send(b"".join(b"GET %b?q=%d HTTP/1.1\r\n\r\n" % (path, number) for number in range(1000)))
        assert [client.answer().body for _ in range(1000)] == [b"GET|%b|%d|" % (path, n) for n in range(1000)]


def test_a_bounded_number_of_requests_is_worked_on_and_reading_stops(
    serve: Serve, in_reactor: InReactor, delayed: Delayed
) -> None:
    with Client(serve(routes(delayed)).port) as client:
        count = 700
        sent = b"".join(b"GET /later?q=%d HTTP/1.1\r\nX: %s\r\n\r\n" % (n, b"x" * 15_000) for n in range(count))
        sender = threading.Thread(target=client.send, args=(sent,), daemon=True)
        sender.start()
        poll(lambda: delayed.waiting)
        time.sleep(0.2)
        assert len(delayed.waiting) <= MAX_TOGETHER
        assert sender.is_alive()  # 10 MB are not read
        for number in range(count):
            poll(lambda: len(delayed.waiting) > number)  # noqa: B023
            in_reactor(delayed.answer, number)
            assert client.answer().body == b"later %d" % number
        sender.join(PATIENCE)


def test_nothing_is_answered_after_a_last_request(server: Server) -> None:
    with Client(server.port) as client:
        client.send(b"GET /echo HTTP/1.1\r\nConnection: close\r\n\r\nGET /echo HTTP/1.1\r\n\r\n")
        assert client.answer().headers["connection"] == "close"
        assert client.closed()


def test_who_closes_its_half_still_gets_its_answers(serve: Serve, in_reactor: InReactor, delayed: Delayed) -> None:
    with Client(serve(routes(delayed)).port) as client:
        client.send(b"GET /later?q=1 HTTP/1.1\r\n\r\nGET /echo?q=2 HTTP/1.1\r\n\r\n")
        client.socket.shutdown(1)
        poll(lambda: delayed.waiting)
        time.sleep(0.1)
        in_reactor(delayed.answer, 0)
        assert client.answer().body == b"later 1"
        assert client.answer().body == b"GET|/echo|2|"
        assert client.closed()


def test_an_answer_to_who_has_gone_goes_nowhere(serve: Serve, in_reactor: InReactor, delayed: Delayed) -> None:
    server = serve(routes(delayed))
    with Client(server.port) as client:
        client.send(b"GET /later HTTP/1.1\r\n\r\nGET /later HTTP/1.1\r\n\r\n")
        poll(lambda: len(delayed.waiting) == 2)
        client.socket.setsockopt(1, 13, b"\x01\0\0\0\0\0\0\0")  # SO_LINGER 0: reset
    poll(lambda: not server.factory.channels)
    in_reactor(delayed.answer, 1)
    in_reactor(delayed.answer, 0)
    with Client(server.port) as client:
        assert client.request("GET", "/echo").status == 200


# Slow readers


def test_who_does_not_read_is_read_no_more(server: Server) -> None:
    with Client(server.port, rcvbuf=4096) as client:
        requests = b"GET /big HTTP/1.1\r\nX: " + b"x" * 8000 + b"\r\n\r\n"

        def send() -> None:
            with contextlib.suppress(OSError):
                client.send(requests * 2000)

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        time.sleep(0.5)
        (channel,) = server.factory.channels
        assert channel.stalled
        assert sender.is_alive()
        waiting = unsent(channel)
        time.sleep(0.3)
        assert unsent(channel) == waiting < 2 * BIG
        for _ in range(20):
            assert client.answer().body == b"x" * BIG
        client.socket.close()


def test_large_answers_are_complete(server: Server) -> None:
    with Client(server.port, rcvbuf=4096) as client:
        client.send(b"GET /big HTTP/1.1\r\n\r\nGET /echo?q=1 HTTP/1.1\r\nConnection: close\r\n\r\n")
        time.sleep(0.3)
        assert client.answer().body == b"x" * BIG
        assert client.answer().body == b"GET|/echo|1|"
        assert client.closed()


# Time


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"G",
        b"GET /echo HTTP/1.1\r\nX: y",
        b"POST /echo HTTP/1.1\r\nContent-Length: 4\r\n\r\nbod",
        b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbo",
    ],
)
def test_an_idle_connection_half_a_request_included_is_closed_after_10_s(serve: Serve, sent: bytes) -> None:
    """protocol.md, section 4: "An idle connection, half a request included, is closed after 10 s"."""
    server = serve(routes(), Clock())
    with Client(server.port) as client:
        client.send(b"GET /echo?q=0 HTTP/1.1\r\n\r\n")
        assert client.answer().status == 200
        client.send(sent)
        time.sleep(0.2)
        server.advance(9)
        assert client.silent()
        server.advance(2.5)
        assert client.closed()
        assert (server.factory.counters.idle_closed, server.factory.counters.slow_closed) == (1, 0)


def test_what_trickles_in_puts_nothing_off_but_a_body_that_comes_does(serve: Serve) -> None:
    """protocol.md, section 4: idle for 10 s, half a request included; a byte now and then is no progress."""
    server = serve(routes(), Clock())
    with Client(server.port) as slow, Client(server.port) as drip, Client(server.port) as steady:
        slow.send(b"GET /echo HTTP/1.1\r\n")
        drip.send(b"POST /echo HTTP/1.1\r\nContent-Length: 5\r\n\r\n")
        steady.send(b"POST /post HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (5 * LEAST_BYTES))
        for at in range(4):
            time.sleep(0.2)
            server.advance(4)
            if at < 2:
                slow.send(b"X: y\r\n")
                drip.send(b"b")
            steady.send(b"b" * LEAST_BYTES)
        assert slow.closed()
        assert drip.closed()
        steady.send(b"b" * LEAST_BYTES)
        assert steady.answer().body == b"POST|/post||" + b"b" * 5 * LEAST_BYTES


def test_who_waits_for_an_answer_is_not_idle(serve: Serve, in_reactor: InReactor, delayed: Delayed) -> None:
    server = serve(routes(delayed), Clock())
    with Client(server.port) as client:
        client.send(b"GET /later?q=1 HTTP/1.1\r\n\r\n")
        poll(lambda: delayed.waiting)
        server.advance(60)
        in_reactor(delayed.answer, 0)
        assert client.answer().body == b"later 1"
        server.advance(8)
        assert client.request("GET", "/echo").status == 200
        server.advance(12)
        assert client.closed()


def test_who_does_not_read_its_answer_is_closed(serve: Serve) -> None:
    server = serve(routes(), Clock())
    with Client(server.port, rcvbuf=4096) as client:
        client.send(b"GET /big HTTP/1.1\r\n\r\n" * 10)
        poll(lambda: any(channel.stalled for channel in server.factory.channels))
        time.sleep(0.3)
        server.advance(12)
        poll(lambda: not server.factory.channels)
        assert (server.factory.counters.idle_closed, server.factory.counters.slow_closed) == (0, 1)


def test_who_reads_too_little_of_its_answer_is_closed(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gopush.net.http.bounds.LEAST_READ_BYTES", 1 << 20)
    server = serve(routes(), Clock())
    with Client(server.port, rcvbuf=4096) as client:
        client.send(b"GET /big HTTP/1.1\r\n\r\n")
        poll(lambda: any(channel.stalled for channel in server.factory.channels))
        for _ in range(3):
            assert client.socket.recv(10_000)
            time.sleep(0.05)
            server.advance(4)
        poll(lambda: not server.factory.channels)
        assert server.factory.counters.slow_closed == 1


# The end


def test_stop_closes_idle_connections_and_answers_the_others_first(
    serve: Serve, in_reactor: InReactor, delayed: Delayed
) -> None:
    server = serve(routes(delayed))
    with Client(server.port) as idle, Client(server.port) as busy:
        assert idle.request("GET", "/echo").status == 200
        busy.send(b"GET /later?q=1 HTTP/1.1\r\n\r\n")
        poll(lambda: delayed.waiting)
        stopped: list[object] = []
        in_reactor(lambda: server.factory.stop().addCallback(stopped.append) and None)
        assert idle.closed()
        assert not stopped
        in_reactor(delayed.answer, 0)
        assert busy.answer().body == b"later 1"
        assert busy.closed()
        poll(lambda: stopped)


def test_stop_waits_for_who_reads_slowly_but_not_for_long(serve: Serve, in_reactor: InReactor) -> None:
    server = serve(routes(), Clock(), idle=60.0)
    with Client(server.port, rcvbuf=4096) as slow:
        slow.send(b"GET /big HTTP/1.1\r\n\r\n")
        poll(lambda: any(channel.stalled for channel in server.factory.channels))
        stopped: list[object] = []
        in_reactor(lambda: server.factory.stop().addCallback(stopped.append) and None)
        for second in range(int(STOP_SECONDS) + 3):
            assert second > STOP_SECONDS or not stopped
            with contextlib.suppress(ConnectionResetError):
                slow.socket.recv(8192)
            server.advance(1)
        poll(lambda: stopped)
        assert server.factory.counters.slow_closed == 1


def test_stop_without_connections_fires_at_once(serve: Serve, in_reactor: InReactor) -> None:
    in_reactor(serve(routes()).factory.stop)


def test_a_mistake_at_one_connection_leaves_the_deadlines_of_the_others(
    serve: Serve, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(routes(), Clock())
    expired = HttpChannel.expired
    met: list[HttpChannel] = []

    def fail_once(channel: HttpChannel) -> None:
        met.append(channel)
        if len(met) == 1:
            raise ValueError("a mistake")
        expired(channel)

    monkeypatch.setattr(HttpChannel, "expired", fail_once)
    with Client(server.port) as one, Client(server.port) as other:
        for client in (one, other):
            client.send(b"GET /echo?q=half")
        eventually(lambda: len(server.factory.channels) == 2)
        server.advance(30)
        assert one.closed()
        assert other.closed()
    assert len(logged.tracebacks()) == 1
