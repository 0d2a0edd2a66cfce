"""What all stores have in common: their calls, options, counters and troubles, and group commit."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred, FirstError, maybeDeferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from gopush.config.schema import Section
from gopush.config.values import count, duration
from gopush.model import Append, Appended
from gopush.net.clock import Clock
from gopush.rpc.services import BackupService, MessageService
from gopush.stats.counting import counter
from gopush.stats.histogram import Histogram

_storage = Section("storage")


@dataclass(frozen=True)
class StoreSettings:
    """What every store is told."""

    store: int = _storage("store", "20", count(1, 1_000_000), "how many messages a key keeps: the newest", live=True)
    head_life: float = _storage(
        "head.life", "1d", duration, "how long a key's last mid outlives its messages", live=True
    )


class Store(MessageService, BackupService, Protocol):
    """Keeps the log of every key (memory.py, sqlite/, redis/, hbase/).

    A batch of appends is atomic and in order; of a batch over several shards that holds for the part of each shard
    (in HBase: of each key), and a shard that cannot store answers 65535 for its own part alone. Other calls fail as a
    whole.
    """

    name: str
    """What an operator calls it: `Redis node1`."""

    shards: tuple[tuple[str, int], ...]
    """Names and weights of the servers behind it, as they stand on the ring of keys; empty where there is but one."""

    numbers: dict[str, StoreNumbers]
    """What each server behind it, or it itself, has done."""

    @property
    def identity(self) -> str:
        """What tells the data behind it from those of every other store; empty while that is not known."""

    def start(self) -> Deferred[None]:
        """Open it. Fails with StartError where it can never work; a server may still come later."""

    def stop(self) -> Deferred[None]:
        """Close it, once what was called before is done."""

    def purge(self) -> Deferred[None]:
        """Let go of a bounded number of things that nobody can see any more; to be called every second."""


T = TypeVar("T")

CALLS = ("append", "read", "heads", "other")


@dataclass(slots=True)
class MessageCounters:
    """Plain integers: counting must cost nothing. All only grow."""

    saves: int = counter("messages that got a mid; the store keeps them unless their expire is 0")
    repeats: int = counter("messages that were there already: their publisher repeated them with the same id")
    refused: int = counter("messages not stored: they were late, or the store failed")
    late: int = counter("refused messages that came past their deadline")
    reads: int = counter("keys whose logs were read from a cursor on")
    read_messages: int = counter("messages that were read")
    heads: int = counter("keys whose last mid was asked for")
    deletes: int = counter("keys whose messages were deleted")
    batches: int = counter("batches of messages given to the store")


@dataclass(slots=True)
class StoreCounters:
    """Of one store; of several Redis servers each has its own."""

    trimmed: int = counter("messages removed before their time because their key had newer ones")
    expired: int = counter("expired messages that gopush removed; logs that Redis removes as a whole do not count")
    dropped_tokens: int = counter("tokens removed because their key had too many that live longer")
    failed: int = counter("calls that failed", "failed_calls")
    backups: int = counter("backups that were completed")
    failed_backups: int = counter("backups that were refused or failed")


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


RELAPSE_SECONDS = 60.0
CALM_SECONDS = 10.0
STRANGE_SECONDS = 60.0
SKEW_SECONDS = 1.0
"""By how much the clocks of this process and of a store may differ before that is said."""

log = Logger()


class Troubles:
    """The troubles of one store: `now`, by the part of it that they concern. `name` begins each line."""

    def __init__(self, name: str, clock: Clock) -> None:
        self._name = name
        self._clock = clock
        self.now: dict[str, str] = {}
        self._failed: dict[str, float] = {}
        self._patience: dict[str, float] = {}
        self._ended: dict[str, float] = {}
        self._closed = False
        self._strange_until = 0.0

    def __contains__(self, part: str) -> bool:
        return part in self.now

    def close(self) -> None:
        """The store stops: what fails from now on is no trouble."""
        self._closed = True

    def begin(self, part: str, trouble: str) -> None:
        """This is wrong now. A part that fails again and again must work for CALM_SECONDS before that is believed."""
        if self._closed:
            return
        now = self._clock.seconds()
        if part not in self.now:
            relapse = now - self._ended.get(part, float("-inf")) < RELAPSE_SECONDS
            self._patience[part] = CALM_SECONDS if relapse else 0.0
        self._failed[part] = now
        if trouble not in self.now.values():
            log.warn("{store}: {trouble}", store=self._name, trouble=trouble)
        self.now[part] = trouble

    def strange(self, name: str, prefix: str) -> None:
        """Somebody else has written this name, after our prefix; said once in STRANGE_SECONDS at most."""
        log.debug("{store}: {strange} is not as gopush writes it", store=self._name, strange=name)
        now = self._clock.seconds()
        if now >= self._strange_until:
            self._strange_until = now + STRANGE_SECONDS
            kind = name[: len(prefix) + 2] + "…"
            said = "somebody else has written it; its key is out of use, all others go on"
            log.warn("{store}: a {kind} is not as gopush writes it: {said}", store=self._name, kind=kind, said=said)

    def clock(self, skew: float) -> None:
        """The store's clock is ahead of this process's by so many seconds."""
        if abs(skew) < SKEW_SECONDS / 2:
            self.end("clock")
        elif abs(skew) > SKEW_SECONDS and "clock" not in self.now:
            way = "ahead of" if skew > 0 else "behind"
            said = f"its clock is {abs(skew):.1f} s {way} this process's (run NTP: pushes have a deadline)"
            self.begin("clock", said)

    def end(self, part: str, *, calm: bool = False, lucky: bool = False) -> None:
        """This part works. `calm`: it says so again and again, and may be lucky between failures; `lucky`: what works
        is easier than what fails.
        """
        if part not in self.now:
            return
        now = self._clock.seconds()
        patience = CALM_SECONDS if lucky else self._patience[part] if calm else 0.0
        if now - self._failed[part] < patience:
            return
        del self.now[part]
        self._ended[part] = now
        if not self.now:
            log.info("{store}: all is well again", store=self._name)


Appending = Callable[[Sequence[Append]], Deferred[list[Appended]]]
_Waiting = tuple[Sequence[Append], "Deferred[list[Appended]]"]

MOST_APPENDS = 2000
MOST_BYTES = 4 << 20


class Gatherer:
    """Hands batches to `call`, in order, several as one of at most MOST_APPENDS and MOST_BYTES of bodies. An error in
    gopush is the outcome of the batches that it met; those behind them go on.
    """

    def __init__(self, call: Appending) -> None:
        self._call = call
        self._under_way: list[_Waiting] = []
        self._waiting: deque[_Waiting] = deque()
        self._drained: list[Deferred[None]] = []

    def append(self, appends: Sequence[Append]) -> Deferred[list[Appended]]:
        """Answers as `call` does, for these appends."""
        if not appends:
            return succeed([])
        answer: Deferred[list[Appended]] = Deferred()
        self._waiting.append((appends, answer))
        if not self._under_way:
            self._next()
        return answer

    def drained(self) -> Deferred[None]:
        """Fires when nothing is under way."""
        if not self._under_way:
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._drained.append(done)
        return done

    def _next(self) -> None:
        batches: list[_Waiting] = []
        total = size = 0
        while self._waiting:
            appends = self._waiting[0][0]
            total += len(appends)
            if batches or len(self._waiting) > 1:
                size += sum(len(append.push.body) for append in appends)
            if batches and (total > MOST_APPENDS or size > MOST_BYTES):
                break
            batches.append(self._waiting.popleft())
        self._under_way = batches
        if batches:
            appends = batches[0][0] if len(batches) == 1 else [append for batch, _ in batches for append in batch]
            made = maybeDeferred(self._call, appends)
            made.addBoth(self._answered, batches).addErrback(self._not_answered, batches)
            return
        drained, self._drained = self._drained, []
        for done in drained:
            done.callback(None)

    def _answered(self, result: list[Appended] | Failure, batches: list[_Waiting]) -> None:
        at = 0
        # The next call starts first: what the answers set going may take its time.
        self._next()
        for appends, answer in batches:
            if isinstance(result, Failure):
                answer.errback(result)
            else:
                answer.callback(result[at : at + len(appends)])
                at += len(appends)

    def _not_answered(self, failure: Failure, batches: list[_Waiting]) -> None:
        if self._under_way is batches:
            self._next()
        for _, answer in batches:
            if not answer.called:
                answer.errback(failure)
