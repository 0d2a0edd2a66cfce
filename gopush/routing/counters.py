"""What the calls to all peers of one kind count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from gopush.stats.histogram import SIZES, Histogram


@dataclass(slots=True)
class BatcherCounters:
    """Calls, each message one. All only grow."""

    refused: int = field(default=0, metadata={"meaning": "calls that failed at once because too many waited"})
    late: int = field(default=0, metadata={"meaning": "calls that waited too long for their turn"})
    given_up: int = field(default=0, metadata={"meaning": "calls that a peer did not answer in time"})
    retried: int = field(default=0, metadata={"meaning": "calls that another peer, or the same one again, was asked"})


class BatcherStats:
    """All numbers of the batchers to one kind of peers. `waiting`: the calls that wait for their turn, their bytes."""

    __slots__ = ("counters", "sizes", "waiting")

    def __init__(self, waiting: Callable[[], tuple[int, int]] = lambda: (0, 0)) -> None:
        self.counters = BatcherCounters()
        self.sizes = Histogram(SIZES)
        self.waiting = waiting
