from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from gopush.client import http
from gopush.client.address import Server
from gopush.client.http import history, look_up, push
from gopush.errors import NoNodeError, ParameterError, UnavailableError


class FakeWeb:
    """Answers `answer` and keeps what was asked: method, path, query, body."""

    def __init__(self) -> None:
        self.status, self.answer = 200, b'{"ret":0}'
        self.pause = 0.0
        self.asked: list[Any] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                time.sleep(outer.pause)
                url = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                outer.asked.append((self.command, url.path, dict(parse_qsl(url.query)), body))
                self.send_response(outer.status)
                self.send_header("Content-Length", str(len(outer.answer)))
                self.end_headers()
                self.wfile.write(outer.answer)

            do_POST = do_GET

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(10)


@pytest.fixture
def web() -> Iterator[FakeWeb]:
    web = FakeWeb()
    yield web
    web.close()


def test_looks_up_as_a_device(web: FakeWeb) -> None:
    """protocol.md, section 4: /1/server/get."""
    web.answer = b'{"ret":0,"data":{"server":"push1.example.org:6969"}}'
    assert look_up(Server(web.address), "ké y") == "push1.example.org:6969"
    assert web.asked == [("GET", "/1/server/get", {"k": "ké y", "p": "2"}, b"")]


def test_reads_offline_messages_digit_for_digit(web: FakeWeb) -> None:
    """protocol.md, sections 3 and 4: what a message holds stays as it was pushed."""
    messages = [
        b'{"msg":{"a":1e400,"a":1.10},"mid":16,"gid":0}',
        b'{"msg":"],[","mid":32,"gid":0}',
        b'{"msg":%b,"mid":48,"gid":0}' % (b"1" * 5000),
        '{"msg":"ü","mid":64,"gid":0}'.encode(),
    ]
    web.answer = b'{"ret":0,"data":{"msgs":[%b]}}' % b",".join(messages)
    assert history(Server(web.address), "k", 15, "t") == messages
    in_the_clear, read = web.asked  # a token, too, goes only to a port that has answered in the clear
    assert in_the_clear == ("GET", "/health", {}, b"")
    assert read == ("GET", "/1/msg/get", {"k": "k", "m": "15", "t": "t"}, b"")


@pytest.mark.parametrize(
    "body",
    [b"[" * 50_000 + b"]" * 50_000, b'{"]}":["\\"}"],"a":' * 5_000 + b"{}" + b"}" * 5_000],
    ids=["lists", "objects"],
)
def test_reads_offline_messages_however_deeply_they_nest(web: FakeWeb, body: bytes) -> None:
    """protocol.md, section 3: what the server took is no error of its reader's."""
    messages = [b'{"msg":%b,"mid":16,"gid":0}' % each for each in (b"1", body, b'"["')]
    web.answer = b'{"ret":0,"data":{"msgs":[%b]}}' % b",".join(messages)
    assert history(Server(web.address), "k", 0) == messages


@pytest.mark.parametrize("rest", [b"", b"1]}}", b'{"msg":[1,"mid":16,"gid":0}]}}', b'{"msg":"1]}}'])
def test_what_is_no_list_of_messages_is_an_error(web: FakeWeb, rest: bytes) -> None:
    web.answer = b'{"ret":0,"data":{"msgs":[' + rest
    with pytest.raises(UnavailableError, match="did not answer as gopush does"):
        history(Server(web.address), "k", 0)


def test_no_offline_messages(web: FakeWeb) -> None:
    """protocol.md, section 4: no `data` when there are none."""
    assert history(Server(web.address), "k", 0) == []
    assert web.asked == [("GET", "/1/msg/get", {"k": "k", "m": "0"}, b"")]


def test_pushes_as_a_service(web: FakeWeb) -> None:
    """protocol.md, section 5: /1/admin/push/private."""
    web.answer = b'{"ret":0,"data":{"mid":17000000000000016}}'
    assert push(Server(web.address), "k", b'{"a": 1}', 600) == 17000000000000016
    assert push(Server(web.address), "k", b"1", 0, id="once") == 17000000000000016
    assert web.asked == [
        ("POST", "/1/admin/push/private", {"key": "k", "expire": "600", "mid": "1"}, b'{"a": 1}'),
        ("POST", "/1/admin/push/private", {"key": "k", "expire": "0", "mid": "1", "id": "once"}, b"1"),
    ]


def test_a_large_message_has_longer_to_be_sent(web: FakeWeb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "TIMEOUT_SECONDS", 0.2)
    web.pause, web.answer = 0.5, b'{"ret":0,"data":{"mid":16}}'
    assert push(Server(web.address), "k", b"1" * (1 << 18), 600) == 16
    with pytest.raises(UnavailableError, match=f"^{web.address} did not answer in time$"):
        push(Server(web.address), "k", b"1", 600)


@pytest.mark.parametrize(
    ("status", "answer", "error"),
    [
        (200, b'{"ret":65534}', ParameterError),
        (200, b'{"ret":1001}', NoNodeError),
        (200, b'{"ret":65535}', UnavailableError),
        (403, b"", ParameterError),
        (404, b"", ParameterError),
        (301, b"", ParameterError),
        (302, b"", UnavailableError),
        (303, b"", UnavailableError),
        (307, b"", UnavailableError),
        (429, b"", UnavailableError),
        (408, b"", UnavailableError),
        (503, b"", UnavailableError),
        (200, b"<html>", UnavailableError),
        (200, b"[]", UnavailableError),
        (200, b"{}", UnavailableError),
        (200, b"\xff", UnavailableError),
        (200, b"[" * 100_000, UnavailableError),
    ],
)
def test_every_other_answer_is_an_error(web: FakeWeb, status: int, answer: bytes, error: type[Exception]) -> None:
    """protocol.md, section 4: the numbers in `ret`."""
    web.status, web.answer = status, answer
    with pytest.raises(error, match=web.address):
        look_up(Server(web.address), "k")


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:port", "nowhere.invalid:80"])
def test_nobody_there_is_an_error(address: str) -> None:
    with pytest.raises(UnavailableError, match=f"^{address} cannot be reached: "):
        look_up(Server(address), "k")


@pytest.mark.parametrize("reset", [False, True])
def test_a_tls_handshake_that_is_cut_short_is_an_error_for_now(reset: bool) -> None:
    """As where a node or a balancer is started anew."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def cut() -> None:
            accepted, _ = listener.accept()
            with accepted:
                if reset:
                    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                accepted.recv(1 << 16)

        cutting = threading.Thread(target=cut)
        cutting.start()
        address = f"https://localhost:{listener.getsockname()[1]}"
        with pytest.raises(UnavailableError, match=f"^{address} cannot be reached: "):
            look_up(Server(address), "k")
        cutting.join(10)
