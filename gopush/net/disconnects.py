"""Connections that their clients have ended: thousands may do so at once, and those that stay are served meanwhile."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Any, Protocol

DISCONNECTS_IN_A_TURN = 32


class Disconnecting(Protocol):
    """A connection that has ended."""

    def end(self) -> None:
        """Do what follows from that."""


class DisconnectQueue:
    """Ends connections in the order of their coming, a few in each turn of the reactor."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._waiting: deque[Disconnecting] = deque()

    def add(self, connection: Disconnecting) -> None:
        """The client has ended this one; nothing more is read from it."""
        if not self._waiting:
            self._reactor.callLater(0, self._go_on)
        self._waiting.append(connection)

    def _go_on(self) -> None:
        for connection in list(islice(self._waiting, DISCONNECTS_IN_A_TURN)):
            self._waiting.popleft()
            connection.end()
        if self._waiting:
            self._reactor.callLater(0, self._go_on)
