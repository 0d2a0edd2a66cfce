"""Two processes that advertise one address: the one that does not live there stops, and says why."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from kazoo.client import KazooClient

from tests.chaos.cluster import Node
from tests.fixtures import eventually
from tests.servers.zookeeper import ZooKeeperServer

Maker = Callable[..., Node]


@pytest.fixture
def path() -> str:
    return f"/contested-{uuid.uuid4().hex}"


@pytest.fixture
def comet(zookeeper: ZooKeeperServer, tmp_path: Path, path: str) -> Iterator[Maker]:
    """Makes comets; they are killed in the end."""
    made: list[Node] = []

    def make(name: str, **base: str) -> Node:
        ini = {
            "base": {"node": "node1", **base},
            "zookeeper": {"addr": zookeeper.address, "comet.path": path, "message.path": f"{path}-message"},
        }
        made.append(Node("comet", name, tmp_path, ini))
        return made[-1]

    yield make
    for node in made:
        node.kill()


@pytest.fixture
def registered(zookeeper: ZooKeeperServer, path: str) -> Iterator[Callable[[], list[str]]]:
    client = KazooClient(zookeeper.address)
    client.start()
    client.ensure_path(f"{path}/node1")
    yield lambda: sorted(client.get_children(f"{path}/node1"))
    client.stop()
    client.close()


def test_only_who_lives_at_the_address_stays(comet: Maker, registered: Callable[[], list[str]]) -> None:
    first = comet("first")
    first.start()
    eventually(registered)
    before = registered()
    second = comet("second", **{"rpc.advertise": first.address("rpc")})
    with suppress(RuntimeError):  # it may have ended before anybody saw it listen
        second.start()
    process: Any = second._process
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.poll() == 1
    assert "leads to another process, which advertises it too" in second.log.with_suffix(".out").read_text()
    assert registered() == before, "nobody has touched the first one's"
    assert process.poll() is not None
    assert first._process is not None
    assert first._process.poll() is None


def test_who_advertises_the_place_of_another_by_another_name_says_so(comet: Maker) -> None:
    first = comet("fourth")
    first.start()
    port = first.address("rpc").rpartition(":")[2]
    second = comet("fifth", **{"node": "node2", "rpc.advertise": f"localhost:{port}"})
    second.start()
    said = f"another process answers at the address that this process advertises, localhost:{port}"
    eventually(lambda: said in second.log.read_text(), seconds=15)
    assert "this process advertises" not in first.log.read_text()


def test_a_killed_one_that_is_back_replaces_its_ghost(comet: Maker, registered: Callable[[], list[str]]) -> None:
    node = comet("third")
    node.start()
    eventually(registered)
    (ghost,) = registered()
    node.kill()
    node.start()
    eventually(lambda: len(registered()) == 1 and registered() != [ghost], seconds=15)
