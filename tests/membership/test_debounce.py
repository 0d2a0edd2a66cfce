"""The care with which a view is adopted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gopush.membership.debounce import ViewDebouncer
from gopush.membership.view import View
from gopush.model import NodeInfo


def comet(node: str, sequence: int = 0, port: int | None = None) -> NodeInfo:
    return NodeInfo(node, sequence, (f"{node}:{port or 6970}",))


def message(name: str, sequence: int = 0) -> NodeInfo:
    return NodeInfo(f"{name}:8070", sequence, (f"{name}:8070",))


BOTH = View([comet("a"), comet("b")], [message("m")])
ONE = View([comet("a")], [message("m")])


def adopted(view: View = BOTH) -> ViewDebouncer:
    debouncer = ViewDebouncer(1.0)
    assert debouncer.offer(view, 100.0) == view
    return debouncer


def test_additions_are_adopted_at_once() -> None:
    debouncer = adopted(ONE)
    assert debouncer.offer(BOTH, 100.0) == BOTH
    assert debouncer.view == BOTH
    assert debouncer.due is None


def test_the_same_view_changes_nothing() -> None:
    assert adopted().offer(BOTH, 101.0) is None


def test_a_removal_is_believed_once_it_was_stable() -> None:
    debouncer = adopted()
    assert debouncer.offer(ONE, 200.0) is None
    assert debouncer.due == 201.0
    assert debouncer.tick(200.9) is None
    assert debouncer.view == BOTH
    assert debouncer.tick(201.0) == ONE
    assert debouncer.due is None


def test_a_node_that_comes_back_in_time_was_never_gone() -> None:
    debouncer = adopted()
    debouncer.offer(ONE, 200.0)
    assert debouncer.offer(BOTH, 200.9) is None
    assert debouncer.due is None
    assert debouncer.offer(ONE, 201.5) is None
    assert debouncer.tick(202.0) is None
    assert debouncer.tick(202.5) == ONE


def test_an_addition_does_not_wait_for_a_removal() -> None:
    debouncer = adopted()
    view = debouncer.offer(View([comet("a"), comet("c")], [message("m")]), 200.0)
    assert view == View([comet("a"), comet("b"), comet("c")], [message("m")])
    assert debouncer.tick(201.0) == View([comet("a"), comet("c")], [message("m")])


def test_a_message_node_is_a_node_too() -> None:
    two = View([comet("a")], [message("m"), message("n")])
    debouncer = adopted(two)
    assert debouncer.offer(ONE, 200.0) is None
    assert debouncer.tick(201.0) == ONE


def test_a_standby_takes_over_at_once() -> None:
    active, standby = comet("a", 1), comet("a", 2, port=7970)
    debouncer = adopted(View([active, standby], [message("m")]))
    view = debouncer.offer(View([standby], [message("m")]), 200.0)
    assert view is not None
    assert view.active == (standby,)


def test_a_process_that_registered_anew_is_the_same_node() -> None:
    debouncer = adopted(View([comet("a", 1)], [message("m", 1)]))
    anew = View([comet("a", 7)], [message("m", 9)])
    assert debouncer.offer(anew, 200.0) == anew


def test_no_comet_or_no_message_node_is_never_believed() -> None:
    debouncer = adopted()
    for view in (View(), View([], [message("m")]), View([comet("a"), comet("b")], [])):
        assert debouncer.offer(view, 200.0) is None
        assert debouncer.due is None
        assert debouncer.tick(1e9) is None
        assert debouncer.view == BOTH


def test_an_empty_view_ends_the_wait_for_a_removal() -> None:
    debouncer = adopted()
    debouncer.offer(ONE, 200.0)
    assert debouncer.offer(View(), 200.5) is None
    assert debouncer.due is None
    assert debouncer.offer(ONE, 203.0) is None
    assert debouncer.due == 204.0


def test_a_process_that_is_missing_does_not_act_on_the_view() -> None:
    debouncer = adopted()
    debouncer.mine = (comet("b"),)
    assert debouncer.lacks_me(ONE)
    assert debouncer.offer(ONE, 200.0) is None
    assert debouncer.due is None
    assert debouncer.tick(300.0) is None
    assert not debouncer.lacks_me(BOTH)
    debouncer.mine = (message("m"),)
    assert debouncer.offer(ONE, 300.0) is None
    assert debouncer.tick(301.0) == ONE


def test_after_the_coordinator_was_away_removals_wait_longer() -> None:
    debouncer = adopted()
    debouncer.distrust(200.0, 9.0, 4.0)
    assert debouncer.offer(ONE, 200.0) is None
    assert debouncer.due == 204.0
    assert debouncer.tick(203.9) is None
    assert debouncer.tick(204.0) == ONE


def test_a_coordinator_that_is_away_again_and_again_hides_no_death() -> None:
    """Only the time without it does not count."""
    debouncer = adopted()
    debouncer.offer(ONE, 200.0)
    for back, away in ((203.0, 0.25), (206.0, 2.0)):
        debouncer.distrust(back, away, 4.0)
        assert debouncer.offer(ONE, back) is None
    assert debouncer.due == 206.25
    assert debouncer.tick(206.0) is None
    assert debouncer.tick(206.25) == ONE


names = st.sampled_from("abcd")
views = st.builds(
    View,
    st.lists(names, unique=True).map(lambda nodes: [comet(node) for node in nodes]),
    st.lists(names, unique=True).map(lambda nodes: [message(node) for node in nodes]),
)


@given(st.lists(st.tuples(st.floats(0, 2), views | st.none()), max_size=20))
def test_the_rules_hold_in_any_order(steps: list[tuple[float, View | None]]) -> None:
    """Whoever was seen within the last second is in the view; once some were known, there are always some."""
    debouncer, now, some = ViewDebouncer(1.0), 0.0, False
    last_seen: dict[NodeInfo, float] = {}
    seen = View()
    for wait, view in steps:
        now += wait
        for info in (*seen.comets, *seen.messages):
            last_seen[info] = now
        if view is None:
            debouncer.tick(now)
        else:
            seen = view
            debouncer.offer(seen, now)
        some = some or bool(seen.comets)
        have = {*debouncer.view.comets, *debouncer.view.messages}
        assert {*seen.comets, *seen.messages} <= have
        assert all(info in have for info, at in last_seen.items() if now < at + 1.0)
        assert bool(debouncer.view.comets) == some
        assert debouncer.due is None or debouncer.due > now
