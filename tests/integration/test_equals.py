"""Equal nodes: processes that are web, comet and message node at once, on a real ZooKeeper and Redis (README.md)."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from typing import Any

import pytest

from gopush.errors import RET_INTERNAL, RET_OK, RET_PARAMETER
from gopush_client import Subscriber
from tests.chaos.cluster import ALONE, MIXED, Cluster, Node
from tests.clients import TcpClient
from tests.integration.systems import settle
from tests.integration.test_administration import admin, health, http, reaches_zookeeper, until
from tests.servers.proxy import Proxy

NAMES = ("member-1", "member-2", "member-3")


class Equals(Cluster):
    """Three equal nodes; the last one reaches Redis through `way`."""

    def __init__(self) -> None:
        super().__init__(members=ALONE)
        self.way = Proxy(self.redis.port)
        self["member-3"].set({"redis": {"source": f"node1:1 tcp@127.0.0.1:{self.way.port}"}})


@pytest.fixture(scope="module")
def equals() -> Iterator[Equals]:
    cluster = Equals()
    with cluster.way, cluster.running():
        whole(cluster)
        yield cluster


def whole(cluster: Cluster, nodes: int = 3) -> None:
    """Wait until all know all."""
    settle(cluster.nodes.values(), comets=nodes, messages=nodes)
    until(lambda: all(health(node)[0] == 200 for node in cluster.nodes.values()))


def owner(cluster: Cluster, key: str, web: str) -> Node:
    _, answer = http(cluster[web].address("http"), "GET", "/1/server/get", k=key, p="2")
    return next(node for node in cluster.nodes.values() if node.address("tcp") == answer["data"]["server"])


def key_of(cluster: Cluster, name: str, web: str, prefix: str = "") -> str:
    keys = (f"{prefix}{number}" for number in range(1000))
    return next(key for key in keys if owner(cluster, key, web) is cluster[name])


def push(cluster: Cluster, web: str, key: str, body: str) -> int:
    return admin(cluster, "/1/admin/push/private", web=web, body=json.dumps(body).encode(), key=key, expire="600")


def bodies(device: TcpClient, count: int) -> list[Any]:
    messages = [json.loads(device.message()) for _ in range(count)]
    assert [one["mid"] for one in messages] == sorted({one["mid"] for one in messages})
    return [one["msg"] for one in messages]


def listed(cluster: Cluster, web: str) -> list[tuple[str, str, str]]:
    """Role, state, and who it is, of all that is registered."""
    names = {node.address("rpc"): name for name, node in cluster.nodes.items() if "rpc" in node.ports}
    _, answer = http(cluster[web].address("admin"), "GET", "/1/admin/nodes")
    return sorted((one["role"], one["state"], names[one["rpc"][0]]) for one in answer["data"]["nodes"])


def states(state: str, *names: str) -> list[tuple[str, str, str]]:
    return [(role, state, name) for role in ("comet", "message") for name in names]


@pytest.mark.parametrize("members", [ALONE, MIXED])
def test_a_message_reaches_its_subscribers_whoever_is_asked(members: str, request: pytest.FixtureRequest) -> None:
    """Also where equal nodes stand beside comets, message and web nodes of their own."""
    with ExitStack() as stack:
        if members == ALONE:
            cluster = request.getfixturevalue("equals")
        else:
            cluster = stack.enter_context(Cluster(members=MIXED).running())
            settle(cluster.webs, comets=2, messages=2)
        webs = [web.name for web in cluster.webs]
        for number in range(20):
            key = f"{members}-{number}"
            with TcpClient(owner(cluster, key, webs[number % len(webs)]).ports["tcp"]) as device:
                device.subscribe(key, "30", "", "1.0.5")
                for web in webs:
                    assert push(cluster, web, key, web) == RET_OK
                assert bodies(device, len(webs)) == webs
            for web in webs:
                _, answer = http(cluster[web].address("http"), "GET", "/1/msg/get", k=key, m="0")
                assert [one["msg"] for one in answer["data"]["msgs"]] == webs


def test_each_is_a_comet_and_a_message_node(equals: Cluster) -> None:
    """protocol.md, section 7: at one address."""
    for name in NAMES:
        assert listed(equals, name) == states("active", *NAMES)


def test_each_stores_its_messages_itself(equals: Cluster) -> None:
    for name in NAMES:
        before = {one: stored(equals[one]) for one in NAMES}
        key = key_of(equals, name, "member-1")
        for web in NAMES:
            assert push(equals, web, key, "whose") == RET_OK
        assert {one: stored(equals[one]) - before[one] for one in NAMES} == {one: 3 * (one == name) for one in NAMES}


def stored(node: Node) -> int:
    _, answer = http(node.address("stat"), "GET", "/stat", type="log")
    return int(answer["saves"])


def test_who_cannot_reach_the_store_has_the_others_store(equals: Equals) -> None:
    """And stores again by itself once it can."""
    key = key_of(equals, "member-3", "member-1", "cut-")
    with TcpClient(equals["member-3"].ports["tcp"]) as device:
        device.subscribe(key, "30", "", "1.0.5")
        equals.way.refuses = True
        equals.way.cut()
        try:
            sent = [f"{web} {number}" for number in range(10) for web in NAMES]
            for body in sent:
                assert push(equals, body.split()[0], key, body) == RET_OK
            assert bodies(device, len(sent)) == sent
            assert listed(equals, "member-3") == states("active", *NAMES)
        finally:
            equals.way.refuses = False
        before = stored(equals["member-3"])
        until(lambda: push(equals, "member-1", key, "back") == RET_OK and stored(equals["member-3"]) > before)


def test_who_hears_no_more_of_the_store_has_the_others_store(equals: Equals) -> None:
    """A firewall has forgotten its connections: nothing is refused, and all comes in order."""
    key = key_of(equals, "member-3", "member-1", "silent-")
    with TcpClient(equals["member-3"].ports["tcp"]) as device:
        device.subscribe(key, "30", "", "1.0.5")
        assert push(equals, "member-3", key, "first") == RET_OK
        assert bodies(device, 1) == ["first"]
        equals.way.forget()
        sent = [f"{web} {number}" for number in range(20) for web in NAMES]
        for body in sent:
            assert push(equals, body.split()[0], key, body) == RET_OK
        assert bodies(device, len(sent)) == sent
    whole(equals)


def test_drain_takes_both_and_somebody_is_always_left(equals: Cluster) -> None:
    """By the node's name, or by its address."""
    key = key_of(equals, "member-2", "member-1", "drain-")
    with TcpClient(equals["member-2"].ports["tcp"]) as device:
        device.subscribe(key, "30", "", "1.0.5")
        assert admin(equals, "/1/admin/node/drain", web="member-1", node="node2") == RET_OK
        assert device.rest() == b"-n\r\n"
    drained = sorted(states("draining", "member-2") + states("active", "member-1", "member-3"))
    for name in NAMES:
        until(lambda name=name: listed(equals, name) == drained)  # type: ignore[misc]
        assert owner(equals, key, name) is not equals["member-2"]
        assert push(equals, name, key, "on") == RET_OK
    before = stored(equals["member-2"])
    assert push(equals, "member-2", key, "still") == RET_OK
    assert stored(equals["member-2"]) == before
    assert admin(equals, "/1/admin/node/drain", web="member-2", node=equals["member-1"].address("rpc")) == RET_OK
    until(lambda: ("comet", "draining", "member-1") in listed(equals, "member-3"))
    assert admin(equals, "/1/admin/node/drain", web="member-3", node="node3") == RET_PARAMETER
    for node in ("node1", "node2"):
        assert admin(equals, "/1/admin/node/undrain", web="member-3", node=node) == RET_OK
    for name in NAMES:
        until(lambda name=name: listed(equals, name) == states("active", *NAMES))  # type: ignore[misc]


def test_who_bears_the_name_of_another_is_its_standby(equals: Cluster) -> None:
    """As a comet; as a message and web node it serves like all others."""
    key = key_of(equals, "member-3", "member-1", "standby-")
    equals.add("member", "member-9", "node3").start()
    try:
        until(lambda: ("comet", "standby", "member-9") in listed(equals, "member-1"))
        until(lambda: ("message", "active", "member-9") in listed(equals, "member-9"))
        before = stored(equals["member-9"])
        assert push(equals, "member-9", key, "through the standby") == RET_OK
        assert stored(equals["member-9"]) == before, "the key's owner has it stored"
        assert admin(equals, "/1/admin/node/drain", node=equals["member-3"].address("rpc"), web="member-1") == RET_OK
        until(lambda: owner(equals, key, "member-1") is equals["member-9"])
        assert push(equals, "member-1", key, "through its new owner") == RET_OK
        until(lambda: push(equals, "member-2", key, "on") == RET_OK and stored(equals["member-9"]) > before)
        assert admin(equals, "/1/admin/node/undrain", node=equals["member-3"].address("rpc"), web="member-1") == RET_OK
        until(lambda: owner(equals, key, "member-1") is equals["member-3"])
        assert equals["member-9"].stop() < 10
        for name in NAMES:
            until(lambda name=name: listed(equals, name) == states("active", *NAMES))  # type: ignore[misc]
    finally:
        equals.nodes.pop("member-9").kill()


def test_without_zookeeper_all_stay_ready_at_every_port(equals: Cluster) -> None:
    """A balancer that asks at http.bind would take out all members at once, although they work."""
    equals.zookeeper.kill()
    try:
        time.sleep(1.5)
        for node in equals.nodes.values():
            for port in ("stat", "http", "admin"):
                assert http(node.address(port), "GET", "/health") == (200, {"alive": True, "ready": True})
    finally:
        equals.zookeeper.start()
    until(lambda: all(map(reaches_zookeeper, equals.nodes.values())))


def test_a_drain_without_zookeeper_takes_effect_once_that_is_back(equals: Cluster) -> None:
    drained = equals["member-2"].address("rpc")
    equals.zookeeper.kill()
    try:
        why = f"{drained}: drain: ZooKeeper is away: this takes effect once it is back"
        where = equals["member-1"].address("admin")
        refused = (200, {"ret": RET_INTERNAL, "why": why})
        until(lambda: http(where, "POST", "/1/admin/node/drain", node=drained, why="1") == refused)
    finally:
        equals.zookeeper.start()
    until(lambda: all(map(reaches_zookeeper, equals.nodes.values())))
    until(lambda: set(states("draining", "member-2")) <= set(listed(equals, "member-1")))
    assert admin(equals, "/1/admin/node/undrain", web="member-1", node=drained) == RET_OK
    whole(equals)


def test_a_weight_is_that_of_both(equals: Cluster) -> None:
    assert admin(equals, "/1/admin/node/weight", web="member-1", node="node3", weight="2") == RET_OK

    def weights() -> dict[str, int]:
        _, answer = http(equals["member-2"].address("admin"), "GET", "/1/admin/nodes")
        return {one["role"]: one["weight"] for one in answer["data"]["nodes"] if one["weight"] != 1}

    until(lambda: weights() == {"comet": 2, "message": 2})
    assert admin(equals, "/1/admin/node/weight", web="member-1", node="node3", weight="1") == RET_OK
    until(lambda: weights() == {})


def test_nothing_is_refused_or_lost_when_one_dies_and_comes_back(equals: Cluster) -> None:
    """Its subscribers resume at the others; what it had registered goes, as a comet and as a message node."""
    key = key_of(equals, "member-2", "member-1", "kill-")
    with TcpClient(equals["member-2"].ports["tcp"]) as device:
        device.subscribe(key, "30", "", "1.0.5")
        assert push(equals, "member-2", key, "before") == RET_OK
        (seen,) = [json.loads(device.message())]
        equals["member-2"].kill()
    try:
        sent = [f"{web} {number}" for number in range(10) for web in ("member-1", "member-3")]
        for body in sent:
            assert push(equals, body.split()[0], key, body) == RET_OK
        until(lambda: owner(equals, key, "member-1") is not equals["member-2"])
        until(lambda: owner(equals, key, "member-3") is owner(equals, key, "member-1"))
        with TcpClient(owner(equals, key, "member-1").ports["tcp"]) as device:
            device.subscribe(key, "30", "", "1.0.5", str(seen["mid"]))
            assert bodies(device, len(sent)) == sent
    finally:
        equals["member-2"].start()
    whole(equals)
    for name in NAMES:
        assert listed(equals, name) == states("active", *NAMES)


def test_who_is_back_at_once_is_registered_once(equals: Cluster) -> None:
    """While what it registered before still lives, as a comet and as a message node."""
    equals["member-3"].kill()
    equals["member-3"].start()
    whole(equals)
    for name in NAMES:
        until(lambda name=name: listed(equals, name) == states("active", *NAMES))  # type: ignore[misc]


def test_who_is_asked_to_end_hands_over_in_time(equals: Cluster) -> None:
    key = key_of(equals, "member-1", "member-2", "stop-")
    with TcpClient(equals["member-1"].ports["tcp"]) as device:
        device.subscribe(key, "30", "", "1.0.5")
        assert equals["member-1"].stop() < 10
        assert device.rest() == b"-n\r\n"
    until(lambda: listed(equals, "member-2") == states("active", "member-2", "member-3"))
    assert push(equals, "member-3", key, "on") == RET_OK
    equals["member-1"].start()
    whole(equals)
    assert "Traceback" not in equals.logs()


def test_roles_are_split_out_and_taken_back_under_load(equals: Cluster) -> None:
    """One equal node goes when a comet, a message and a web node have come; then it comes back, and they go."""
    roles = [("comet", "comet-9", "node9"), ("message", "message-9", ""), ("gopush-web", "web-9", "")]
    webs = ["member-1", "member-2"]
    sent: dict[str, list[str]] = {f"split-{number}": [] for number in range(20)}
    refused: list[str] = []
    ending = threading.Event()

    def publish(web: str) -> None:
        while not ending.wait(0.02):
            for number, key in enumerate(sent):
                if number % 2 == webs.index(web):
                    body = f"{key} {len(sent[key])}"
                    if push(equals, web, key, body) != RET_OK:
                        refused.append(body)
                    sent[key].append(body)

    received: dict[str, list[Any]] = {key: [] for key in sent}
    subscribers = {key: Subscriber(f"http://{equals['member-1'].address('http')}", key, since=0) for key in sent}

    def subscribe(key: str) -> None:
        for message in subscribers[key]:
            if message.data == "end":
                return
            received[key].append(message.data)

    with ThreadPoolExecutor(len(webs) + len(sent)) as pool:
        try:
            subscribing = [pool.submit(subscribe, key) for key in sent]
            publishing = [pool.submit(publish, web) for web in webs]
            for role, name, node in roles:
                equals.add(role, name, node).start()
            settle([equals["web-9"], equals["member-1"]], comets=4, messages=4)
            assert equals["member-3"].stop() < 10
            settle([equals["web-9"], equals["member-1"]], comets=3, messages=3)
            assert push(equals, "web-9", "split-through", "a role's web node") == RET_OK
            equals["member-3"].start()
            settle([equals["web-9"], equals["member-3"]], comets=4, messages=4)
            for _, name, _ in roles:
                assert equals[name].stop() < 10
            settle([equals["member-1"], equals["member-3"]], comets=3, messages=3)
        finally:
            ending.set()
            for _, name, _ in roles:
                if name in equals.nodes:
                    equals.nodes.pop(name).kill()
            for publisher in publishing:
                publisher.result(60)
            for key in sent:
                push(equals, "member-2", key, "end")
            _, endless = wait(subscribing, 60)
            for subscriber in subscribers.values():
                subscriber.close()  # who has got no end by now would wait for ever
        assert not endless
        for subscribed in subscribing:
            subscribed.result(60)
    assert refused == []
    assert received == sent
    assert sum(map(len, sent.values())) > 200
    whole(equals)
