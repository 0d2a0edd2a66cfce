"""All of gopush in this process, in memory, on ports of its own: for what streams and waits."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest

from gopush.comet.settings import SubscriberSettings
from gopush.config.values import listeners
from gopush.embedded.node import EmbeddedNode
from gopush.embedded.settings import EmbeddedSettings
from gopush.message.store import StoreSettings
from gopush.net.limits import ConnectionSettings
from gopush.web.settings import HttpSettings
from tests.conftest import InReactor, reactor
from tests.event_source import Stream
from tests.http.client import Answer, Client
from tests.servers import free_port


class Whole:
    """A whole gopush. Settings of http and of subscribers by their fields' names."""

    def __init__(self, in_reactor: InReactor, http: dict[str, Any], subscribers: dict[str, Any]) -> None:
        self.ports = {name: free_port() for name in ("tcp", "websocket", "stat", "http", "admin")}
        bind: dict[str, Any] = {f"{name}_bind": listeners(f"localhost:{port}") for name, port in self.ports.items()}
        web: dict[str, Any] = {name: bind.pop(name) for name in ("http_bind", "admin_bind")}
        connections = http.get("connections", ConnectionSettings())
        store = subscribers.pop("store", StoreSettings())
        settings = EmbeddedSettings(
            subscribers=SubscriberSettings(**bind, **{"connections": connections} | subscribers),
            http=HttpSettings(**web, **http),
            storage="memory",
            store=store,
        )
        self.in_reactor = in_reactor
        self.node: Any = in_reactor(EmbeddedNode, reactor, settings)
        self.comet: Any = self.node._comet
        in_reactor(self.node.startService)
        self.running = True

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.ports['http']}"

    def stream(self, key: str, more: str = "", fields: str = "", version: str = "1.1", rcvbuf: int = 0) -> Stream:
        """GET /sub."""
        target = f"/sub?key={quote(key, safe='')}&heartbeat=30{more}"
        return Stream(self.host, target, fields, version, rcvbuf)

    def get(self, target: str, fields: str = "") -> Answer:
        with Client(self.ports["http"]) as client:
            return client.request("GET", target, headers=fields)

    def push(self, key: str, body: bytes, expire: int = 600) -> int:
        """The mid of a pushed message."""
        with Client(self.ports["admin"]) as client:
            target = f"/1/admin/push/private?key={quote(key, safe='')}&expire={expire}&mid=1"
            answer = json.loads(client.request("POST", target, body).body)
        assert answer["ret"] == 0
        mid: int = answer["data"]["mid"]
        return mid

    def token(self, key: str) -> str:
        with Client(self.ports["admin"]) as client:
            answer = json.loads(client.request("POST", f"/1/admin/token?key={key}").body)
        token: str = answer["data"]["token"]
        return token

    def counters(self) -> Any:
        return self.node._web.counters

    def subscribers(self, key: str) -> int:
        channel = self.comet.channels.get(key)
        return 0 if channel is None else channel.subscribers

    def close(self) -> None:
        if self.running:
            self.running = False
            self.in_reactor(self.node.stopService)


MakeWhole = Callable[..., Whole]


@pytest.fixture
def make_whole(in_reactor: InReactor) -> Iterator[MakeWhole]:
    made: list[Whole] = []

    def make(http: dict[str, Any] | None = None, **subscribers: Any) -> Whole:
        made.append(Whole(in_reactor, http or {}, subscribers))
        return made[-1]

    yield make
    for whole in made:
        whole.close()


@pytest.fixture(scope="module")
def whole(reactor_thread: Any) -> Iterator[Whole]:
    """One for all tests of a module that leave it alone."""
    from twisted.internet import threads

    def run(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return threads.blockingCallFromThread(reactor, function, *args, **kwargs)

    made = Whole(run, {}, {})
    yield made
    made.close()
