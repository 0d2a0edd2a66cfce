"""protocol.md, sections 4 and 5: what pages of other web sites may do with either port (CORS)."""

from __future__ import annotations

from pathlib import Path

import pytest

from gopush.net.limits import ConnectionSettings
from gopush.web.keys import make
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


CAME = f"GET {LOOKUP} HTTP/1.1\r\nHost: a\r\nOrigin: {SITE}\r\n"


def begin(port: int, head: str) -> Answer:
    with Client(port) as client:
        client.send(head.encode())
        return client.answer()


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (f"{CAME}X y: z\r\n", 400),
        (f"{CAME}Content-Length: x\r\n", 400),
        (f"{CAME}Content-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
        (f"{CAME}X: y\n\n", 400),
        (f"{CAME}Transfer-Encoding: chunked\r\n\r\nx\r\n", 400),
        (CAME + "X: y\r\n" * 100, 431),
        (f"{CAME}X: {'y' * 20_000}", 431),
    ],
)
def test_they_may_read_that_a_head_or_a_body_is_malformed(world: World, head: str, status: int) -> None:
    """protocol.md, section 4: refusals too, once the Origin is known."""
    answer = begin(world.public.port, head)
    assert answer.status == status
    assert shared(answer)
    before = begin(world.public.port, head.replace(f"Origin: {SITE}\r\n", "X: y\r\n"))
    assert before.status == status
    assert set(answer.headers) - set(before.headers) == {"access-control-allow-origin", "vary"}


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (f"GET /{'x' * 20_000} HTTP/1.1\r\nOrigin: {SITE}\r\n\r\n", 414),
        (f"GET / a HTTP/1.1\r\nOrigin: {SITE}\r\n\r\n", 400),
        (f"GET {LOOKUP} HTTP/1.1\r\nX y: z\r\nOrigin: {SITE}\r\n\r\n", 400),
        (f"GET {LOOKUP} HTTP/2.0\r\nOrigin: {SITE}\r\n\r\n", 505),
    ],
)
def test_nothing_is_said_of_an_origin_that_has_not_been_read(world: World, head: str, status: int) -> None:
    """protocol.md, section 4: what comes behind a malformed line is not looked at."""
    answer = begin(world.public.port, head)
    assert answer.status == status
    assert not shared(answer)


def test_a_malformed_head_does_not_let_other_sites_read(make_world: MakeWorld) -> None:
    world = make_world(connections=ConnectionSettings(origins=("https://other.example",)))
    assert not shared(begin(world.public.port, f"{CAME}X y: z\r\n"))
    assert not shared(begin(world.admin.port, f"{CAME}X y: z\r\n"))


def test_one_request_does_not_speak_for_the_next(world: World) -> None:
    """They share a connection, and perhaps no more: a proxy's."""
    with Client(world.public.port) as client:
        client.send(f"{CAME}Connection: keep-alive\r\n\r\n".encode())
        assert shared(client.answer())
        client.send(b"GET / HTTP/1.1\r\nX y: z\r\n")
        assert not shared(client.answer())


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


PUSH = "/1/admin/push/private?key=k&expire=0"
KEYED = "Access-Control-Request-Headers: authorization\r\n"


def ask_admin(world: World, method: str, target: str, fields: str = "") -> Answer:
    with Client(world.admin.port) as client:
        return client.request(method, target, b"1" if method == "POST" else b"", fields)


def test_pages_of_admin_origins_may_ask_call_and_read(make_world: MakeWorld) -> None:
    """protocol.md, section 5: a page that may call the admin port is of use only if it can read the answer."""
    world = make_world(admin_origins=(SITE,))
    asked = ask_admin(world, "OPTIONS", PUSH, PREFLIGHT.replace("GET", "POST") + KEYED)
    assert asked.status == 204
    assert shared(asked)
    assert asked.headers["access-control-allow-methods"] == "POST"
    assert asked.headers["access-control-allow-headers"] == "authorization"
    for method, target, status in (("POST", PUSH, 200), ("GET", PUSH, 405), ("GET", "/1/admin/nodes", 200)):
        answer = ask_admin(world, method, target, f"Origin: {SITE}\r\n")
        assert answer.status == status
        assert shared(answer)
        assert set(answer.headers) - set(ask_admin(world, method, target).headers) == {
            "access-control-allow-origin",
            "vary",
        }
    own = f"http://127.0.0.1:{world.admin.port}"
    answer = ask_admin(world, "POST", PUSH, f"Origin: {own}\r\n")
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, own)
    assert len(world.comets.pushes) == 3


def test_other_pages_may_not_even_ask_at_an_admin_port_without_keys(make_world: MakeWorld) -> None:
    world = make_world(admin_origins=(SITE,))
    before = world.web.counters.foreign_origins
    for origin in ("https://evil.example", "null"):
        for answer in (
            ask_admin(world, "OPTIONS", PUSH, PREFLIGHT.replace(SITE, origin)),
            ask_admin(world, "POST", PUSH, f"Origin: {origin}\r\n"),
        ):
            assert answer.status == 403
            assert "access-control-allow-origin" not in answer.headers
    assert world.web.counters.foreign_origins == before + 4
    for fields in ("", "Access-Control-Request-Method: POST\r\n", f"Origin: {SITE}\r\n"):
        assert ask_admin(world, "OPTIONS", PUSH, fields).status == 405
    assert not world.comets.pushes


def test_a_key_passes_from_pages_of_any_site(make_world: MakeWorld, tmp_path: Path) -> None:
    """No browser sends one by itself: a page that does so knows it. To send it, it has to be let ask."""
    key, line = make("billing")
    (tmp_path / "keys").write_text(line + "\n")
    world = make_world(api_keys=str(tmp_path / "keys"))
    asked = ask_admin(world, "OPTIONS", PUSH, PREFLIGHT.replace("GET", "POST") + KEYED)
    assert asked.status == 204
    assert shared(asked)
    for fields in (f"Authorization: Bearer {key}\r\n", f"X-Api-Key: {key}\r\n"):
        answer = ask_admin(world, "POST", PUSH, f"Origin: {SITE}\r\n{fields}")
        assert answer.status == 200
        assert shared(answer)
    refused = ask_admin(world, "POST", PUSH, f"Origin: {SITE}\r\nX-Api-Key: wrong\r\n")
    assert refused.status == 403
    assert not shared(refused)
    assert len(world.comets.pushes) == 2


def test_the_admin_ports_own_pages_pass_at_the_public_port(make_world: MakeWorld) -> None:
    world = make_world(connections=ConnectionSettings(origins=(SITE,)))
    own = f"http://127.0.0.1:{world.admin.port}"
    answer = ask(world, "GET", LOOKUP, f"Origin: {own}\r\n")
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, own)
    assert ask(world, "GET", LOOKUP, f"Origin: http://127.0.0.1:{world.public.port}\r\n").status == 403
