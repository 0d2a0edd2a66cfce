"""Requests and responses without a connection."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from twisted.internet.task import Clock

from gopush.errors import ParameterError
from gopush.net.http import head
from gopush.net.http.request import Form, Renderer, Request, Response, plain
from gopush.net.http.routes import AnyRoute, Route
from gopush.net.http.site import Site


@pytest.mark.parametrize(
    ("encoded", "value"),
    [
        (b"k=Terry-Mao", "Terry-Mao"),
        (b"k=a+b%20c%2B", "a b c+"),
        (b"x=1&k=%E4%bd%a0", "\u4f60"),
        ("k=\u4f60".encode(), "\u4f60"),
        (b"k=first&k=second", "first"),
        (b"%6b=1&k=2", "1"),
        (b"k=a=b&", "a=b"),
        (b"k", ""),
        (b"k=", ""),
        (b"", ""),
        (b"K=1", ""),
        (b"bad=%ff&x%ff=%zz&k=1", "1"),
        (b"a%26k=1&k=2&x%26=+", "2"),
        (b"%%2626k=1&%26%26&&k=2", "2"),
        (b"%26&" * 1000 + b"k=%61", "a"),
    ],
)
def test_form_encoding(encoded: bytes, value: str) -> None:
    """protocol.md, section 4: `+` is a blank, of repeated names the first counts, unknown names are ignored."""
    assert Form(encoded).text("k") == value


@pytest.mark.parametrize("encoded", [b"k=%ff", b"k=\xff", b"k=%ed%a0%80", b"k=%zz", b"k=%4", b"k=1%"])
def test_a_value_that_is_not_utf8_or_badly_escaped_is_a_parameter_error(encoded: bytes) -> None:
    with pytest.raises(ParameterError):
        Form(encoded).get("k")


def test_an_absent_value_differs_from_an_empty_one() -> None:
    assert Form(b"a=").get("a") == ""
    assert Form(b"a=").get("b") is None


def test_a_rendered_response() -> None:
    renderer = Renderer(0)
    request = Request(b"GET", b"/")
    expected = (
        b"HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Type: a/b\r\n"
        b'Content-Length: 9\r\n\r\n{"ret":0}'
    )
    assert renderer.render(Response(200, "a/b", b'{"ret":0}'), request) == expected
    assert renderer.render(Response(200, "a/b", b'{"ret":0}'), request) == expected
    renderer.set_time(1)
    assert b"00:00:01 GMT" in renderer.render(Response(200, "a/b", b""), request)
    request.connection = b"close"
    assert b"\r\nConnection: close\r\n" in renderer.render(plain(405, ("Allow", "GET")), request)
    assert b"\r\nAllow: GET\r\n" in renderer.render(plain(405, ("Allow", "GET")), request)


class Asked(NamedTuple):
    path: bytes


def test_routes() -> None:
    get, post = Route(lambda _: plain(200)), Route(lambda _: plain(201))
    site = Site({"/a/b": {"GET": get, "POST": post}, "/c": {"POST": post}}, Clock(), 10)

    def find(path: bytes, method: bytes) -> AnyRoute:
        return site.getResourceFor(Asked(path)).route(method)

    assert find(b"/a/b", b"GET") is find(b"/a/b", b"HEAD") is find(b"/%61/b", b"GET") is get
    assert find(b"/a/b", b"POST") is post
    refused = find(b"/c", b"HEAD")
    assert isinstance(refused, Route)
    assert refused.handler(Request(b"HEAD", b"/c")) == plain(405, ("Allow", "POST"))
    for path in (b"/", b"/a", b"/a/b/", b"/A/b", b"*", b"/%2561/b", b"/\xff"):
        unknown = find(path, b"GET")
        assert isinstance(unknown, Route)
        assert unknown.handler(Request(b"GET", path)) == plain(404)


def test_the_fields_of_few_heads_are_remembered_and_those_of_each_request_are_its_own() -> None:
    reader = head.RequestReader({b"GET /": Route(lambda _: plain(200))})
    for number in (*range(1000), *range(1000)):
        found = reader.read(b"GET / HTTP/1.1\r\nHost: a\r\nX: %d\r\n\r\n" % number, 0, "")
        assert found is not None
        assert found[0].headers == {b"host": b"a", b"x": b"%d" % number}
    assert head._fields.cache_info().currsize <= 256
