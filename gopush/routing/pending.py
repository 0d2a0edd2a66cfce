"""Calls that wait for their answers: those that come together travel together, and may part on their way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure

from gopush.errors import NotTriedError, UnavailableError
from gopush.net.clock import Clock, cancel

OVERHEAD_BYTES = 64
"""What a call counts as, beside the body of its message."""

log = Logger()

OnAnswers = Callable[[Sequence[int], "Sequence[Any] | UnavailableError"], object]


class Hold:
    """The peer of a key that must not move, while `calls` of it have no answer."""

    __slots__ = ("calls", "peer")

    def __init__(self, peer: Any) -> None:
        self.peer = peer
        self.calls = 0


class Waiting:
    """The calls of a kind that wait for their turn at one peer, in all its batchers, and their bytes."""

    __slots__ = ("bytes", "calls")

    def __init__(self) -> None:
        self.calls = 0
        self.bytes = 0


class PendingCalls:
    """Calls that go through a batcher together: `items`, one for each of `keys`; `sizes` of them, in bytes.

    They are worth nothing after `until` (reactor seconds); `tried` are the peers that failed them. `peer` has them, or
    will have them. `answered` is called once, with the `indexes` that the items have for whoever called, and with their
    answers or the UnavailableError that stands for all of them.
    """

    __slots__ = (
        *("_answered", "_held", "_limit"),
        *("ended", "indexes", "items", "keys", "peer", "size", "sizes", "tried", "until"),
    )

    def __init__(
        self,
        keys: Sequence[str],
        items: Sequence[Any],
        sizes: Callable[[Sequence[Any]], Sequence[int]],
        until: float,
        answered: OnAnswers,
        indexes: Sequence[int] | None = None,
    ) -> None:
        self.keys = keys
        self.items = items
        self.sizes = sizes
        self.size = sum(sizes(items))
        self.until = until
        self.indexes = range(len(items)) if indexes is None else indexes
        self.tried: tuple[str, ...] = ()
        self.peer: Any = None
        self.ended = False
        self._answered = answered
        self._held: dict[str, Hold] | None = None
        self._limit: Any = None

    def part(self, at: Sequence[int]) -> PendingCalls:
        """Some of the calls, by themselves."""
        keys = [self.keys[index] for index in at]
        items = [self.items[index] for index in at]
        indexes = [self.indexes[index] for index in at]
        part = PendingCalls(keys, items, self.sizes, self.until, self._answered, indexes)
        part.tried = self.tried
        part.peer = self.peer
        return part

    def cut(self, most: int, most_bytes: int) -> list[PendingCalls]:
        """As pieces of at most `most` calls and `most_bytes`, where one call alone does not have more."""
        pieces: list[list[int]] = []
        room = 0
        for at, size in enumerate(self.sizes(self.items)):
            if not pieces or len(pieces[-1]) == most or size > room:
                pieces.append([])
                room = most_bytes
            pieces[-1].append(at)
            room -= size
        return list(map(self.part, pieces))

    def singles(self) -> list[PendingCalls]:
        """Each call by itself, which takes the place of this one."""
        if len(self.items) == 1:
            return [self]
        parts = [self.part([at]) for at in range(len(self.items))]
        cancel(self._limit)  # whoever takes the parts gives each its own
        for part in parts:
            part.ended = self.ended
        self.ended = True
        if self._held is not None:
            for part in parts:
                part.hold(self._held)
            self._release(self._held)
        return parts

    def hold(self, held: dict[str, Hold]) -> None:
        """Keep the keys at one peer, this one's where `held` has none yet, until the calls are answered."""
        if self._held is None:
            self._held = held
            for key in self.keys:
                if key not in held:
                    held[key] = Hold(self.peer)
                held[key].calls += 1

    def limit(self, clock: Clock) -> None:
        """From now on the calls end with their time."""
        if self._limit is None:
            self._limit = clock.callLater(max(self.until - clock.seconds(), 0), self.fail, "no peer answered in time")

    def answer(self, results: Sequence[Any] | UnavailableError) -> None:
        """The calls have results, unless they have ended."""
        if self.ended:
            return
        self.ended = True
        if self._held is not None:
            self._release(self._held)
        if self._limit is not None and self._limit.active():
            self._limit.cancel()
        try:
            self._answered(self.indexes, results)
        except Exception:
            log.failure("taking an answer failed")

    def fail(self, reason: str) -> None:
        """The calls have no results."""
        self.answer(UnavailableError(reason))

    def refuse(self, reason: str) -> None:
        """The calls have no results, and were not tried."""
        self.answer(NotTriedError(reason))

    def _release(self, held: dict[str, Hold]) -> None:
        self._held = None
        for key in self.keys:
            held[key].calls -= 1
            if not held[key].calls:
                del held[key]


Refusal = tuple[PendingCalls, Any]
"""A single call, and the answer that refuses it."""


def part_refused(
    batch: Iterable[PendingCalls], answers: Sequence[Any], refused: Callable[[Any], bool]
) -> tuple[list[Refusal], list[Refusal]]:
    """Each call with its answer: those whose answers stand, and those that were refused.

    A call that was refused before another one of its key was not stays so: elsewhere it would come after that.
    """
    singles = [single for pending in batch for single in pending.singles()]
    kept: list[Refusal] = []
    back: list[Refusal] = []
    passed: set[str] = set()
    for single, answer in zip(reversed(singles), reversed(answers), strict=True):
        (key,) = single.keys
        if refused(answer) and key not in passed:
            back.append((single, answer))
        else:
            passed.add(key)
            kept.append((single, answer))
    return kept[::-1], back[::-1]


def singles_of(pendings: Iterable[PendingCalls]) -> list[PendingCalls]:
    """Each call that has no answer yet, by itself."""
    return [single for pending in pendings if not pending.ended for single in pending.singles()]


def pass_on(singles: Sequence[PendingCalls], take: Callable[..., None], *arguments: Any) -> None:
    """Have others take these calls; where that meets an error in gopush, they have no results."""
    try:
        take(*arguments)
    except Exception:
        break_off(singles)


def break_off(pendings: Iterable[PendingCalls], failure: Failure | None = None) -> None:
    """An error in gopush, this one or that which is handled, met these calls: they have no results."""
    log.failure("taking the answers of a batch failed; all else goes on", failure)
    for pending in pendings:
        pending.fail("an error in gopush met it")
