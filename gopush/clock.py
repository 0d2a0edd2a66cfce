"""Time, as it is handed to whoever waits: the reactor, or a clock that a test moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred

T = TypeVar("T")


class Clock(Protocol):
    """What gopush needs of IReactorTime."""

    def seconds(self) -> float:
        """Seconds that only mean something as a difference."""

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kwargs: object) -> Any:
        """Call after `delay` seconds; gives an IDelayedCall."""


def within(seconds: float, call: Deferred[T], clock: Clock) -> Deferred[T]:
    """`call`, cancelled (it fails with TimeoutError) when it has not fired after `seconds`."""
    reactor_time: Any = clock
    return call.addTimeout(seconds, reactor_time)
