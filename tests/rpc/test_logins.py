"""Whether others let a process in: who is the wrong one, and what a process that calls nobody does to know."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from gopush.errors import UnavailableError
from gopush.membership.reachability import CHECK_SECONDS, LoginProbe, Reachability
from gopush.membership.view import StaticCoordination, View
from gopush.model import NodeInfo
from gopush.rpc.logins import Logins
from tests.fixtures import Logged, lines_logged

OWN = NodeInfo("own", 0, ("own:1",))


class Caller:
    """Of the process at this address."""

    def __init__(self, name: str) -> None:
        self.info = NodeInfo(name, 0, (f"{name}:1",))
        self.connected = False
        self.stopped = False
        self.answers = "this one"

    def identity(self) -> Deferred[str]:
        return succeed(self.answers) if self.answers else fail(UnavailableError("refused"))

    def stop(self) -> None:
        self.stopped = True


def refused(logins: Logins, *names: str) -> list[Caller]:
    callers = [Caller(name) for name in names]
    for caller in callers:
        logins.refused(caller, "it gives the wrong secret")
    return callers


def test_who_is_refused_by_all_is_wrong_and_who_is_let_in_by_one_is_not() -> None:
    logins = Logins(Clock(), OWN.id)
    assert logins.refusal(()) is None
    first, second = refused(logins, "a", "b")
    reason = logins.refusal(())
    assert reason is not None
    assert reason.endswith("refuse its login: a:1: it gives the wrong secret, b:1: it gives the wrong secret")
    logins.admitted(first)
    assert logins.refusal(()) is None
    logins.forget(first)  # nobody is there any more
    assert logins.refusal(()) is None
    assert logins.refusal({second.info.id}) is not None


def test_a_stranger_does_not_put_out_a_cluster_of_one() -> None:
    """Two connections to one process are one process; those to itself say nothing."""
    logins = Logins(Clock(), OWN.id)
    refused(logins, "stranger", "stranger")
    itself = Caller("own")
    logins.admitted(itself)
    assert logins.refusal(()) is None
    assert logins.refusal({"stranger:1"}) is not None


def test_only_a_few_are_named() -> None:
    logins = Logins(Clock(), OWN.id)
    refused(logins, *map(str, range(100)))
    reason = logins.refusal(())
    assert reason is not None
    assert reason.endswith(", and 97 more")


def test_it_reaches_nobody_where_all_others_were_tried_and_none_is_reached() -> None:
    logins = Logins(Clock(), OWN.id)
    a, again, b = Caller("a"), Caller("a"), Caller("b")
    others = {a.info.id, b.info.id}
    assert logins.isolation(()) is None
    logins.unreached(a, "no answer")
    assert logins.isolation(others) is None  # b was not tried yet
    assert logins.isolation({a.info.id}) is None  # the only other one may be dead
    logins.unreached(b, "no route")
    assert logins.isolation(others) == "a:1: no answer, b:1: no route"
    assert logins.isolation(others | {"c:1"}) is None
    logins.admitted(again)  # another connection to a
    assert logins.isolation(others) is None
    logins.unreached(a, "no answer")  # the other one is idle, and has not noticed
    assert logins.isolation(others) is not None
    logins.refused(b, "it gives the wrong secret")  # but is there
    assert logins.isolation(others) is None
    logins.unreached(b, "no route")
    logins.unreached(again, "no route")
    logins.forget(a)  # a connection that nobody needs any more
    assert logins.isolation(others) == "a:1: no route, b:1: no route"
    logins.forget(again)
    assert logins.isolation(others) is None
    assert logins.refusal(()) is None


class World:
    """A process at OWN, its view, and what it would connect to."""

    def __init__(self, probing: bool = False) -> None:
        self.clock = Clock()
        self.coordination = StaticCoordination()
        self.logins = Logins(self.clock, OWN.id)
        self.callers: list[Caller] = []
        self.probe = LoginProbe(self.coordination, OWN.id, self._connect) if probing else None
        self.itself = Caller("own")
        itself: Any = self.itself
        self.reachability = Reachability(
            self.clock, itself, "this one", 1.0, self.coordination, self.logins, self.probe
        )
        self.reachability.start()

    def _connect(self, info: NodeInfo) -> Any:
        self.callers.append(Caller(info.node))
        return self.callers[-1]

    def see(self, *names: str) -> None:
        self.coordination.adopt(View([Caller(name).info for name in names], [OWN]))

    def wait(self, checks: int = 2) -> None:
        for _ in range(checks):
            self.clock.advance(CHECK_SECONDS)


def test_it_is_not_ready_once_that_lasts_and_says_so_once(logged: Logged) -> None:
    world = World()
    world.see("a")
    (caller,) = refused(world.logins, "a")
    world.wait(1)
    world.reachability.check()
    world.wait(10)
    with pytest.raises(UnavailableError, match="a:1: it gives the wrong secret"):
        world.reachability.check()
    assert world.reachability.lost
    assert len(logged.lines("all other processes that this one reaches refuse its login")) == 1
    world.logins.admitted(caller)
    world.wait(1)
    world.reachability.check()
    assert not world.reachability.lost


def test_who_reaches_nobody_says_so_once_and_stays_ready() -> None:
    world = World()
    world.see("a", "b")
    callers = [Caller("a"), Caller("b")]
    with lines_logged(lambda line: "this process reaches" in line) as lines:
        for caller in callers:
            world.logins.unreached(caller, "no answer")
        world.wait(1)
        world.logins.admitted(callers[0])  # a moment is no matter
        world.wait(1)
        assert lines == []
        for begun in (1, 3):
            world.logins.unreached(callers[0], "no answer")
            world.wait(5)
            assert len(lines) == begun
            assert lines[-1].startswith("this process reaches none of the others (")
            assert lines[-1].endswith("): a:1: no answer, b:1: no answer")
            world.reachability.check()
            world.logins.admitted(callers[0])
            world.wait(3)
            assert len(lines) == begun + 1
            assert lines[-1].startswith("this process reaches others again")


def test_a_newcomer_cannot_put_out_who_was_there() -> None:
    world = World()
    world.see()
    world.see("late")
    refused(world.logins, "late")
    world.wait(3)
    world.reachability.check()


@pytest.mark.parametrize(("answers", "who"), [("", "nobody"), ("another", "another process")])
def test_it_is_not_ready_while_it_does_not_answer_where_it_says(logged: Logged, answers: str, who: str) -> None:
    world = World()
    world.itself.answers = answers
    world.wait(1)
    world.reachability.check()
    world.wait(10)
    said = f"{who} answers at the address that this process advertises, own:1"
    with pytest.raises(UnavailableError, match=f"^{said}$"):
        world.reachability.check()
    assert world.reachability.lost
    assert len(logged.lines(said)) == 1
    world.itself.answers = "this one"
    world.wait(1)
    world.reachability.check()
    assert not world.reachability.lost


def test_a_process_that_calls_nobody_tries_one_after_the_other() -> None:
    world = World(probing=True)
    world.see("a", "b", "c")
    world.wait(2)
    assert [caller.info.node for caller in world.callers] == ["a", "b"]
    world.callers[1].connected = True
    world.wait(3)
    assert [caller.stopped for caller in world.callers] == [True, False]
    world.see("c")
    world.wait(1)
    assert [caller.stopped for caller in world.callers] == [True, True, False]
    world.reachability.stop()
    assert world.callers[2].stopped
