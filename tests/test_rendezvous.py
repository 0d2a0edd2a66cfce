"""Which message node a key goes to."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gopush.hashing import best

KEYS = [f"key-{i}" for i in range(6000)]


def test_every_process_and_version_chooses_alike() -> None:
    """A change of these would let two comets write one key through two nodes while a cluster is upgraded."""
    nodes = [("10.0.0.1:8070", 1), ("10.0.0.2:8070", 1), ("10.0.0.3:8070", 2)]
    chosen = "".join(best(key, nodes)[7] for key in ["", "a", "Terry-Mao", "ключ", *KEYS[:8]])
    assert chosen == "332333313323"


def test_keys_are_spread_by_weight() -> None:
    shares = Counter(best(key, [("a", 1), ("b", 2), ("c", 3)]) for key in KEYS)
    for name, share in {"a": 1000, "b": 2000, "c": 3000}.items():
        assert abs(shares[name] - share) < 200


@pytest.mark.parametrize("names", ["ab", "abc", "abcdefgh"])
def test_equal_weights_share_evenly_whatever_the_names(names: str) -> None:
    shares = Counter(best(key, [(f"10.0.0.{name}:8070", 1) for name in names]) for key in KEYS)
    fair = len(KEYS) / len(names)
    assert all(abs(shares[f"10.0.0.{name}:8070"] - fair) < fair / 5 for name in names)


def test_a_node_that_goes_moves_only_its_own_keys() -> None:
    all_nodes = [("a", 1), ("b", 2), ("c", 1), ("d", 3)]
    left = [node for node in all_nodes if node[0] != "b"]
    before = {key: best(key, all_nodes) for key in KEYS}
    after = {key: best(key, left) for key in KEYS}
    assert all(after[key] == before[key] for key in KEYS if before[key] != "b")
    assert {after[key] for key in KEYS if before[key] == "b"} == {"a", "c", "d"}


def test_a_node_that_gains_weight_only_wins_keys() -> None:
    before = {key: best(key, [("a", 1), ("b", 1), ("c", 1)]) for key in KEYS}
    after = {key: best(key, [("a", 1), ("b", 4), ("c", 1)]) for key in KEYS}
    assert all(after[key] in (before[key], "b") for key in KEYS)


@given(st.text(), st.permutations([("a", 1), ("b", 2), ("c", 3)]))
def test_the_order_in_which_nodes_are_named_does_not_matter(key: str, nodes: list[tuple[str, int]]) -> None:
    assert best(key, nodes) == best(key, sorted(nodes))


def test_a_single_node_gets_all() -> None:
    assert {best(key, [("a", 1)]) for key in KEYS[:100]} == {"a"}
