"""The administration of nodes (protocol.md, section 10)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gopush.errors import RET_INTERNAL, RET_NO_NODE, RET_PARAMETER
from gopush.membership.view import View
from gopush.model import NodeInfo
from gopush.reports import Status
from tests.web.conftest import MakeWorld, World, data
from tests.web.fakes import FakeNode

COMETS = (
    NodeInfo("node1", 0, ("c1:6970",), ("c1:6969",), ("c1:6968",), weight=2),
    NodeInfo("node1", 1, ("c1s:6970",), ("c1s:6969",)),
    NodeInfo("node2", 0, ("c2:6970",), ("c2:6969",)),
)
MESSAGES = (NodeInfo("m1:8070", 0, ("m1:8070",)), NodeInfo("m2:8070", 1, ("m2:8070",), weight=3, draining=True))


@pytest.fixture
def cluster(make_world: MakeWorld) -> World:
    """All processes of the view answer, but for c2."""
    world = make_world()
    world.in_reactor(world.coordination.adopt, View(COMETS, MESSAGES))
    for name, status in (("c1:6970", Status("1.0", 60, 5, 4, 900)), ("c1s:6970", Status("1.1", 6, 0, 0))):
        world.comets.nodes[name] = FakeNode(status)
    for name in ("m1:8070", "m2:8070"):
        world.messages.nodes[name] = FakeNode(Status("1.0", 7, None, None))
    return world


def reported(world: World) -> dict[str, list[Any]]:
    """What each process was asked."""
    return {
        name: node.reported
        for name, node in (*world.comets.nodes.items(), *world.messages.nodes.items())
        if node.reported
    }


def ret(answer: Any) -> int:
    assert answer.status == 200
    return int(answer.body.decode().removeprefix('{"ret":').rstrip("}"))


def test_nodes_are_listed_with_what_they_say_themselves(cluster: World) -> None:
    nodes = data(cluster.call_admin("GET", "/1/admin/nodes"))["nodes"]
    assert nodes[0] == {
        "role": "comet",
        "node": "node1",
        "state": "active",
        "weight": 2,
        "rpc": ["c1:6970"],
        "tcp": ["c1:6969"],
        "ws": ["c1:6968"],
        "connections": 5,
        "channels": 4,
        "deliveries": 900,
        "age": 60,
        "version": "1.0",
    }
    assert [(node["role"], node["node"], node["state"]) for node in nodes] == [
        ("comet", "node1", "active"),
        ("comet", "node1", "standby"),
        ("comet", "node2", "active"),
        ("message", "m1:8070", "active"),
        ("message", "m2:8070", "draining"),
    ]


def test_of_a_node_that_does_not_answer_only_the_place_is_known(cluster: World) -> None:
    silent = data(cluster.call_admin("GET", "/1/admin/nodes"))["nodes"][2]
    assert [silent[name] for name in ("rpc", "connections", "channels", "age", "version")] == [["c2:6970"], *[None] * 4]


def test_a_weight_reaches_all_processes_of_the_node(cluster: World) -> None:
    assert cluster.post("/1/admin/node/weight", node="node1", weight="7").body == b'{"ret":0}'
    assert reported(cluster) == {"c1:6970": [7], "c1s:6970": [7]}


def test_an_address_names_one_process(cluster: World) -> None:
    assert cluster.post("/1/admin/node/drain", node="c1s:6970").body == b'{"ret":0}'
    assert cluster.post("/1/admin/node/undrain", node="m2:8070").body == b'{"ret":0}'
    assert reported(cluster) == {"c1s:6970": [True], "m2:8070": [False]}


def test_a_node_is_drained_and_taken_back(cluster: World) -> None:
    for call in ("drain", "undrain"):
        assert ret(cluster.post(f"/1/admin/node/{call}", node="node1")) == 0
    assert reported(cluster) == {"c1:6970": [True, False], "c1s:6970": [True, False]}


def test_the_last_one_of_its_role_cannot_be_drained(cluster: World) -> None:
    assert ret(cluster.post("/1/admin/node/drain", node="m1:8070")) == RET_PARAMETER
    cluster.in_reactor(cluster.coordination.adopt, View(COMETS[:2], MESSAGES))
    assert ret(cluster.post("/1/admin/node/drain", node="node1")) == RET_PARAMETER
    assert ret(cluster.post("/1/admin/node/drain", node="c1:6970")) == 0
    assert reported(cluster) == {"c1:6970": [True]}


@pytest.mark.parametrize("call", ["weight", "drain", "undrain"])
def test_an_unknown_node_is_1001(cluster: World, call: str) -> None:
    assert ret(cluster.post(f"/1/admin/node/{call}", node="node3", weight="1")) == RET_NO_NODE


@pytest.mark.parametrize("call", ["weight", "drain", "undrain"])
def test_a_node_must_be_named(cluster: World, call: str) -> None:
    assert ret(cluster.post(f"/1/admin/node/{call}", weight="1")) == RET_PARAMETER


@pytest.mark.parametrize("weight", ["", "0", "1001", "-1", "1.5", "x"])
def test_a_weight_is_from_1_to_1000(cluster: World, weight: str) -> None:
    assert ret(cluster.post("/1/admin/node/weight", node="node1", weight=weight)) == RET_PARAMETER
    assert reported(cluster) == {}


def test_a_node_that_does_not_obey_in_time_is_65535(cluster: World) -> None:
    assert ret(cluster.post("/1/admin/node/weight", node="node2", weight="2")) == RET_INTERNAL
    said = json.loads(cluster.post("/1/admin/node/weight", node="node2", weight="2", why="1").body)
    assert said == {"ret": RET_INTERNAL, "why": "c2:6970 is silent"}


def test_a_keys_subscribers_are_closed(cluster: World) -> None:
    assert data(cluster.post("/1/admin/key/close", key="Terry-Mao")) == {"closed": 1}
    assert cluster.comets.closed == ["Terry-Mao"]
    assert ret(cluster.post("/1/admin/key/close")) == RET_PARAMETER


def test_looking_is_a_get_and_changing_a_post(cluster: World) -> None:
    assert cluster.post("/1/admin/nodes").status == 405
    assert cluster.call_admin("GET", "/1/admin/node/drain", node="node1").status == 405
    assert cluster.get("/1/admin/nodes").status == 404


BOTH = (NodeInfo("node3", 0, ("b:6970",), ("b:6969",)), NodeInfo("b:6970", 2, ("b:6970",)))


@pytest.mark.parametrize("name", ["node3", "b:6970"])
def test_who_is_a_comet_and_a_message_node_is_asked_once(cluster: World, name: str) -> None:
    """By either name; somebody must be left for both."""
    comet, keeper = BOTH
    cluster.in_reactor(cluster.coordination.adopt, View((*COMETS, comet), (*MESSAGES, keeper)))
    for peers in (cluster.comets, cluster.messages):
        peers.nodes["b:6970"] = FakeNode(Status("1.0", 60, 5, 4, 900))
    for call in ("weight", "drain", "undrain"):
        answer = cluster.post(f"/1/admin/node/{call}", node=name, **({"weight": "4"} if call == "weight" else {}))
        assert answer.body == b'{"ret":0}'
    asked = [*cluster.comets.nodes["b:6970"].reported, *cluster.messages.nodes["b:6970"].reported]
    assert len(asked) == 3
    loads = [
        (node["role"], node["connections"])
        for node in data(cluster.call_admin("GET", "/1/admin/nodes"))["nodes"]
        if node["rpc"] == ["b:6970"]
    ]
    assert loads == [("comet", 5), ("message", None)]
    cluster.in_reactor(cluster.coordination.adopt, View((*COMETS, comet), [keeper]))
    assert ret_only(cluster.post("/1/admin/node/drain", node="node3")) == RET_PARAMETER


def ret_only(answer: Any) -> int:
    return int(json.loads(answer.body)["ret"])
