"""How many connections come in: in all, in a second, from one address. Who must wait does so in the kernel.

Those who are connected are served meanwhile. Only the limit for one address refuses anybody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from gopush.clock import Clock
from gopush.settings import option
from gopush.values import count, origins

RESERVED_FILES = 200
"""Files that are kept for all else that a process does: its store, its logs, calls, its operator's connections."""

BURST_SECONDS = 0.1
WAIT_SECONDS = 0.02


@dataclass(frozen=True)
class ConnectionSettings:
    """Section [connections]: of each process's client ports."""

    most: int = option("connections", "max", "0", count(), "connections in all, more wait; 0: as many as files allow")
    rate: int = option("connections", "rate", "20000", count(1), "new connections per second, more wait")
    most_of_address: int = option(
        "connections", "address.max", "0", count(), "connections from one address, more are closed; 0: any number"
    )
    origins: tuple[str, ...] = option(
        "connections", "origins", "", origins, "web sites whose pages may connect, https://www.example.org; empty: all"
    )


class Counters(Protocol):
    """Where it is counted how often who connected had to wait, and how many were closed."""

    accept_waits: int
    refused_address: int


class Gate:
    """Shared by the ports of a process. `files`: how many files it may have open."""

    def __init__(self, clock: Clock, settings: ConnectionSettings, files: int, counters: Counters) -> None:
        self.open = 0
        self.most = min(settings.most or files, max(files - RESERVED_FILES, files // 2))
        self._clock = clock
        self._rate = settings.rate
        self._most_of_address = settings.most_of_address
        self._counters = counters
        self._addresses: Counter[str] = Counter()
        self._burst = max(1.0, settings.rate * BURST_SECONDS)
        self._left = self._burst
        self._at = clock.seconds()
        self._waiting: list[Callable[[], None]] = []
        self._timed = False

    def room(self) -> int:
        """How many connections may be accepted now."""
        now = self._clock.seconds()
        self._left = min(self._burst, self._left + max(0.0, now - self._at) * self._rate)
        self._at = now
        return min(int(self._left), self.most - self.open)

    def wait(self, go_on: Callable[[], None]) -> None:
        """Call `go_on` when there may be room again."""
        self._counters.accept_waits += 1
        self._waiting.append(go_on)
        if not self._timed:
            self._timed = True
            self._clock.callLater(WAIT_SECONDS, self._go_on)

    def admits(self, address: str) -> bool:
        """Whether one more connection may come from there."""
        if not self._most_of_address or self._addresses[address] < self._most_of_address:
            return True
        self._counters.refused_address += 1
        return False

    def opened(self, address: str) -> None:
        """A connection was made."""
        self.open += 1
        self._left -= 1
        if self._most_of_address:
            self._addresses[address] += 1

    def closed(self, address: str) -> None:
        """A connection was lost."""
        self.open -= 1
        if self._most_of_address:
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]

    def _go_on(self) -> None:
        self._timed = False
        waiting, self._waiting = self._waiting, []
        for go_on in waiting:
            go_on()
