"""A comet as a process of the cluster: its listeners, its place in the view, its way out."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from gopush.comet.counters import SSE
from gopush.comet.feed_server import FeedServer
from gopush.comet.housekeeping import Housekeeping
from gopush.comet.moves import MOVE_SECONDS
from gopush.comet.service import Comet
from gopush.comet.settings import CometSettings, SubscriberSettings
from gopush.comet.tcp import TcpFactory
from gopush.daemon.listeners import Listeners, advertised
from gopush.daemon.service import DaemonService, make_service
from gopush.daemon.start import DaemonOptions, end_where_it_fails, give_up
from gopush.membership.node import LocalNode, Together, until_quiet
from gopush.membership.reachability import Reachability
from gopush.membership.view import Coordination, check_registered
from gopush.model import NodeInfo
from gopush.net import limits
from gopush.net.eager import EagerReactor
from gopush.net.http.request import Request
from gopush.net.limits import ConnectionLimiter, Shared, raise_file_limit
from gopush.routing.comets import Comets
from gopush.routing.messages import Messages
from gopush.routing.stat import show as show_view
from gopush.routing.stat import show_batchers
from gopush.rpc.codec import COMET_CALLS
from gopush.rpc.logins import Logins
from gopush.rpc.remote import RemoteComet, RemoteMessage
from gopush.rpc.server import call_port
from gopush.stats.resource import Health, Statistics
from gopush.stats.summary import PeriodicSummary

SUMMARIZED = {
    "slow_closed": "subscribers closed because they did not read what was sent ([channel] msgbuf)",
    "deaf_closed": "subscribers closed because they did not read what they resumed with",
    "overflows": "channels closed because too much waited while the store could not be read ([channel] msgbuf)",
    "overruns": "channels closed because messages came faster than they could be sent to everybody ([channel] msgbuf)",
    "errors": "errors caught, each of one subscriber or channel; the log has the traceback of one",
    "refused_limit": "subscribers refused because their key has all its connections ([channel] maxsubscriber)",
    "accept_waits": "times new clients had to wait to subscribe ([connections] max and rate, or open files: ulimit -n)",
    **limits.SUMMARIZED,
}

log = Logger()


class ClientPorts(MultiService):
    """Where clients connect; equal nodes have them too. `own_origins`: of pages that this process has itself."""

    def __init__(
        self,
        reactor: Any,
        comet: Comet,
        settings: SubscriberSettings,
        shared: Shared | None = None,
        own_origins: Collection[str] = (),
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        eager = EagerReactor(
            reactor, ConnectionLimiter(reactor, settings.connections, raise_file_limit(), comet.counters, shared)
        )
        if "tcp" in settings.proto:
            tcp = Listeners(eager, "[base] tcp.bind", settings.tcp_bind, TcpFactory(comet))
            tcp.setServiceParent(self)  # type: ignore[no-untyped-call]
        if "websocket" in settings.proto:
            # autobahn chooses its framework when it is imported, and only processes that need it wait for that.
            from gopush.comet.websocket import SubscriberFactory

            factory = SubscriberFactory(comet, own_origins)
            Listeners(eager, "[base] websocket.bind", settings.websocket_bind, factory).setServiceParent(self)  # type: ignore[no-untyped-call]
        PeriodicSummary(reactor, comet.counters, SUMMARIZED).setServiceParent(self)  # type: ignore[no-untyped-call]


class CometNode(MultiService):
    """All of a comet process."""

    def __init__(self, reactor: Any, settings: CometSettings, coordination: Coordination) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reactor = reactor
        self.log_name = settings.node
        self._coordination = coordination
        self._info = NodeInfo(
            node=settings.node,
            sequence=0,
            rpc=advertised("rpc", settings.rpc_bind, settings.rpc_advertise),
            tcp=offered(settings, "tcp"),
            ws=offered(settings, "websocket"),
            weight=settings.weight,
        )
        rpc, logins = settings.rpc, Logins(reactor, self._info.id)
        self._messages = Messages(
            reactor, coordination, lambda info: RemoteMessage(reactor, info, rpc, logins=logins), rpc
        )
        self._comets = Comets(reactor, coordination, lambda info: RemoteComet(reactor, info, rpc, logins=logins), rpc)
        self.comet = Comet(reactor, coordination, self._messages, self._comets, settings, self._info.id)
        self._housekeeping = Housekeeping(self.comet, coordination, settings.zookeeper.session_timeout)
        self._node = LocalNode(reactor, coordination, self._info, self.comet.load)
        self._node.defend(rpc, partial(give_up, reactor))
        itself = RemoteComet(reactor, self._info, rpc)
        self._reachability = Reachability(
            reactor, itself, self._node.own_identity, rpc.call_timeout, coordination, logins
        )
        self._housekeeping.reachability = self._reachability
        health = Health(reactor, lambda: Deferred.fromCoroutine(self._check()))
        self.statistics = Statistics(settings)
        show(self.comet, self.statistics)
        show_view(coordination, reactor, self.statistics)
        show_batchers(self.statistics, messages=self._messages.numbers, comets=self._comets.numbers)
        service = Together(self._node, self.comet, FeedServer(self.comet))
        for port in (
            ClientPorts(reactor, self.comet, settings),
            self.statistics.port(reactor, settings.stat_bind, health),
            call_port(reactor, service, COMET_CALLS, rpc, settings.rpc_bind, self._info.rpc),
        ):
            port.setServiceParent(self)  # type: ignore[no-untyped-call]

    def startService(self) -> None:
        """Listen, then tell the others."""
        super().startService()  # type: ignore[no-untyped-call]
        self._housekeeping.start()
        self._coordination.start()
        end_where_it_fails(self._coordination.register_comet(self._info), self._reactor)
        self._reachability.start()

    def stopService(self) -> Deferred[None]:
        """Leave the ring, move the subscribers, answer until nobody calls any more, and only then stop listening."""
        return Deferred.fromCoroutine(self._leave())

    async def _leave(self) -> None:
        since = self._reactor.seconds()
        log.info("leaving: {count} subscribers move", count=self.comet.subscribed)
        self._housekeeping.leaving = True
        await self._node.leave()
        self._housekeeping.move_all()
        await until_quiet(lambda: self._messages.busy or self._comets.busy, MOVE_SECONDS, since, self._reactor)
        self._housekeeping.stop()
        self._reachability.stop()
        await super().stopService()  # type: ignore[no-untyped-call]
        self._comets.stop()
        self._messages.stop()
        await self._coordination.stop()

    async def _check(self) -> None:
        check_registered(self._coordination, self._info.id, "this comet")
        self._reachability.check()
        await self._messages.ping()


def offered(settings: SubscriberSettings, proto: str) -> tuple[str, ...]:
    """The addresses ("host:port") of look-ups for clients of `proto`: tcp or websocket. None where that is off."""
    return advertised(proto, *settings.clients.get(proto, ((), ())))


def show(comet: Comet, statistics: Statistics) -> None:
    """Add a comet's numbers to the statistics of its process."""
    statistics.add(
        {
            "channel": lambda request: _channel(comet, request),
            "message": lambda _: _message(comet),
            "connection": lambda _: _connection(comet),
        }
    )
    counters, metrics = comet.counters, statistics.metrics
    metrics.counters("comet", counters)
    metrics.gauges(
        "comet_open_connections",
        f"connections of clients now; {SSE}",
        "transport",
        counters.open_connections,
        was="comet_connections",
    )
    metrics.gauge("comet_channels", "keys that have subscribers now", lambda: len(comet.channels))
    metrics.gauge(
        "comet_waiting_messages",
        "messages that wait for a read of the log or for a round of delivery now",
        lambda: sum(channel.waiting_messages for channel in comet.channels.values()),
    )


def _channel(comet: Comet, request: Request) -> dict[str, Any]:
    key = request.query.get("key")
    if key is not None:
        return {"channel": {"conn": len(comet.sessions(key))}}
    counters = comet.counters
    return {
        "access": counters.channels_accessed,
        "create": counters.channels_created,
        "delete": counters.channels_deleted,
        "current": len(comet.channels),
    }


def _message(comet: Comet) -> dict[str, Any]:
    counters = comet.counters
    succeed, failed = counters.messages_succeeded, counters.messages_failed
    return {"succeed": succeed, "failed": failed, "total": succeed + failed}


def _connection(comet: Comet) -> dict[str, Any]:
    counters = comet.counters
    added, removed = counters.connections_added, counters.connections_removed
    return {"add": added, "remove": removed, "current": added - removed}


class Options(DaemonOptions):
    """Of `twistd comet`; see DaemonOptions."""

    role = CometSettings


def make_node(reactor: Any, settings: CometSettings) -> CometNode:
    """Make the node, and start nothing. Raises SettingsError or StartError where that is impossible."""
    from gopush.membership.zookeeper import coordinate  # embedded/ needs this module, but perhaps no ZooKeeper

    return CometNode(reactor, settings, coordinate(reactor, settings.zookeeper))


def makeService(options: Options) -> DaemonService:
    """What twistd runs."""
    from twisted.internet import reactor  # by now twistd has chosen which

    return make_service(reactor, options, make_node)
