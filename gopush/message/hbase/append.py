"""Appends to one row: read, decide, write if the head has not changed; until the outcome is certain, or fenced off."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred

from gopush.errors import RET_OK, UnavailableError
from gopush.message.hbase.client import Client, NotSentError, trying
from gopush.message.hbase.codec import HBaseError
from gopush.message.hbase.connection import LostError
from gopush.message.hbase.row import (
    HEAD,
    STAMP_BYTES,
    Cells,
    Decision,
    Wanted,
    decide,
    fenced,
    firsts_of,
    id_cell,
    row_head,
)
from gopush.message.rules import REFUSED, First
from gopush.message.store import StoreCounters, StoreSettings
from gopush.model import Append, Appended
from gopush.net.clock import Clock


class _Sent(NamedTuple):
    """A write that may have been done: the head that its own should follow, and the answers that it should give.

    `refused`: HBase said that the head was another one. It was ours where the Thrift server, which had no answer in
    time, sent the write once more by itself.
    """

    old: bytes | None
    answers: list[Appended]
    refused: bool


@dataclass(eq=False, repr=False)
class RowAppend:
    """Appends to one row. `now`: seconds since the epoch; `get` reads cells of a row."""

    _row: bytes
    _appends: Sequence[Append]
    _client: Client
    _get: Callable[[bytes, Wanted, float], Deferred[Cells]]
    _clock: Clock
    _now: Callable[[], float]
    _settings: StoreSettings
    _counters: StoreCounters
    _sent: dict[bytes, _Sent] = field(default_factory=dict, init=False)
    _said: HBaseError | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        ids = dict.fromkeys(id_cell(append.push.id) for append in self._appends if append.push.id)
        self._wanted: Wanted = [HEAD, *ids]

    async def run(self, until: float, fence_until: float) -> list[Appended]:
        """The answers. Tries until `until`, then fences off what may still be written until `fence_until`. Raises
        UnavailableError where nothing was stored, and where that is not certain.
        """
        try:
            return await self._trying(self._append, until)
        except UnavailableError:
            if not self._sent:
                raise
        try:
            return await self._trying(self._fence, fence_until)
        except UnavailableError as failed:
            raise LostError(f"what was sent may still be written: {failed}") from None

    async def _trying(
        self, attempt: Callable[[float], Coroutine[Any, Any, list[Appended] | None]], until: float
    ) -> list[Appended]:
        async def once() -> list[Appended] | None:
            try:
                return await attempt(until)
            except UnavailableError as error:
                raise self._with_words(error) from None

        return await trying(once, until, self._clock)

    def _with_words(self, error: UnavailableError) -> UnavailableError:
        """What is not sent, or has no answer, in the end fails for what HBase said before."""
        if isinstance(error, HBaseError):
            self._said = error
        elif isinstance(error, NotSentError | LostError) and self._said is not None:
            return type(error)(f"{self._said}; then {error}")
        return error

    async def _append(self, until: float) -> list[Appended] | None:
        """The answers; None where another node has written meanwhile."""
        cells = await self._get(self._row, self._wanted, until)
        old = cells.get(HEAD)
        if (stored := self._stored(old)) is not None:
            return stored
        stamp = os.urandom(STAMP_BYTES)
        decision = self._decide(cells, stamp)
        if not decision.puts:
            return decision.answers
        try:
            written = await self._client.check(self._row, decision.puts, old, until, self._send_by(decision, until))
        except NotSentError:
            raise
        except UnavailableError:
            self._sent[stamp] = _Sent(old, decision.answers, refused=False)
            raise
        if not written:
            self._sent[stamp] = _Sent(old, decision.answers, refused=True)
            return None
        self._counters.trimmed += decision.trimmed
        self._counters.expired += decision.expired
        return decision.answers

    def _decide(self, cells: Cells, stamp: bytes) -> Decision:
        """What has no id is not tried again where an earlier write of ours may be in the log, below another node's: it
        could be stored twice. A write that HBase refused does not count, for it hardly ever is in the log; else the
        writes of other nodes would keep such appends out for good.
        """
        lost = any(sent.old != cells.get(HEAD) for sent in self._sent.values() if not sent.refused)
        tried = [index for index, append in enumerate(self._appends) if append.push.id or not lost]
        decision = decide(
            row_head(cells.get(HEAD)),
            firsts_of(cells),
            [self._appends[index] for index in tried],
            self._settings.store,
            self._settings.head_life,
            self._now(),
            stamp,
        )
        answers = dict(zip(tried, decision.answers, strict=True))
        whole = [answers.get(index, REFUSED) for index in range(len(self._appends))]
        return decision._replace(answers=self._as_first(whole))

    def _as_first(self, answers: list[Appended]) -> list[Appended]:
        """What we have stored ourselves is no repeat."""
        ours = {answer for sent in self._sent.values() for answer in sent.answers}
        return [
            first if answer.repeat and (first := answer._replace(repeat=False)) in ours else answer
            for answer in answers
        ]

    def _stored(self, old: bytes | None) -> list[Appended] | None:
        """The answers of an earlier write, where the row has its stamp."""
        head = row_head(old) if self._sent else None
        sent = self._sent.get(head.stamp) if head else None
        return sent.answers if sent else None

    def _send_by(self, decision: Decision, until: float) -> float:
        """Send nothing after the deadline of what it stores."""
        deadlines = [
            append.push.deadline
            for append, answer in zip(self._appends, decision.answers, strict=True)
            if answer.ret == RET_OK and not answer.repeat
        ]
        return min([until, *(self._clock.seconds() + deadline - self._now() for deadline in deadlines)])

    async def _fence(self, until: float) -> list[Appended] | None:
        """Make certain that what was sent is stored, or never will be."""
        cells = await self._get(self._row, self._wanted, until)
        old = cells.get(HEAD)
        if (stored := self._stored(old)) is not None:
            return stored
        if any(sent.old == old for sent in self._sent.values() if not sent.refused):
            puts = fenced(row_head(old), self._now(), os.urandom(STAMP_BYTES))
            if not await self._client.check(self._row, puts, old, until):
                return None
        now, firsts = self._now(), firsts_of(cells)
        return self._as_first([_known(append, firsts, now) for append in self._appends])


def _known(append: Append, firsts: Mapping[str, First], now: float) -> Appended:
    """The answer where nothing more can be written: what was stored is known by its id."""
    first = firsts.get(append.push.id) if append.push.id else None
    if first is None or now >= first.until:
        return REFUSED
    return Appended(RET_OK, first.mid, first.previous, True)
