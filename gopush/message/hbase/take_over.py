"""Takes the logs of another store into HBase: `gopush migrate`."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, gatherResults

from gopush.errors import StartError, UnavailableError
from gopush.message.hbase.appender import MOST_BODY
from gopush.message.hbase.client import Client, trying
from gopush.message.hbase.clock import TableClock
from gopush.message.hbase.row import (
    HEAD,
    STAMP_BYTES,
    Cells,
    Put,
    RowHead,
    Slots,
    Wanted,
    body_in,
    first_puts,
    head_of,
    head_put,
    merged,
    own_row,
    row_head,
    row_key,
    slot_cell,
    slot_puts,
    token_cell,
    token_ends,
    token_put,
)
from gopush.message.hbase.settings import MOST_MESSAGES, HBaseSettings
from gopush.message.original import KeyState, OldLog, mark, placed
from gopush.message.rules import First, KeptLog, pushed_here, remembered
from gopush.message.store import unwrap
from gopush.model import Token
from gopush.net.clock import pause

ROWS = 100
"""That are written at once."""

CALL_BYTES = 4 << 20
CALL_CELLS = 1000

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")
L = TypeVar("L", KeptLog, OldLog)


class HBaseTakeOver:
    """The table of `settings`. What is taken over twice is there once; `head_life` in seconds."""

    most_body = MOST_BODY

    def __init__(self, reactor: Any, settings: HBaseSettings, head_life: float) -> None:
        self._reactor = reactor
        self._settings = settings
        self._head_life = head_life
        self._troubles: dict[object, str | None] = {}
        self._client = Client(reactor, settings, self._tell)
        self._now = TableClock(self._client, own_row(settings.prefix))

    async def start(self) -> None:
        """Connect. Raises StartError where the table will not do, UnavailableError where no server answers."""
        refusals = await self._client.start()
        await pause(0, self._reactor)  # what has just failed can be stopped after its turn
        for refusal in refusals:
            if refusal is not None:
                raise StartError(f"HBase: {refusal}")
        if None not in self._troubles.values():
            raise UnavailableError(f"HBase: {'; '.join(dict.fromkeys(filter(None, self._troubles.values())))}")
        try:
            await self._now.look(self._until())
        except UnavailableError as failed:
            raise UnavailableError(f"HBase: {failed}") from None

    def _tell(self, link: object, address: str, trouble: str | None) -> None:
        self._troubles[link] = trouble and f"Thrift server {address}: {trouble}"

    def stop(self) -> Deferred[Any]:
        """See Target."""
        return self._client.stop()

    async def take(self, logs: Sequence[KeptLog], now: float) -> list[KeptLog]:
        """See Target."""
        left = [
            log if missing else remembered(log)
            for log, missing in zip(logs, await self._each(self._take, logs), strict=True)
        ]
        return [log for log in left if log.last or log.ids or log.tokens]

    async def insert(self, logs: Sequence[OldLog]) -> int:
        """See Target."""
        return sum(await self._each(self._insert, logs))

    async def _each(self, call: Callable[[L], Coroutine[Any, Any, T]], logs: Sequence[L]) -> list[T]:
        found: list[T] = []
        for first in range(0, len(logs), ROWS):
            calls = [Deferred.fromCoroutine(call(log)) for log in logs[first : first + ROWS]]
            try:
                found += await gatherResults(calls, consumeErrors=True).addErrback(unwrap)
            except UnavailableError as failed:
                raise UnavailableError(f"HBase: {failed}; what was moved so far stays: try again") from None
        return found

    async def _take(self, log: KeptLog) -> bool:
        """Whether the log was not there, or may not have been."""
        row = row_key(self._settings.prefix, log.key)
        for token in log.tokens:
            await self._trying(partial(self._create_token, row, token))
        return await self._trying(partial(self._merge, row, log)) if log.last else False

    async def _merge(self, row: bytes, log: KeptLog) -> bool | None:
        old = (await self._cells(row, [HEAD])).get(HEAD)
        head, now = row_head(old), self._now()
        ends = max([log.ends, *(expires + self._head_life for _, expires, _ in log.messages)])
        stays = pushed_here(_mids(head), log)
        new, slots = merged(head, log._replace(ends=ends), stays, MOST_MESSAGES, now, os.urandom(STAMP_BYTES))
        firsts = {id: First(mid, previous, end) for id, mid, previous, end in log.ids}
        if head is not None and _content(head, now) == _content(new, now):
            remembering = [put for part in _parts(firsts) for put in first_puts(part, now)]
            return False if await self._put(row, old, remembering) else None
        return await self._write(row, old, new, slots, firsts, now) or None

    async def _insert(self, log: OldLog) -> int:
        """How many messages were not there."""
        row = row_key(self._settings.prefix, log.key)
        return await self._trying(partial(self._merge_old, row, log))

    async def _merge_old(self, row: bytes, log: OldLog) -> int | None:
        old = (await self._cells(row, [HEAD])).get(HEAD)
        head, now = row_head(old), self._now()
        new = placed(log.messages, await self._state(row, head, now))
        if not new:
            return 0
        ends = max(message.expires for message in new) + self._head_life
        kept = KeptLog(log.key, new[-1].mid, 0, ends, new, (), ())
        written, slots = merged(head, kept, _mids(head), MOST_MESSAGES, now, os.urandom(STAMP_BYTES))
        return len(new) if await self._write(row, old, written, slots, {}, now) else None

    async def _state(self, row: bytes, head: RowHead | None, now: float) -> KeyState:
        """Bodies are read of what ends at a whole second, as all that gopush-cluster keeps does."""
        marks = []
        for record in head.records if head and now < head.ends else ():
            body = None
            if record.expires == int(record.expires):
                cell = slot_cell(record.slot)
                body = body_in(record, (await self._cells(row, [cell])).get(cell))
            marks.append((record.mid, b"" if body is None else mark(record.expires, body)))
        return KeyState(head_of(head, now), marks)

    async def _write(
        self, row: bytes, old: bytes | None, head: RowHead, slots: Slots, firsts: dict[str, First], now: float
    ) -> bool:
        """Write bodies and ids, then the head that names them; whether the head was the `old` one all the time."""
        puts = [put for part in _parts(slots) for put in slot_puts(head, part, now)]
        puts += [put for part in _parts(firsts) for put in first_puts(part, now)]
        return await self._put(row, old, [*puts, head_put(head, now)])

    async def _put(self, row: bytes, old: bytes | None, puts: Sequence[Put]) -> bool:
        """One after the other; whether the head was the `old` one all the time."""
        for put in puts:
            if not await self._client.check(row, [put], old, self._until()):
                return False
        return True

    async def _create_token(self, row: bytes, token: Token) -> bool | None:
        cell = token_cell(token.digest)
        old = (await self._cells(row, [cell])).get(cell)
        if token_ends(old) >= token.expires:
            return True
        put = token_put(token.digest, token.expires, old, self._now())
        return await self._client.check(row, [put], old, self._until(), cell=cell) or None

    async def _cells(self, row: bytes, wanted: Wanted) -> Cells:
        (answer,) = self._client.get([(row, wanted)], self._until())
        return await answer

    async def _trying(self, attempt: Callable[[], Coroutine[Any, Any, T | None]]) -> T:
        return await trying(attempt, self._until(), self._reactor)

    def _until(self) -> float:
        return float(self._reactor.seconds() + self._settings.timeout)


def _mids(head: RowHead | None) -> set[int]:
    return {record.mid for record in head.records} if head else set()


def _content(head: RowHead, now: float) -> tuple[Any, ...]:
    return head.last, head.trimmed, [record[:2] for record in head.records if record.expires > now]


def _parts(cells: dict[K, V]) -> Iterator[dict[K, V]]:
    """So many that a call takes them."""
    part: dict[K, V] = {}
    size = 0
    for name, value in cells.items():
        more = len(value) if isinstance(value, bytes) else 0
        if part and (len(part) == CALL_CELLS or size + more > CALL_BYTES):
            yield part
            part, size = {}, 0
        part[name] = value
        size += more
    if part:
        yield part
