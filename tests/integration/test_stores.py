"""Message nodes of one cluster keep the same data: one that keeps other ones is refused when it starts."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.chaos.cluster import Ini, Node
from tests.servers.redis import RedisServer
from tests.servers.zookeeper import ZooKeeperServer

PATIENCE_SECONDS = 60

Start = Callable[..., Node]


@pytest.fixture(scope="module")
def zookeeper() -> Iterator[ZooKeeperServer]:
    with ZooKeeperServer() as server:
        yield server


@pytest.fixture
def start(zookeeper: ZooKeeperServer, tmp_path: Path) -> Iterator[Start]:
    """Start a message node with these settings."""
    started: list[Node] = []
    path = f"/messages-{tmp_path.name}"

    def start_one(**sections: dict[str, str]) -> Node:
        coordinator = {"addr": zookeeper.address, "timeout": "4s", "message.path": path}
        ini: Ini = {"zookeeper": coordinator, **sections}
        node = Node("message", f"message-{len(started)}", tmp_path, ini)
        started.append(node)
        with suppress(RuntimeError):  # one that is refused may have ended before anybody looked
            node.start()
        return node

    yield start_one
    for node in started:
        node.kill()


def ready(node: Node) -> bool:
    try:
        with urllib.request.urlopen(f"http://{node.address('stat')}/health", timeout=10):
            return True
    except (urllib.error.URLError, OSError):
        return False


def until(condition: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> bool:
    deadline = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def refused(node: Node) -> str:
    """What the node says when it ends, which it must do by itself."""
    process = node._process
    assert process is not None
    assert until(lambda: process.poll() is not None), "it was let in"
    assert process.returncode == 1
    return node.log.with_suffix(".out").read_text()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_second_node_with_a_store_of_its_own_is_refused(start: Start, tmp_path: Path, kind: str) -> None:
    first = start(storage={"type": kind}, sqlite={"path": str(tmp_path / "one.sqlite")})
    assert until(lambda: ready(first))
    second = start(storage={"type": kind}, sqlite={"path": str(tmp_path / "two.sqlite")})
    assert "store of its own" in refused(second)
    assert until(lambda: ready(first))


def test_the_same_sqlite_file_is_the_same_store(start: Start, tmp_path: Path) -> None:
    """After kill -9 its old registration lives on for a while, under another address perhaps."""
    path = {"path": str(tmp_path / "one.sqlite")}
    first = start(storage={"type": "sqlite"}, sqlite=path)
    assert until(lambda: ready(first))
    first.kill()
    again = start(storage={"type": "sqlite"}, sqlite=path)
    assert until(lambda: ready(again))


def test_redis_servers_with_the_same_names_are_distinguished(start: Start) -> None:
    with RedisServer() as one, RedisServer() as other:
        first = start(redis={"source": f"node1:1 {one.source}"})
        assert until(lambda: ready(first))
        elsewhere = start(redis={"source": f"node1:1 {other.source}"})
        another_prefix = start(redis={"source": f"node1:1 {one.source}", "prefix": "other:"})
        beside = start(redis={"source": f"node1:1 {one.source}"})
        assert "other data" in refused(elsewhere)
        assert "other data" in refused(another_prefix)
        assert until(lambda: ready(beside))
        assert ready(first)


def test_a_store_that_was_emptied_stops_nobody_and_lets_others_in(start: Start) -> None:
    with RedisServer() as server:
        source = {"source": f"node1:1 {server.source}"}
        nodes = [start(redis=source), start(redis=source)]
        assert until(lambda: all(map(ready, nodes)))
        before = server.call("GET", "gopush:store")
        server.call("FLUSHALL")
        late = start(redis=source)
        assert until(lambda: ready(late))
        assert until(lambda: server.call("GET", "gopush:store") not in (None, before))
        assert all(ready(node) for node in nodes)
