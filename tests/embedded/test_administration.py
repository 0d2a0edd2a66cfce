"""The calls of a cluster's administrators, in one process (protocol.md, section 10)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from gopush.comet.settings import SubscriberSettings
from gopush.config.values import listeners
from gopush.embedded.node import EmbeddedNode
from gopush.embedded.settings import EmbeddedSettings
from gopush.errors import RET_NO_NODE, RET_OK, RET_PARAMETER
from gopush.message.redis.settings import RedisSettings, sources
from gopush.web.settings import HttpSettings
from tests.clients import TcpClient, WebSocketClient
from tests.conftest import InReactor, reactor
from tests.fixtures import eventually
from tests.http.client import Client
from tests.servers import free_port


class World:
    """A whole gopush in memory."""

    def __init__(self, in_reactor: InReactor, *proto: str, redis: int = 0) -> None:
        """`redis`: the port of one that keeps the messages."""
        self.ports = {name: free_port() for name in ("tcp", "websocket", "stat", "http", "admin")}
        bind = {f"{name}_bind": listeners(f"localhost:{port}") for name, port in self.ports.items()}
        http = {name: bind.pop(name) for name in ("http_bind", "admin_bind")}
        settings = EmbeddedSettings(
            subscribers=SubscriberSettings(proto=proto or ("tcp", "websocket"), **bind),  # type: ignore[arg-type]
            http=HttpSettings(**http),  # type: ignore[arg-type]
            storage="redis" if redis else "memory",
            redis=RedisSettings(sources=sources(f"node1:1 tcp@127.0.0.1:{redis or 6379}")),
        )
        self._in_reactor = in_reactor
        self._node = in_reactor(EmbeddedNode, reactor, settings)
        in_reactor(self._node.startService)

    def call(self, port: str, method: str, target: str, body: bytes = b"") -> tuple[int, Any]:
        with Client(self.ports[port]) as client:
            answer = client.request(method, target, body)
            return answer.status, json.loads(answer.body)

    def close(self) -> None:
        self._in_reactor(self._node.stopService)


@pytest.fixture
def world(in_reactor: InReactor) -> Iterator[World]:
    world = World(in_reactor)
    yield world
    world.close()


def nodes(world: World) -> list[tuple[str, str, str, int]]:
    _, answer = world.call("admin", "GET", "/1/admin/nodes")
    return [(node["role"], node["node"], node["state"], node["weight"]) for node in answer["data"]["nodes"]]


def test_health_is_reported_on_every_port_for_http(world: World) -> None:
    for port in ("stat", "http", "admin"):
        assert world.call(port, "GET", "/health") == (200, {"alive": True, "ready": True})


def test_the_health_of_a_process_is_the_same_at_every_port(in_reactor: InReactor) -> None:
    """What a balancer asks at http.bind is what an operator asks at stat.bind (docs/balancers.md)."""
    world = World(in_reactor, redis=free_port())
    try:
        answers = [world.call(port, "GET", "/health") for port in ("stat", "http", "admin")]
        assert [(status, said["ready"]) for status, said in answers] == [(503, False)] * 3
    finally:
        world.close()


def test_the_process_is_listed_as_a_comet_and_a_message_node(world: World) -> None:
    assert nodes(world) == [("comet", "embedded", "active", 1), ("message", "embedded", "active", 1)]
    assert world.call("admin", "POST", "/1/admin/node/weight?node=embedded&weight=2") == (200, {"ret": RET_OK})
    assert [weight for *_, weight in nodes(world)] == [2, 2]


def test_there_is_nobody_to_drain_it_to(world: World) -> None:
    assert world.call("admin", "POST", "/1/admin/node/drain?node=embedded") == (200, {"ret": RET_PARAMETER})
    assert world.call("admin", "POST", "/1/admin/node/undrain?node=embedded") == (200, {"ret": RET_OK})
    assert [state for _, _, state, _ in nodes(world)] == ["active", "active"]


def test_a_keys_connections_are_closed(world: World) -> None:
    assert world.call("admin", "POST", "/1/admin/key/close?key=k") == (200, {"ret": 0, "data": {"closed": 0}})


@pytest.mark.parametrize(("proto", "number"), [("websocket", 1), ("tcp", 2)])
def test_only_what_clients_may_speak_is_offered(in_reactor: InReactor, proto: str, number: int) -> None:
    """protocol.md, section 9: `proto`."""
    world = World(in_reactor, proto)
    try:
        server = {"server": f"127.0.0.1:{world.ports[proto]}"}
        assert world.call("http", "GET", f"/1/server/get?k=k&p={number}") == (200, {"ret": 0, "data": server})
        assert world.call("http", "GET", f"/1/server/get?k=k&p={3 - number}") == (200, {"ret": RET_NO_NODE})
    finally:
        world.close()


def test_a_deleted_key_has_lost_its_messages_and_its_subscribers(world: World) -> None:
    """protocol.md, section 5: `msg/del` also closes the key's subscribers, silently and before it answers."""
    for path in ("/1/admin/msg/del", "/admin/msg/clean"):
        assert world.call("admin", "POST", "/1/admin/push/private?key=k&expire=60", b"1") == (200, {"ret": RET_OK})
        with TcpClient(world.ports["tcp"]) as first, WebSocketClient(world.ports["websocket"]) as second:
            first.subscribe("k")
            second.subscribe("k")
            assert world.call("admin", "POST", path, b"key=k") == (200, {"ret": RET_OK})
            assert world.call("http", "GET", "/1/msg/get?k=k&m=0") == (200, {"ret": RET_OK})
            assert world.call("admin", "POST", "/1/admin/push/private?key=k&expire=60", b"2") == (200, {"ret": RET_OK})
            assert first.rest() == b""
            assert second.closing() == (1000, b"")


def test_the_busiest_keys_and_a_message_of_one(world: World) -> None:
    def busiest(query: str) -> list[tuple[str, int, bool]]:
        status, answer = world.call("admin", "GET", f"/1/admin/keys?{query}")
        assert (status, answer["ret"], answer["data"]["silent"]) == (200, RET_OK, [])
        return [(busy["key"], busy["connections"], busy["rate"] > 0) for busy in answer["data"]["keys"]]

    with TcpClient(world.ports["tcp"]) as client:
        client.subscribe("shop-idle")
        mids = []
        for body in (b'{"n": 1}', b'{"n": 2}'):
            pushed = world.call("admin", "POST", "/1/admin/push/private?key=shop-1&expire=60&mid=1", body)
            mids.append(pushed[1]["data"]["mid"])
        world.call("admin", "POST", "/1/admin/push/private?key=else&expire=0", b"1")
        assert busiest("") == [("shop-1", 0, True), ("else", 0, True), ("shop-idle", 1, False)]
        assert busiest("prefix=shop-&most=1") == [("shop-1", 0, True)]
    shown = {"ret": 0, "data": {"msg": {"n": 2}, "mid": mids[1], "gid": 0}}
    assert world.call("admin", "GET", f"/1/admin/key/message?key=shop-1&mid={mids[1]}") == (200, shown)


def test_who_is_subscribed_since_when_and_over_what(world: World) -> None:
    def presence() -> list[dict[str, Any]]:
        status, answer = world.call("admin", "POST", "/1/admin/presence", b'{"k":["k","nobody"]}')
        assert (status, answer["ret"]) == (200, RET_OK)
        return list(answer["data"]["presence"])

    nobody = {"key": "nobody", "count": 0, "since": None, "over": {}}
    before = int(time.time())
    with WebSocketClient(world.ports["websocket"]) as second:
        with TcpClient(world.ports["tcp"]) as first:
            first.subscribe("k")
            second.subscribe("k")
            there, other = presence()
            assert other == nobody
            assert before - 1 <= there.pop("since") <= time.time() + 1
            assert there == {"key": "k", "count": 2, "over": {"tcp": 1, "websocket": 1}}
        eventually(lambda: presence()[0]["over"] == {"websocket": 1})
    eventually(lambda: presence() == [{**nobody, "key": "k"}, nobody])
