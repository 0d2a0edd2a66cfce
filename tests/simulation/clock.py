"""Simulated time: one heap of calls for the world. A call may belong to a process, and then shares its fate."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, Protocol


class Owner(Protocol):
    """What a process is to the clock."""

    alive: bool
    frozen: bool
    held: list[Timer]


class Timer:
    """A call to come; an IDelayedCall as far as anybody needs it. `io`: it comes from outside the process."""

    __slots__ = ("_args", "_call", "_kwargs", "_time", "io", "owner")

    def __init__(
        self,
        time: float,
        owner: Owner | None,
        call: Callable[..., object],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        io: bool,
    ) -> None:
        self._time = time
        self._call: Callable[..., object] | None = call
        self._args = args
        self._kwargs = kwargs
        self.owner = owner
        self.io = io

    def active(self) -> bool:
        return self._call is not None

    def cancel(self) -> None:
        assert self._call is not None
        self._call = None

    def getTime(self) -> float:
        return self._time

    def fire(self) -> None:
        """Run, unless it was cancelled or its process is dead; a frozen process runs it when it wakes."""
        owner, call = self.owner, self._call
        if call is None:
            return
        if owner is not None:
            if not owner.alive:
                return
            if owner.frozen:
                owner.held.append(self)
                return
        self._call = None
        call(*self._args, **self._kwargs)


class SimClock:
    """The world's time, in seconds since the run began."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls = 0
        self._heap: list[tuple[float, int, Timer]] = []

    def seconds(self) -> float:
        return self.now

    def at(
        self, time: float, call: Callable[..., object], *args: Any, owner: Owner | None = None, io: bool = True
    ) -> Timer:
        """Call at `time`, in the turn of `owner` where there is one."""
        timer = Timer(time, owner, call, args, {}, io)
        self.push(time, timer)
        return timer

    def after(
        self, delay: float, call: Callable[..., object], *args: Any, owner: Owner | None = None, io: bool = True
    ) -> Timer:
        """Call after `delay` seconds."""
        return self.at(self.now + delay, call, *args, owner=owner, io=io)

    def push(self, time: float, timer: Timer) -> None:
        """Have a timer fire at `time`, after all that was to fire then before."""
        self.calls += 1
        heappush(self._heap, (time, self.calls, timer))

    def run_until(self, end: float) -> None:
        """Let time pass."""
        heap = self._heap
        while heap and heap[0][0] <= end:
            self.now, _, timer = heappop(heap)
            timer.fire()
        self.now = end


class ProcessClock:
    """A process's steady clock: what it scheduled stands still while it is frozen, and dies with it."""

    def __init__(self, clock: SimClock, owner: Owner) -> None:
        self._clock = clock
        self._owner = owner

    def seconds(self) -> float:
        return self._clock.now

    def callLater(self, delay: float, callable: Callable[..., object], *args: Any, **kwargs: Any) -> Timer:
        time = self._clock.now + delay
        timer = Timer(time, self._owner, callable, args, kwargs, io=False)
        self._clock.push(time, timer)
        return timer
