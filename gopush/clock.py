"""Time, as it is handed to whoever waits: the reactor, or a clock that a test moves."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
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


class LastLook:
    """A clock for time-outs: what is due waits one turn more, in which all that has come meanwhile is read.

    A process that was frozen and wakes finds its time-outs due before it has looked at its sockets: without this look
    it would give up calls that were answered long ago, and connections that are sound.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.seconds = clock.seconds

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kwargs: object) -> Any:
        """See Clock; what is given can be cancelled, and asked whether it is active()."""
        return _LateCall(self._clock, delay, partial(callable, *args, **kwargs))


class _LateCall:
    __slots__ = ("_call", "_clock", "_timer")

    def __init__(self, clock: Clock, delay: float, call: Callable[[], object]) -> None:
        self._clock = clock
        self._call = call
        self._timer = clock.callLater(delay, self._due)

    def _due(self) -> None:
        self._timer = self._clock.callLater(0, self._call)

    def active(self) -> bool:
        return bool(self._timer.active())

    def cancel(self) -> None:
        self._timer.cancel()


def within(seconds: float, call: Deferred[T], clock: Clock) -> Deferred[T]:
    """`call`, cancelled (it fails with TimeoutError) when it has not fired after `seconds`, and a LastLook."""
    reactor_time: Any = LastLook(clock)
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
