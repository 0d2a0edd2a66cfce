"""Event streams and waiting reads at the comets of other processes, whatever ports those have for their clients."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.chaos.cluster import ALONE, Cluster, Node
from tests.event_source import Stream, wait_for
from tests.integration.systems import settle
from tests.servers.authority import Authority


@pytest.fixture(scope="module", params=["calls in the clear", "calls within TLS"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Equal nodes: TCP clients of the first come within TLS, of the second through a balancer; the third has none."""
    cluster = Cluster(members=ALONE)
    authority = Authority(cluster.directory)
    issued = authority.issue("node")
    first, second, third = cluster.nodes.values()
    first.set({"base": {"tcp.bind": f"ssl:{first.ports['tcp']}:interface=127.0.0.1:{issued.endpoint}"}})
    second.set({"base": {"tcp.bind": f"haproxy:tcp:{second.ports['tcp']}:interface=127.0.0.1"}})
    del third.ports["tcp"]
    third.set({"base": {"proto": "websocket"}})
    for node in cluster.nodes.values():
        if request.param == "calls within TLS":
            tls = {"tls.ca": str(authority.path), "tls.cert": str(issued.certificate), "tls.key": str(issued.key)}
            node.set({"rpc": tls})
    with cluster.running():
        settle(cluster.nodes.values(), comets=3, messages=3)
        yield cluster


def owned(node: Node, number: int) -> str:
    """A key that this comet has."""
    for each in range(1000):
        url = f"http://{node.address('http')}/1/server/get?k=k{number}-{each}&p=1"
        with urllib.request.urlopen(url, timeout=10) as answer:
            if json.load(answer)["data"]["server"] == node.address("websocket"):
                return f"k{number}-{each}"
    raise AssertionError("it has none")


def push(node: Node, key: str, body: bytes) -> None:
    url = f"http://{node.address('admin')}/1/admin/push/private?key={key}&expire=60"
    with urllib.request.urlopen(urllib.request.Request(url, body), timeout=10) as answer:
        assert json.load(answer) == {"ret": 0}


def test_streams_reach_every_comet_through_every_web_node(cluster: Cluster) -> None:
    nodes = list(cluster.nodes.values())
    for number, owner in enumerate(nodes):
        key = owned(owner, number)
        with ExitStack() as stack:
            streams = [
                stack.enter_context(Stream(web.address("http"), f"/sub?key={key}&heartbeat=30").began())
                for web in nodes
            ]
            push(nodes[0], key, b'"here"')
            assert [json.loads(stream.event().data)["msg"] for stream in streams] == ["here"] * 3


def test_who_waits_is_answered_at_once(cluster: Cluster) -> None:
    nodes = list(cluster.nodes.values())
    for number, owner in enumerate(nodes, 10):
        web, key = nodes[number % 3 - 2], owned(owner, number)
        answers: list[bytes] = []
        url = f"http://{web.address('http')}/1/msg/get?k={key}&m=0&wait=60"
        thread = threading.Thread(
            target=lambda url=url, answers=answers: answers.append(urllib.request.urlopen(url, timeout=70).read())
        )
        thread.start()
        wait_for(lambda owner=owner, key=key: _connections(owner, key) == 1)  # type: ignore[misc]
        push(web, key, b'"found"')
        thread.join(20)
        assert [message["msg"] for message in json.loads(answers[0])["data"]["msgs"]] == ["found"]


def _connections(node: Node, key: str) -> int:
    with urllib.request.urlopen(f"http://{node.address('stat')}/stat?type=channel&key={key}", timeout=10) as answer:
        return int(json.load(answer)["channel"]["conn"])
