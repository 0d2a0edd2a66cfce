"""Views and their rings: in slices, beside what holds meanwhile."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gopush.hashing import HashRing
from gopush.membership.debounce import Rings
from gopush.membership.view import View
from gopush.model import NodeInfo

KEYS = [f"key-{i}" for i in range(300)]
MESSAGE = NodeInfo("m:8070", 0, ("m:8070",), stores=(("one", 1), ("two", 2)))


def comet(node: str, weight: int = 1, sequence: int = 0, draining: bool = False) -> NodeInfo:
    return NodeInfo(node, sequence, (f"{node}-{sequence}:6970",), weight=weight, draining=draining)


def owners(view: View) -> list[str | None]:
    return [owner.node if (owner := view.owner(key)) else None for key in KEYS]


def expected(weights: dict[str, int]) -> list[str | None]:
    ring = HashRing(weights)
    return [ring.node_of(key) for key in KEYS]


def finished(rings: Rings) -> tuple[int, View]:
    """Let all slices be done: how many, and the view that holds then."""
    slices = 0
    while rings.busy:
        rings.step()
        slices += 1
    return slices, rings.view


def test_small_rings_are_ready_at_once() -> None:
    rings = Rings()
    view = View([comet("a"), comet("b", 3)], [MESSAGE])
    assert rings.offer(view) is view
    assert not rings.busy
    assert owners(view) == expected({"a": 1, "b": 3})
    assert [view.shards.node_of(key) for key in KEYS] == expected({"one": 1, "two": 2})


def test_big_rings_come_in_slices_and_whole() -> None:
    rings = Rings()
    assert rings.offer(View([comet("a", 40), comet("b", 50)])) is None
    assert rings.view == View()
    slices, view = finished(rings)
    assert slices >= 90 * 255 // 2000
    assert owners(view) == expected({"a": 40, "b": 50})


def test_a_ring_gives_the_same_owners_before_and_after_it_is_merged() -> None:
    rings = Rings()
    rings.offer(View([comet("a", 40), comet("b", 50), comet("c", 1)]))
    while (view := rings.step()) is None:
        pass
    assert not view.ring.merged
    before = [view.ring.node_of(key) for key in KEYS]
    assert finished(rings)[1] is view
    assert view.ring.merged
    assert before == [view.ring.node_of(key) for key in KEYS] == expected({"a": 40, "b": 50, "c": 1})


def test_what_is_no_change_of_the_ring_computes_nothing() -> None:
    rings = Rings()
    rings.offer(View([comet("a", 40), comet("b", 50)]))
    ring = finished(rings)[1].ring
    for view in (
        View([comet("a", 40), comet("b", 50)], [MESSAGE]),
        View([comet("a", 40, sequence=1), comet("b", 50)], [MESSAGE]),
    ):
        assert rings.offer(view) is view
        assert view.ring is ring
    assert rings.view.owner(KEYS[0]) in rings.view.comets


def test_who_leaves_does_not_wait_for_who_comes() -> None:
    rings = Rings()
    rings.offer(View([comet("a", 40), comet("b", 50), comet("c", 1)]))
    finished(rings)
    coming = View([comet("a", 90), comet("b", 50, draining=True), comet("c", 1), comet("d", 70)])
    meanwhile = rings.offer(coming)
    assert meanwhile == View([comet("a", 40), comet("b", 50, draining=True), comet("c", 1)])
    assert owners(meanwhile) == expected({"a": 40, "c": 1})
    _, view = finished(rings)
    assert view == coming
    assert owners(view) == expected({"a": 90, "c": 1, "d": 70})


def test_who_drains_no_more_stays_until_its_points_are_there() -> None:
    """As one that drains: without it in the view, calls to it would fail. Who is new may wait."""
    rings = Rings()
    drained = View([comet("a"), comet("b", 90, draining=True), comet("b", 90, 1, draining=True)])
    assert rings.offer(drained) is drained
    back = View([comet("a"), comet("b", 90), comet("b", 90, 1)])
    assert rings.offer(back) is None
    assert finished(rings)[1] == back
    assert owners(back) == expected({"a": 1, "b": 90})
    rings.offer(drained)
    meanwhile = rings.offer(View([comet("a", 2), comet("b", 80), comet("c", 70)]))
    assert meanwhile == View([comet("a", 1), comet("b", 80, draining=True)])


def test_of_views_that_follow_each_other_only_the_last_is_used() -> None:
    rings = Rings()
    views = [View([comet("a", 40), comet("b", weight)]) for weight in (50, 60, 70)]
    for view in views:
        assert rings.offer(view) is None
        assert rings.step() is None
    assert finished(rings)[1] is views[-1]


@given(st.lists(st.tuples(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 12)), st.integers(0, 6)), max_size=8))
def test_every_view_has_the_ring_that_follows_from_it(offers: list[tuple[dict[str, int], int]]) -> None:
    rings = Rings()
    for weights, steps in offers:
        rings.offer(View([comet(name, weight) for name, weight in weights.items()]))
        for _ in range(steps):
            rings.step()
        assert owners(rings.view)[:40] == expected(rings.view.weights)[:40]
    if offers:
        assert finished(rings)[1].weights == offers[-1][0]
