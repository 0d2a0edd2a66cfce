"""Where web nodes of other processes subscribe (web/feed.py), if the port of TCP clients does not suit them.

It speaks the protocol of that port, but only to processes: over TLS where calls between them use TLS ([rpc] tls.ca),
and without the limits for an address.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from gopush.comet.feed import KIND
from gopush.comet.service import Comet
from gopush.comet.settings import SubscriberSettings
from gopush.comet.tcp import TcpFactory, TcpSubscriber
from gopush.daemon.listeners import Listeners, advertised, beside
from gopush.errors import SettingsError
from gopush.net.clock import Clock
from gopush.rpc.server import within_tls
from gopush.rpc.settings import RpcSettings

PLAIN = ("tcp", "tcp6", "systemd")
"""Kinds of endpoints where a client's request comes first, without TLS or a balancer's header before it."""


class Called(NamedTuple):
    """Where and how other processes call this one. `address`: "host:port", as they know it."""

    bind: Sequence[str]
    address: str
    rpc: RpcSettings


class _WebSubscriber(TcpSubscriber):
    """Of a web node, for a client there."""

    kind = KIND


class _FeedFactory(TcpFactory):
    subscriber = _WebSubscriber


class FeedPort(Listeners):
    """The listeners; raises SettingsError for what cannot be one."""

    def __init__(self, reactor: Any, clock: Clock, comet: Comet, settings: SubscriberSettings, called: Called) -> None:
        for endpoint in settings.feed_bind:
            if endpoint.partition(":")[0] not in PLAIN:
                raise SettingsError(
                    f"[base] feed.bind: {endpoint}: write tcp:; [rpc] tls.ca, tls.cert and tls.key have it within TLS"
                )
        self._advertise = advertised("feed", settings.feed_bind, settings.feed_advertise)
        self._host = called.address.rpartition(":")[0]
        factory = within_tls(_FeedFactory(comet, clock), called.rpc, clock)
        factory.unlimited = True  # a web node has as many connections as it has clients
        bind = settings.feed_bind or beside(called.bind)
        super().__init__(reactor, "[base] feed.bind", bind, factory)

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses for web nodes, once it listens."""
        return self._advertise or tuple(f"{self._host}:{port.getHost().port}" for port in self.ports)


def wanted(settings: SubscriberSettings) -> bool:
    """Whether web nodes need a port of their own: the settings name one, or they cannot use that of TCP clients."""
    return bool(
        settings.feed_bind
        or "tcp" not in settings.proto
        or any(endpoint.partition(":")[0] not in PLAIN for endpoint in settings.tcp_bind)
        or settings.connections.most_of_address
    )
