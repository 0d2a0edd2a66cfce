"""What a message node and its stores count."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

from twisted.internet.defer import Deferred, FirstError
from twisted.python.failure import Failure

from gopush.net.clock import Clock
from gopush.stats.histogram import Histogram

T = TypeVar("T")

CALLS = ("append", "read", "heads", "other")


@dataclass(slots=True)
class MessageCounters:
    """Plain integers: counting must cost nothing. All only grow."""

    saves: int = 0
    repeats: int = 0
    refused: int = 0
    late: int = 0
    reads: int = 0
    read_messages: int = 0
    heads: int = 0
    deletes: int = 0
    batches: int = 0


@dataclass(slots=True)
class StoreCounters:
    """Of one store; of several Redis servers each has its own."""

    trimmed: int = field(default=0, metadata={"meaning": "messages that had to go because their key had newer ones"})
    expired: int = field(
        default=0,
        metadata={"meaning": "expired messages that gopush removed (logs that Redis removes as a whole do not count)"},
    )
    dropped_tokens: int = field(
        default=0, metadata={"meaning": "tokens that had to go because their key had too many that end later"}
    )
    failed: int = field(default=0, metadata={"meaning": "calls that failed"})


def unwrap(failure: Failure) -> Failure:
    """What gatherResults wraps."""
    first = failure.value
    return first.subFailure if isinstance(first, FirstError) else failure


class StoreNumbers:
    """All of a store's numbers; `seconds`: how long its calls took, batches each, by CALLS; `skew`: by how many seconds
    its clock is ahead of this process's.
    """

    __slots__ = ("counters", "seconds", "skew")

    def __init__(self) -> None:
        self.skew = 0.0
        self.counters = StoreCounters()
        self.seconds = {call: Histogram() for call in CALLS}

    def timed(self, call: str, made: Deferred[T], clock: Clock) -> Deferred[T]:
        """`made`, with its time or its failure counted."""
        seconds = self.seconds.get(call) or self.seconds["other"]
        return made.addCallbacks(self._ended, self._failed, callbackArgs=(seconds, clock, clock.seconds()))

    @staticmethod
    def _ended(result: T, seconds: Histogram, clock: Clock, started: float) -> T:
        seconds.observe(clock.seconds() - started)
        return result

    def _failed(self, failure: Failure) -> Failure:
        self.counters.failed += 1
        return failure
