"""A cluster of real processes, administered while it runs, and the health that each process tells."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

import gopush
from gopush.client import cli
from gopush.errors import RET_NO_NODE, RET_OK, RET_PARAMETER
from tests.chaos.cluster import Cluster, Node
from tests.clients import TcpClient, request

PATIENCE = 30.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with (cluster := Cluster()).running():
        until(lambda: all(health(node)[0] == 200 for node in cluster.nodes.values()))
        yield cluster


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)
    return found


def http(address: str, method: str, path: str, *, body: bytes = b"", **query: str) -> tuple[int, Any]:
    host, port = address.split(":")
    connection = HTTPConnection(host, int(port), timeout=PATIENCE)
    try:
        connection.request(method, f"{path}?{urlencode(query)}", body)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def health(node: Node) -> tuple[int, Any]:
    return http(node.address("stat"), "GET", "/health")


def reaches_zookeeper(node: Node) -> bool:
    """Who does not has no change of the cluster to tell, and cannot be administered."""
    with urlopen(f"http://{node.address('stat')}/metrics", timeout=PATIENCE) as answer:
        return b"gopush_coordinator_connected 1.0\n" in answer.read()


def unhealthy(node: Node) -> bool:
    return health(node)[0] != 200


def admin(cluster: Cluster, path: str, web: str = "web-1", body: bytes = b"", **query: str) -> int:
    """`ret`."""
    return int(http(cluster[web].address("admin"), "POST", path, body=body, **query)[1]["ret"])


def nodes(cluster: Cluster, web: str = "web-1") -> dict[str, Any]:
    """What is told of each process, by its name in the cluster."""
    _, answer = http(cluster[web].address("admin"), "GET", "/1/admin/nodes")
    names = {node.address("rpc"): name for name, node in cluster.nodes.items() if "rpc" in node.ports}
    return {names[node["rpc"][0]]: node for node in answer["data"]["nodes"]}


def owner(cluster: Cluster, key: str, web: str = "web-1") -> str:
    _, answer = http(cluster[web].address("http"), "GET", "/1/server/get", k=key, p="2")
    names = {node.address("tcp"): name for name, node in cluster.nodes.items() if "tcp" in node.ports}
    return names[answer["data"]["server"]]


def key_of(cluster: Cluster, name: str) -> str:
    """A key that the ring gives to this comet."""
    return next(key for key in map(str, range(1000)) if owner(cluster, key) == name)


def subscribed(comet: Node, key: str) -> TcpClient:
    """A subscriber, as soon as the comet knows what the web node knows."""

    def attempt() -> TcpClient | None:
        client = TcpClient(comet.ports["tcp"])
        client.send(request("sub", key, "30"))
        if client.read(4) == b"+h\r\n":
            return client
        client.close()
        return None

    found: TcpClient = until(attempt)
    return found


def test_every_process_tells_its_own_numbers(cluster: Cluster) -> None:
    """protocol.md, section 10: /stat of all roles has the form of section 6."""
    types = {
        "comet": ("channel", "message", "connection", "lane"),
        "message": ("log", "store"),
        "gopush-web": ("push", "request", "lane"),
    }
    for node in cluster.nodes.values():
        for reported in ("memory", "server", "config", "http", *types[node.role]):
            status, answer = http(node.address("stat"), "GET", "/stat", type=reported)
            assert (status, bool(answer)) == (200, True), (node.name, reported)


def test_nobody_is_slow_where_nobody_is_connected(cluster: Cluster) -> None:
    """Asked of every comet over Perspective Broker."""
    assert http(cluster["web-1"].address("admin"), "GET", "/1/admin/slowest") == (
        200,
        {"ret": 0, "data": {"slowest": []}},
    )


def test_nodes_are_listed(cluster: Cluster) -> None:
    """protocol.md, section 10: role, state, weight, addresses, connections, channels, age, version."""
    key = key_of(cluster, "comet-2")
    device = TcpClient(cluster["comet-2"].ports["tcp"]).subscribe(key)
    found = until(lambda: (reported := nodes(cluster))["comet-2"]["connections"] == 1 and reported)
    assert {name: (node["role"], node["node"], node["state"]) for name, node in found.items()} == {
        "comet-1": ("comet", "node1", "active"),
        "comet-1-standby": ("comet", "node1", "standby"),
        "comet-2": ("comet", "node2", "active"),
        "message-1": ("message", cluster["message-1"].address("rpc"), "active"),
        "message-2": ("message", cluster["message-2"].address("rpc"), "active"),
    }
    comet = found["comet-2"]
    assert comet["tcp"] == [cluster["comet-2"].address("tcp")]
    assert comet["ws"] == [cluster["comet-2"].address("websocket")]
    assert (comet["weight"], comet["channels"], comet["version"]) == (1, 1, gopush.__version__)
    assert all(0 <= node["age"] < 600 for node in found.values())
    assert admin(cluster, "/1/admin/key/close", web="web-2", key=key) == RET_OK
    assert device.rest() == b""


def test_a_new_weight_reaches_every_process(cluster: Cluster) -> None:
    assert admin(cluster, "/1/admin/node/weight", node="node2", weight="3") == RET_OK
    until(lambda: all(nodes(cluster, web)["comet-2"]["weight"] == 3 for web in ("web-1", "web-2")))
    shares = [owner(cluster, f"key-{i}", "web-2") for i in range(200)]
    assert 120 < shares.count("comet-2") < 180
    assert admin(cluster, "/1/admin/node/weight", node="node2", weight="1") == RET_OK
    until(lambda: all(nodes(cluster, web)["comet-2"]["weight"] == 1 for web in ("web-1", "web-2")))


def test_a_drained_comet_hands_its_subscribers_over_and_takes_them_back(cluster: Cluster) -> None:
    key = key_of(cluster, "comet-2")
    device = subscribed(cluster["comet-2"], key)
    assert admin(cluster, "/1/admin/node/drain", node="node2") == RET_OK
    assert device.rest() == b"-n\r\n"
    until(lambda: owner(cluster, key) == owner(cluster, key, "web-2") == "comet-1")
    assert nodes(cluster)["comet-2"]["state"] == "draining"
    assert health(cluster["comet-2"])[0] == 200
    device = TcpClient(cluster["comet-1"].ports["tcp"]).subscribe(key)
    assert admin(cluster, "/1/admin/node/undrain", node="node2") == RET_OK
    assert device.rest() == b"-n\r\n"
    until(lambda: owner(cluster, key) == "comet-2")


def test_a_standby_takes_over_from_a_drained_process(cluster: Cluster) -> None:
    address = cluster["comet-1"].address("rpc")
    assert admin(cluster, "/1/admin/node/drain", node=address) == RET_OK
    until(lambda: nodes(cluster)["comet-1-standby"]["state"] == "active")
    assert nodes(cluster)["comet-1"]["state"] == "draining"
    assert admin(cluster, "/1/admin/node/undrain", node=address) == RET_OK
    until(lambda: nodes(cluster)["comet-1"]["state"] == "active")


def test_pushes_go_on_while_a_message_node_drains(cluster: Cluster) -> None:
    address = cluster["message-1"].address("rpc")
    assert admin(cluster, "/1/admin/node/drain", node=address) == RET_OK
    for i in range(20):
        assert admin(cluster, "/1/admin/push/private", body=b"{}", key=f"k{i}", expire="60") == RET_OK
    assert admin(cluster, "/1/admin/node/drain", node=cluster["message-2"].address("rpc")) == RET_PARAMETER
    assert admin(cluster, "/1/admin/node/undrain", node=address) == RET_OK
    until(lambda: nodes(cluster)["message-1"]["state"] == "active")


def test_an_unknown_node_is_1001(cluster: Cluster) -> None:
    assert admin(cluster, "/1/admin/node/drain", node="node3") == RET_NO_NODE


def test_of_a_frozen_comet_the_place_is_reported_in_time(cluster: Cluster) -> None:
    frozen = cluster["comet-1-standby"]
    frozen.freeze()
    try:
        before = time.monotonic()
        assert nodes(cluster)["comet-1-standby"]["connections"] is None
        assert time.monotonic() < before + PATIENCE / 2
    finally:
        frozen.thaw()
    until(lambda: nodes(cluster)["comet-1-standby"]["connections"] == 0)


def test_health_needs_the_store_but_not_zookeeper(cluster: Cluster) -> None:
    """A comet and a message node are ready only while the store answers; a web node while a comet does."""
    cluster.redis.kill()
    try:
        for node in (cluster["message-1"], cluster["comet-1"]):
            until(partial(unhealthy, node))
            status, said = health(node)
            assert (status, said["alive"], said["ready"]) == (503, True, False)
            assert said["reason"]
        assert health(cluster["web-1"])[0] == 200
    finally:
        cluster.redis.start()
    until(lambda: all(health(node)[0] == 200 for node in cluster.nodes.values()))
    cluster.zookeeper.kill()
    try:
        time.sleep(1.5)
        assert all(health(node)[0] == 200 for node in cluster.nodes.values())
    finally:
        cluster.zookeeper.start()
    until(lambda: all(map(reaches_zookeeper, cluster.nodes.values())))


def test_health_is_reported_on_all_ports_for_http(cluster: Cluster) -> None:
    for port in ("http", "admin", "stat"):
        assert http(cluster["web-1"].address(port), "GET", "/health") == (200, {"alive": True, "ready": True})


def test_the_shell_has_it_all(cluster: Cluster, capfd: pytest.CaptureFixture[str]) -> None:
    where = ["--admin", cluster["web-2"].address("admin")]

    def comets() -> list[list[str]]:
        assert cli.main(["nodes", *where]) == 0
        head, *rows = (line.split() for line in capfd.readouterr().out.splitlines())
        assert head[:3] == ["role", "node", "state"]
        return [row[:2] for row in rows if row[0] == "comet"]

    # A standby whose session did not live through the restart of ZooKeeper comes back after the others.
    until(lambda: comets() == [["comet", "node1"]] * 2 + [["comet", "node2"]])
    assert cli.main(["weight", "node2", "2", *where]) == 0
    assert cli.main(["weight", "node2", "1", *where]) == 0
    assert cli.main(["close", "k", *where]) == 0
    assert cli.main(["drain", "node3", *where]) == cli.FAILED
    assert cli.main(["weight", "node2", "0", *where]) == cli.REFUSED
    out, err = capfd.readouterr()
    assert out == "0\n"
    assert err.splitlines()[0] == "gopush: node3 is not registered"
    assert err.splitlines()[1].startswith("registered are: ")
    assert "node1, node2" in err.splitlines()[1]
