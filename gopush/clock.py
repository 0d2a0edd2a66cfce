"""Time, as it is handed to whoever waits: the reactor, or a clock that a test moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

T = TypeVar("T")

LOOK_SECONDS = 0.1
CALM_LOOKS = 5
"""How often in a row nothing must be under way before that is believed."""


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


async def quiet(busy: Callable[[], bool], least: float, most: float, clock: Clock) -> bool:
    """Wait until nothing is `busy` any more: at least `least` seconds, at most `most`; False: it still was then."""
    reactor_time: Any = clock
    start = clock.seconds()
    calm = 0
    while clock.seconds() < start + most:
        calm = 0 if busy() else calm + 1
        if calm >= CALM_LOOKS and clock.seconds() >= start + least:
            return True
        await deferLater(reactor_time, LOOK_SECONDS, lambda: None)
    return False
