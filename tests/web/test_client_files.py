"""The client for browsers is served on both ports, to pages of any site that may call."""

from __future__ import annotations

from http.client import HTTPConnection
from pathlib import Path

import pytest

from gopush.web.pages import public_port
from tests.web.conftest import World

CLIENT = Path(__file__).resolve().parents[2] / "clients" / "js"


@pytest.mark.parametrize("name", ["gopush.js", "gopush.mjs"])
@pytest.mark.parametrize("port", ["public", "admin"])
def test_the_client_is_served(world: World, port: str, name: str) -> None:
    connection = HTTPConnection("127.0.0.1", getattr(world, port).port, timeout=20)
    connection.request("GET", f"/{name}", headers={"Origin": "https://www.example.org"} if port == "public" else {})
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (200, (CLIENT / name).read_bytes())
    assert answer.headers["Content-Type"] == "text/javascript;charset=utf-8"
    assert answer.headers["Cache-Control"] == "public, max-age=3600"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    if port == "public":
        assert answer.headers["Access-Control-Allow-Origin"] in ("*", "https://www.example.org")
    assert answer.headers.get_all("Vary") == ["Origin"]
    connection.close()


@pytest.mark.parametrize(
    ("endpoint", "port"),
    [
        ("tcp:8090:interface=127.0.0.1:backlog=4096", "http:8090"),
        ("tcp6:80:interface=\\:\\:1", "http:80"),
        ("haproxy:tcp:8090", "http:8090"),
        ("tcp:interface=127.0.0.1:port=81", "http:81"),
        ("tcp6:interface=\\:\\:1:port=82", "http:82"),
        ("ssl:8443:privateKey=/a:certKey=/b", "https:8443"),
        ("ssl:privateKey=/a1:port=8443:certKey=/b", "https:8443"),
        ("unix:/run/gopush", ""),
    ],
)
def test_a_page_finds_the_public_port(endpoint: str, port: str) -> None:
    assert public_port(["unix:/x", endpoint]) == port
