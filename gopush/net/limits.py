"""How many connections come in: in all, in a second, from one address.

Connections over the limit stay in the accept queue. Those that are open are served meanwhile.
Only the limit for one address refuses anybody.
"""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Network

from gopush.config.schema import Section
from gopush.config.values import count, origins, proxies
from gopush.net import forwarded
from gopush.net.clock import Clock
from gopush.stats.counting import Family, counter

RESERVED_FILES = 200
"""Files that are kept for all else that a process does: its store, its logs, calls, its operator's connections."""

BURST_SECONDS = 0.1
WAIT_SECONDS = 0.02

_connections = Section("connections")


@dataclass(frozen=True)
class ConnectionSettings:
    """Section [connections]: of a comet's client ports together, and apart from them of the public port of web: nobody
    waits for a look-up because the subscribers are as many as they may be.
    """

    most: int = _connections(
        "max",
        "0",
        count(),
        "connections of subscribers, and as many to the public port; more wait; 0: as many as open files allow",
        live=True,
    )
    rate: int = _connections("rate", "20000", count(1), "new connections per second of either; more wait", live=True)
    most_of_address: int = _connections(
        "address.max",
        "0",
        count(),
        "connections of either from one address (IPv6: one /64); gopush closes more; 0: any number",
        live=True,
    )
    origins: tuple[str, ...] = _connections(
        "origins", "", origins, "web sites whose pages may connect, https://www.example.org; empty: all", live=True
    )
    proxies: tuple[str, ...] = _connections(
        "proxies",
        "",
        proxies,
        "balancers that name the client: addresses, networks 10.0.0.0/8, or unix; empty: this machine by haproxy:",
        live=True,
    )


_CLOSED = Family("refused_connections", "connections closed before their first request", "reason")


@dataclass(slots=True)
class LimiterCounters:
    """What the ports for clients count, those of a comet and those of a web node alike."""

    refused_address: int = _CLOSED.of("address", "its address has all its connections")
    refused_proxy: int = _CLOSED.of("proxy", "no PROXY header, or one that comes from no balancer")
    refused_tls: int = _CLOSED.of("tls", "its TLS handshake is longer than any has to be")
    accept_waits: int = counter(
        "times that new clients began to wait at a port ([connections] max and rate, or open files)"
    )
    accept_waits_ended: int = counter("times that there was room for them again")
    cut_off_leftovers: int = counter("connections cut off: they sent on and on, and wanted or read no answer any more")


SUMMARIZED = {
    "refused_address": "connections closed because their address has all its connections ([connections] address.max)",
    "refused_proxy": "connections closed: they sent no PROXY header, or came from no balancer ([connections] proxies)",
    "refused_tls": "connections closed because their TLS handshake is longer than any has to be",
    "cut_off_leftovers": "connections cut off: they sent on and on, and wanted or read no answer any more",
}
"""Of these counters, for a PeriodicSummary."""


class Shared:
    """How many connections the limiters of one process have let in: they share its files."""

    def __init__(self) -> None:
        self.open = 0


class ConnectionLimiter:
    """Shared by the ports of one kind. `files`: how many the process may have open, beside those of the limiters that
    have the same `shared`.
    """

    def __init__(
        self,
        clock: Clock,
        settings: ConnectionSettings,
        files: int,
        counters: LimiterCounters,
        shared: Shared | None = None,
    ) -> None:
        self.open = 0
        self._shared = shared or Shared()
        self._clock = clock
        self._settings = settings
        self._spare_files = max(files - RESERVED_FILES, files // 2)
        self.counters = counters
        self._addresses: Counter[str] = Counter()
        self._left = self._burst
        self._at = clock.seconds()
        self._waiting: list[Callable[[], None]] = []
        self._timed = False

    @property
    def most(self) -> int:
        """How many connections there may be."""
        return min(self._settings.most or self._spare_files, self._spare_files)

    @property
    def _burst(self) -> float:
        return max(1.0, self._settings.rate * BURST_SECONDS)

    @property
    def files_left(self) -> bool:
        """Whether this process may open one more connection of its own for somebody."""
        return self._shared.open < self._spare_files

    def room(self) -> int:
        """How many connections may be accepted now."""
        now = self._clock.seconds()
        self._left = min(self._burst, self._left + max(0.0, now - self._at) * self._settings.rate)
        self._at = now
        return min(int(self._left), self.most - self.open, self._spare_files - self._shared.open)

    def wait(self, go_on: Callable[[], None], begins: bool) -> None:
        """Call `go_on` when there may be room again. `begins`: there was some when the port looked before."""
        self.counters.accept_waits += begins
        self._waiting.append(go_on)
        if not self._timed:
            self._timed = True
            self._clock.callLater(WAIT_SECONDS, self._go_on)

    def admits(self, address: str) -> bool:
        """Whether one more connection may come from there: a proxy may have any number, because its clients count
        instead.
        """
        most = self._settings.most_of_address
        if not most or self._addresses[_counted(address)] < most or forwarded.trusted(self.proxies, address):
            return True
        self.counters.refused_address += 1
        return False

    @property
    def proxies(self) -> tuple[str, ...]:
        """The proxies that may name the client of a connection or request."""
        return self._settings.proxies

    def take(self, address: str) -> bool:
        """Count a connection for a client behind a proxy; False: it has all its connections."""
        if not self.admits(address):
            return False
        self._addresses[_counted(address)] += 1
        return True

    def release(self, address: str) -> None:
        """It is not any more."""
        address = _counted(address)
        self._addresses[address] -= 1
        if not self._addresses[address]:
            del self._addresses[address]

    def opened(self, address: str) -> None:
        """A connection was made."""
        self.open += 1
        self._shared.open += 1
        self._left -= 1
        self._addresses[_counted(address)] += 1

    def closed(self, address: str) -> None:
        """A connection was lost."""
        self.open -= 1
        self._shared.open -= 1
        self.release(address)

    def _go_on(self) -> None:
        self._timed = False
        waiting, self._waiting = self._waiting, []
        for go_on in waiting:
            go_on()


def _counted(address: str) -> str:
    """What an address counts as: a client with one IPv6 address has all of its /64."""
    if ":" not in address:
        return address
    address = forwarded.plain(address)
    try:
        return str(IPv6Network((address, 64), strict=False)) if ":" in address else address
    except ValueError:
        return address


def raise_file_limit() -> int:
    """Allow as many open files (connections) as the system grants this process; answers how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
