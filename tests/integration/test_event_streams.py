"""Event streams and long polling through web nodes, while comets and web nodes die, leave and come back."""

from __future__ import annotations

import itertools
import json
import threading
import time
import urllib.request
from collections.abc import Iterator

import pytest

from tests.chaos.cluster import Cluster
from tests.event_source import EventSource, Stream, wait_for
from tests.integration.systems import settle


class Publisher:
    """Pushes numbers to a key, one after the other; each until it is acknowledged."""

    def __init__(self, cluster: Cluster, key: str) -> None:
        self.pushed: list[int] = []
        self._admins = itertools.cycle([web.address("admin") for web in cluster.webs])
        self._key = key
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> list[int]:
        self._stopped.set()
        self._thread.join(60)
        return self.pushed

    def _run(self) -> None:
        for number in itertools.count():
            if self._stopped.wait(0.02):
                return
            while not self._push(number):
                time.sleep(0.05)
            self.pushed.append(number)

    def _push(self, number: int) -> bool:
        url = f"http://{next(self._admins)}/1/admin/push/private?key={self._key}&expire=600&id=n{number}"
        try:
            with urllib.request.urlopen(urllib.request.Request(url, b"%d" % number), timeout=10) as answer:
                return bool(json.load(answer)["ret"] == 0)
        except OSError:
            return False


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster().running() as cluster:
        settle(cluster.nodes.values(), comets=2, messages=2)
        yield cluster


def received(source: EventSource) -> list[int]:
    return [json.loads(data)["msg"] for data in source.messages()]


def holder(cluster: Cluster, key: str) -> str:
    """The name of the comet that has the key."""
    url = f"http://{cluster.webs[0].address('http')}/1/server/get?k={key}&p=2"
    with urllib.request.urlopen(url, timeout=10) as answer:
        address = json.load(answer)["data"]["server"]
    (name,) = [node.name for node in cluster.nodes.values() if node.role == "comet" and node.address("tcp") == address]
    return name


def test_who_waits_is_answered_by_the_next_comet(cluster: Cluster) -> None:
    key, (web, other) = "polled", cluster.webs
    answers: list[bytes] = []
    url = f"http://{web.address('http')}/1/msg/get?k={key}&m=0&wait=50"
    thread = threading.Thread(target=lambda: answers.append(urllib.request.urlopen(url, timeout=70).read()))
    thread.start()
    time.sleep(1)
    victim = holder(cluster, key)
    cluster[victim].kill()
    wait_for(lambda: holder(cluster, key) != victim)
    assert answers == []
    push = f"http://{other.address('admin')}/1/admin/push/private?key={key}&expire=600"
    with urllib.request.urlopen(urllib.request.Request(push, b'"found"'), timeout=10) as answer:
        assert json.load(answer) == {"ret": 0}
    thread.join(30)
    cluster[victim].start()
    assert [message["msg"] for message in json.loads(answers[0])["data"]["msgs"]] == ["found"]


def test_nothing_is_lost_doubled_or_reordered(cluster: Cluster) -> None:
    """A comet is killed, another one leaves, then both web nodes go one after the other; a client that is cut before
    its first message, while one is stored, gets it."""
    hosts = itertools.cycle([web.address("http") for web in cluster.webs])
    key = "streamed"
    with Stream(cluster.webs[0].address("http"), f"/sub?key={key}&heartbeat=30") as cut:
        last = cut.began().parser.last_id
    publisher = Publisher(cluster, key)
    with EventSource(lambda: next(hosts), f"/sub?key={key}&heartbeat=30&mid={last}") as source:
        wait_for(lambda: len(received(source)) > 20)
        victim = holder(cluster, key)
        cluster[victim].kill()
        seen = len(received(source))
        wait_for(lambda: len(received(source)) > seen + 20)
        assert source.connections == 1, "the browser noticed"
        cluster[victim].start()
        time.sleep(1)
        leaving = holder(cluster, key)
        seen = len(received(source))
        cluster[leaving].stop()
        wait_for(lambda: len(received(source)) > seen + 20)
        assert source.connections == 1, "the browser noticed"
        cluster[leaving].start()
        for web, end in zip(cluster.webs, ("kill", "stop"), strict=True):
            seen = len(received(source))
            getattr(web, end)()
            wait_for(lambda seen=seen: len(received(source)) > seen + 10)  # type: ignore[misc]
            web.start()
        pushed = publisher.stop()
        wait_for(lambda: received(source)[-1] == pushed[-1])
        assert received(source) == pushed
        assert source.connections > 1
        assert not source.failed
        assert [event for event in source.events if event.type == "gap"] == []
