"""A message node as a process of the cluster: its listener, its place in the view, its way out."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred

from gopush.daemon.listeners import advertised
from gopush.daemon.service import DaemonService, make_service
from gopush.daemon.start import DaemonOptions, end_where_it_fails, give_up
from gopush.membership.node import LocalNode, Together, until_quiet
from gopush.membership.reachability import LoginProbe, Reachability
from gopush.membership.view import Coordination, check_registered
from gopush.message.registration import StoreRegistration
from gopush.message.service import StoreService
from gopush.message.settings import MessageSettings, open_store
from gopush.message.store import StoreNumbers
from gopush.model import NodeInfo
from gopush.routing.stat import show as show_view
from gopush.rpc.codec import MESSAGE_CALLS
from gopush.rpc.logins import Logins
from gopush.rpc.remote import RemoteMessage, RemoteNode
from gopush.rpc.server import call_port
from gopush.stats.resource import Health, Statistics

LINGER_SECONDS = 1.0


class MessageNode(MultiService):
    """All of a message process."""

    def __init__(self, reactor: Any, settings: MessageSettings, coordination: Coordination) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reactor = reactor
        self._coordination = coordination
        store = open_store(settings, reactor)
        rpc = advertised("rpc", settings.rpc_bind, settings.rpc_advertise)
        self.info = NodeInfo(node=rpc[0], sequence=0, rpc=rpc, weight=settings.weight, stores=store.shards)
        self.log_name = self.info.node
        self._message = StoreService(
            store, reactor, attempt=settings.rpc.attempt_timeout, timeout=settings.rpc.call_timeout
        )
        self._node = LocalNode(reactor, coordination, self.info)
        self._node.defend(settings.rpc, partial(give_up, reactor))
        service = Together(self._node, self._message)
        port = call_port(reactor, service, MESSAGE_CALLS, settings.rpc, settings.rpc_bind, self.info.rpc)
        port.setServiceParent(self)  # type: ignore[no-untyped-call]

        self._registration = StoreRegistration(
            reactor, coordination, self._node, self._message, partial(give_up, reactor)
        )
        itself = RemoteMessage(reactor, self.info, settings.rpc)
        logins = Logins(reactor, self.info.id)
        probe = LoginProbe(
            coordination, self.info.id, lambda info: RemoteNode(reactor, info, settings.rpc, logins=logins)
        )
        self._reachability = Reachability(
            reactor, itself, self._node.own_identity, settings.rpc.call_timeout, coordination, logins, probe
        )
        health = Health(reactor, lambda: Deferred.fromCoroutine(self._check()))
        self.statistics = Statistics(settings)
        show(self._message, self.statistics)
        show_view(coordination, reactor, self.statistics)
        self.statistics.port(reactor, settings.stat_bind, health).setServiceParent(self)  # type: ignore[no-untyped-call]

    def startService(self) -> None:
        """Open the store and listen, then tell the others."""
        super().startService()  # type: ignore[no-untyped-call]
        end_where_it_fails(Deferred.fromCoroutine(self._register()), self._reactor)

    def stopService(self) -> Deferred[None]:
        """Tell the others, serve on until nobody calls any more, and only then stop."""
        return Deferred.fromCoroutine(self._leave())

    async def _register(self) -> None:
        await self._message.start()
        self._coordination.start()
        await self._registration.register()
        self._reachability.start()

    async def _leave(self) -> None:
        since = self._reactor.seconds()
        self._registration.stop()
        await self._node.leave()
        await until_quiet(lambda: self._message.under_way > 0, LINGER_SECONDS, since, self._reactor)
        self._reachability.stop()
        await super().stopService()  # type: ignore[no-untyped-call]
        await self._message.stop()
        await self._coordination.stop()

    async def _check(self) -> None:
        check_registered(self._coordination, self.info.id, "this message node")
        self._reachability.check()
        await self._message.ping()


def show(message: StoreService, statistics: Statistics) -> None:
    """Add a message node's numbers to the statistics of its process."""
    stores, metrics = message.stores, statistics.metrics
    statistics.add(
        {
            "log": lambda _: _log(message),
            "store": lambda _: {name: _store(numbers) for name, numbers in stores.items()},
        }
    )
    metrics.counters("message", message.counters)
    metrics.gauge("message_calls", "calls that have no answer yet", lambda: message.under_way)
    metrics.histogram(
        "message_batch_messages", "messages in one batch for the store", message.sizes, was="message_append_batch"
    )
    metrics.counters("message_store", {name: numbers.counters for name, numbers in stores.items()}, "store")
    metrics.gauges(
        "message_store_skew_seconds",
        "by how much the store's clock is ahead of this process's",
        "store",
        lambda: {name: numbers.skew for name, numbers in stores.items()},
    )
    metrics.histograms(
        "message_store_seconds",
        "how long the store takes for a call",
        ("store", "call"),
        {(name, call): took for name, numbers in stores.items() for call, took in numbers.seconds.items()},
    )


def _log(message: StoreService) -> dict[str, Any]:
    return dataclasses.asdict(message.counters) | {"under_way": message.under_way, "batch": message.sizes.shown()}


def _store(numbers: StoreNumbers) -> dict[str, Any]:
    seconds = {call: took.shown() for call, took in numbers.seconds.items()}
    return dataclasses.asdict(numbers.counters) | {"seconds": seconds}


class Options(DaemonOptions):
    """Of `twistd message`; see DaemonOptions."""

    role = MessageSettings


def make_node(reactor: Any, settings: MessageSettings) -> MessageNode:
    """Make the node, and start nothing. Raises SettingsError or StartError where that is impossible."""
    from gopush.membership.zookeeper import coordinate  # embedded/ needs this module, but perhaps no ZooKeeper

    return MessageNode(reactor, settings, coordinate(reactor, settings.zookeeper, rings=False))


def makeService(options: Options) -> DaemonService:
    """What twistd runs."""
    from twisted.internet import reactor  # by now twistd has chosen which

    return make_service(reactor, options, make_node)
