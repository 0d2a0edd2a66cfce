"""How a member leaves its cluster."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gopush.comet.settings import SubscriberSettings
from gopush.config.values import listeners
from gopush.embedded.node import EmbeddedNode
from gopush.embedded.settings import EmbeddedSettings
from gopush.membership.view import StaticCoordination, View
from gopush.message.redis.settings import RedisSettings, sources
from gopush.model import NodeInfo
from gopush.rpc.settings import ZooKeeperSettings
from gopush.web.settings import HttpSettings
from tests.conftest import InReactor, reactor
from tests.fixtures import eventually
from tests.http.client import Client
from tests.servers import free_port
from tests.servers.redis import RedisServer

OTHER = NodeInfo("other", 0, ("127.0.0.1:1",))


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.mark.parametrize("others", [[OTHER], []], ids=["of_two", "the_last"])
def test_others_hear_at_once_that_a_process_leaves_while_a_client_reads_its_answer(
    in_reactor: InReactor, redis: RedisServer, others: list[NodeInfo]
) -> None:
    """The last one, too: web nodes call it, and no view has them."""
    coordination, stopped = StaticCoordination(View(others)), list[object]()
    ports = {name: free_port() for name in ("http", "admin", "stat", "tcp", "websocket")}
    bind = {f"{name}_bind": listeners(f"localhost:{port}") for name, port in ports.items()}
    http = {name: bind.pop(name) for name in ("http_bind", "admin_bind")}
    settings = EmbeddedSettings(
        subscribers=SubscriberSettings(**bind),  # type: ignore[arg-type]
        http=HttpSettings(**http),  # type: ignore[arg-type]
        rpc_bind=listeners(f"localhost:{free_port()}"),
        storage="redis",
        redis=RedisSettings(sources=sources(f"node1:1 tcp@127.0.0.1:{redis.port}")),
        zookeeper=ZooKeeperSettings(("localhost:2181",)),
    )
    node: Any = in_reactor(EmbeddedNode, reactor, settings, coordination)
    in_reactor(node.startService)
    eventually(lambda: len(coordination.view.comets) == len(others) + 1)
    with Client(ports["http"], rcvbuf=4096) as slow:
        slow.send(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)
        eventually(lambda: any(channel.stalled for channel in node._web.public.channels))
        in_reactor(lambda: node.stopService().addCallback(stopped.append) and None)
        eventually(lambda: any(comet.draining for comet in coordination.view.comets))
        assert node._web.public.channels
        assert not stopped
    eventually(lambda: stopped)
