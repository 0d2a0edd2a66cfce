"""Connections of a web node to comets of other processes: a few at a time to each, and a line in the log where it gets
none.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

from twisted.logger import Logger

from gopush.net.eager import EagerReactor
from gopush.net.tls import ClientTls

CONNECT_SECONDS = 3.0
MOST_CONNECTING = 32
"""Connections that are being made to one comet at a time: in a storm its accept queue has no room for more."""
FAILURES_LOGGED = 3
"""So many failures in a row are worth a line: one may be a comet that has just died."""
MOST_ADDRESSES = 1000

log = Logger()


class Connecting(Protocol):
    """Wants a connection, and is its factory."""

    address: str

    @property
    def wanted(self) -> bool:
        """Whether it still is."""

    def connecting(self) -> None:
        """Its turn has come."""

    def forgotten(self) -> None:
        """It was not wanted any more."""


class Connections:
    """To all comets. `tls`: how ports that are for web nodes alone are reached, None: without TLS."""

    def __init__(self, reactor: Any, tls: ClientTls | None) -> None:
        self._reactor = EagerReactor(reactor)
        self._tls = tls
        self._connecting: dict[str, int] = {}
        self._queues: dict[str, deque[tuple[Connecting, bool]]] = {}
        self._failures: dict[str, int] = {}

    def connect(self, wanting: Connecting, within_tls: bool) -> None:
        """Make a connection, in its turn; made() follows."""
        self._queues.setdefault(wanting.address, deque()).append((wanting, within_tls))
        self._connect_next(wanting.address)

    def made(self, address: str) -> None:
        """A connection to this address is made, or has failed."""
        self._connecting[address] -= 1
        self._connect_next(address)

    def useful(self, address: str) -> None:
        """A comet answers there."""
        if self._failures and self._failures.pop(address, 0) >= FAILURES_LOGGED:
            log.info("event streams and waiting reads can subscribe again at the comet {address}", address=address)

    def useless(self, address: str, why: str) -> None:
        """No comet answers there."""
        if len(self._failures) >= MOST_ADDRESSES:
            self._failures.clear()
        failures = self._failures[address] = self._failures.get(address, 0) + 1
        if failures == FAILURES_LOGGED:
            log.warn(
                "event streams and waiting reads cannot subscribe at the comet {address}: {why} "
                "(check TLS, PROXY headers and firewalls; the comet's [base] feed.bind sets where web nodes connect)",
                address=address,
                why=why,
            )

    def _connect_next(self, address: str) -> None:
        queue = self._queues.get(address)
        while queue and self._connecting.get(address, 0) < MOST_CONNECTING:
            wanting, within_tls = queue.popleft()
            if wanting.wanted:
                self._connecting[address] = self._connecting.get(address, 0) + 1
                wanting.connecting()
                self._connect(wanting, within_tls)
            else:
                wanting.forgotten()
        if not queue:
            self._queues.pop(address, None)
            if not self._connecting.get(address):
                self._connecting.pop(address, None)

    def _connect(self, wanting: Connecting, within_tls: bool) -> None:
        host, _, port = wanting.address.rpartition(":")
        host = host.strip("[]")
        factory: Any = wanting
        if within_tls and self._tls is not None:
            factory = self._tls.around(wanting, host)
        self._reactor.connectTCP(host, int(port), factory, CONNECT_SECONDS)
