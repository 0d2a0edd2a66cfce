"""A web node on two ports of its own, with fakes behind it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest

from gopush.membership.view import StaticCoordination, View
from gopush.model import NodeInfo
from gopush.net.clock import Clock
from gopush.web.service import Web
from gopush.web.settings import HttpSettings
from tests.conftest import InReactor, reactor
from tests.http.client import Answer, Client
from tests.http.conftest import Server
from tests.web.fakes import NOW, FakeComets, FakeMessages

COMET = NodeInfo("node1", 0, ("10.0.0.1:6970",), ("push.example.org:6969", "10.0.0.1:6969"), ("push.example.org:6968",))


class World:
    """The node and what is behind it."""

    def __init__(self, in_reactor: InReactor, settings: HttpSettings, clock: Clock | None) -> None:
        self.in_reactor = in_reactor
        self.messages = FakeMessages()
        self.comets = FakeComets(self.messages)
        self.coordination = StaticCoordination(View([COMET]))
        self.web: Web = in_reactor(
            Web, clock or reactor, self.coordination, self.messages, self.comets, settings, 4.0, lambda: NOW
        )
        self.public = Server(self.web.public, in_reactor)
        self.admin = Server(self.web.admin, in_reactor)
        self.web.guard.add("127.0.0.1", self.admin.port)

    def get(self, target: str, **values: str) -> Answer:
        """A GET on the public port."""
        return _call(self.public.port, "GET", target, values)

    def post(self, target: str, body: bytes | str = b"", headers: str = "", **values: str) -> Answer:
        """A POST on the admin port."""
        return _call(self.admin.port, "POST", target, values, body, headers)

    def admin_call(self, method: str, target: str, body: bytes | str = b"", headers: str = "", **values: str) -> Answer:
        """Any method on the admin port, with headers."""
        return _call(self.admin.port, method, target, values, body, headers)

    def call_admin(self, method: str, target: str, **values: str) -> Answer:
        """Another method on the admin port."""
        return _call(self.admin.port, method, target, values)

    def close(self) -> None:
        self.public.close()
        self.admin.close()


def _call(
    port: int, method: str, target: str, values: dict[str, str], body: bytes | str = b"", headers: str = ""
) -> Answer:
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in values.items())
    with Client(port) as client:
        body = body.encode() if isinstance(body, str) else body
        return client.request(method, f"{target}?{query}" if query else target, body, headers)


def data(answer: Answer) -> Any:
    """The data of an answer that is ok."""
    assert answer.status == 200
    found = json.loads(answer.body)
    assert found["ret"] == 0
    return found.get("data")


MakeWorld = Callable[..., World]


@pytest.fixture
def make_world(in_reactor: InReactor) -> Iterator[MakeWorld]:
    worlds: list[World] = []

    def make(clock: Clock | None = None, **settings: Any) -> World:
        worlds.append(World(in_reactor, HttpSettings(**settings), clock))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    return make_world()
