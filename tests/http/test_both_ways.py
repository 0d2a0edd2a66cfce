"""The short cut and twisted.web answer the same requests with the same bytes, however they are cut into segments."""

from __future__ import annotations

from unittest.mock import patch

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gopush.net.http import exchange
from tests.http.ways import Ways

PATHS = (
    "/echo",
    "/later",
    "/deferred",
    "/pages",
    "/locked",
    "/stream",
    "/fails",
    "/nothing",
    "/%65cho",
    "/echo?q=a+b",
    "/locked?why=1",
    "/nothing?why=1",
)
FIELDS = (
    "Host: h",
    "Host: other",
    "X: y",
    "X:",
    "X: \t y \t",
    "x: Y: z",
    "Origin: http://a.example",
    "Prefer: why",
    "Connection: keep-alive",
    "Connection: close",
    "Connection: Upgrade",
    "Upgrade: h2c",
    "Expect: 100-continue",
    "Transfer-Encoding: chunked",
    "Content-Length: 0",
    "Content-Length: 4",
    "Content-Length: 999",
    "Access-Control-Request-Method: GET",
    "X: \u00fc",
    "X y: z",
    "X : z",
    " folded",
    "nothing",
)
BODIES = (
    b"",
    b"body",
    b"a\r\n\r\n",
    b"4\r\nbody\r\n0\r\n\r\n",
    b"4\nbody\n0\n\n",
    b"1;a=b\r\n\r\r\n0\r\nT: t\r\r\n\r\n",
    b"0\r\nT: t\n\r\n\r\n",
    b"x" * 101,
)
ENDS = ("\r\n", "\r\n", "\r\n", "\r\n", "\n")

methods = st.sampled_from(("GET", "POST", "POST", "HEAD", "OPTIONS", "DELETE", "get"))
versions = st.sampled_from(("HTTP/1.1",) * 6 + ("HTTP/1.0", "HTTP/2.0"))


@st.composite
def simple(draw: st.DrawFn) -> bytes:
    """A request as clients send it."""
    body = draw(st.sampled_from((b"", b"body", b'{\r\n "a": 1}', b"x" * 100)))
    path = draw(st.sampled_from(PATHS[:6] + PATHS[9:]))
    head = f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n" if body else ""
    return head.encode() + body if head else f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode()


@st.composite
def odd(draw: st.DrawFn) -> bytes:
    """A request as it should not be, mostly."""
    end = draw(st.sampled_from(ENDS))
    fields = draw(st.lists(st.sampled_from(FIELDS), max_size=4))
    target = draw(st.sampled_from((*PATHS, "http://h/echo", "*", "/\u4e2d?q=\u6587", "echo", "/a b")))
    lines = [f"{draw(methods)} {target} {draw(versions)}", *fields, "", ""]
    return end.join(lines).encode() + draw(st.sampled_from(BODIES))


requests = st.lists(st.one_of(simple(), simple(), odd()), min_size=1, max_size=6).map(b"".join)
cuts = st.lists(st.integers(0, 600), max_size=5)


def pieces(data: bytes, indexes: list[int]) -> list[bytes]:
    ends = sorted({index for index in indexes if 0 < index < len(data)})
    return [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]


@settings(max_examples=400, deadline=None)
@given(requests, cuts, cuts)
@example(b"GET /echo HTTP/1.1\r\nHost: h\r\n\r\n" * 3, [], [33])
@example(b"GET /echo?q=\xe4\xb8\xad HTTP/1.1\r\nHost: h\r\n\r\n", [], [12])
@example(b"POST /locked HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody", [], [60])
@example(b"GET /echo HTTP/1.1\r\nContent-Length: 4\r\n\r\na\r\n\r\n", [], [])
@example(b"GET /echo HTTP/1.1\r\nContent-Length: 4\r\n\r\na\r\n\r\n", [45], [46])
@example(b"GET /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nT: t\r\r\n\n\n0\r\n\r\n", [], [58])
@example(b"POST /echo HTTP/1.1\r\nOrigin: http://a.example\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", [], [40])
@example(b"GET /echo HTTP/1.1\r\nOrigin: http://a.example\r\nX y: z\r\n\r\n", [], [25])
def test_the_same_bytes_both_ways(data: bytes, some: list[int], others: list[int]) -> None:
    with patch.object(exchange, "log_failure"):
        short = Ways(short=True).answers(pieces(data, some))
        assert short == Ways(short=False).answers(pieces(data, others))
        assert short == Ways(short=True).answers([data[at : at + 1] for at in range(len(data))])


def test_the_short_cut_is_taken() -> None:
    """Else the test above would compare a thing with itself."""
    ways = Ways(short=True)
    with patch.object(exchange.Exchange, "gotLength", side_effect=AssertionError):
        found, _ = ways.answers(
            [b"GET /echo HTTP/1.1\r\nHost: h\r\n\r\nPOST /later HTTP/1.1\r\nContent-Length: 1\r\n\r\na"]
        )
    assert found.count(b"HTTP/1.1 200 OK") == 2


@pytest.mark.parametrize(
    "bad",
    [
        b"GET /echo HTTP/1.1\nHost: h\n\n",
        b"GET /echo HTTP/1.1\r\nHost: h\nX: a\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nX: a\r\n b\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nT: t\n\nGET /echo HTTP/1.1\r\n",
    ],
)
def test_what_old_parsers_take_is_refused(bad: bytes) -> None:
    """protocol.md, section 4: a bare line feed, and a folded field: two readers may disagree about what they mean."""
    found, over = Ways(short=True).answers([bad + b"\r\n"])
    assert found.startswith(b"HTTP/1.1 400 ")
    assert over
