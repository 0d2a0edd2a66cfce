"""Requests that are answered while their body still comes."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from functools import partial

import pytest
from twisted.internet.task import Clock

from gopush.net.http.bounds import LINGER_SECONDS
from gopush.net.http.request import Promise, Request, Response, plain
from gopush.net.http.routes import Answer, Receiver, Route, Routes, StreamRoute
from gopush.net.http.site import STOP_SECONDS
from tests.conftest import InReactor
from tests.http.client import PATIENCE, Client
from tests.http.conftest import Serve, Server
from tests.http.test_channel import Delayed, echo, poll


class Upper:
    """Answers each piece in capitals; `hold` keeps it from reading."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.size = 0
        self.events: list[str] = []

    def received(self, piece: bytes) -> None:
        self.size += len(piece)
        if piece == b"fail":
            raise RuntimeError("a receiver's mistake")
        if piece == b"enough":
            self.answer.finish()
        elif piece == b"hold":
            self.answer.pause()
        else:
            self.answer.write(piece.upper())

    def ended(self) -> None:
        self.events.append("ended")
        self.answer.finish()

    def drained(self) -> None:
        self.events.append("drained")

    def leaving(self) -> None:
        self.answer.finish()

    def lost(self) -> None:
        self.events.append("lost")


class Streams:
    def __init__(self) -> None:
        self.opened: list[Upper] = []
        self.delayed = Delayed(Promise)

    def open(self, request: Request, answer: Answer) -> Receiver:
        if request.query.text("fail"):
            raise RuntimeError("a handler's mistake")
        self.opened.append(Upper(answer))
        return self.opened[-1]

    def refuse(self, request: Request) -> Response | None:
        return plain(403) if request.header(b"origin") else None

    def routes(self) -> Routes:
        return {
            "/stream": {"POST": StreamRoute(self.open, "text/plain", self.refuse)},
            "/locked": {"POST": Route(echo, refuse=self.refuse)},
            "/echo": {"GET": Route(echo)},
            "/later": {"GET": Route(self.delayed)},
        }


CHUNKED = b"POST /stream HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def test_answers_while_the_body_comes_and_goes_on_after_it(serve: Serve) -> None:
    with Client(serve(Streams().routes()).port) as client:
        for _ in range(2):
            client.send(CHUNKED)
            for word in (b"one", b"two"):
                client.send(chunk(word))
                if word == b"one":
                    head = client._until(b"\r\n\r\n")
                    assert head.endswith(b"\r\nTransfer-Encoding: chunked")
                assert client._chunk() == word.upper()
            client.send(chunk(b""))
            assert client._chunk() == b""
        assert client.request("POST", "/stream", b"length").body == b"LENGTH"
        assert client.request("POST", "/stream").body == b""
        assert client.request("GET", "/echo").status == 200


def test_http_1_0_gets_a_body_until_the_end(serve: Serve) -> None:
    with Client(serve(Streams().routes()).port) as client:
        client.send(b"POST /stream HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\nbody")
        answer = client.answer()
        assert answer.body == b"BODY"
        assert answer.headers["connection"] == "close"


def test_streams_keep_their_place_in_the_order(serve: Serve, in_reactor: InReactor) -> None:
    streams = Streams()
    with Client(serve(streams.routes()).port) as client:
        stream = CHUNKED + chunk(b"a") + chunk(b"")
        client.send(b"GET /later?q=0 HTTP/1.1\r\n\r\n" + stream * 1000 + b"GET /echo?q=1 HTTP/1.1\r\n\r\n")
        poll(lambda: streams.delayed.waiting)
        time.sleep(0.1)
        assert not streams.opened
        in_reactor(streams.delayed.answer, 0)
        assert client.answer().body == b"later 0"
        assert [client.answer().body for _ in range(1000)] == [b"A"] * 1000
        assert client.answer().body == b"GET|/echo|1|"


def test_pausing_stops_the_client_and_resuming_lets_it_go_on(serve: Serve, in_reactor: InReactor) -> None:
    streams = Streams()
    with Client(serve(streams.routes()).port) as client:
        client.send(CHUNKED + chunk(b"hold"))
        poll(lambda: streams.opened and streams.opened[0].size == 4)
        rest = chunk(b"x" * 50_000) * 400 + chunk(b"")
        sender = threading.Thread(target=client.send, args=(rest,), daemon=True)
        sender.start()
        time.sleep(0.3)
        assert sender.is_alive()
        assert streams.opened[0].size < 1_000_000
        in_reactor(streams.opened[0].answer.resume)
        assert len(client.answer().body) == 20_000_000
        sender.join(PATIENCE)


def test_who_does_not_read_its_answer_stalls_it(serve: Serve) -> None:
    streams = Streams()
    with Client(serve(streams.routes()).port, rcvbuf=4096) as client:
        rest = CHUNKED + chunk(b"x" * 50_000) * 400 + chunk(b"")
        sender = threading.Thread(target=client.send, args=(rest,), daemon=True)
        sender.start()
        poll(lambda: streams.opened and streams.opened[0].answer.stalled)
        time.sleep(0.2)
        assert sender.is_alive()
        assert len(client.answer().body) == 20_000_000
        sender.join(PATIENCE)
        assert "drained" in streams.opened[0].events


HEAD = b"%b HTTP/1.1\r\nOrigin: o\r\nContent-Length: 4\r\n\r\n"


@pytest.mark.parametrize("target", [b"POST /stream", b"POST /locked"])
@pytest.mark.parametrize(
    "pieces",
    [(HEAD + b"body",), (HEAD, b"body"), (HEAD + b"bo", b"d", b"y"), (HEAD.replace(b"1.1", b"1.0"), b"body")],
    ids=("together", "one after the other", "in pieces", "HTTP/1.0"),
)
def test_who_is_refused_and_has_sent_its_body_is_closed_at_once(
    serve: Serve, target: bytes, pieces: tuple[bytes, ...]
) -> None:
    with Client(serve(Streams().routes(), Clock()).port) as client:  # no time passes
        client.send(pieces[0].replace(b"%b", target))
        answer = client.answer()
        assert (answer.status, answer.headers["connection"]) == (403, "close")
        for at, piece in enumerate(pieces[1:]):
            assert at or client.silent(0.05)
            client.send(piece)
        assert client.closed()


def test_who_is_refused_behind_another_request_is_closed_at_once(serve: Serve) -> None:
    with Client(serve(Streams().routes(), Clock()).port) as client:
        first = b"GET /echo HTTP/1.1\r\nConnection: keep-alive\r\n\r\n"  # twisted.web's way, so the rest waits
        client.send(first + HEAD.replace(b"%b", b"POST /locked") + b"body")
        assert [client.answer().status, client.answer().status] == [200, 403]
        assert client.closed()


@pytest.mark.parametrize("target", [b"POST /stream", b"POST /locked"])
def test_who_sends_on_behind_a_refused_body_can_read_the_answer(serve: Serve, target: bytes) -> None:
    server = serve(Streams().routes(), Clock())
    with Client(server.port) as client:
        client.send(HEAD.replace(b"%b", target) + b"body" + HEAD)
        assert client.answer().status == 403
        assert client.silent(0.05)
        server.advance(LINGER_SECONDS + 1)
        assert client.closed()


def test_a_refusal_comes_before_the_body(serve: Serve) -> None:
    streams = Streams()
    with Client(serve(streams.routes()).port) as client:
        client.send(b"POST /stream HTTP/1.1\r\nOrigin: http://h\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n")
        assert client.answer().status == 403
        assert not streams.opened


def test_expect_100_continue(serve: Serve) -> None:
    with Client(serve(Streams().routes()).port) as client:
        client.send(b"POST /stream HTTP/1.1\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        assert client.answer().status == 100
        client.send(b"body")
        assert client.answer().body == b"BODY"


def test_what_is_malformed_within_a_body_closes(serve: Serve, in_reactor: InReactor) -> None:
    streams = Streams()
    with Client(serve(streams.routes()).port) as client:
        client.send(CHUNKED + chunk(b"a") + b"garbage\r\n")
        assert client._until(b"\r\n\r\n")
        assert client.rest() == b"1\r\nA\r\n"
        poll(lambda: streams.opened[0].events == ["lost"])
    with Client(serve(streams.routes()).port) as client:
        client.send(b"GET /later?q=0 HTTP/1.1\r\n\r\n" + CHUNKED + chunk(b"a") + b"garbage\r\n")
        poll(lambda: streams.delayed.waiting)
        time.sleep(0.1)
        in_reactor(streams.delayed.answer, 0)
        assert client.answer().body == b"later 0"
        assert client._until(b"\r\n\r\n")
        assert client.rest() == b"1\r\nA\r\n"


def test_mistakes_end_the_connection_and_nothing_else(serve: Serve) -> None:
    streams = Streams()
    server = serve(streams.routes())
    with Client(server.port) as client:
        client.send(CHUNKED + chunk(b"fail"))
        assert client.closed()
        assert streams.opened[0].events == ["lost"]
    with Client(server.port) as client:
        client.send(b"POST /stream?fail=1 HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody")
        assert client.closed()
    with Client(server.port) as client:
        assert client.request("GET", "/echo").status == 200


def test_an_answer_that_is_complete_before_the_body_closes(serve: Serve) -> None:
    server = serve(Streams().routes(), Clock())
    with Client(server.port) as client:
        client.send(CHUNKED + chunk(b"enough") + b"GET /echo HTTP/1.1\r\n\r\n")
        assert client.answer().body == b""
        while client.silent(0.05):
            server.advance(4)
        assert client.closed()


def test_a_receiver_hears_that_the_client_has_gone(serve: Serve, in_reactor: InReactor) -> None:
    streams = Streams()
    with Client(serve(streams.routes()).port) as client:
        client.send(CHUNKED + chunk(b"a"))
        poll(lambda: streams.opened)
    poll(lambda: streams.opened[0].events == ["lost"])
    in_reactor(streams.opened[0].answer.write, b"into the void")
    in_reactor(streams.opened[0].answer.finish)
    in_reactor(streams.opened[0].answer.resume)


def test_a_stream_without_progress_is_closed_but_not_while_it_is_the_servers_turn(
    serve: Serve, in_reactor: InReactor
) -> None:
    """protocol.md, section 4: half a request included, on both ports."""
    streams = Streams()
    server = serve(streams.routes(), Clock())
    with Client(server.port) as client:
        client.send(CHUNKED + chunk(b"hold"))
        poll(lambda: streams.opened and streams.opened[0].size == 4)
        server.advance(30)
        in_reactor(streams.opened[0].answer.write, b"w")
        assert client._until(b"\r\n\r\n")
        assert client._chunk() == b"w"
        in_reactor(streams.opened[0].answer.resume)
        server.advance(9)
        client.send(chunk(b"a"))
        assert client._chunk() == b"A"
        server.advance(12)
        assert client.closed()


def closed_or_read(server: Server, before: int) -> bool:
    return not server.factory.channels or server.factory.counters.received_bytes > before


def test_a_client_that_sends_on_holds_up_the_end_of_its_port_for_a_moment_alone(
    serve: Serve, in_reactor: InReactor
) -> None:
    server = serve(Streams().routes(), Clock(), idle=60.0)
    with Client(server.port) as client:
        client.send(CHUNKED + chunk(b"a"))
        assert client._until(b"A")
        stopped: list[object] = []
        in_reactor(lambda: server.factory.stop().addCallback(stopped.append) and None)
        for _ in range(int(STOP_SECONDS) + 3):
            before = server.factory.counters.received_bytes
            with suppress(ConnectionError):
                client.send(chunk(b"a"))
            poll(partial(closed_or_read, server, before))
            server.advance(1)
        poll(lambda: stopped)
