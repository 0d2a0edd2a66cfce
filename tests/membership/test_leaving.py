"""How long a process that leaves waits for a ZooKeeper that hangs, and for others that still call; and what is said of
a ZooKeeper that stays away.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from gopush.membership.node import LEAVE_SECONDS, until_quiet
from gopush.membership.znodes import Registered, Seen
from gopush.membership.zookeeper import PATIENCE_SECONDS, ZooKeeperCoordination
from gopush.model import NodeInfo
from gopush.rpc.settings import ZooKeeperSettings
from tests.fixtures import Logged

COMET = NodeInfo("node1", 0, ("a:6970",), ("a:6969",))
KEEPER = NodeInfo("a:6970", 0, ("a:6970",), stores=(("one", 1),))


class Worker:
    """Its jobs end when the test says so."""

    def __init__(self) -> None:
        self.jobs: list[Deferred[Any]] = []

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def run(self, job: Callable[..., Any], *args: Any) -> Deferred[Any]:
        self.jobs.append(Deferred())
        return self.jobs[-1]


class Equal:
    """A comet and message node, registered."""

    def __init__(self) -> None:
        self.clock: Any = Clock()
        settings = ZooKeeperSettings(("localhost:2181",))
        self.coordination = cast(Any, ZooKeeperCoordination(self.clock, settings))
        self.worker = Worker()
        self.coordination._worker = self.worker
        self.coordination.start()
        self.coordination.register_comet(COMET)
        self.coordination.register_message(KEEPER)
        self.coordination._state_changed(True)
        self.answer(COMET, KEEPER)

    def answer(self, *infos: NodeInfo) -> None:
        """ZooKeeper answers the refresh under way."""
        mine = [Registered(info.node, info.node == COMET.node, info, 1, 1) for info in infos]
        self.worker.jobs[-1].callback(Seen(mine, mine))

    def took(self, act: Callable[[], Deferred[Any]]) -> float:
        """After how many seconds what is begun here fires."""
        began, fired = self.clock.seconds(), list[float]()
        act().addCallback(lambda _: fired.append(self.clock.seconds() - began))
        for _ in range(100):
            if fired:
                return fired[0]
            self.clock.advance(0.1)
        raise AssertionError

    def drain(self, info: NodeInfo) -> float:
        return self.took(lambda: self.coordination.announce(info._replace(draining=True), "draining"))


def test_a_zookeeper_that_hangs_is_waited_for_once(logged: Logged) -> None:
    equal = Equal()
    equal.coordination.leaving = True
    assert equal.drain(COMET) == pytest.approx(PATIENCE_SECONDS, abs=0.3)
    assert equal.drain(KEEPER) == 0
    assert equal.took(equal.coordination.stop) < 0.5
    assert len(logged.lines("does not answer; it will notice by itself")) == 1


def test_who_only_drains_is_not_said_to_have_left(logged: Logged) -> None:
    Equal().drain(COMET)
    assert logged.lines("does not answer; this takes effect once it does")
    assert not logged.lines("by itself")


def test_a_standby_that_lets_the_active_process_register_first_leaves_at_once(logged: Logged) -> None:
    """ZooKeeper answers: it is this process that waits."""
    equal = Equal()
    mine = [Registered("", True, COMET._replace(sequence=1), 1, 2), Registered("", False, KEEPER, 1, 2)]
    active = [Registered("", True, COMET._replace(rpc=("b:6970",)), 2, 1)]
    equal.coordination._refresh()
    equal.worker.jobs[-1].callback(Seen([*active, *mine], mine))
    for up in (False, True):
        equal.coordination._state_changed(up)
    equal.worker.jobs[-1].callback(Seen([*active, mine[1]], [mine[1]]))
    assert equal.drain(COMET) == 0
    assert not logged.lines("does not answer")


def test_what_was_announced_to_a_zookeeper_that_hung_is_there_once_it_answers() -> None:
    equal = Equal()
    equal.drain(COMET)
    equal.drain(KEEPER)
    equal.answer(COMET, KEEPER)
    equal.answer(COMET._replace(draining=True), KEEPER._replace(draining=True))
    assert [info.draining for info in equal.coordination.view.messages] == [True]
    assert equal.drain(KEEPER) == pytest.approx(PATIENCE_SECONDS, abs=0.3)


def test_others_that_call_on_and_on_are_waited_for_once(logged: Logged) -> None:
    """However many times a process looks whether they have ended, and however late they heard of it."""
    equal = Equal()

    async def leave() -> None:
        equal.clock.advance(PATIENCE_SECONDS)
        for _ in range(2):
            await until_quiet(lambda: True, 1.0, 0.0, equal.clock)

    assert equal.took(lambda: Deferred.fromCoroutine(leave())) == pytest.approx(LEAVE_SECONDS + 1.0, abs=0.3)
    assert len(logged.lines("other nodes still call")) == 2


def test_nobody_who_calls_no_more_is_said_to_call(logged: Logged) -> None:
    """Also where only the least is left of the time."""
    equal = Equal()
    equal.clock.advance(LEAVE_SECONDS)
    assert equal.took(
        lambda: Deferred.fromCoroutine(until_quiet(lambda: False, 1.0, 0.0, equal.clock))
    ) == pytest.approx(1.0, abs=0.3)
    assert not logged.lines()


def test_why_a_zookeeper_that_was_lost_stays_away_is_said(logged: Logged) -> None:
    """Also where the reason changes: it was stopped, and is back with a wrong certificate."""
    coordination, clock = (equal := Equal()).coordination, equal.clock
    coordination._state_changed(False)
    coordination._session._connector.wrong = "localhost:2181: Connection refused"
    for _ in range(9):
        clock.advance(1)
    coordination._session._connector.wrong = "localhost:2181: certificate has expired"
    for _ in range(9):
        clock.advance(1)
    name = "ZooKeeper at localhost:2181"
    assert logged.lines() == [
        f"{name} lost; going on with the last view",
        f"{name} cannot be reached (localhost:2181: Connection refused); trying again",
        f"{name} cannot be reached (localhost:2181: certificate has expired); trying again",
    ]
    coordination._session._connector.wrong = ""
    coordination._state_changed(True)
    for _ in range(12):
        clock.advance(1)
    equal.answer(COMET, KEEPER)
    assert coordination.connected
    assert len(logged.lines()) == 3
