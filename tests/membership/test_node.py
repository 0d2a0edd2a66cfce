"""A process that is administered while it runs: what the others see of it."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

import gopush
from gopush.errors import UnavailableError
from gopush.membership.node import ANNOUNCE_SECONDS, LocalNode, Together
from gopush.membership.view import StaticCoordination
from gopush.model import Head, NodeInfo
from gopush.reports import Load, Status
from gopush.rpc.remote import RemoteComet, RemoteMessage, RemoteNode
from gopush.rpc.settings import RpcSettings
from tests.comet.harness import result
from tests.conftest import InReactor, reactor
from tests.fixtures import Logged
from tests.rpc.serving import serve_both, serve_comet, serve_message

COMET = NodeInfo("node1", 0, ("c:1",))


class Service:
    def ping(self) -> Deferred[None]:
        return succeed(None)


@pytest.fixture
def coordination() -> StaticCoordination:
    coordination = StaticCoordination()
    coordination.register_comet(COMET)
    return coordination


def test_a_new_weight_and_draining_are_announced(coordination: StaticCoordination) -> None:
    local = LocalNode(Clock(), coordination, COMET)
    assert result(local.set_weight(5)) == [None]
    assert result(local.drain(True)) == [None]
    assert coordination.view.comets == (COMET._replace(weight=5, draining=True),)
    local.drain(False)
    assert coordination.view.comets == (COMET._replace(weight=5),)


def test_the_weight_that_an_operator_wrote_is_named_as_the_one_before(
    coordination: StaticCoordination, logged: Logged
) -> None:
    coordination.announce(COMET._replace(weight=7), "weight")
    local = LocalNode(Clock(), coordination, COMET)
    assert result(local.set_weight(1)) == [None]
    assert [event["act"] for event in logged.events if "act" in event] == ["sets the weight from 7 to 1"]


def test_without_zookeeper_it_is_said_when_a_change_takes_effect(coordination: StaticCoordination) -> None:
    coordination.connected = False
    local = LocalNode(Clock(), coordination, COMET)
    for (refused,) in (result(local.set_weight(5)), result(local.drain(True))):
        assert isinstance(refused, UnavailableError)
        assert str(refused) == "ZooKeeper is away: this takes effect once it is back"
    assert local.info == COMET._replace(weight=5, draining=True)


@pytest.mark.parametrize("weight", [0, 1001, -1])
def test_a_weight_that_no_ring_can_have_is_refused(coordination: StaticCoordination, weight: int) -> None:
    local = LocalNode(Clock(), coordination, COMET)
    assert isinstance(result(local.set_weight(weight))[0], UnavailableError)
    assert coordination.view.comets == (COMET,)


def test_who_leaves_drains_and_keeps_its_weight(coordination: StaticCoordination) -> None:
    """protocol.md, section 7: `"draining":true` is added while a process is about to end."""
    local = LocalNode(Clock(), coordination, COMET)
    local.set_weight(5)
    local.leave()
    assert coordination.view.comets == (COMET._replace(weight=5, draining=True),)
    assert coordination.leaving


def test_who_leaves_is_not_taken_back(coordination: StaticCoordination, logged: Logged) -> None:
    """It would have keys again, and closes its ports."""
    local = LocalNode(Clock(), coordination, COMET)
    local.leave()
    for (refused,) in (result(local.drain(False)), result(local.set_weight(5))):
        assert isinstance(refused, UnavailableError)
        assert str(refused) == "this process is about to end"
    assert coordination.view.comets == (COMET._replace(draining=True),)
    assert not logged.lines("an administrator")


def test_a_coordinator_that_hangs_keeps_no_caller_waiting() -> None:
    clock = Clock()
    coordination = StaticCoordination()
    coordination.announce = lambda info, *_: Deferred()  # type: ignore[method-assign]
    reported = result(LocalNode(clock, coordination, COMET).drain(True))
    assert reported == []
    clock.advance(ANNOUNCE_SECONDS)
    assert reported == [None]


def test_the_status_tells_version_age_and_load(coordination: StaticCoordination) -> None:
    clock = Clock()
    comet = LocalNode(clock, coordination, COMET, lambda: Load(3, 2, 7))
    message = LocalNode(clock, coordination, COMET)
    clock.advance(12.5)
    assert result(comet.status()) == [Status(gopush.__version__, 12, 3, 2, 7)]
    assert result(message.status()) == [Status(gopush.__version__, 12, None, None)]


@pytest.mark.parametrize(
    ("serve", "remote"),
    [
        (serve_comet, RemoteComet),
        (serve_message, RemoteMessage),
        (serve_comet, RemoteNode),
        (serve_message, RemoteNode),
    ],
)
def test_processes_are_administered_from_others(in_reactor: InReactor, serve: object, remote: object) -> None:
    """Over a real connection; the service's own calls pass through."""
    coordination = StaticCoordination()
    in_reactor(coordination.register_comet, COMET)
    local = in_reactor(LocalNode, reactor, coordination, COMET, lambda: Load(3, 2, 7))
    port = in_reactor(reactor.listenTCP, 0, serve(reactor, Together(local, Service()), "secret"), interface="127.0.0.1")  # type: ignore[operator]
    info = NodeInfo("", 0, (f"127.0.0.1:{port.getHost().port}",))
    caller = in_reactor(remote, reactor, info, RpcSettings(secret="secret"), 10)
    try:
        in_reactor(caller.ping)
        assert in_reactor(caller.status) == Status(gopush.__version__, 0, 3, 2, 7)
        in_reactor(caller.set_weight, 9)
        in_reactor(caller.drain, True)
        assert coordination.view.comets == (COMET._replace(weight=9, draining=True),)
    finally:
        in_reactor(caller.stop)
        in_reactor(port.stopListening)


KEEPER = COMET._replace(node="c:1")


class Both:
    """A process that is a comet and a message node; what it announces is noted in `announced`."""

    def __init__(self, clock: Clock) -> None:
        self.coordination = StaticCoordination()
        self.coordination.register_message(KEEPER)
        self.coordination.register_comet(COMET)
        self.announced: list[NodeInfo] = []
        announce = self.coordination.announce

        def note(info: NodeInfo, *changed: str) -> Deferred[None]:
            self.announced.append(info)
            return announce(info, *changed)

        self.coordination.announce = note  # type: ignore[method-assign]
        self.comet = LocalNode(clock, self.coordination, COMET, lambda: Load(3, 2, 7))
        self.message = LocalNode(clock, self.coordination, KEEPER, lambda: Load(3, 2, 7))
        self.comet.beside(self.message)


class CometCalls(Service):
    def subscribers(self, keys: list[str]) -> Deferred[list[int]]:
        return succeed([len(keys)])


class MessageCalls:
    def ping(self) -> Deferred[None]:
        return fail(UnavailableError("no store"))

    def heads(self, keys: list[str]) -> Deferred[list[Head]]:
        return succeed([Head(16, 0) for _ in keys])


@pytest.mark.parametrize("asked", ["comet", "message"])
def test_who_is_a_comet_and_a_message_node_drains_as_both_the_comet_first(asked: str) -> None:
    both = Both(Clock())
    node = getattr(both, asked)
    assert result(node.drain(True)) == [None]
    assert both.announced == [COMET._replace(draining=True), KEEPER._replace(draining=True)]
    assert result(node.set_weight(3)) == [None]
    assert both.coordination.view.comets == (COMET._replace(draining=True, weight=3),)
    assert both.coordination.view.messages == (KEEPER._replace(draining=True, weight=3),)
    assert result(both.comet.identity()) == result(both.message.identity())


def test_of_calls_that_meet_while_the_coordinator_hangs_the_last_one_holds() -> None:
    """For both roles: the first one's second half comes after it, and must not undo it."""
    both = Both(Clock())
    note, hanging = both.coordination.announce, Deferred[None]()
    both.coordination.announce = lambda info, *changed: note(info, *changed) and hanging  # type: ignore[method-assign]
    both.comet.drain(True)
    both.coordination.announce = note  # type: ignore[method-assign]
    both.message.tell_store("abc")
    assert result(both.comet.drain(False)) == [None]
    hanging.callback(None)
    assert both.coordination.view.comets == (COMET,)
    assert both.coordination.view.messages == (KEEPER._replace(store="abc"),)


def test_it_leaves_as_a_comet_before_it_does_as_a_message_node() -> None:
    both = Both(Clock())
    both.comet.leave()
    assert [info.draining for info in (*both.coordination.view.comets, *both.coordination.view.messages)] == [
        True,
        False,
    ]
    both.message.tell_store("abc")
    both.message.leave()
    assert both.coordination.view.messages == (KEEPER._replace(draining=True, store="abc"),)
    assert both.coordination.view.comets == (COMET._replace(draining=True),)


def test_callers_of_either_find_both_at_one_address(in_reactor: InReactor) -> None:
    """A ping tells whether the store answers: that is what message nodes are pinged for, and enough for comets."""
    both = in_reactor(Both, reactor)
    served = serve_both(reactor, Together(both.message, MessageCalls(), both.comet, CometCalls()), "secret")
    port = in_reactor(reactor.listenTCP, 0, served, interface="127.0.0.1")
    info = NodeInfo("", 0, (f"127.0.0.1:{port.getHost().port}",))
    comet, message = (
        in_reactor(remote, reactor, info, RpcSettings(secret="secret"), 10) for remote in (RemoteComet, RemoteMessage)
    )
    try:
        assert in_reactor(comet.subscribers, ["a", "b"]) == [2]
        assert in_reactor(message.heads, ["a"]) == [Head(16, 0)]
        assert in_reactor(comet.status) == in_reactor(message.status) == Status(gopush.__version__, 0, 3, 2, 7)
        assert in_reactor(comet.identity) == in_reactor(message.identity)
        for caller in (comet, message):
            with pytest.raises(UnavailableError, match="no store"):
                in_reactor(caller.ping)
        in_reactor(message.drain, True)
        assert [info.draining for info in both.announced] == [True, True]
    finally:
        in_reactor(comet.stop)
        in_reactor(message.stop)
        in_reactor(port.stopListening)
