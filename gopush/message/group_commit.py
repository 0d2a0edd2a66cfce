"""Appends one call at a time: what comes while a call is under way makes the next one (group commit)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from gopush.model import Append, Appended

Appending = Callable[[Sequence[Append]], Deferred[list[Appended]]]
_Waiting = tuple[Sequence[Append], "Deferred[list[Appended]]"]

MOST_APPENDS = 2000
MOST_BYTES = 4 << 20


class Gatherer:
    """Hands batches to `call`, in order, several as one of at most MOST_APPENDS and MOST_BYTES of bodies."""

    def __init__(self, call: Appending) -> None:
        self._call = call
        self._busy = False
        self._waiting: deque[_Waiting] = deque()
        self._drained: list[Deferred[None]] = []

    def append(self, appends: Sequence[Append]) -> Deferred[list[Appended]]:
        """Answers as `call` does, for these appends."""
        if not appends:
            return succeed([])
        answer: Deferred[list[Appended]] = Deferred()
        self._waiting.append((appends, answer))
        if not self._busy:
            self._next()
        return answer

    def drained(self) -> Deferred[None]:
        """Fires when nothing is under way."""
        if not self._busy:
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
        if batches:
            self._busy = True
            appends = batches[0][0] if len(batches) == 1 else [append for batch, _ in batches for append in batch]
            self._call(appends).addBoth(self._answered, batches)
            return
        self._busy = False
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
