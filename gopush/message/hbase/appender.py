"""Appends in HBase: those to one row one after the other, several at a time, rows apart from each other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, gatherResults, succeed

from gopush.message.hbase.append import RowAppend
from gopush.message.hbase.client import Client, NotSentError
from gopush.message.hbase.row import Cells, Wanted, row_key
from gopush.message.hbase.settings import PARTS, TRY_PARTS, HBaseSettings
from gopush.message.rules import REFUSED, UNAVAILABLE
from gopush.message.store import StoreNumbers, StoreSettings
from gopush.model import Append, Appended

MOST_BODY = 10_000_000
"""HBase refuses cells of more than 10 MiB."""

MOST_APPENDS = 2000
MOST_BYTES = 8 << 20
"""Appends to one row that are written together."""


@dataclass(eq=False, repr=False)
class Appender:
    """Gives each row one write at a time: two would only be in each other's way. What comes meanwhile makes the next.

    `now`: seconds since the epoch. `failed` hears of rows whose appends failed, and None of one whose did not.
    """

    _client: Client
    _settings: HBaseSettings
    _store: StoreSettings
    _numbers: StoreNumbers
    _reactor: Any
    _now: Callable[[], float]
    _failed: Callable[[Exception | None], None]
    _rows: dict[bytes, deque[_Waiting]] = field(default_factory=dict, init=False)
    _asked: dict[float, list[tuple[bytes, Wanted, Deferred[Cells]]]] = field(default_factory=dict, init=False)
    _idle: list[Deferred[None]] = field(default_factory=list, init=False)

    def append(self, appends: Sequence[Append]) -> Deferred[list[Appended]]:
        """See MessageService; never fails. The appends to one key are atomic, as far as they are written together."""
        if not appends:
            return succeed([])
        arrived, idle = self._reactor.seconds(), []
        answers = [Deferred[Appended]() for _ in appends]
        for append, answer in zip(appends, answers, strict=True):
            if len(append.push.body) > MOST_BODY:
                answer.callback(REFUSED)
                continue
            row = row_key(self._settings.prefix, append.push.key)
            if row not in self._rows:
                self._rows[row] = deque()
                idle.append(row)
            self._rows[row].append(_Waiting(append, answer, arrived))
        for row in idle:
            Deferred.fromCoroutine(self._work(row))
        return self._numbers.timed("append", gatherResults(answers), self._reactor)

    async def _work(self, row: bytes) -> None:
        """Append to a row whatever waits for that."""
        waiting = self._rows[row]
        while waiting:
            together = _take(waiting, self._settings.timeout)
            try:
                answers = await self._append(row, together)
                self._failed(None)
            except Exception as failed:
                self._failed(failed)
                # Another node may still send what this one never sent.
                answers = [UNAVAILABLE if isinstance(failed, NotSentError) else REFUSED] * len(together)
            for one, answer in zip(together, answers, strict=True):
                one.answer.callback(answer)
        del self._rows[row]
        if not self._rows:
            idle, self._idle = self._idle, []
            for done in idle:
                done.callback(None)

    def _append(self, row: bytes, together: Sequence[_Waiting]) -> Coroutine[Any, Any, list[Appended]]:
        arrived, timeout = together[0].arrived, self._settings.timeout
        writing = RowAppend(
            row,
            [one.append for one in together],
            self._client,
            self.get,
            self._reactor,
            self._now,
            self._store,
            self._numbers.counters,
        )
        return writing.run(arrived + TRY_PARTS * timeout, arrived + PARTS * timeout)

    def get(self, row: bytes, wanted: Wanted, until: float) -> Deferred[Cells]:
        """Cells of a row, together with those that others want in this turn of the reactor."""
        found: Deferred[Cells] = Deferred()
        if not self._asked:
            self._reactor.callLater(0, self._get_all)
        self._asked.setdefault(until, []).append((row, wanted, found))
        return found

    def _get_all(self) -> None:
        asked, self._asked = self._asked, {}
        for until, gets in asked.items():
            answers = self._client.get([(row, wanted) for row, wanted, _ in gets], until)
            for answer, (_, _, found) in zip(answers, gets, strict=True):
                answer.chainDeferred(found)

    def drained(self) -> Deferred[None]:
        """Fires when nothing is under way."""
        if not self._rows:
            return succeed(None)
        self._idle.append(Deferred())
        return self._idle[-1]


class _Waiting(NamedTuple):
    """An append, what its answer fires, and when it came (reactor seconds)."""

    append: Append
    answer: Deferred[Appended]
    arrived: float


def _take(waiting: deque[_Waiting], seconds: float) -> list[_Waiting]:
    """The first appends, as many as may be written together: the time of the oldest ends for all, so none comes with it
    that is younger by more than this.
    """
    taken: list[_Waiting] = []
    size = 0
    while waiting and len(taken) < MOST_APPENDS:
        size += len(waiting[0].append.push.body)
        if taken and (size > MOST_BYTES or waiting[0].arrived > taken[0].arrived + seconds):
            break
        taken.append(waiting.popleft())
    return taken
