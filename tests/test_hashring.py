"""protocol.md, section 8."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from gopush.hashing import POINTS_PER_WEIGHT, HashRing

VECTORS = json.loads(Path(__file__).with_name("ring-vectors.json").read_text("utf-8"))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: ",".join(vector["nodes"]))
def test_answers_what_the_original_answers(vector: dict[str, dict[str, str]]) -> None:
    ring = HashRing({name: int(weight) for name, weight in vector["nodes"].items()})
    assert {key: ring.node_of(key) for key in vector["keys"]} == vector["keys"]


def test_a_node_of_weight_w_has_255_w_points() -> None:
    assert POINTS_PER_WEIGHT == 255
    assert len(HashRing({"a": 1, "b": 3})._points) == 4 * 255


def test_follows_the_definition_step_by_step() -> None:
    """protocol.md, section 8: the points of "<name>:<i>", the position of a key, the first point at or after it."""

    def position(text: str) -> int:
        return int.from_bytes(hashlib.sha1(text.encode()).digest()[-4:], "big")

    weights = {"node1": 1, "node2": 3, "\u00fcber": 2}
    points = sorted((position(f"{name}:{i}"), name) for name, w in weights.items() for i in range(1, 255 * w + 1))
    ring = HashRing(weights)
    past_the_last = 0
    for key in (f"key-{i}" for i in range(5000)):
        place = position(key)
        after = [name for point, name in points if point >= place]
        past_the_last += not after
        assert ring.node_of(key) == (after or [points[0][1]])[0]
    assert past_the_last


def test_an_empty_ring_has_no_node() -> None:
    assert HashRing({}).node_of("key") is None


def test_the_order_in_which_nodes_are_named_does_not_matter() -> None:
    one, two = HashRing({"a": 1, "b": 2}), HashRing({"b": 2, "a": 1})
    assert all(one.node_of(f"key-{i}") == two.node_of(f"key-{i}") for i in range(500))


def test_a_ring_without_some_of_its_nodes_is_the_ring_of_the_others() -> None:
    weights = {"c": 3, "a": 1, "b": 2, "d": 9}
    keys = [f"key-{number}" for number in range(500)]
    for names in (set[str](), {"b"}, {"d"}, {"a", "c"}, {"a", "b", "c"}, set(weights)):
        left = HashRing(weights).without(names)
        ring = HashRing({name: weight for name, weight in weights.items() if name not in names})
        assert [left.node_of(key) for key in keys] == [ring.node_of(key) for key in keys]
        assert left.weights == ring.weights
    assert HashRing({"a": 1}).without({"a"}).node_of("key") is None
