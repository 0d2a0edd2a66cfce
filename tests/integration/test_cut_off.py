"""A comet that reaches nobody but its clients, as a process (delivery.md, what a subscriber may rely on)."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.cluster import Node
from tests.clients import TcpClient, request
from tests.integration.systems import settle
from tests.servers.zookeeper import ZooKeeperServer

SESSION_SECONDS = 4
PATIENCE = 60.0
SUBSCRIBERS = 20


@pytest.fixture
def zookeeper() -> Iterator[ZooKeeperServer]:
    with ZooKeeperServer() as server:
        yield server


@pytest.fixture
def nodes(tmp_path: Path, zookeeper: ZooKeeperServer) -> Iterator[tuple[Node, Node]]:
    """A comet and a message node."""
    ini = {"zookeeper": {"addr": zookeeper.address, "timeout": f"{SESSION_SECONDS}s"}}
    comet = Node("comet", "comet", tmp_path, ini)
    message = Node("message", "message", tmp_path, {**ini, "storage": {"type": "memory"}})
    try:
        message.start()
        comet.start()
        settle([comet], comets=1, messages=1)
        yield comet, message
    finally:
        comet.kill()
        message.kill()


def answer(comet: Node) -> bytes:
    """What a new subscriber is told."""
    with TcpClient(comet.ports["tcp"]) as client:
        client.send(request("sub", "k", "30", "", "1"))
        return client.read(4)


def rest(client: TcpClient) -> bytes:
    """All that the client still hears."""
    try:
        return client.rest()
    except TimeoutError:
        return b"no end"


def reported(comet: Node, words: str) -> int:
    """How many lines of its log say this."""
    return len(re.findall(words, comet.log.read_text()))


def test_it_closes_them_and_lets_them_in_again(nodes: tuple[Node, Node], zookeeper: ZooKeeperServer) -> None:
    """Not while it has a message node; not for ever once one is back."""
    comet, message = nodes
    clients = [TcpClient(comet.ports["tcp"]).subscribe("k") for _ in range(SUBSCRIBERS)]
    zookeeper.kill()
    time.sleep(2 * SESSION_SECONDS)  # nothing may happen: there is nothing to wait for
    assert all(client.is_served() for client in clients)
    message.kill()
    assert [rest(client) for client in clients] == [b"-n\r\n"] * SUBSCRIBERS
    assert answer(comet) == b"-n\r\n"
    message.start()
    deadline = time.monotonic() + PATIENCE
    while answer(comet) != b"+h\r\n":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert reported(comet, "]? cut off: no ZooKeeper for 4 s") == 1
    assert reported(comet, "no longer cut off") == 1
    for client in clients:
        client.close()
