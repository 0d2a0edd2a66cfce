"""A comet behind real sockets."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from itertools import count
from typing import Any, cast

from twisted.internet import threads
from twisted.internet.defer import Deferred

from gopush.comet.housekeeping import Housekeeping
from gopush.comet.node import show
from gopush.comet.service import Comet
from gopush.comet.settings import SubscriberSettings
from gopush.comet.tcp import TcpFactory
from gopush.comet.websocket import SubscriberFactory
from gopush.errors import RET_INTERNAL
from gopush.membership.view import StaticCoordination
from gopush.message.memory import MemoryStore
from gopush.message.store import StoreSettings
from gopush.model import NodeInfo, Push, Pushed, Token
from gopush.net.clock import Clock
from gopush.net.eager import EagerReactor
from gopush.net.http.site import Site
from gopush.routing.comets import Comets
from gopush.routing.messages import MessagePeer, Messages
from gopush.rpc.settings import RpcSettings
from gopush.stats.resource import Statistics
from tests.conftest import reactor
from tests.leaping import LeapingClock

FOREIGN_NODE = NodeInfo("node2", 0, ("elsewhere:1",))


class CometServer:
    """A comet on a memory store; all methods are called from the test's thread. `foreign`: another comet owns keys."""

    owner: Callable[[str], Any]

    def __init__(self, settings: SubscriberSettings, store: StoreSettings, foreign: bool = False) -> None:
        self.settings = settings
        self.clock = LeapingClock()
        self._ids = count()
        in_reactor(self._start, store, foreign)

    def push(self, key: str, body: bytes, expire: int = 600) -> int:
        """Push a message; its mid."""
        push = Push(key, body, expire, f"push-{next(self._ids)}", 8, time.time() + 20)
        pushed = in_reactor(self._push, push)
        assert pushed.ret == 0
        return int(pushed.mid)

    def _push(self, push: Push) -> Deferred[Pushed]:
        answer: Deferred[Pushed] = Deferred()
        self._comets.push([push], lambda _, pushed: answer.callback(*pushed))
        return answer

    def fail_push(self, key: str) -> None:
        """Push a message too late: it is not stored."""
        push = Push(key, b"1", 600, "", 8, time.time() - 1)
        (pushed,) = in_reactor(self.comet.push, [push])
        assert pushed.ret == RET_INTERNAL

    def create_token(self, key: str, token: str) -> None:
        digest = hashlib.sha256(token.encode()).digest()
        in_reactor(self._messages.create_token, key, Token(digest, int(time.time()) + 600))

    def leap(self, seconds: float) -> None:
        """Let time pass for the deadlines of connections; it does not by itself."""
        self.clock.now += seconds

    def subscribers(self, key: str) -> int:
        channel = self.comet.channels.get(key)
        return 0 if channel is None else channel.subscribers

    def sessions(self, key: str) -> list[Any]:
        return in_reactor(lambda: list(self.comet.channels[key].live))  # type: ignore[no-any-return]

    def stop(self) -> None:
        in_reactor(self._stop)

    def _start(self, store_settings: StoreSettings, foreign: bool) -> None:
        clock: Clock = self.clock
        store = MemoryStore(store_settings)
        coordination = StaticCoordination()
        services: list[Any] = []
        self._messages = Messages(clock, coordination, lambda _: cast(MessagePeer, store), RpcSettings())
        self._comets = Comets(clock, coordination, lambda _: services[0], RpcSettings())
        self.comet = Comet(clock, coordination, self._messages, self._comets, self.settings, "here:1")
        services.append(_Service(self.comet))
        coordination.register_message(NodeInfo("", 0, ("message:1",)))
        coordination.register_comet(NodeInfo("node1", 0, ("here:1",)))
        if foreign:
            coordination.register_comet(FOREIGN_NODE)
        self.owner = coordination.view.owner
        self._housekeeping = Housekeeping(self.comet, coordination, 30.0)
        self._housekeeping.start()
        eager = EagerReactor(reactor)
        statistics = Statistics(self.settings)
        show(self.comet, statistics)
        self._listening: list[Any] = [
            eager.listenTCP(0, factory, interface="127.0.0.1")
            for factory in (
                TcpFactory(self.comet),
                SubscriberFactory(self.comet),
                Site(statistics.routes(), reactor, 10),
            )
        ]
        self.tcp, self.websocket, self.stat = (port.getHost().port for port in self._listening)

    def _stop(self) -> None:
        for port in self._listening:
            port.stopListening()
        for slot in self.comet.wheel._slots:
            for session in list(slot):
                session.abort()
        self._housekeeping.stop()
        self._comets.stop()
        self._messages.stop()


class _Service:
    """The comet as its callers hold it: with something to let go."""

    def __init__(self, comet: Comet) -> None:
        self._comet = comet

    def stop(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._comet, name)


def in_reactor(function: Callable[..., Any], *args: Any) -> Any:
    return threads.blockingCallFromThread(reactor, function, *args)
