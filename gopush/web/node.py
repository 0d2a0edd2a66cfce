"""A web node as a process of the cluster, and the HTTP ports that equal nodes have too."""

from __future__ import annotations

import dataclasses
from socket import gethostname
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, gatherResults

from gopush.daemon.listeners import Listeners
from gopush.daemon.service import DaemonService, make_service
from gopush.daemon.start import DaemonOptions
from gopush.membership.view import Coordination, View
from gopush.net import limits
from gopush.net.clock import cancel
from gopush.net.eager import EagerReactor
from gopush.net.exposure import refuse_open_admin
from gopush.net.limits import ConnectionLimiter, Shared, raise_file_limit
from gopush.routing.comets import Comets
from gopush.routing.messages import Messages
from gopush.routing.stat import show as show_view
from gopush.routing.stat import show_batchers
from gopush.rpc.client import caller_tls
from gopush.rpc.logins import Logins
from gopush.rpc.remote import RemoteComet, RemoteMessage
from gopush.stats.resource import Statistics
from gopush.stats.summary import PeriodicSummary
from gopush.web.feed_client import remote_feed
from gopush.web.service import Web
from gopush.web.settings import HttpSettings, WebSettings

PATIENCE_SECONDS = 2.0
"""How long clients wait for the first view of the cluster; then they hear that there is none."""

SUMMARIZED = {
    "wrong_keys": "calls refused with a wrong API key",
    "outside_scope": "calls refused because their API key is for other calls, or for keys of another prefix",
    "limited_keys": "calls and pushes refused because their API key had used up its limit",
    "limited_pushes": "pushes refused because their key had used up its pushes for the second ([push] key.rate)",
    "foreign_origins": "calls refused from pages of other web sites",
    "proxied_calls": "calls refused because a proxy passed them to the admin port, which has no keys ([admin] keys)",
    "foreign_hosts": "calls refused because Host held a name that the admin port does not have ([admin] hosts)",
    "accept_waits": "times new clients had to wait to call ([connections] max and rate, or open files: ulimit -n)",
    **limits.SUMMARIZED,
}


class HttpPorts(MultiService):
    """Where clients look up and fetch, and where services push, once the cluster is known: till then all would be
    refused."""

    def __init__(
        self,
        reactor: Any,
        web: Web,
        settings: HttpSettings,
        coordination: Coordination,
        shared: Shared | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reactor = reactor
        self._coordination = coordination
        self._patience: Any = None
        refuse_open_admin(settings.admin_bind, settings.api_keys)
        limiter = ConnectionLimiter(reactor, settings.connections, raise_file_limit(), web.counters, shared)
        self._web = web
        web.room = lambda: limiter.files_left
        self._public = Listeners(EagerReactor(reactor, limiter), "[base] http.bind", settings.http_bind, web.public)
        admin = EagerReactor(reactor, proxies=lambda: settings.connections.proxies)
        self._admin = Listeners(admin, "[base] admin.bind", settings.admin_bind, web.admin)
        for service in (self._public, self._admin, PeriodicSummary(reactor, web.counters, SUMMARIZED)):
            service.setServiceParent(self)  # type: ignore[no-untyped-call]

    def startService(self) -> None:
        """Listen, and let the admin port's own pages in; clients wait until there is a view."""
        super().startService()  # type: ignore[no-untyped-call]
        self._public.hold()
        self._admin.hold()
        self._patience = self._reactor.callLater(PATIENCE_SECONDS, self._admit)
        self._coordination.watch(self._found)
        for port in self._admin.ports:
            address = port.getHost()
            if hasattr(address, "port"):
                self._web.guard.add(address.host, address.port)

    def _found(self, _: View) -> None:
        if self._patience.active():
            self._patience.cancel()
            self._admit()

    def _admit(self) -> None:
        self._public.admit()
        self._admin.admit()

    def stopService(self) -> Deferred[None]:
        """Stop listening, answer what was asked, and close."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        cancel(self._patience)
        await super().stopService()  # type: ignore[no-untyped-call]
        self._web.leave()
        await gatherResults([self._web.public.stop(), self._web.admin.stop()])


class WebNode(MultiService):
    """All of a web process."""

    def __init__(self, reactor: Any, settings: WebSettings, coordination: Coordination) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        rpc = settings.rpc
        self.log_name = settings.node or gethostname()
        caller_tls(rpc)  # report now what is wrong with its files
        self._coordination = coordination
        logins = Logins(reactor)
        self._messages = Messages(
            reactor, coordination, lambda info: RemoteMessage(reactor, info, rpc, logins=logins), rpc
        )
        self._comets = Comets(reactor, coordination, lambda info: RemoteComet(reactor, info, rpc, logins=logins), rpc)
        self._feed = remote_feed(reactor, coordination, rpc, logins)
        web = Web(
            reactor,
            coordination,
            self._messages,
            self._comets,
            settings,
            rpc.push_deadline,
            stat_bind=settings.stat_bind,
            feeds=(self._feed,),
        )
        HttpPorts(reactor, web, settings, coordination).setServiceParent(self)  # type: ignore[no-untyped-call]
        self.statistics = Statistics(settings)
        show(web, self.statistics)
        show_view(coordination, reactor, self.statistics)
        show_batchers(self.statistics, messages=self._messages.numbers, comets=self._comets.numbers)
        port = self.statistics.port(reactor, settings.stat_bind, web.health, http=web.public, admin=web.admin)
        port.setServiceParent(self)  # type: ignore[no-untyped-call]

    def startService(self) -> None:
        """Serve, and look for the cluster."""
        super().startService()  # type: ignore[no-untyped-call]
        self._coordination.start()

    def stopService(self) -> Deferred[None]:
        """Answer what is under way, then let go of the cluster."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await super().stopService()  # type: ignore[no-untyped-call]
        self._feed.stop()
        self._comets.stop()
        self._messages.stop()
        await self._coordination.stop()


def show(web: Web, statistics: Statistics) -> None:
    """Add a web node's numbers to the statistics of its process."""
    statistics.add({"push": lambda _: _push(web), "request": lambda _: _request(web)})
    counters, metrics = web.counters, statistics.metrics
    metrics.counters("web", counters)
    metrics.gauge("web_open_streams", "event streams now", lambda: counters.streams_opened - counters.streams_closed)
    metrics.gauge(
        "web_waiting_polls", "offline reads that wait now", lambda: counters.polls_opened - counters.polls_closed
    )
    metrics.gauge(
        "web_without_comet",
        "event streams and waiting reads now that no comet serves: web reads the log for them",
        lambda: web.log_reader.unserved,
    )
    metrics.histogram("web_push_seconds", "how long pushes took until their answer", web.latency)


def _push(web: Web) -> dict[str, Any]:
    counters = web.counters
    return {"ret": counters.pushes, "limited": counters.limited_pushes, "seconds": web.latency.shown()}


def _request(web: Web) -> dict[str, Any]:
    counted = dataclasses.asdict(web.counters)
    return {name: number for name, number in counted.items() if isinstance(number, int)}


class Options(DaemonOptions):
    """Of `twistd gopush-web`; see DaemonOptions."""

    role = WebSettings


def make_node(reactor: Any, settings: WebSettings) -> WebNode:
    """Make the node, and start nothing. Raises SettingsError or StartError where that is impossible."""
    from gopush.membership.zookeeper import coordinate  # embedded/ needs this module, but perhaps no ZooKeeper

    return WebNode(reactor, settings, coordinate(reactor, settings.zookeeper))


def makeService(options: Options) -> DaemonService:
    """What twistd runs."""
    from twisted.internet import reactor  # by now twistd has chosen which

    return make_service(reactor, options, make_node)
