"""Subscribers whose key has another owner now, and who are still connected to the earlier one (rules 7 and 8)."""

from __future__ import annotations

import pytest

from gopush.comet.housekeeping import MOVE_STEPS
from gopush.comet.moves import MOVE_SECONDS, MOVED_SECONDS, EarlierOwners
from gopush.membership.view import StaticCoordination, View
from gopush.model import NodeInfo
from tests.comet.harness import Clock, World, frame
from tests.comet.test_delivery import append
from tests.comet.test_service import owned_by

H = b"+h\r\n"
KEYS = [f"k{number}" for number in range(300)]


def info(name: str, draining: bool = False, weight: int = 1) -> NodeInfo:
    return NodeInfo(f"node-{name}", 0, (name,), draining=draining, weight=weight)


def drain(world: World, name: str) -> None:
    """All comets have had the time to forget what they saw when they started."""
    world.wait(MOVED_SECONDS + 0.1)
    world.coordination.announce(info(name, draining=True), "draining")


@pytest.mark.parametrize("expire", [0, 600])
@pytest.mark.parametrize("names", [("c1", "c2"), ("c1", "c2", "c3")])
def test_who_has_not_moved_yet_gets_what_is_pushed_through_the_new_owner(names: tuple[str, ...], expire: int) -> None:
    world = World(*names)
    world.housekeeping()
    key = owned_by(world, "c1")
    *_, last = [world.subscribe(key=key)[1] for _ in range(MOVE_STEPS)]
    drain(world, "c1")
    sent = b""
    for number in range(9):
        mid = world.push(b"%d" % number, key, expire)[0].mid
        sent += frame(mid, b"%d" % number)
        world.wait(0.1)
    assert last.out == H + sent
    world.wait(0.2)
    assert last.out == H + sent + b"-n\r\n"


def test_the_owner_before_hears_only_of_its_keys_and_only_as_long_as_subscribers_move() -> None:
    world = World("c1", "c2")
    was, other = owned_by(world, "c1"), owned_by(world, "c2")
    drain(world, "c1")
    calls = world.services["c1"].calls
    world.pushed(b"1", other)
    assert not calls
    world.wait(MOVE_SECONDS)
    world.pushed(b"1", was)
    assert len(calls) == 1
    world.wait(MOVED_SECONDS - MOVE_SECONDS + 0.1)
    world.pushed(b"1", was)
    assert len(calls) == 1


def test_only_the_comet_that_has_a_push_stored_tells_the_owner_before() -> None:
    world = World("c1", "c2")
    key = owned_by(world, "c1")
    drain(world, "c1")
    world.comet_named("c2").forward([append(world, b"1", key=key)._replace(hops=1)])
    world.turns()
    assert not world.services["c1"].calls


def test_the_owner_before_passes_nothing_on_and_delivers_nothing_twice() -> None:
    world = World("c1", "c2")
    key = owned_by(world, "c1")
    _, wire = world.subscribe(key=key)
    drain(world, "c1")
    mid = world.pushed(b"1", key)
    ((_, (forward,)),) = world.services["c1"].calls
    world.comet_named("c1").forward([forward])
    world.turns()
    assert wire.out == H + frame(mid, b"1")
    assert not world.services["c2"].calls[1:]


def test_a_push_is_answered_though_the_owner_before_answers_nothing() -> None:
    world = World("c1", "c2")
    key = owned_by(world, "c1")
    drain(world, "c1")
    world.services["c1"].mode = "silent"
    assert world.pushed(b"1", key)


# --- which comets that are ---


def seen(name: str, before: list[NodeInfo], *views: list[NodeInfo]) -> dict[str, list[str]]:
    """The earlier owners of each key, as this comet knows them after it has adopted these views."""
    coordination = StaticCoordination(View(before))
    owners = EarlierOwners(Clock(), coordination, name)
    for comets in views:
        coordination.adopt(View(comets))
    return {key: owners.of(key) for key in KEYS}


def test_a_new_comet_knows_who_had_its_keys() -> None:
    """Its first view has it already."""
    before, view = View([info("c1", weight=2), info("c3")]), [info("c1", weight=2), info("c2"), info("c3")]
    for key, owners in seen("c2", [], view).items():
        owner, had = View(view).owner(key), before.owner(key)
        assert owner is not None
        assert owners == ([had.id] if had is not None and owner.id == "c2" else [])


def test_a_comet_without_others_has_no_owners_before_it() -> None:
    assert not any(seen("c1", [], [info("c1")]).values())


def test_all_owners_count_where_a_key_gets_two_within_a_moment() -> None:
    leaving = [info("c1", draining=True), info("c2", draining=True), info("c3")]
    found = seen("c3", [info("c1"), info("c2"), info("c3")], [leaving[0], info("c2"), info("c3")], leaving)
    assert ["c1", "c2"] in found.values()
    assert ["c2"] in found.values()


def test_who_is_gone_is_not_called_and_who_has_the_key_again_only_as_its_owner() -> None:
    assert not any(seen("c2", [info("c1"), info("c2")], [info("c2")]).values())
    back = seen("c3", [info("c1"), info("c3")], [info("c1", draining=True), info("c3")], [info("c1"), info("c3")])
    assert not any(back.values())


def test_views_in_which_no_owner_changes_are_not_kept() -> None:
    coordination = StaticCoordination(View([info("c1"), info("c2")]))
    owners = EarlierOwners(Clock(), coordination, "c1")
    coordination.register_message(NodeInfo("", 0, ("m1",)))
    assert not owners.views
