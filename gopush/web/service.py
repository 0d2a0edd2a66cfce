"""The two HTTP interfaces of a web node, put together."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import random

from gopush.auth import signed_tokens
from gopush.feed import Feed
from gopush.membership.view import Coordination
from gopush.net.clock import Clock
from gopush.net.http.routes import Routes
from gopush.net.http.site import Site
from gopush.routing.comets import Comets
from gopush.routing.messages import Messages
from gopush.stats.resource import Health
from gopush.web import openapi
from gopush.web import pages as own_pages
from gopush.web.access import AdminGuard, Sharing, guarded
from gopush.web.bulk import Bulk
from gopush.web.counters import WebCounters
from gopush.web.follower import Followers
from gopush.web.history import Offline
from gopush.web.keys import ApiKeys, locked
from gopush.web.log_reader import LogReader
from gopush.web.lookup import Lookup
from gopush.web.nodes import Cluster, Insight
from gopush.web.polling import Polls
from gopush.web.presence import PresenceApi
from gopush.web.publisher import Publisher
from gopush.web.push import PushApi
from gopush.web.settings import HttpSettings
from gopush.web.streams import EventStreams
from gopush.web.tokens import Tokens


class Web:
    """A web node: `public` and `admin` are the factories to listen with.

    `push_deadline`: seconds that a push may take. Whoever opens a listener for `admin` adds it to `guard`.
    """

    def __init__(
        self,
        clock: Clock,
        coordination: Coordination,
        messages: Messages,
        comets: Comets,
        settings: HttpSettings,
        push_deadline: float,
        now: Callable[[], float] = time.time,
        stat_bind: Sequence[str] = (),
        feeds: Sequence[Feed] = (),
        health: Health | None = None,
    ) -> None:
        """`stat_bind`: where this process shows its statistics, for the pages. `feeds`: where streams and waiting reads
        subscribe. `health`: of the process, where it is more than a web node.
        """
        self.counters = WebCounters()
        self.keys = ApiKeys(Path(settings.api_keys), clock.seconds) if settings.api_keys else None
        self.guard = AdminGuard(settings, self.keys is not None, self.counters)
        self.publisher = publisher = Publisher(comets, settings, push_deadline, now, clock, self.counters)
        self.health = health or Health(clock, comets.ping)
        self.latency = publisher.latency
        self.log_reader = LogReader(clock, messages, self.counters)
        followers = Followers(clock, coordination, feeds, self.log_reader, random)
        self.room: Callable[[], bool] = lambda: True
        """Whether there are files for one more subscription; whoever opens listeners knows."""
        self.streams = EventStreams(followers, messages, self.counters, lambda: self.room())
        self.polls = Polls(followers, messages, self.counters, lambda: self.room())
        signed = signed_tokens(settings.tokens)
        public = {
            **Lookup(coordination, now, self.counters).routes(),
            **Offline(messages, settings, self.counters, signed, self.polls).routes(),
            **self.streams.routes(),
        }
        admin = {
            **PushApi(messages, comets, publisher, settings).routes(),
            **Bulk(publisher, settings, self.keys).routes(),
            **Tokens(messages, settings, now).routes(),
            **Cluster(coordination, comets, messages).routes(),
            **PresenceApi(coordination, comets, now, settings.multi_body).routes(),
            **Insight(coordination, messages, comets, self.counters, self.latency).routes(),
        }
        self.public = self._public(public, clock, settings)
        self.admin = self._admin(admin, clock, settings, stat_bind)

    def _public(self, calls: Routes, clock: Clock, settings: HttpSettings) -> Site:
        """What devices and pages call, some of any web site."""
        sharing = Sharing(settings.connections, self.counters, self.guard.own)
        routes = {**calls, **self.health.routes(), **own_pages.client(), **openapi.routes()}
        return Site(guarded(routes, sharing.refuse), clock, settings.idle, sharing=sharing)

    def _admin(self, calls: Routes, clock: Clock, settings: HttpSettings, stat_bind: Sequence[str]) -> Site:
        """What needs an API key where there are any, and the pages, which do not."""
        ports = own_pages.Ports(settings.http_bind, stat_bind, settings.public_urls)
        unlocked = {
            **own_pages.admin(ports),
            **own_pages.demo(ports),
            **own_pages.client(),
            **self.health.routes(),
        }
        calls = {**openapi.routes(), **calls}
        refuse = self.guard.refuse
        calls = locked(calls, self.keys, refuse, self.counters) if self.keys else guarded(calls, refuse)
        return Site({**calls, **guarded(unlocked, refuse)}, clock, settings.idle, sharing=self.guard)

    def leave(self) -> None:
        """End what goes on for long: streams, and reads that wait for messages."""
        self.streams.stop()
        self.polls.stop()
