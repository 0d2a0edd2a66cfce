"""How the Python client takes its steps, in threads and in asyncio: with sockets of whoever does not behave."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from gopush_client import asynchronous, blocking
from gopush_client.steps import Ask, Call, Open, Step, Steps
from gopush_client.wire import Answer, url
from tests.clients import eventually
from tests.servers import free_port

WAYS = ("threads", "asyncio")
BODY = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"


@contextmanager
def serving(serve: Callable[[socket.socket], object]) -> Iterator[int]:
    """A port whose first connection is served in a thread, until it is lost."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            with suppress(OSError):
                accepted, _ = listener.accept()
                with accepted:
                    serve(accepted)

        serving = threading.Thread(target=run, daemon=True)
        serving.start()
        yield listener.getsockname()[1]
        serving.join(30)
        assert not serving.is_alive()


def dripping(start: bytes, pause: float) -> Callable[[socket.socket], None]:
    """Says the start, and for 20 s one byte after the other."""

    def serve(accepted: socket.socket) -> None:
        accepted.recv(1 << 16)
        accepted.sendall(start)
        end = time.monotonic() + 20
        while time.monotonic() < end:
            accepted.sendall(b"1")
            time.sleep(pause)

    return serve


def listening(accepted: socket.socket) -> None:
    """Says nothing, until the other side has ended."""
    while accepted.recv(1 << 16):
        pass


@contextmanager
def swallowing(seconds: float = 600) -> Iterator[int]:
    """A port that answers nobody who connects for so long: its queue is full. Who has asked by then asks again."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as listener,
        socket.create_connection(listener.getsockname()),
    ):
        longer = threading.Timer(seconds, listener.listen, [16])
        longer.start()
        try:
            yield listener.getsockname()[1]
        finally:
            longer.cancel()
            longer.join()


def call(port: int, scheme: str = "http", seconds: float = 20, long: bool = False, host: str = "127.0.0.1") -> Call:
    return Call(url(f"{scheme}://{host}:{port}"), "GET", "/", b"", {}, seconds, long=long)


def take(way: str, step: Step) -> Any:
    """What the step gives."""

    def steps() -> Steps[Any]:
        return (yield step)

    if way == "asyncio":
        return asyncio.run(asynchronous.Driver(asynchronous.Connections(None)).run(steps()))
    return blocking.Driver(blocking.Connections(None)).run(steps())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("host", ["push..example", "a" * 70, "\ud800", "\u00e9" * 80])
def test_a_name_that_no_resolver_can_know_is_as_one_that_none_knows(way: str, host: str) -> None:
    with pytest.raises(OSError, match="is no name of a host"):
        take(way, Open(host, 6969, False, 10))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("what", ["call", "open"])
def test_an_address_that_answers_nothing_leaves_time_for_the_next(
    monkeypatch: pytest.MonkeyPatch, way: str, what: str
) -> None:
    with swallowing() as dead, serving(slowly("length")) as port:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", each)) for each in (dead, port)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found.copy())
        if what == "open":
            assert take(way, Open("name", port, False, 4)) is None
        else:
            assert take(way, call(port, seconds=4, host="name")).body == b"1" * 10240


@pytest.mark.parametrize("way", WAYS)
def test_an_address_among_many_may_take_more_than_a_second(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """What is lost in a slow network is sent again after a second."""
    with swallowing(0.1) as slow, swallowing() as dead:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", each)) for each in (slow, *[dead] * 11)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found.copy())
        assert take(way, Open("name", slow, False, 8)) is None


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("start", "pause"), [(b"HTTP/1.1 200 OK\r\nX: ", 0.1), (BODY, 0.1), (BODY, 0)])
def test_a_call_ends_in_time_however_its_answer_drips(way: str, start: bytes, pause: float) -> None:
    before = time.monotonic()
    with serving(dripping(start, pause)) as port, pytest.raises(TimeoutError):
        take(way, call(port, seconds=0.5))
    assert time.monotonic() - before < 10


def late(accepted: socket.socket) -> None:
    """Takes what is sent after a second."""
    time.sleep(1)
    missing = 1 << 18
    while missing > 0 and (piece := accepted.recv(1 << 16)):
        missing -= len(piece)
    accepted.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1")


@pytest.mark.parametrize("way", WAYS)
def test_a_large_body_may_take_longer_to_be_sent(way: str) -> None:
    def push(port: int, sending: float) -> Call:
        return Call(url(f"http://127.0.0.1:{port}"), "POST", "/", b"1" * (1 << 18), {}, 0.5, sending=sending)

    with serving(late) as port:
        assert take(way, push(port, sending=10)).body == b"1"
    with serving(late) as port, pytest.raises(TimeoutError):
        take(way, push(port, sending=0.1))


def slowly(framing: str) -> Callable[[socket.socket], None]:
    """An answer of 10 KiB in a second."""
    piece = b"1" * 1024
    head, frame, end = {
        "length": (b"Content-Length: 10240", piece, b""),
        "chunked": (b"Transfer-Encoding: chunked", b"400\r\n%b\r\n" % piece, b"0\r\n\r\n"),
        "close": (b"Connection: close", piece, b""),
    }[framing]

    def serve(accepted: socket.socket) -> None:
        accepted.recv(1 << 16)
        accepted.sendall(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % head)
        for _ in range(10):
            time.sleep(0.1)
            accepted.sendall(frame)
        accepted.sendall(end)

    return serve


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_a_long_answer_may_take_the_time_it_needs(way: str, framing: str) -> None:
    with serving(slowly(framing)) as port:
        assert take(way, call(port, seconds=0.5, long=True)).body == b"1" * 10240
    with serving(slowly(framing)) as port, pytest.raises(TimeoutError):
        take(way, call(port, seconds=0.5))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("interim", [b"100 Continue\r\n", b"103 Early Hints\r\nLink: </x>\r\nContent-Length: 5\r\n"])
@pytest.mark.parametrize("times", [1, 3])
def test_interim_answers_are_not_the_answer(way: str, interim: bytes, times: int) -> None:
    """One that comes unasked was taken for it, by asyncio also a 100: what came behind was that of the next call."""

    def serve(accepted: socket.socket) -> None:
        accepted.recv(1 << 16)
        accepted.sendall(b"HTTP/1.1 %b\r\n" % interim * times + b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1")

    with serving(serve) as port:
        assert take(way, call(port)) == Answer(200, b"1", plain=False)


@pytest.mark.parametrize("way", WAYS)
def test_a_long_answer_that_drips_ends_in_time_all_the_same(way: str) -> None:
    before = time.monotonic()
    with serving(dripping(BODY, 0.1)) as port, pytest.raises(TimeoutError):
        take(way, call(port, seconds=0.5, long=True))
    assert time.monotonic() - before < 10


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("body", [b"Content-Length: 5\r\n\r\n1234", b"Transfer-Encoding: chunked\r\n\r\n5\r\n1234"])
def test_an_answer_that_was_cut_off_is_none(way: str, body: bytes) -> None:
    def serve(accepted: socket.socket) -> None:
        accepted.recv(1 << 16)
        accepted.sendall(b"HTTP/1.1 200 OK\r\n" + body)

    with serving(serve) as port, pytest.raises(ConnectionError):
        take(way, call(port))


@pytest.mark.parametrize("way", WAYS)
def test_a_connection_that_is_closed_in_an_answers_place_is_reported_in_words(way: str) -> None:
    with serving(lambda accepted: accepted.recv(1 << 16)) as port, pytest.raises(ConnectionError) as caught:
        take(way, call(port))
    assert "undefined" not in str(caught.value)
    assert "close" in str(caught.value)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("head", "plain"),
    [("Content-Type: Text/Plain;charset=utf-8", True), ("content-type: text/html", False), ("X: y", False)],
)
def test_an_answer_says_whether_it_is_plain_text(way: str, head: str, plain: bool) -> None:
    def serve(accepted: socket.socket) -> None:
        accepted.recv(1 << 16)
        accepted.sendall(f"HTTP/1.1 404 No\r\n{head}\r\nContent-Length: 1\r\n\r\nx".encode())

    with serving(serve) as port:
        assert take(way, call(port)) == (404, b"x", plain)


def test_a_token_that_only_an_event_loop_can_fetch_is_no_token_of_a_thread() -> None:
    """The words "<coroutine object …>" were sent as one."""

    async def token() -> str:
        return "token"

    fetching = token()
    assert take("asyncio", Ask(token)) == "token"
    with pytest.raises(TypeError, match="asyncio"):
        take("threads", Ask(lambda: fetching))
    fetching.close()


@pytest.mark.parametrize("way", WAYS)
def test_the_authorities_of_the_system_are_read_once(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    made = iter([ssl.create_default_context()])
    monkeypatch.setattr(ssl, "create_default_context", lambda: next(made))
    blocking.default_context.cache_clear()
    for _ in range(2):
        for step in (call(free_port(), "https"), Open("127.0.0.1", free_port(), True, 20)):
            with pytest.raises(ConnectionRefusedError):
                take(way, step)
    assert list(made) == []


class Port(BaseHTTPRequestHandler):
    """Answers with the port that asks."""

    protocol_version = "HTTP/1.1"
    open: ClassVar[set[int]] = set()
    """The ports that are connected."""

    def setup(self) -> None:
        super().setup()
        self.open.add(self.client_address[1])

    def finish(self) -> None:
        self.open.discard(self.client_address[1])
        super().finish()

    def do_GET(self) -> None:
        body = str(self.client_address[1]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def answering() -> Iterator[Call]:
    """A call that leaves its connection for the next one."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Port) as server:
        running = threading.Thread(target=server.serve_forever, args=(0.01,))
        running.start()
        try:
            yield call(server.server_port)._replace(keep=True)
        finally:
            server.shutdown()
            running.join(10)


@pytest.mark.parametrize("way", WAYS)
def test_the_connections_of_a_burst_are_given_back(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Though the newest one goes on to be used."""
    for module in (blocking, asynchronous):
        monkeypatch.setattr(module, "IDLE_SECONDS", 0.5)

    def in_threads(step: Call) -> None:
        connections, together = blocking.Connections(None), threading.Barrier(4)
        what = (step, lambda _: together.wait(10))
        running = [threading.Thread(target=connections.call, args=what) for _ in range(4)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join(10)
        assert len(Port.open) == 4
        for _ in range(10):
            time.sleep(0.1)
            connections.call(step, lambda _: None)
        eventually(lambda: len(Port.open) == 1)
        connections.close()

    async def in_asyncio(step: Call) -> None:
        connections = asynchronous.Connections(None)
        await asyncio.gather(*(connections.call(step) for _ in range(4)))
        assert len(Port.open) == 4
        for _ in range(10):
            await asyncio.sleep(0.1)
            await connections.call(step)
        eventually(lambda: len(Port.open) == 1)
        connections.close()

    with answering() as step:
        if way == "asyncio":
            asyncio.run(in_asyncio(step))
        else:
            in_threads(step)


def test_a_burst_in_asyncio_opens_no_more_than_so_many_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others wait for one: a burst of 3,000 pushes took all files that the process may have."""
    monkeypatch.setattr(asynchronous, "MOST_OPEN", 3)

    async def burst(step: Call) -> list[bytes]:
        connections = asynchronous.Connections(None)
        answers = await asyncio.gather(*(connections.call(step) for _ in range(60)))
        connections.close()
        return [answer.body for answer in answers]

    with answering() as step:
        ports = asyncio.run(burst(step))
    assert (len(ports), len(set(ports))) == (60, 3)


def test_a_call_waits_for_its_place_within_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """And gives it back, however it ends."""
    monkeypatch.setattr(asynchronous, "MOST_OPEN", 1)

    async def burst(port: int) -> list[Any]:
        connections = asynchronous.Connections(None)
        silent = [connections.call(call(port, seconds=seconds)) for seconds in (0.5, 0.2)]
        ended = await asyncio.gather(*silent, return_exceptions=True)
        status = (await connections.call(step)).status
        connections.close()
        return [*ended, status]

    before = time.monotonic()
    with answering() as step, serving(listening) as port:
        *ended, status = asyncio.run(burst(port))
    assert [type(each) for each in ended] == [TimeoutError, TimeoutError]
    assert status == 200
    assert time.monotonic() - before < 10


def test_waiting_for_a_place_takes_no_time_from_an_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only from the deadline: the last ones of a burst were cut off while the server worked, and sent again."""
    monkeypatch.setattr(asynchronous, "MOST_OPEN", 1)
    served: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while True:
                served.append(await reader.readuntil(b"\r\n\r\n"))
                await asyncio.sleep(0.5)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def burst() -> list[Any]:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        connections = asynchronous.Connections(None)
        step = call(server.sockets[0].getsockname()[1], seconds=1.3)._replace(keep=True)
        calls = [connections.call(step._replace(sending=sending)) for sending in (20, 20, 20, 20, 0)]
        running = [asyncio.ensure_future(each) for each in calls]
        await asyncio.sleep(0.1)
        running[1].cancel()
        ended = await asyncio.gather(*running, return_exceptions=True)
        ended.append(await connections.call(step))
        connections.close()
        server.close()
        return ended

    first, cancelled, third, fourth, late, last = asyncio.run(burst())
    assert isinstance(cancelled, asyncio.CancelledError)
    assert {each.status for each in (first, third, fourth, last)} == {200}
    assert (type(late), str(late)) == (TimeoutError, "all 1 connections were in use")
    assert len(served) == 4


def test_what_has_waited_for_its_place_has_what_is_left() -> None:
    """A second at least, as the last attempt has, and never more than it had."""
    step = call(1, seconds=8)._replace(sending=12)
    left = [(after.seconds, after.sending) for after in map(step.after, (0, 5, 15, 19.9))]
    assert left == [(8, 12), (8, 7), (5, 0), (1, 0)]
    short = call(1, seconds=0.5).after(0.4)
    assert (short.seconds, short.sending) == (0.5, 0)


def test_idle_connections_of_asyncio_are_closed_though_no_call_follows(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They stayed in CLOSE_WAIT. A loop that ends before waits for none of it, and says nothing."""
    monkeypatch.setattr(asynchronous, "IDLE_SECONDS", 0.2)

    async def burst(step: Call, then: float) -> int:
        connections = asynchronous.Connections(None)
        answers = await asyncio.gather(*(connections.call(step) for _ in range(4)))
        await asyncio.sleep(then)
        return len(Port.open.intersection(int(answer.body) for answer in answers))

    with answering() as step:
        assert asyncio.run(burst(step, 0.7)) == 0
        monkeypatch.setattr(asynchronous, "IDLE_SECONDS", 60)
        before = time.monotonic()
        assert asyncio.run(burst(step, 0), debug=True) == 4
        assert time.monotonic() - before < 10
    assert caplog.records == []


def test_a_connection_serves_no_two_event_loops() -> None:
    """That of a loop which has ended is of no use, and one that still runs goes on with its own."""

    async def twice(connections: asynchronous.Connections) -> list[bytes]:
        return [(await connections.call(step)).body for _ in range(2)]

    async def around() -> list[bytes]:
        first = await twice(connections)
        others.extend(await asyncio.to_thread(asyncio.run, twice(connections)))
        again = await twice(connections)
        connections.close()
        return first + again

    others: list[bytes] = []
    with answering() as step:
        connections = asynchronous.Connections(None)
        ports = [asyncio.run(twice(connections)), asyncio.run(around()), others]
        assert [len(set(each)) for each in ports] == [1, 1, 1]
        assert len({each[0] for each in ports}) == 3


def test_a_process_that_was_forked_leaves_its_parents_connections_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering() as step:
        connections = blocking.Connections(None)
        ports = [connections.call(step, lambda _: None).body for _ in range(2)]
        monkeypatch.setattr(os, "getpid", lambda: -1)
        ports += [connections.call(step, lambda _: None).body for _ in range(2)]
        connections.close()
    assert ports[0] == ports[1] != ports[2] == ports[3]


def drive(way: str, step: Step, ready: Callable[[Callable[[], object]], object]) -> list[Any]:
    """What the step gives; `ready` hears what stops it."""

    def steps() -> Steps[None]:
        yield step

    async def run() -> list[Any]:
        driver = asynchronous.Driver(asynchronous.Connections(None))
        ready(driver.stop)
        return [given async for given in driver.drive(steps())]

    if way == "asyncio":
        return asyncio.run(run())
    driver = blocking.Driver(blocking.Connections(None))
    ready(driver.stop)
    return list(driver.drive(steps()))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("what", ["http", "https", "open"])
def test_stop_ends_what_is_waited_for(way: str, what: str) -> None:
    """Whoever answers nothing, to a call or to the handshake of TLS."""
    stops: list[Callable[[], object]] = []

    def serve(accepted: socket.socket) -> None:
        threading.Timer(0.2, stops[0]).start()
        listening(accepted)

    before = time.monotonic()
    with serving(serve) as port:
        step = Open("127.0.0.1", port, True, 20) if what == "open" else call(port, what)
        assert drive(way, step, stops.append) == []
    assert time.monotonic() - before < 10


@pytest.mark.parametrize("way", WAYS)
def test_stop_ends_a_connect_that_nobody_answers(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """At whichever of a name's addresses."""
    before = time.monotonic()
    with swallowing() as port:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))] * 2
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found.copy())
        assert drive(way, call(port, host="name"), lambda stop: threading.Timer(0.2, stop).start()) == []
    assert time.monotonic() - before < 5
