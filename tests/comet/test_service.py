"""A comet as web and the other comets call it (delivery rules 1, 2, 6, 7 and 8)."""

from __future__ import annotations

import pytest

from gopush.errors import RET_INTERNAL, RET_OK
from gopush.membership.view import View
from gopush.model import MID_STEP, NOT_REACHED, Append, Forward, Push, Pushed, mid_at
from gopush.reports import Presence
from tests.comet.harness import World, frame, result
from tests.comet.test_delivery import append

H = b"+h\r\n"


def push(world: World, body: bytes = b"1", key: str = "k", expire: int = 600, id: str = "", late: float = 4) -> Push:
    return Push(key, body, expire, id, 60, world.now() + late)


# --- pushes ---


def test_a_push_is_answered_once_it_is_stored() -> None:
    world = World()
    world.node.late = ("append",)
    answer = result(world.comet.push([push(world)]))
    world.turns()
    assert answer == []
    world.node.release()
    world.turns()
    ((pushed,),) = answer
    assert pushed == Pushed(RET_OK, mid_at(world.now()))
    assert world.store.logs["k"].last == pushed.mid


def test_the_pushes_of_a_call_are_answered_in_their_order() -> None:
    world = World()
    answer = result(world.comet.push([push(world, b"%d" % i, key=f"k{i % 3}") for i in range(9)]))
    world.turns()
    (pushed,) = answer
    assert [each.ret for each in pushed] == [RET_OK] * 9
    assert world.node.count("append") == 1
    for key in range(3):
        mids = [each.mid for each in pushed[key::3]]
        assert [message.mid for message in world.store.logs[f"k{key}"].messages] == mids


def test_a_call_without_pushes_is_answered() -> None:
    assert result(World().comet.push([])) == [[]]


def test_a_push_after_its_deadline_is_refused_and_fails_alone() -> None:
    """Delivery rule 6."""
    world = World()
    _, wire = world.subscribe()
    answer = result(world.comet.push([push(world, b"1", late=-0.1), push(world, b"2")]))
    world.turns()
    ((refused, taken),) = answer
    assert refused == Pushed(RET_INTERNAL, 0)
    assert taken.ret == RET_OK
    assert wire.out == H + frame(taken.mid, b"2")
    assert (world.comet.counters.messages_failed, world.comet.counters.messages_succeeded) == (1, 1)


@pytest.mark.parametrize("mode", ["silent", "down"])
def test_a_push_that_cannot_be_stored_is_answered_65535(mode: str) -> None:
    world = World()
    world.subscribe()
    world.node.mode = mode
    answer = result(world.comet.push([push(world), push(world)]))
    world.wait(3)
    assert answer == [[Pushed(RET_INTERNAL, NOT_REACHED)] * 2]
    assert world.comet.counters.messages_failed == 2


def test_a_push_that_was_stored_though_its_answer_was_lost_is_delivered() -> None:
    """Nobody knows whether it was: the log is compared."""
    world = World()
    _, wire = world.subscribe()
    world.node.late = ("append",)
    answer = result(world.comet.push([push(world, id="x")]))
    world.wait(1.1)
    world.node.mode = "down"
    world.wait(1)
    assert answer == [[Pushed(RET_INTERNAL, NOT_REACHED)]]
    assert wire.out == H
    world.node.mode = "up"
    world.wait(3)
    (message,) = world.store.logs["k"].messages
    assert wire.out == H + frame(message.mid, b"1")


def test_a_push_that_is_stored_after_its_refusal_is_delivered_soon() -> None:
    """A store or a message node that hung takes it until the deadline: the log is compared once more after that."""
    world = World()
    _, wire = world.subscribe()
    world.node.hold = ("append",)
    answer = result(world.comet.push([push(world)]))
    world.wait(2.5)
    assert answer == [[Pushed(RET_INTERNAL, NOT_REACHED)]]
    late = append(world, b"1")
    world.wait(10)
    assert wire.out == H + frame(late.mid, b"1")
    heads = world.node.count("heads")
    world.wait(12)
    assert world.node.count("heads") == heads  # once is enough


def test_a_repeat_gives_the_first_mid_and_is_delivered_once() -> None:
    """Delivery rule 6."""
    world = World()
    _, wire = world.subscribe()
    first = world.pushed(b"1", id="x")
    assert world.pushed(b"1", id="x") == first
    assert world.pushed(b"other", id="x") == first
    assert wire.out == H + frame(first, b"1")


def test_a_repeat_whose_first_push_was_not_delivered_is_read_not_believed() -> None:
    """The first one went through another comet, its notice was lost, and the repeat bears another body."""
    world = World()
    _, wire = world.subscribe()
    answers = result(world.store.append([Append(push(world, b"first", id="x"), 0)]))
    ((appended,),) = answers
    assert world.pushed(b"second", id="x") == appended.mid
    assert wire.out == H + frame(appended.mid, b"first")


def test_a_repeat_that_is_never_kept_is_delivered_where_the_first_was_not() -> None:
    world = World()
    _, wire = world.subscribe()
    ((appended,),) = result(world.store.append([Append(push(world, b"1", id="x", expire=0), 0)]))
    for _ in range(2):
        assert world.pushed(b"1", id="x", expire=0) == appended.mid
    assert wire.out == H + frame(appended.mid, b"1")


def test_mids_ascend_though_the_clock_steps_back_and_the_store_loses_its_end() -> None:
    """Delivery rule 2: the floor is the highest mid that the comet has delivered for the key."""
    world = World()
    _, wire = world.subscribe()
    mids = [world.pushed(b"0")]
    world.skew = -100
    world.store.logs.clear()
    mids.append(world.pushed(b"1"))
    mids.append(world.pushed(b"2"))
    assert mids == [mids[0], mids[0] + MID_STEP, mids[0] + 2 * MID_STEP]
    assert wire.out == H + b"".join(frame(mid, b"%d" % i) for i, mid in enumerate(mids))


def test_nobody_needs_to_be_there() -> None:
    world = World()
    world.pushed(b"1")
    assert world.comet.channels == {}


# --- notices (delivery rule 8) ---


def owned_by(world: World, name: str) -> str:
    return next(key for key in (f"key-{i}" for i in range(1000)) if world.comet_named(name).owns(key))


def test_any_comet_takes_a_push_and_tells_the_owner() -> None:
    world = World("c1", "c2")
    key = owned_by(world, "c2")
    _, wire = world.subscribe(key=key, comet=world.comet_named("c2"))
    answer = result(world.comet_named("c1").push([push(world, key=key)]))
    world.turns()
    ((pushed,),) = answer
    assert pushed.ret == RET_OK
    assert wire.out == H + frame(pushed.mid, b"1")
    assert world.comet_named("c1").counters.notices_sent == 1
    assert world.comet_named("c2").counters.notices_received == 1
    assert world.services["c2"].calls == [("forward", [Forward(key, pushed.mid, 0, b"1", 1)])]


def test_a_comet_delivers_to_its_own_subscribers_though_it_is_not_the_owner() -> None:
    """They have not moved yet."""
    world = World("c1", "c2")
    key = owned_by(world, "c1")
    _, wire = world.subscribe(key=key, comet=world.comet_named("c1"))
    view = world.coordination.view
    world.coordination.adopt(View([info for info in view.comets if info.id == "c2"], view.messages))
    world.comet_named("c1").push([push(world, key=key)])
    world.turns()
    assert b'"msg":1' in wire.out


def test_a_forward_is_passed_on_at_most_once() -> None:
    """The comets' views differ: each takes the other for the owner."""
    world = World("c1", "c2")
    key = owned_by(world, "c2")
    forward = append(world, b"1", key=key)
    for name in ("c1", "c2"):
        view = world.coordination.view
        others = [info for info in view.comets if info.id != name]
        world.comet_named(name)._coordination = type(world.coordination)(View(others, view.messages))
    world.comet_named("c1").forward([forward._replace(hops=2)])
    world.turns()
    reported = [call for limiter in world.services.values() for call in limiter.calls]
    assert sorted(forwards[0].hops for _, forwards in reported) == [0, 1]


def test_an_owner_without_zookeeper_tells_another_comet_which_tells_the_new_owner(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its session may have ended long ago, and its subscribers be elsewhere."""
    world = World("c1", "c2", "c3")
    key = owned_by(world, "c1")
    view, stale = world.coordination.view, type(world.coordination)
    world.comet_named("c1")._coordination = stale(view)
    monkeypatch.setattr(world.comet_named("c1")._coordination, "connected", False)
    without = View([info for info in view.comets if info.id != "c1"], view.messages)
    for name in ("c2", "c3"):
        world.comet_named(name)._coordination = stale(without)
    new = next(info for info in without.comets if info == without.owner(key))
    other = next(info.id for info in without.comets if info != new)
    monkeypatch.setattr(world.comets, "beside", lambda *_: next(info for info in view.comets if info.id == other))
    _, wire = world.subscribe(key=key, comet=world.comet_named(new.id))
    world.comet_named("c1").push([push(world, key=key)])
    world.turns()
    assert b'"msg":1' in wire.out


def test_the_comet_beside_is_one_that_answers() -> None:
    world = World("c1", "c2", "c3")
    found = {world.comets.beside("c1", f"k{number}") for number in range(50)}
    assert {info.id for info in found if info} == {"c2", "c3"}
    world.comets.live["c2"].healthy = False
    assert world.comets.beside("c1", "k") == world.comets.live["c3"].info
    world.comets.live["c3"].healthy = False
    assert world.comets.beside("c1", "k") is not None
    assert World("c1").comets.beside("c1", "k") is None


def test_who_does_not_reach_the_owner_tells_another_comet_too() -> None:
    world = World("c1", "c2", "c3")
    key = owned_by(world, "c2")
    world.comet_named("c1").push([push(world, key=key)])
    world.turns()
    assert world.services["c3"].calls == []
    world.comets.live["c2"].healthy = False
    _, wire = world.subscribe(key=key, comet=world.comet_named("c2"))
    world.comet_named("c1").push([push(world, key=key)])
    world.turns()
    ((name, (forward,)),) = world.services["c3"].calls
    assert (name, forward.hops) == ("forward", 1)
    hops = [forward.hops for _, forwards in world.services["c2"].calls for forward in forwards]
    assert sorted(hops) == [0, 1, 1]
    assert wire.out.count(b'"msg":1') == 1


def test_the_owner_passes_nothing_on() -> None:
    world = World("c1", "c2")
    key = owned_by(world, "c1")
    world.comet_named("c1").forward([append(world, b"1", key=key)._replace(hops=1)])
    world.turns()
    assert world.services["c2"].calls == []


def test_a_push_succeeds_though_the_owner_cannot_be_reached() -> None:
    world = World("c1", "c2")
    key = owned_by(world, "c2")
    _, wire = world.subscribe(key=key, comet=world.comet_named("c2"))
    world.services["c2"].mode = "silent"
    answer = result(world.comet_named("c1").push([push(world, key=key)]))
    world.wait(2)
    ((pushed,),) = answer
    assert pushed.ret == RET_OK
    assert wire.out == H


def test_a_forward_for_a_key_without_subscribers_is_nothing() -> None:
    world = World()
    world.comet.forward([append(world, b"1")])
    world.turns()
    assert world.comet.channels == {}
    assert world.node.calls == []


# --- the rest of CometService ---


def test_closing_keys_closes_their_subscribers_without_a_word() -> None:
    world = World()
    wires = [world.subscribe(key="one")[1] for _ in range(3)]
    world.node.hold = ("read",)
    wires.append(world.subscribe(key="one", mid=0)[1])
    _, other = world.subscribe(key="other")
    assert result(world.comet.close(["one", "none", "one"]))[0][:2] == [4, 0]
    world.turns()
    assert all(wire.closed for wire in wires)
    assert {wire.out for wire in wires} == {H, b""}
    assert not other.closed
    assert list(world.comet.channels) == ["other"]


def test_ping() -> None:
    assert result(World().comet.ping()) == [None]


def test_a_refused_request_is_counted_and_closed() -> None:
    world = World()
    session, wire = world.open()
    world.comet.refuse_parameter(session)
    world.turns()
    assert wire.out == b"-p\r\n"
    assert wire.finished
    assert world.comet.counters.refused_parameter == 1


def test_who_was_sent_away_is_not_there_any_more_however_long_it_takes_to_close() -> None:
    """A client that does not close its own side keeps its connection for the seconds of grace."""
    world = World()
    for _ in range(3):
        world.subscribe(key="k")[1].on_closed = lambda: None
    assert result(world.comet.subscribers(["k", "none"])) == [[3, 0]]
    assert result(world.comet.close(["k"])) == [[3]]
    world.turns()
    assert "k" not in world.comet.channels
    assert result(world.comet.subscribers(["k"])) == [[0]]
    assert result(world.comet.presence(["k"])) == [[Presence(0)]]
    assert result(world.comet.close(["k"])) == [[0]]
    world.subscribe(key="k")
    assert result(world.comet.subscribers(["k"])) == [[1]]
    assert result(world.comet.presence(["k"])) == [[Presence(1, 0, (("tcp", 1),))]]


@pytest.mark.parametrize("recovers", [False, True])
def test_who_was_sent_away_takes_nobodys_place(recovers: bool) -> None:
    """protocol.md, section 10: from `key/close` on it counts no more, though its client keeps its side open."""
    world = World(max_subscribers=2)
    if recovers:
        world.node.hold = ("read",)
    for _ in range(2):
        world.subscribe(key="k", mid=0 if recovers else None)[1].on_closed = lambda: None
    world.comet.close(["k"])
    world.node.release()
    wires = [world.subscribe(key="k")[1] for _ in range(3)]
    assert world.comet.channels["k"].subscribers == 2
    assert [wire.out for wire in wires] == [H, H, b"-l\r\n"]
    assert world.comet.counters.refused_limit == 1
