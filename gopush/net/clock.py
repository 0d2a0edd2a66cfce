"""Time, as it is handed to whoever waits: the reactor, or a clock that a test moves."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from functools import partial
from math import floor
from types import SimpleNamespace
from typing import Any, Generic, Protocol, TypeVar, cast

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from gopush.net.timers import Timed, Wheel

T = TypeVar("T")
TimedT = TypeVar("TimedT", bound=Timed)
GoingOn = Callable[[], bool] | None

MOST_WAITS = 10
"""How often a call whose answer is on its way may take as long again."""

QUIET_SECONDS = 10.0

EXPIRED_IN_A_TURN = 32

log = Logger()


class Clock(Protocol):
    """What gopush needs of IReactorTime."""

    def seconds(self) -> float:
        """Seconds that only mean something as a difference."""

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kwargs: object) -> Any:
        """Call after `delay` seconds; gives an IDelayedCall."""


class LastLook:
    """A call for a time-out: when it is due it waits one turn more, in which all that has come meanwhile is read.

    A process that was frozen and wakes finds its time-outs due before it has looked at its sockets: without this look
    it would give up calls that were answered long ago, and connections that are sound.

    `going_on`: while it says so, what is due gets as long again, MOST_WAITS times at most.
    """

    __slots__ = ("_call", "_clock", "_delay", "_going_on", "_timer", "_waits")

    def __init__(self, clock: Clock, delay: float, call: Callable[[], object], going_on: GoingOn = None) -> None:
        self._clock = clock
        self._delay = delay
        self._call = call
        self._going_on = going_on
        self._waits = 0
        self._timer = clock.callLater(delay, self._due)

    def _due(self) -> None:
        self._timer = self._clock.callLater(0, self._look)

    def _look(self) -> None:
        if self._going_on is not None and self._waits < MOST_WAITS and self._going_on():
            self._waits += 1
            self._timer = self._clock.callLater(self._delay, self._due)
        else:
            self._call()

    def active(self) -> bool:
        """See IDelayedCall."""
        return bool(self._timer.active())

    def cancel(self) -> None:
        """See IDelayedCall."""
        self._timer.cancel()


def cancel(timer: Any) -> None:
    """Let a call not come, an IDelayedCall or None, if it is still to come."""
    if timer is not None and timer.active():
        timer.cancel()


def within(seconds: float, call: Deferred[T], clock: Clock, going_on: GoingOn = None) -> Deferred[T]:
    """`call`, cancelled (it fails with TimeoutError) when it has not fired after `seconds`, and a LastLook.

    `going_on`: whether its answer is on its way just now (see LastLook).
    """
    reactor_time: Any = SimpleNamespace(callLater=partial(LastLook, clock, going_on=going_on))
    return call.addTimeout(seconds, reactor_time)


async def pause(seconds: float, clock: Clock) -> None:
    """Wait so long; 0: until the next turn of the reactor."""
    reactor_time: Any = clock
    await deferLater(reactor_time, seconds, lambda: None)


class Loop(LoopingCall):
    """A LoopingCall that stop() ends if it runs."""

    def stop(self) -> None:
        """See LoopingCall."""
        if self.running:
            super().stop()


def repeating(function: Callable[[], object], clock: Clock) -> Loop:
    """A loop to start: one that goes on after an error, with a traceback in QUIET_SECONDS at most. LoopingCall itself
    ends then, for good, and nobody hears of it."""
    failed = _QuietLog(function, clock)
    loop = Loop(lambda: maybeDeferred(function).addErrback(failed))
    loop.clock = cast(Any, clock)
    return loop


class _QuietLog:
    """Logs that a function failed, once in QUIET_SECONDS at most."""

    def __init__(self, function: Callable[..., object], clock: Clock) -> None:
        self._name = getattr(function, "__qualname__", repr(function))
        self._clock = clock
        self._quiet_until = float("-inf")

    def __call__(self, failure: Failure) -> None:
        if self._clock.seconds() >= self._quiet_until:
            self._quiet_until = self._clock.seconds() + QUIET_SECONDS
            log.failure("{name} failed this time; gopush will call it again", failure, name=self._name)


class Expiry(Generic[TimedT]):
    """Has `due` called for each item of a wheel whose deadline has passed, EXPIRED_IN_A_TURN in each turn.

    Clients that connected together are silent for too long together, too: closing all in one turn would hold up the
    others. An error of one item is not the others'.
    """

    def __init__(self, wheel: Wheel[TimedT], due: Callable[[TimedT], object], clock: Clock) -> None:
        self._wheel = wheel
        self._due = due
        self._clock = clock
        self._failed = _QuietLog(due, clock)
        self._going_on: Any = None

    def look(self) -> None:
        """To be called once a second. What is due waits one turn more (see LastLook)."""
        if self._going_on is None or not self._going_on.active():
            self._going_on = self._clock.callLater(0, self._expire)

    def _expire(self) -> None:
        for item in self._wheel.advance(self._clock.seconds(), EXPIRED_IN_A_TURN):
            try:
                self._due(item)
            except Exception:
                self._failed(Failure())
        if self._wheel.late:
            self._going_on = self._clock.callLater(0, self._expire)


class TurnLimit:
    """Lets work that costs about `most` be done in each turn of the reactor, for whomever; the rest waits.

    What one client may have done at once is bounded by its own limits; a crowd of them in the same turn is not.
    """

    def __init__(self, clock: Clock, most: int) -> None:
        self._clock = clock
        self._most = self._left = most
        self._waiting: deque[Callable[[], object]] = deque()
        self._turning = False

    @property
    def waiting(self) -> int:
        """How many pieces of work wait."""
        return len(self._waiting)

    def take(self, cost: int, again: Callable[[], object]) -> bool:
        """Whether a piece of work may be done now; if not, `again` is called in a later turn, to take it then."""
        if not self._turning:
            self._turning = True
            self._clock.callLater(0, self._turn)
        if self._left > 0:
            self._left -= cost
            return True
        self._waiting.append(again)
        return False

    def _turn(self) -> None:
        self._turning = bool(self._waiting)
        if self._turning:  # also where one of the calls fails
            self._clock.callLater(0, self._turn)
        self._left = self._most
        while self._waiting and self._left > 0:
            self._waiting.popleft()()


class Deadlines(Expiry[TimedT]):
    """An Expiry that looks by itself, once a second while it is `busy`: there are items. It has one loop, however often
    the first item comes and goes."""

    def __init__(
        self, wheel: Wheel[TimedT], due: Callable[[TimedT], object], busy: Callable[[], object], clock: Clock
    ) -> None:
        super().__init__(wheel, due, clock)
        self._busy = busy
        self._loop = repeating(self.look, clock)

    def watch(self) -> None:
        """There are items now."""
        if not self._loop.running:
            self._loop.start(1.0, now=False)
            self._loop.starttime = floor(self._clock.seconds())  # from then on it looks as a slot of the wheel comes up

    def look(self) -> None:
        """See Expiry."""
        super().look()
        if not self._busy():
            self._loop.stop()


def steady(reactor: Any) -> Any:
    """The reactor, its timers on a clock that nobody sets: a step of the wall clock would fire or stop them."""
    reactor.seconds = time.monotonic
    return reactor
