"""Views, and the coordination of a cluster that never changes (protocol.md, sections 7 and 8)."""

from __future__ import annotations

from itertools import pairwise

import pytest
from twisted.internet.task import Clock

from gopush.errors import UnavailableError
from gopush.membership.keeper import ViewKeeper
from gopush.membership.view import StaticCoordination, View, check_registered
from gopush.model import NodeInfo
from tests.comet.harness import result
from tests.fixtures import Logged, lines_logged

KEYS = [f"key-{i}" for i in range(500)]


def comet(node: str, sequence: int, weight: int = 1) -> NodeInfo:
    return NodeInfo(node, sequence, (f"{node}-{sequence}:6970",), weight=weight)


def test_the_lowest_sequence_of_a_node_is_active_the_others_are_its_standbys() -> None:
    view = View([comet("a", 7), comet("a", 3), comet("b", 5), comet("a", 12)])
    assert view.active == (comet("a", 3), comet("b", 5))
    assert set(map(view.owner, KEYS)) == {comet("a", 3), comet("b", 5)}


def test_the_ring_is_over_the_names_of_the_nodes() -> None:
    """A standby that takes over gets exactly its node's keys."""
    before = View([comet("a", 1), comet("a", 2), comet("b", 3)])
    after = View([comet("a", 2), comet("b", 3)])
    for key in KEYS:
        one, two = before.owner(key), after.owner(key)
        assert one is not None
        assert two is not None
        assert one.node == two.node


def test_the_weight_of_the_active_process_counts() -> None:
    view = View([comet("a", 1, weight=3), comet("a", 2, weight=1), comet("b", 3)])
    shares = [owner.node for key in KEYS if (owner := view.owner(key))]
    assert 320 < shares.count("a") < 430


def test_an_empty_view_has_no_owner() -> None:
    assert View().owner("k") is None
    assert View().active == ()


def test_views_are_values() -> None:
    one, two = View([comet("a", 1), comet("b", 2)]), View([comet("b", 2), comet("a", 1)])
    assert one == two
    assert hash(one) == hash(two)
    assert one != View([comet("a", 1)])
    assert one != View([comet("a", 1), comet("b", 2)], [NodeInfo("", 1, ("m:1",))])
    assert one != "view"


def test_what_registers_is_in_the_view_and_everybody_is_notified() -> None:
    coordination = StaticCoordination()
    seen: list[View] = []
    coordination.watch(seen.append)
    message = NodeInfo("", 0, ("m:1",))
    assert result(coordination.register_comet(comet("a", 0))) == [None]
    assert result(coordination.register_message(message)) == [None]
    assert seen == [View([comet("a", 0)]), View([comet("a", 0)], [message])]
    assert coordination.view == seen[-1]
    assert coordination.connected


def test_a_draining_comet_owns_nothing_and_its_standby_takes_over() -> None:
    drains = comet("a", 1)._replace(draining=True)
    view = View([drains, comet("a", 2), comet("b", 3)])
    assert {info.id for info in view.active} == {"a-2:6970", "b-3:6970"}
    assert {View([drains, comet("b", 3)]).owner(str(i)) for i in range(50)} == {comet("b", 3)}
    assert View([drains]).owner("k") is None


def test_where_all_comets_drain_the_log_says_so_once(logged: Logged) -> None:
    a, b = comet("a", 1), comet("b", 2)
    drains = a._replace(draining=True)
    views = [View([drains, b]), View([drains]), View([drains], [NodeInfo("", 0, ("m:1",))]), View([a]), View([drains])]
    assert [view.all_drain for view in (View(), *views)] == [False, False, True, True, False, True]
    keeper = ViewKeeper(Clock(), 0.0, rings=False)
    said = []
    for view in views:
        keeper._adopt(view)
        said.append(len(logged.lines("all comets drain")))
    assert said == [0, 1, 1, 1, 2]


def test_a_process_that_leaves_does_not_say_that_all_comets_drain(logged: Logged) -> None:
    """It is the one."""
    keeper = ViewKeeper(Clock(), 0.0, rings=False)
    keeper.leaving = True
    keeper._adopt(View([comet("a", 1)._replace(draining=True)]))
    assert logged.lines("all comets drain") == []


def test_a_standby_says_so_and_when_it_is_one_no_more() -> None:
    """The same name on two machines by mistake is seen in the log of the second one."""
    first, second, third, other = comet("a", 1), comet("a", 2), comet("a", 3), comet("b", 1)
    drains = first._replace(draining=True)
    keeper = ViewKeeper(Clock(), 0.0, rings=False)
    keeper._adopt(View([first, other]))
    keeper._debouncer.mine = (second,)
    views = [
        ([first, other], 0),  # not registered yet
        ([first, second, other], 1),
        ([first, second, third], 1),
        ([drains, second], 2),
        ([first, second], 3),
        ([first, second._replace(draining=True)], 3),
        ([first], 3),  # ZooKeeper lost it
        ([second], 4),
    ]
    wanted = ["standby of a, whose active process is a-1:6970", "active process of a now"] * 2
    with lines_logged(lambda line: " of a" in line) as lines:
        for comets, said in views:
            keeper._adopt(View(comets))
            assert len(lines) == said
    assert all(line.startswith(start) for line, start in zip(lines, wanted, strict=True))


@pytest.mark.parametrize("mine", [comet("a", 1), comet("a", 0)._replace(node="a-1:6970")])
def test_who_was_never_a_standby_says_nothing(mine: NodeInfo) -> None:
    """Nor a message node, which is registered by its address, nor a process that has not registered."""
    keeper = ViewKeeper(Clock(), 0.0, rings=False)
    keeper._adopt(View([comet("a", 0)]))
    keeper._debouncer.mine = (mine,)
    with lines_logged(lambda line: " of a" in line) as lines:
        keeper._adopt(View([comet("a", 1), comet("a", 2)], [mine]))
        keeper._adopt(View([comet("a", 1)], [mine]))
    assert lines == []


def test_what_changed_is_reported_in_few_words() -> None:
    message = NodeInfo("", 0, ("m:1",))
    before = View([comet("a", 1), comet("b", 2), comet("c", 3)], [message])
    after = View([comet("a", 1), comet("b", 2, weight=2), comet("d", 4)], [message])
    assert after.changes(before) == "+d-4:6970 ~b-2:6970 -c-3:6970"
    assert after.changes(after) == ""


def test_a_drain_is_reported_in_words_and_once_for_a_process() -> None:
    """A member registers twice, and its comet drains first; of two processes of a node the address tells which."""
    member = comet("b", 2)
    views = [
        View([comet("a", 1), member._replace(draining=first)], [member._replace(node=member.id, draining=second)])
        for first, second in ((False, False), (True, False), (True, True), (False, True), (False, False))
    ]
    changes = [after.changes(before) for before, after in pairwise(views)]
    assert changes == ["b drains", "", "b drains no more", ""]
    twins = [comet("a", 1), comet("a", 2)]
    assert View([twins[0]._replace(draining=True), twins[1]]).changes(View(twins)) == "a-1:6970 drains"
    gone = View([member._replace(draining=True)]).changes(View([member, comet("c", 3)]))
    assert gone == "b drains, -c-3:6970"
    message = NodeInfo("", 0, ("m:1",))
    assert View([], [message._replace(draining=True)]).changes(View([], [message])) == "m:1 drains"


def test_announcing_changes_how_a_process_is_seen() -> None:
    coordination = StaticCoordination()
    coordination.register_comet(comet("a", 0))
    coordination.register_comet(comet("b", 0))
    coordination.announce(comet("a", 0)._replace(draining=True), "draining")
    assert [info.draining for info in coordination.view.comets] == [True, False]
    coordination.start()
    assert result(coordination.stop()) == [None]


def test_the_owners_of_no_more_than_so_many_keys_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody can ask for any key."""
    monkeypatch.setattr("gopush.membership.view.REMEMBERED_KEYS", 100)
    view = View([comet("a", 1), comet("b", 2)])
    owners = [view.owner(key) for key in KEYS]
    assert len(view._owners) <= 100
    assert [view.owner(key) for key in KEYS] == owners


@pytest.mark.parametrize(("connected", "why"), [(True, ""), (False, ", and ZooKeeper cannot be reached")])
def test_a_process_that_is_not_registered_says_where_zookeeper_is_why(
    monkeypatch: pytest.MonkeyPatch, connected: bool, why: str
) -> None:
    monkeypatch.setattr(StaticCoordination, "connected", connected)
    check_registered(StaticCoordination(View([comet("a", 1)])), "a-1:6970")
    with pytest.raises(UnavailableError) as wrong:
        check_registered(StaticCoordination(), "a-1:6970", "this comet")
    assert str(wrong.value) == f"this comet is not registered{why}"
