"""protocol.md, section 4: what pages of other web sites may do with the public port (CORS)."""

from __future__ import annotations

import pytest

from gopush.net.limits import ConnectionSettings
from tests.http.client import Answer, Client
from tests.web.conftest import MakeWorld, World

SITE = "https://www.example.org"
LOOKUP = "/1/server/get?k=k&p=1"
PREFLIGHT = f"Origin: {SITE}\r\nAccess-Control-Request-Method: GET\r\n"


def ask(world: World, method: str, target: str, fields: str = "") -> Answer:
    with Client(world.public.port) as client:
        return client.request(method, target, b"", fields)


def shared(answer: Answer) -> bool:
    """Whether a page of SITE may read it."""
    assert "access-control-allow-credentials" not in answer.headers
    allowed = answer.headers.get("access-control-allow-origin")
    assert (answer.headers.get("vary") == "Origin") is (allowed is not None)
    return allowed == SITE


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", LOOKUP, 200),
        ("HEAD", LOOKUP, 200),
        ("GET", "/1/msg/get?k=k&m=0", 200),
        ("GET", "/1/msg/get?k=k&m=x", 200),
        ("GET", "/nothing", 404),
        ("POST", LOOKUP, 405),
        ("OPTIONS", LOOKUP, 405),
    ],
)
def test_pages_of_other_sites_may_read(world: World, method: str, target: str, status: int) -> None:
    """Also what refuses them; and without an Origin nothing is said."""
    answer = ask(world, method, target, f"Origin: {SITE}\r\n")
    assert answer.status == status
    assert shared(answer)
    before = ask(world, method, target)
    assert before.status == status
    assert set(answer.headers) - set(before.headers) == {"access-control-allow-origin", "vary"}


def test_where_sites_are_listed_others_may_not(make_world: MakeWorld) -> None:
    world = make_world(connections=ConnectionSettings(origins=(SITE,)))
    assert shared(ask(world, "GET", LOOKUP, f"Origin: {SITE}\r\n"))
    for origin in ("https://evil.example", "null"):
        refused = ask(world, "GET", LOOKUP, f"Origin: {origin}\r\n")
        assert refused.status == 403
        assert not shared(refused)
        assert ask(world, "OPTIONS", LOOKUP, PREFLIGHT.replace(SITE, origin)).status == 403


def test_a_preflight(world: World) -> None:
    answer = ask(world, "OPTIONS", LOOKUP, PREFLIGHT + "Access-Control-Request-Headers: x-a, x-b\r\n")
    assert (answer.status, answer.body) == (204, b"")
    assert shared(answer)
    assert answer.headers["access-control-allow-methods"] == "GET, HEAD"
    assert answer.headers["access-control-allow-headers"] == "x-a, x-b"
    assert "content-length" not in answer.headers
    assert ask(world, "OPTIONS", LOOKUP, "Access-Control-Request-Method: GET\r\n").status == 405
    assert ask(world, "OPTIONS", "/nothing", PREFLIGHT).status == 404


def test_a_browser_that_says_nothing_of_the_page_says_that_it_is_another(make_world: MakeWorld) -> None:
    """`Referrer-Policy: no-referrer` hides a page that loads JSONP, but not that it is of another site."""
    world = make_world(connections=ConnectionSettings(origins=(SITE,)))
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)):
        assert ask(world, "GET", LOOKUP, f"Sec-Fetch-Site: {site}\r\n").status == status
    assert ask(world, "GET", LOOKUP, f"Sec-Fetch-Site: cross-site\r\nReferer: {SITE}/page\r\n").status == 200
