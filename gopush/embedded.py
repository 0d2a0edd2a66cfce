"""All three roles in one process: the same services, called directly where a cluster has Perspective Broker."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from gopush.comet.housekeeping import Housekeeping
from gopush.comet.node import ClientPorts, offered
from gopush.comet.node import show as show_comet
from gopush.comet.service import Comet
from gopush.comet.settings import SubscriberSettings
from gopush.config.schema import option
from gopush.config.values import text
from gopush.daemon.listeners import DaemonOptions, give_up, start_errors, steady
from gopush.daemon.logs import LogSettings
from gopush.daemon.service import DaemonService, collector
from gopush.errors import StartError
from gopush.membership.node import LocalNode
from gopush.membership.view import StaticCoordination
from gopush.message.node import show as show_message
from gopush.message.service import StoreService
from gopush.message.settings import MessageSettings, open_store, store_type
from gopush.message.sqlite.settings import SqliteSettings
from gopush.message.store import StoreSettings
from gopush.model import NodeInfo
from gopush.net.limits import Shared
from gopush.routing.comets import CometPeer, Comets
from gopush.routing.messages import MessagePeer, Messages
from gopush.routing.stat import show as show_view
from gopush.routing.stat import show_batchers
from gopush.rpc.settings import RpcSettings
from gopush.stats.resource import Health, Statistics
from gopush.web import pages
from gopush.web.node import HttpPorts
from gopush.web.node import show as show_web
from gopush.web.service import Web
from gopush.web.settings import HttpSettings


@dataclass(frozen=True)
class EmbeddedSettings:
    """All of etc/gopush.ini: those options of a cluster that still have a meaning."""

    user: str = option(
        "base", "user", "", text, "the user that the process becomes when root starts it; empty: stay root"
    )
    subscribers: SubscriberSettings = field(default_factory=SubscriberSettings)
    http: HttpSettings = field(default_factory=HttpSettings)
    storage: str = option("storage", "type", "sqlite", store_type(alone=True), "the store: sqlite or memory")
    store: StoreSettings = field(default_factory=StoreSettings)
    sqlite: SqliteSettings = field(default_factory=SqliteSettings)
    log: LogSettings = field(default_factory=LogSettings)


NAME = "embedded"


class EmbeddedNode(MultiService):
    """A whole gopush."""

    def __init__(self, reactor: Any, settings: EmbeddedSettings) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reactor = reactor
        self._coordination = StaticCoordination()
        subscribers, rpc = settings.subscribers, RpcSettings()
        store = open_store(
            MessageSettings(storage=settings.storage, store=settings.store, sqlite=settings.sqlite), reactor
        )
        self._message = StoreService(store, reactor)
        self._messages = Messages(reactor, self._coordination, lambda _: cast(MessagePeer, _Here(message)), rpc)
        self._comets = Comets(reactor, self._coordination, lambda _: cast(CometPeer, _Here(comet)), rpc)
        self._comet = Comet(reactor, self._coordination, self._messages, self._comets, subscribers, NAME)
        self._housekeeping = Housekeeping(reactor, self._comet, self._coordination)
        self._info = NodeInfo(
            node=NAME,
            sequence=0,
            rpc=(NAME,),
            tcp=offered(subscribers, "tcp"),
            ws=offered(subscribers, "websocket"),
        )
        demo = pages.demo(int(self._info.ws[0].rpartition(":")[2])) if self._info.ws else None
        web = Web(
            reactor, self._coordination, self._messages, self._comets, settings.http, rpc.push_deadline, pages=demo
        )
        message = LocalNode(reactor, self._coordination, self._info, self._message)
        comet = LocalNode(reactor, self._coordination, self._info, self._comet, self._comet.load)
        health = Health(reactor, self._messages.ping)
        self.statistics = Statistics(settings)
        show_comet(self._comet, self.statistics)
        show_message(self._message, self.statistics)
        show_web(web, self.statistics)
        show_view(self._coordination, reactor, self.statistics)
        show_batchers(self.statistics, messages=self._messages.batchers, comets=self._comets.batchers)
        shared = Shared()
        ports = (
            ClientPorts(reactor, self._comet, subscribers, shared, web.origins.own),
            self.statistics.port(reactor, subscribers.stat_bind, health, http=web.public, admin=web.admin),
            HttpPorts(reactor, web, settings.http, shared),
        )
        for port in ports:
            port.setServiceParent(self)  # type: ignore[no-untyped-call]

    def startService(self) -> None:
        """Open the store, then take part in the cluster of one."""
        super().startService()  # type: ignore[no-untyped-call]
        self._housekeeping.start()
        Deferred.fromCoroutine(self._register()).addErrback(self._failed)

    def stopService(self) -> Deferred[None]:
        """Answer what is under way, then close the store."""
        return Deferred.fromCoroutine(self._stop())

    async def _register(self) -> None:
        opened = Deferred.fromCoroutine(self._message.start())
        # The ports are open already, so who calls now is to wait for the store, not to be turned away.
        await self._coordination.register_message(self._info)
        await self._coordination.register_comet(self._info)
        await opened

    async def _stop(self) -> None:
        await super().stopService()  # type: ignore[no-untyped-call]
        self._housekeeping.stop()
        self._comets.stop()
        self._messages.stop()
        await self._message.stop()

    def _failed(self, failure: Failure) -> None:
        failure.trap(StartError)  # type: ignore[no-untyped-call]
        give_up(self._reactor, StartError(failure.getErrorMessage()))


class _Here:
    """A service of this process in the place of a connection to another one: letting go of it does not stop it."""

    def __init__(self, service: object) -> None:
        self._service = service

    def __getattr__(self, name: str) -> Any:
        return getattr(self._service, name)

    def stop(self) -> None:
        """See Peers."""


class Options(DaemonOptions):
    """Of `twistd gopush`; see DaemonOptions."""

    role = EmbeddedSettings


def make_node(reactor: Any, settings: EmbeddedSettings) -> EmbeddedNode:
    """What does the work; nothing of it is started. Raises SettingsError or StartError where it could not be."""
    return EmbeddedNode(reactor, settings)


def makeService(options: Options) -> DaemonService:
    """What twistd runs."""
    from twisted.internet import reactor as process_reactor  # by now twistd has chosen which

    reactor = steady(process_reactor)
    with start_errors():
        node = make_node(reactor, options.settings)
    collector.freeze()
    return DaemonService(reactor, options, node, NAME)
