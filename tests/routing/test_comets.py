"""The comets as web and the other comets use them (delivery rules 6 and 8)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from gopush.errors import RET_INTERNAL, RET_NO_NODE, RET_OK, UnavailableError
from gopush.hashing import Shards
from gopush.membership.view import StaticCoordination, View
from gopush.model import LATE, NOT_REACHED, Forward, NodeInfo, Push, Pushed
from gopush.reports import Presence
from gopush.routing.comets import Comets
from gopush.rpc.settings import RpcSettings
from tests.comet.harness import EPOCH, Clock, result


class Comet:
    """Answers pushes with `ret` and its own number as the mid. Modes: "up", "down", "silent", "late": see answer()."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.mode = "up"
        self.ret = RET_OK
        self.pushes: list[Push] = []
        self.forwards: list[Forward] = []
        self.closed: list[str] = []
        self.stopped = False
        self.answer: Callable[[], object] = lambda: None
        self.rets: list[int] = []
        self.why = 0
        self.stored: list[bytes] = []
        self.reaches = True
        self.older = False
        self.asked: list[list[str]] = []

    def _answer(self, value: Any, answered: Callable[[], object] = lambda: None) -> Deferred[Any]:
        if self.mode == "down":
            return fail(ConnectionError("down"))
        if self.mode == "up":
            answered()
            return succeed(value)
        waiting: Deferred[Any] = Deferred()

        def answer() -> None:
            self.answer = lambda: None
            answered()
            waiting.callback(value)

        self.answer = answer
        return waiting

    def push(self, pushes: list[Push]) -> Deferred[list[Pushed]]:
        """`rets`: what is answered, one by one, before `ret` holds. `stored`: the bodies that were accepted."""
        self.pushes += pushes
        rets = [self.rets.pop(0) if self.rets else self.ret for _ in pushes]
        accepted = [push.body for push, ret in zip(pushes, rets, strict=True) if ret == RET_OK]
        pushed = [Pushed(ret, self.number if ret == RET_OK else self.why) for ret in rets]
        return self._answer(pushed, lambda: self.stored.extend(accepted))

    def forward(self, forwards: list[Forward]) -> Deferred[None]:
        self.forwards += forwards
        return self._answer(None)

    def close(self, keys: list[str]) -> Deferred[list[int]]:
        self.closed += keys
        return self._answer([self.number] * len(keys))

    def subscribers(self, keys: list[str]) -> Deferred[list[int]]:
        return self._answer([self.number] * len(keys))

    def presence(self, keys: list[str]) -> Deferred[list[Presence]]:
        if self.older:
            return fail(UnavailableError("refused: its call 'presence' cannot be read"))
        self.asked.append(keys)
        return self._answer([Presence(self.number, 5, (("tcp", self.number),)) for _ in keys])

    def ping(self) -> Deferred[None]:
        return self._answer(None) if self.reaches else fail(UnavailableError("no message node"))

    def stop(self) -> None:
        self.stopped = True


class World:
    """Comets 1, 2, …; `key` belongs to the first, in this process's view."""

    def __init__(self, size: int = 3, own: str = "") -> None:
        self.clock = Clock()
        self.comets: dict[str, Comet] = {}
        infos = [NodeInfo(f"node{number}", 0, (f"c{number}",)) for number in range(1, size + 1)]
        self.coordination = StaticCoordination(View(infos))
        connect: Any = self._connect
        self.client = Comets(self.clock, self.coordination, connect, RpcSettings(), self.now, own)
        keys = (f"key-{i}" for i in range(1000))
        self.key = next((key for key in keys if self.owner(key) == "c1"), "key")

    def _connect(self, info: NodeInfo) -> Comet:
        comet = self.comets[info.id] = Comet(int(info.id[1:]))
        return comet

    def owner(self, key: str) -> str | None:
        owner = self.coordination.view.owner(key)
        return owner.id if owner is not None else None

    def now(self) -> float:
        return EPOCH + self.clock.seconds()

    def push(self, deadline: float = 4, body: bytes = b"1") -> list[Pushed]:
        push = Push(self.key, body, 60, "id", 60, self.now() + deadline)
        answer: list[Any] = []
        self.client.push([push], lambda _, pushed: answer.extend(pushed))
        return answer

    def push_to(self, key: str, answered: list[str]) -> None:
        push = Push(key, b"1", 60, "", 60, self.now() + 4)
        self.client.push([push], lambda _, __: answered.append(key))

    def wait(self, seconds: float = 0) -> None:
        for _ in range(round(seconds * 16) + 1):
            while self.clock.due:
                self.clock.advance(0)
            self.clock.advance(1 / 16 if seconds else 0)

    def asked(self) -> list[str]:
        return [name for name, comet in self.comets.items() for _ in comet.pushes]


def test_a_push_goes_to_the_owner() -> None:
    world = World()
    answer = world.push()
    world.wait()
    assert answer == [Pushed(RET_OK, 1)]
    assert world.asked() == ["c1"]


def test_a_standby_is_not_asked_while_the_active_one_answers() -> None:
    world = World(1)
    view = world.coordination.view
    world.coordination.adopt(View([*view.comets, NodeInfo("node1", 1, ("c2",)), NodeInfo("node1", 2, ("c3",))]))
    answer = world.push()
    world.wait()
    assert answer == [Pushed(RET_OK, 1)]


@pytest.mark.parametrize("mode", ["silent", "down"])
def test_where_the_owner_does_not_answer_another_comet_takes_the_push(mode: str) -> None:
    world = World()
    world.comets["c1"].mode = mode
    answer = world.push()
    world.wait(2.2)
    assert answer[0].ret == RET_OK
    assert answer[0].mid in (2, 3)
    assert len(world.asked()) == 2


@pytest.mark.parametrize("own", ["c2", "c3", "c4"])
def test_a_comet_in_this_process_takes_what_the_owner_did_not(own: str) -> None:
    """Two silent ones would take the whole deadline."""
    world = World(4, own)
    for name, comet in world.comets.items():
        comet.mode = "up" if name == own else "silent"
    answer = world.push()
    world.wait(2.2)
    assert answer == [Pushed(RET_OK, int(own[1:]))]
    assert world.asked() == ["c1", own]


def test_a_comet_of_this_process_that_drains_comes_after_the_others() -> None:
    world = World(own="c2")
    infos = [info._replace(draining=info.id == "c2") for info in world.coordination.view.comets]
    world.coordination.adopt(View(infos))
    for name, comet in world.comets.items():
        comet.mode = "down" if name == world.owner(world.key) else "up"
    answer = world.push()
    world.wait()
    assert answer[0].ret == RET_OK
    assert "c2" not in world.asked()


def test_every_attempt_bears_the_same_id_and_deadline() -> None:
    """So that the store tells the second one from a second push, and refuses it after the deadline."""
    world = World()
    world.comets["c1"].mode = "silent"
    world.push()
    world.wait(2.2)
    pushes = [push for comet in world.comets.values() for push in comet.pushes]
    assert len(pushes) == 2
    assert len(set(pushes)) == 1


def test_a_push_that_the_owner_could_not_have_stored_goes_elsewhere() -> None:
    """Perhaps another comet reaches a message node."""
    world = World()
    world.comets["c1"].ret = world.comets["c2"].ret = RET_INTERNAL
    answer = world.push()
    world.wait()
    assert answer == [Pushed(RET_OK, 3)]
    assert world.asked() == ["c1", "c2", "c3"]
    assert world.client.numbers.counters.retried == 2


def test_where_none_can_have_it_stored_the_answer_is_65535() -> None:
    world = World()
    for comet in world.comets.values():
        comet.ret = RET_INTERNAL
    answer = world.push()
    world.wait()
    assert answer == [Pushed(RET_INTERNAL, 0)]
    assert world.asked() == ["c1", "c2", "c3"]


def test_a_single_comet_is_believed() -> None:
    world = World(1)
    world.comets["c1"].ret = RET_INTERNAL
    answer = world.push()
    world.wait()
    assert answer == [Pushed(RET_INTERNAL, 0)]
    assert world.asked() == ["c1"]


@pytest.mark.parametrize("size", [1, 3])
def test_what_no_comet_had_stored_is_tried_again_and_in_order(size: int) -> None:
    """Their message nodes did not reach the store in the time for an attempt: there is time for one more."""
    world = World(size)
    for comet in world.comets.values():
        comet.ret, comet.why = RET_INTERNAL, NOT_REACHED
    first = world.push(body=b"1")
    world.wait()
    assert sorted(world.asked()) == sorted(world.comets)
    world.comets["c1"].ret = RET_OK
    second = world.push(body=b"2")
    world.wait()
    assert first == second == []
    world.wait(0.2)
    assert first == second == [Pushed(RET_OK, 1)]
    assert world.comets["c1"].stored == [b"1", b"2"]


@pytest.mark.parametrize("size", [1, 3])
def test_what_is_never_stored_is_refused_by_the_deadline(size: int) -> None:
    world = World(size)
    for comet in world.comets.values():
        comet.ret, comet.why = RET_INTERNAL, NOT_REACHED
    answer = world.push(deadline=2)
    world.wait(1.8)
    assert answer == []
    world.wait(0.2)
    assert answer == [Pushed(RET_INTERNAL, 0)]
    assert len(world.asked()) <= 20 * size
    asked = len(world.asked())
    world.wait(1)
    assert len(world.asked()) == asked


def test_what_the_store_has_past_its_deadline_is_tried_nowhere_else() -> None:
    world = World()
    world.comets["c1"].ret, world.comets["c1"].why = RET_INTERNAL, LATE
    answer = world.push()
    world.wait()
    assert answer == [Pushed(RET_INTERNAL, LATE)]
    assert world.asked() == ["c1"]
    assert world.client.live["c1"].healthy


def test_going_elsewhere_passes_over_who_does_not_answer() -> None:
    world = World()
    world.comets["c1"].ret = RET_INTERNAL
    world.comets["c2"].mode = "down"
    answer = world.push()
    world.wait()
    assert answer == [Pushed(RET_OK, 3)]


def test_going_elsewhere_ends_with_the_deadline() -> None:
    world = World(4)
    world.comets["c1"].ret = RET_INTERNAL
    for name in ("c2", "c3", "c4"):
        world.comets[name].mode = "silent"
    answer = world.push(deadline=3)
    world.wait(2.9)
    assert answer == []
    world.wait(0.2)
    assert answer == [Pushed(RET_INTERNAL, 0)]
    assert world.asked()[0] == "c1"
    assert len(world.asked()) == 3


def test_a_refusal_that_comes_after_the_deadline_is_the_answer() -> None:
    world = World()
    world.comets["c1"].mode = "late"
    world.comets["c1"].ret = RET_INTERNAL
    answer = world.push(deadline=1)
    world.wait(1.5)
    world.comets["c1"].answer()
    assert answer == [Pushed(RET_INTERNAL, 0)]
    assert world.asked() == ["c1"]


def test_lines_of_a_key_stay_in_order_when_its_owner_refuses_some() -> None:
    """A bulk call: those that were refused are under way elsewhere when the owner can have the next ones stored."""
    world = World()
    stored: list[bytes] = []
    for comet in world.comets.values():
        comet.stored = stored
    owner, others = world.comets["c1"], [world.comets["c2"], world.comets["c3"]]
    owner.mode, owner.ret = "late", RET_INTERNAL
    first = [world.push(body=b"%d" % line) for line in range(3)]
    world.wait()
    later = [world.push(body=b"%d" % line) for line in range(3, 6)]
    for other in others:
        other.mode = "late"
    owner.answer()  # it refuses the first ones; from now on it works
    owner.mode, owner.ret = "up", RET_OK
    world.wait()
    last = [world.push(body=b"%d" % line) for line in range(6, 9)]
    for _ in range(10):
        world.wait(0.1)
        for other in others:
            other.answer()
    world.wait(3)
    assert all(answer[0].ret == RET_OK for answer in [*first, *later, *last])
    assert stored == [b"%d" % line for line in range(9)]


def test_a_line_that_was_refused_does_not_come_after_a_later_one_of_its_key() -> None:
    """The owner had the second one stored: the first one is refused for good."""
    world = World()
    stored: list[bytes] = []
    for comet in world.comets.values():
        comet.stored = stored
    world.comets["c1"].rets = [RET_INTERNAL, RET_OK, RET_INTERNAL]
    pushes = [Push(world.key, b"%d" % line, 60, f"id{line}", 60, world.now() + 4) for line in range(3)]
    answers: dict[int, Pushed] = {}
    world.client.push(pushes, lambda indexes, pushed: answers.update(zip(indexes, pushed, strict=True)))
    world.wait(1)
    assert [answers[line].ret for line in range(3)] == [RET_INTERNAL, RET_OK, RET_OK]
    assert stored == [b"1", b"2"]


def test_a_comet_that_refuses_is_not_asked_first_until_it_answers_a_ping() -> None:
    """It answers a ping where it reaches a message node."""
    world = World()
    owner = world.comets["c1"]
    owner.ret, owner.reaches = RET_INTERNAL, False
    for _ in range(20):
        answer = world.push()
        world.wait(0.5)
        assert answer[0].ret == RET_OK
    assert len(owner.pushes) == 1
    owner.ret, owner.reaches = RET_OK, True
    world.wait(2)
    world.push()
    world.wait()
    assert len(owner.pushes) == 2


def test_a_comet_that_reaches_no_message_node_answers_all_the_same() -> None:
    """So that a web node stays in its balancer: with the store away, all of them would leave it together."""
    world = World(2)
    for comet in world.comets.values():
        comet.reaches = False
    answers: list[Any] = []
    world.client.ping().addBoth(answers.append)
    world.wait()
    assert len(answers) == 1
    assert not isinstance(answers[0], Failure)


@pytest.mark.parametrize(("connected", "zookeeper"), [(True, False), (False, True)])
def test_who_knows_no_comet_says_whether_it_is_for_want_of_zookeeper(connected: bool, zookeeper: bool) -> None:
    world = World(0)
    world.coordination.connected = connected
    (wrong,) = result(world.client.ping())
    assert isinstance(wrong, UnavailableError)
    assert ("ZooKeeper cannot be reached" in str(wrong)) is zookeeper


def test_where_all_comets_drain_no_answer_helps() -> None:
    """They take pushes, but no subscribers: an administrator has to take one back."""
    world = World(2)
    world.coordination.adopt(View([comet._replace(draining=True) for comet in world.coordination.view.comets]))
    (wrong,) = result(world.client.ping())
    assert str(wrong) == "all comets drain: subscribers find none (gopush undrain NODE)"


def test_where_the_last_comet_has_stopped_it_does_not_answer() -> None:
    """It drains in the last view that this process had: that is not why."""
    world = World(1)
    world.coordination.adopt(View([comet._replace(draining=True) for comet in world.coordination.view.comets]))
    world.comets["c1"].mode = "down"
    (wrong,) = result(world.client.ping())
    assert isinstance(wrong, UnavailableError)
    assert str(wrong).startswith("c1 did not answer")


def test_where_all_refuse_the_owner_is_asked_first() -> None:
    world = World()
    for comet in world.comets.values():
        comet.ret, comet.reaches = RET_INTERNAL, False
    world.push()
    world.wait(0.5)
    for comet in world.comets.values():
        comet.ret = RET_OK
    answer = world.push()
    world.wait()
    assert answer == [Pushed(RET_OK, 1)]


def test_where_no_comet_is_known_the_answer_is_1001() -> None:
    assert World(0).push() == [Pushed(RET_NO_NODE, 0)]


def test_where_the_last_comet_goes_the_answer_is_1001() -> None:
    world = World(1)
    world.comets["c1"].mode = "silent"
    answer = world.push()
    world.wait()
    world.coordination.adopt(View())
    world.wait()
    assert answer == [Pushed(RET_NO_NODE, 0)]


@pytest.mark.parametrize("mode", ["silent", "down"])
def test_where_nobody_answers_the_answer_is_65535_in_time(mode: str) -> None:
    world = World()
    for comet in world.comets.values():
        comet.mode = mode
    answer = world.push()
    world.wait(4.2)
    assert answer == [Pushed(RET_INTERNAL, 0)]
    asked = len(world.asked())
    world.wait(5)
    assert len(world.asked()) == asked


def test_a_push_past_its_deadline_is_not_sent() -> None:
    world = World()
    answer = world.push(deadline=-1)
    world.wait()
    assert answer == [Pushed(RET_INTERNAL, 0)]
    assert world.asked() == []


def test_pushes_to_other_stores_do_not_wait_for_one_that_hangs() -> None:
    world = World(1)
    keeper = NodeInfo("", 0, ("m1",), stores=(("r1", 1), ("r2", 1)))
    world.coordination.adopt(View(world.coordination.view.comets, [keeper]))
    shards = Shards(keeper.stores)
    slow, quick = (next(key for key in map(str, range(50)) if shards.of(key) == store) for store in ("r1", "r2"))
    comet, answered = world.comets["c1"], list[str]()
    comet.mode = "silent"
    world.push_to(slow, answered)
    comet.mode = "up"
    world.push_to(slow, answered)
    world.push_to(quick, answered)
    world.wait()
    assert answered == [quick]
    comet.answer()
    world.wait()
    assert answered == [quick, slow, slow]


def test_pushes_follow_the_view() -> None:
    world = World()
    view = world.coordination.view
    world.coordination.adopt(View([info for info in view.comets if info.id != "c1"]))
    answer = world.push()
    world.wait()
    assert f"c{answer[0].mid}" == world.owner(world.key)
    assert world.comets["c1"].stopped


def test_pushes_of_a_key_keep_their_order_when_the_owner_dies() -> None:
    world = World()
    world.comets["c1"].mode = "silent"
    for i in range(5):
        world.push(body=b"%d" % i)
    world.wait()
    world.push(body=b"5")
    world.wait(2.2)
    (other,) = [comet for comet in world.comets.values() if comet.number != 1 and comet.pushes]
    assert [push.body for push in other.pushes] == [b"%d" % i for i in range(6)]


# --- notices ---


def test_a_forward_goes_to_the_comet_that_is_named() -> None:
    world = World()
    forwards = [Forward(world.key, mid, mid - 16, b"1", 1) for mid in (16, 32)]
    for forward in forwards:
        world.client.forward("c2", forward)
    world.wait()
    assert world.comets["c2"].forwards == forwards
    assert world.comets["c1"].forwards == world.comets["c3"].forwards == []


@pytest.mark.parametrize("mode", ["silent", "down"])
def test_a_forward_is_sent_once_and_its_loss_is_no_trouble(mode: str) -> None:
    world = World()
    world.comets["c2"].mode = mode
    world.client.forward("c2", Forward(world.key, 16, 0, None, 1))
    world.wait(3)
    assert len(world.comets["c2"].forwards) == 1
    assert world.comets["c1"].forwards == world.comets["c3"].forwards == []


@pytest.mark.parametrize("mode", ["silent", "down"])
def test_while_a_comet_does_not_answer_another_one_may_pass_its_forwards_on(mode: str) -> None:
    world = World()
    world.comets["c2"].mode, world.comets["c2"].reaches = mode, False
    first, second, last = (Forward(world.key, 16 * number, 0, b"1", 1) for number in (1, 2, 3))
    world.client.forward("c2", first, "c1")
    world.wait(1.5)
    assert world.comets["c3"].forwards == [first]
    world.client.forward("c2", second, "c1")
    world.client.forward("c2", last._replace(hops=0), "c1")
    world.wait(0)
    assert world.comets["c3"].forwards == [first, second]
    world.wait(3)
    world.comets["c2"].mode, world.comets["c2"].reaches = "up", True
    world.wait(3)
    world.client.forward("c2", last, "c1")
    world.wait(0)
    assert world.comets["c2"].forwards[-1] == last
    assert world.comets["c3"].forwards == [first, second]
    assert world.comets["c1"].forwards == []


def test_where_no_other_comet_answers_a_forward_goes_to_the_one_that_is_named() -> None:
    world = World(2)
    world.comets["c2"].mode = "down"
    for mid in (16, 32):
        world.client.forward("c2", Forward(world.key, mid, 0, b"1", 1), "c1")
        world.wait(1.5)
    assert len(world.comets["c2"].forwards) == 2
    assert world.comets["c1"].forwards == []


def test_a_forward_to_a_comet_that_is_gone_is_no_trouble() -> None:
    World().client.forward("c9", Forward("k", 16, 0, None, 1))


def test_a_comet_that_could_not_be_reached_is_called_again_when_it_answers() -> None:
    """That the log has grown: it reads the rest. One forward for a key is enough."""
    world = World()
    comet = world.comets["c2"]
    comet.mode, comet.reaches = "down", False
    for mid in (16, 32):
        world.client.forward("c2", Forward(world.key, mid, mid - 16, b"1", 1))
    world.client.forward("c2", Forward("other", 16, 0, b"2", 1))
    world.wait(5)
    reported = len(comet.forwards)
    comet.mode, comet.reaches = "up", True
    world.wait(3)
    assert comet.forwards[reported:] == [Forward(world.key, 32, 16, None, 1), Forward("other", 16, 0, None, 1)]
    world.wait(5)
    assert len(comet.forwards) == reported + 2


def test_what_is_kept_for_a_comet_is_bounded_and_goes_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gopush.routing.comets.MOST_KEYS", 5)
    world = World()
    comet = world.comets["c2"]
    comet.mode, comet.reaches = "down", False
    for number in range(20):
        world.client.forward("c2", Forward(f"k{number}", 16, 0, None, 1))
    world.wait(2)
    view = world.coordination.view
    reported = len(comet.forwards)
    comet.mode, comet.reaches = "up", True
    world.wait(3)
    assert len(comet.forwards) == reported + 5
    comet.mode, comet.reaches = "down", False
    world.client.forward("c2", Forward("k", 16, 0, None, 1))
    world.wait(1)
    world.coordination.adopt(View([info for info in view.comets if info.id != "c2"]))
    world.wait(3)
    assert not world.clock.getDelayedCalls()


# --- closing ---


def test_closing_asks_every_comet_and_adds_up() -> None:
    """Its subscribers may still be where the key was."""
    world = World()
    answer = result(world.client.close(world.key))
    world.wait()
    assert answer == [1 + 2 + 3]
    assert all(comet.closed == [world.key] for comet in world.comets.values())


def test_closing_does_not_wait_for_who_does_not_answer() -> None:
    world = World()
    world.comets["c1"].mode, world.comets["c2"].mode = "silent", "down"
    answer = result(world.client.close(world.key))
    world.wait(1.1)
    assert answer == [3]


def test_closing_without_any_comet() -> None:
    assert result(World(0).client.close("k")) == [0]


def test_stopping_fails_what_waits() -> None:
    world = World()
    world.comets["c1"].mode = "silent"
    answer = world.push()
    world.wait()
    world.client.stop()
    assert answer == [Pushed(RET_NO_NODE, 0)]
    assert all(comet.stopped for comet in world.comets.values())


# --- presence ---


def there(world: World, keys: list[str], seconds: float = 0) -> dict[str, Presence | None]:
    found: list[dict[str, Presence | None]] = []
    world.client.presence(keys).addCallback(found.append)
    world.wait(seconds)
    (answer,) = found
    return answer


def test_each_owner_is_asked_once_for_its_keys() -> None:
    world = World()
    keys = [f"key-{number}" for number in range(300)]
    found = there(world, keys)
    assert list(found) == keys
    for name, comet in world.comets.items():
        own = [key for key in keys if world.owner(key) == name]
        assert own
        assert comet.asked == [own]
        assert [found[key] for key in own] == [Presence(comet.number, 5, (("tcp", comet.number),))] * len(own)


def test_a_comet_is_asked_for_a_thousand_keys_at_once() -> None:
    """Its subscribers wait while it looks."""
    world = World(1)
    keys = [f"key-{number}" for number in range(2500)]
    assert list(there(world, keys)) == keys
    assert [len(asked) for asked in world.comets["c1"].asked] == [1000, 1000, 500]


def test_an_owner_that_does_not_answer_leaves_its_keys_unknown_and_no_others() -> None:
    world = World()
    world.comets["c1"].mode = "silent"
    keys = [world.key, next(f"key-{i}" for i in range(1000) if world.owner(f"key-{i}") == "c2")]
    assert there(world, keys, 3) == {keys[0]: None, keys[1]: Presence(2, 5, (("tcp", 2),))}


def test_a_comet_of_an_older_release_only_counts() -> None:
    """While a cluster is upgraded."""
    world = World()
    world.comets["c1"].older = True
    assert there(world, [world.key]) == {world.key: Presence(1)}


def test_without_an_owner_nothing_is_known() -> None:
    world = World(0)
    assert there(world, ["k"]) == {"k": None}
