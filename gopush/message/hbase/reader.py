"""Reads in HBase: the head of each row first, then the slots that it names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import DeferredList

from gopush.message.hbase.client import Client, NotSentError, jitter
from gopush.message.hbase.codec import Get
from gopush.message.hbase.row import HEAD, Cells, Record, RowHead, after, body_in, head_of, row_head, row_key, slot_cell
from gopush.message.hbase.settings import HBaseSettings
from gopush.message.rules import Room
from gopush.model import Message, Page, Read

_Lacking = set[tuple[bytes, int]]
"""Mids of messages that were not in their slots, with the stamp of the head that named them."""


class RowReader:
    """Reads through `client`. `now`: seconds since the epoch."""

    def __init__(self, client: Client, settings: HBaseSettings, reactor: Any, now: Callable[[], float]) -> None:
        self._client = client
        self._settings = settings
        self._reactor = reactor
        self._now = now

    async def read(self, reads: Sequence[Read], until: float) -> list[Page | None]:
        """See MessageService. Raises UnavailableError where that takes longer than `until`."""
        pages: dict[int, Page] = {}
        lacking: _Lacking = set()
        while True:
            left = [index for index in range(len(reads)) if index not in pages]
            for index, page in zip(left, await self._pages([reads[i] for i in left], lacking, until), strict=True):
                if page is not None:
                    pages[index] = page
            if len(pages) == len(reads):
                return [pages[index] for index in range(len(reads))]
            await jitter(self._reactor, until)

    async def _pages(self, reads: Sequence[Read], lacking: _Lacking, until: float) -> list[Page | None]:
        """The pages; None where something was `lacking`: it was written between the look at the head and that at slots.

        If the head is the same at the next look, nobody has written: HBase let go of the slot. Its message was pushed
        by a clock that was ahead, and has expired.
        """
        rows = [row_key(self._settings.prefix, read.key) for read in reads]
        now = self._now()
        heads = [row_head(found.get(HEAD)) for found in await self.cells([(row, [HEAD]) for row in rows], until)]
        picked = _pick(heads, reads, lacking, now)
        records = [(row, record) for row, (page, _) in zip(rows, picked, strict=True) for record in page]
        gets = [(row, [slot_cell(record.slot)]) for row, record in records]
        slots = await self.cells(gets, until, [record.size for _, record in records])
        bodies = iter(
            body_in(record, found.get(slot_cell(record.slot)))
            for (_, record), found in zip(records, slots, strict=True)
        )
        pages: list[Page | None] = []
        for head, (page, more) in zip(heads, picked, strict=True):
            messages = [Message(record.mid, body) for record in page if (body := next(bodies)) is not None]
            pages.append(Page(messages, head_of(head, now), more) if len(messages) == len(page) else None)
            if head is not None and len(messages) < len(page):
                there = {message.mid for message in messages}
                lacking.update((head.stamp, record.mid) for record in page if record.mid not in there)
        return pages

    async def cells(self, gets: Sequence[Get], until: float, sizes: Sequence[int] = ()) -> list[Cells]:
        """Cells of rows (see Client.get); fails as a whole."""
        return [_found(one) for one in await self._twice(gets, until, sizes)]

    async def each(self, gets: Sequence[Get], until: float) -> list[Cells | None]:
        """Cells of rows; None where they cannot be read, as long as those of another row can."""
        tried = await self._twice(gets, until)
        if not any(done for done, _ in tried):
            return [_found(one) for one in tried]
        return [found if done else None for done, found in tried]

    async def _twice(self, gets: Sequence[Get], until: float, sizes: Sequence[int] = ()) -> list[tuple[bool, Any]]:
        """See DeferredList. What fails is asked for once more, of another server where there is one that works."""
        sizes = sizes or [0] * len(gets)
        tried: list[tuple[bool, Any]] = await DeferredList(self._client.get(gets, until, sizes), consumeErrors=True)
        again = [index for index, (done, _) in enumerate(tried) if not done and self._reactor.seconds() < until]
        left = self._client.get([gets[index] for index in again], until, [sizes[index] for index in again])
        second: list[tuple[bool, Any]] = await DeferredList(left, consumeErrors=True)
        for index, (done, found) in zip(again, second, strict=True):
            if done or not found.check(NotSentError):  # that says less than the first failure
                tried[index] = done, found
        return tried


def _found(tried: tuple[bool, Any]) -> Cells:
    done, found = tried
    if not done:
        found.raiseException()
    cells: Cells = found
    return cells


def _pick(
    heads: Sequence[RowHead | None], reads: Sequence[Read], lacking: _Lacking, now: float
) -> list[tuple[list[Record], bool]]:
    """The records of each page, and whether there may be more."""
    room = Room(reads)
    picked = []
    for head, read in zip(heads, reads, strict=True):
        records = after(head, read.after, now)
        if head is not None and lacking:
            records = [record for record in records if (head.stamp, record.mid) not in lacking]
        count, more = room.take(read, (record.size for record in records))
        picked.append((records[:count], more))
    return picked
