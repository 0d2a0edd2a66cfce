"""The time of a table, by which all its nodes go: where each went by its own clock, one that is ahead dropped as
expired what the others still have to deliver.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import uuid4

from gopush.message.hbase.client import Client, NotSentError
from gopush.message.hbase.row import Put

CELL_SECONDS = 60.0
"""How long HBase keeps a cell that only tells when it was written."""

TICK = 0.001
"""HBase leaves out parts of a millisecond."""


@dataclass(eq=False, repr=False)
class TableClock:
    """HBase's clock, that of the region server that has `row`: `now`, this process's clock, and by how much HBase's is
    ahead of it, which `tell` hears.
    """

    _client: Client
    _row: bytes
    _now: Callable[[], float] = time.time
    _tell: Callable[[float], None] = lambda _: None
    _skew: float | None = field(default=None, init=False)

    @property
    def known(self) -> bool:
        """Whether HBase's clock was read."""
        return self._skew is not None

    def __call__(self) -> float:
        """Seconds since the epoch. Raises NotSentError while that is not known."""
        if self._skew is None:
            raise NotSentError("HBase's clock is not known yet")
        return self._now() + self._skew

    async def look(self, until: float) -> None:
        """Compare the clocks: have HBase write a cell, and read at what time it did. How long that took does not count.

        The cell is new each time: where HBase checks a cell, it gives it no earlier time than it had.
        """
        cell = ("m", b"clock" + uuid4().bytes)
        began = time.time()
        await self._client.check(self._row, [Put({cell: b"1"}, CELL_SECONDS)], None, until, cell=cell)
        ended = time.time()
        written = await self._client.written(self._row, cell, until)
        self._skew = max(min(self._skew or 0.0, written + TICK - began), written - ended)
        self._tell(self._skew)
