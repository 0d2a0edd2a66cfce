"""All of gopush in one process: the same services as those of the roles, called directly where these use RPC.

Alone it is a cluster of one; with a ZooKeeper it is a member of a cluster of equals, and registers as a comet and as a
message node at one address.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from gopush.comet.feed import LocalFeed
from gopush.comet.feed_server import FeedServer
from gopush.comet.housekeeping import Housekeeping
from gopush.comet.moves import MOVE_SECONDS
from gopush.comet.node import ClientPorts, offered
from gopush.comet.node import show as show_comet
from gopush.comet.service import Comet
from gopush.daemon.listeners import advertised
from gopush.daemon.service import DaemonService, make_service
from gopush.daemon.start import DaemonOptions, end_where_it_fails, give_up
from gopush.embedded.settings import EmbeddedSettings, default_name
from gopush.membership.node import LocalNode, Together, until_quiet
from gopush.membership.reachability import Reachability
from gopush.membership.view import Coordination, StaticCoordination, check_registered
from gopush.message.node import LINGER_SECONDS
from gopush.message.node import show as show_message
from gopush.message.registration import StoreRegistration
from gopush.message.service import StoreService
from gopush.message.settings import open_store
from gopush.model import NodeInfo
from gopush.net.limits import Shared
from gopush.routing.comets import CometPeer, Comets
from gopush.routing.messages import MessagePeer, Messages
from gopush.routing.peer import Here
from gopush.routing.stat import show as show_view
from gopush.routing.stat import show_batchers
from gopush.rpc.codec import COMET_CALLS, MESSAGE_CALLS
from gopush.rpc.logins import Logins
from gopush.rpc.remote import RemoteComet, RemoteMessage
from gopush.rpc.server import call_port
from gopush.stats.resource import Health, Statistics
from gopush.web.feed_client import remote_feed
from gopush.web.node import HttpPorts
from gopush.web.node import show as show_web
from gopush.web.service import Web

NAME = "embedded"
"""Of a process that nobody calls."""

log = Logger()


class EmbeddedNode(MultiService):
    """A whole gopush. `coordination`: of a cluster of one where it is not given."""

    def __init__(self, reactor: Any, settings: EmbeddedSettings, coordination: Coordination | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reactor = reactor
        self._coordination = coordination = coordination or StaticCoordination()
        subscribers, rpc = settings.subscribers, settings.rpc
        store = open_store(settings, reactor)
        address = advertised("rpc", settings.called_at, settings.rpc_advertise) if settings.called_at else (NAME,)
        self.log_name = settings.node or default_name(address[0])
        info = NodeInfo(
            node=self.log_name,
            sequence=0,
            rpc=address,
            tcp=offered(subscribers, "tcp"),
            ws=offered(subscribers, "websocket"),
            weight=settings.weight,
        )
        self._id = info.id
        logins = self._logins = Logins(reactor, info.id)

        def to_message(other: NodeInfo) -> MessagePeer:
            if other.id == info.id:
                return Here(Together(self._message_node, self._message))
            return RemoteMessage(reactor, other, rpc, logins=logins)

        def to_comet(other: NodeInfo) -> CometPeer:
            if other.id == info.id:
                return Here(Together(self._comet_node, self._comet))
            return RemoteComet(reactor, other, rpc, logins=logins)

        self._message = StoreService(store, reactor, attempt=rpc.attempt_timeout, timeout=rpc.call_timeout)
        self._messages = Messages(reactor, coordination, to_message, rpc, own=info.id)
        self._comets = Comets(reactor, coordination, to_comet, rpc, own=info.id)
        self._comet = Comet(reactor, coordination, self._messages, self._comets, subscribers, info.id)
        self._housekeeping = Housekeeping(self._comet, coordination, settings.zookeeper.session_timeout)
        self._comet_node = LocalNode(reactor, coordination, info, self._comet.load)
        keeper = info._replace(node=info.id, stores=store.shards)
        self._message_node = LocalNode(reactor, coordination, keeper, self._comet.load)
        self._comet_node.beside(self._message_node)
        self._registration = StoreRegistration(
            reactor, coordination, self._message_node, self._message, partial(give_up, reactor)
        )
        self._remote_feed = remote_feed(reactor, coordination, rpc, logins)
        health = Health(reactor, lambda: Deferred.fromCoroutine(self._check()))
        self._web = Web(
            reactor,
            coordination,
            self._messages,
            self._comets,
            settings.http,
            rpc.push_deadline,
            stat_bind=subscribers.stat_bind,
            feeds=(LocalFeed(self._comet), self._remote_feed),
            health=health,
        )
        self.statistics = Statistics(settings)
        self._show_numbers()
        self._http = self._open_ports(settings, health)
        self._reachability: Reachability | None = None
        if settings.called_at:
            self._let_others_call(settings, info)

    def _show_numbers(self) -> None:
        statistics = self.statistics
        show_comet(self._comet, statistics)
        show_message(self._message, statistics)
        show_web(self._web, statistics)
        show_view(self._coordination, self._reactor, statistics)
        show_batchers(statistics, messages=self._messages.numbers, comets=self._comets.numbers)

    def _open_ports(self, settings: EmbeddedSettings, health: Health) -> HttpPorts:
        """The ports for clients, services and statistics; gives those of HTTP, which close first."""
        reactor, subscribers, web, shared = self._reactor, settings.subscribers, self._web, Shared()
        http = HttpPorts(reactor, web, settings.http, self._coordination, shared)
        for port in (
            ClientPorts(reactor, self._comet, subscribers, shared, web.guard.own),
            self.statistics.port(reactor, subscribers.stat_bind, health, http=web.public, admin=web.admin),
            http,
        ):
            port.setServiceParent(self)  # type: ignore[no-untyped-call]
        return http

    def _let_others_call(self, settings: EmbeddedSettings, info: NodeInfo) -> None:
        reactor, rpc = self._reactor, settings.rpc
        # The message node answers what both have: a ping asks whether this process reaches the store.
        both = Together(self._message_node, self._message, self._comet_node, self._comet, FeedServer(self._comet))
        port = call_port(reactor, both, {**MESSAGE_CALLS, **COMET_CALLS}, rpc, settings.rpc_bind, info.rpc)
        port.setServiceParent(self)  # type: ignore[no-untyped-call]
        self._comet_node.defend(rpc, partial(give_up, reactor))
        itself = RemoteComet(reactor, info, rpc)
        self._reachability = Reachability(
            reactor, itself, self._comet_node.own_identity, rpc.call_timeout, self._coordination, self._logins
        )
        self._housekeeping.reachability = self._reachability

    def startService(self) -> None:
        """Listen, open the store, then take part in the cluster."""
        super().startService()  # type: ignore[no-untyped-call]
        self._housekeeping.start()
        self._coordination.start()
        end_where_it_fails(Deferred.fromCoroutine(self._register()), self._reactor)

    def stopService(self) -> Deferred[None]:
        """Hand over to the others, answer what is under way, then close the store."""
        return Deferred.fromCoroutine(self._stop())

    async def _register(self) -> None:
        opened = Deferred.fromCoroutine(self._message.start())
        if self._reachability is not None:
            await opened  # whose data are there must be known before others, or this comet, use it
        # Else the ports are open already, and calls must wait for the store, not fail.
        await self._registration.register()
        await self._coordination.register_comet(self._comet_node.info)
        await opened
        if self._reachability is not None:
            self._reachability.start()

    async def _stop(self) -> None:
        self._registration.stop()
        if self._reachability is not None:  # also where it is the last one: web nodes call it, and are in no view
            await self._hand_over()
            self._reachability.stop()
        await super().stopService()  # type: ignore[no-untyped-call]
        self._housekeeping.stop()
        self._remote_feed.stop()
        self._comets.stop()
        self._messages.stop()
        await self._message.stop()
        await self._coordination.stop()

    async def _hand_over(self) -> None:
        """First the subscribers, while what came in by HTTP is answered, then what other comets have stored here."""
        since = self._reactor.seconds()
        log.info("leaving: {count} subscribers move", count=self._comet.subscribed)
        self._housekeeping.leaving = True
        closed = self._http.disownServiceParent()  # type: ignore[no-untyped-call]
        await self._comet_node.leave()
        self._housekeeping.move_all()
        await until_quiet(lambda: self._messages.busy or self._comets.busy, MOVE_SECONDS, since, self._reactor)
        await closed
        await self._message_node.leave()
        await until_quiet(lambda: self._message.under_way > 0, LINGER_SECONDS, since, self._reactor)

    async def _check(self) -> None:
        check_registered(self._coordination, self._id)
        if self._reachability is not None:
            self._reachability.check()
        await self._messages.ping()
        await self._comets.ping()


class Options(DaemonOptions):
    """Of `twistd gopush`; see DaemonOptions."""

    role = EmbeddedSettings


def make_node(reactor: Any, settings: EmbeddedSettings) -> EmbeddedNode:
    """Make the node, and start nothing. Raises SettingsError or StartError where that is impossible."""
    if not settings.zookeeper.hosts:
        return EmbeddedNode(reactor, settings)
    from gopush.membership.zookeeper import coordinate  # a process that is alone needs no ZooKeeper

    return EmbeddedNode(reactor, settings, coordinate(reactor, settings.zookeeper))


def makeService(options: Options) -> DaemonService:
    """What twistd runs."""
    from twisted.internet import reactor  # by now twistd has chosen which

    return make_service(reactor, options, make_node)
