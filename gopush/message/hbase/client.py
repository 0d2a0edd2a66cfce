"""Calls to HBase: to whichever of its Thrift2 servers that work has the least to do, each in its time."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from itertools import repeat
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, gatherResults
from twisted.python.failure import Failure

from gopush.errors import UnavailableError
from gopush.message.hbase.codec import Get, HBaseError, cells, check_and_mutate, get_multiple, written
from gopush.message.hbase.connection import WINDOW, LostError, ThriftLink
from gopush.message.hbase.row import HEAD, Cells, Put
from gopush.message.hbase.settings import HBaseSettings
from gopush.message.store import unwrap
from gopush.net.clock import Clock, LastLook, cancel, pause, repeating
from gopush.net.tls import client_tls

PING_SECONDS = 20.0
"""A Thrift server closes a connection that has been idle for 60 s."""

MOST_GETS = 100
MOST_BYTES = 2 << 20
"""The largest answer to a call for several rows: it holds up the calls behind it."""

SHUN_SECONDS = 5.0
"""How long a Thrift server behind which a call has failed comes after the others: who fails at once has the least to
do.
"""

JITTER_SECONDS = 0.01

T = TypeVar("T")


class NotSentError(UnavailableError):
    """A call that was never sent: nothing has happened."""


class Client:
    """A few connections to each Thrift2 server. See ThriftLink for `tell`.

    Regions whose last call HBase has failed have half the connections at most, one call on each: each call to a region
    that is away holds its connection for as long as HBase tries. What finds no room there is set aside.
    """

    def __init__(self, reactor: Any, settings: HBaseSettings, tell: Callable[[object, str, str | None], None]) -> None:
        self._reactor = reactor
        self._table = settings.table.encode()
        self._waiting: deque[_Call] = deque()
        self._set_aside: deque[_Call] = deque()
        self._under_way: dict[ThriftLink, list[_Call]] = {}
        self._used = 0
        self._last_use: dict[ThriftLink, int] = {}
        self._shunned: dict[str, float] = {}  # addresses, and until when
        self._failing: set[bytes] = set()  # regions, by their first rows
        tls = client_tls("hbase", settings) if settings.tls else None
        for address in settings.thrift * settings.connections:
            link = ThriftLink(reactor, address, self._table, settings.timeout, tls, tell, self._pump, self._doubt)
            self._last_use[link] = 0
            self._under_way[link] = []
        self._pinging = repeating(self._ping, reactor)

    @property
    def ready(self) -> bool:
        """Whether a Thrift server takes calls."""
        return any(link.ready for link in self._last_use)

    def _doubt(self, address: str) -> None:
        for link in self._last_use:
            if link.address == address:
                link.doubt()

    def start(self) -> Deferred[list[str | None]]:
        """Begin to connect: see ThriftLink.start."""
        self._pinging.start(PING_SECONDS, now=False)
        return gatherResults([link.start() for link in self._last_use], consumeErrors=True).addErrback(unwrap)

    def stop(self) -> Deferred[Any]:
        """Disconnect."""
        self._pinging.stop()
        return gatherResults([link.stop() for link in self._last_use])

    def call(self, name: str, row: bytes, arguments: Any, until: float, send_by: float | None = None) -> Deferred[Any]:
        """Make a call for a row that has an answer before `until`, and is not sent after `send_by` (reactor seconds).

        Fails with NotSentError where nothing was sent, else with HBaseError or LostError.
        """
        call = _Call(name, row, arguments, until if send_by is None else send_by)
        call.timer = LastLook(self._reactor, max(0, until - self._reactor.seconds()), partial(self._give_up, call))
        self._waiting.append(call)
        self._pump()
        return call.answer

    def _give_up(self, call: _Call) -> None:
        """Its time is over; where no Thrift server takes calls, it hears why."""
        failing = next((link for link in self._last_use if link.trouble is not None), None)
        if failing is not None and not self.ready:
            call.lacks = f"no connection in time ({failing.address}: {failing.trouble})"
        call.give_up()

    def _pump(self) -> None:
        while links := [link for link in self._last_use if link.ready and link.load < WINDOW]:
            held = self._held() if self._failing else []
            call = self._next(len(held))
            if call is None:
                return
            link = min(links, key=partial(self._rank, held))
            self._used += 1
            self._last_use[link] = self._used
            self._under_way[link].append(call)
            call.sent = True
            link.call(call.name, call.arguments).addBoth(self._answered, call, link)

    def _next(self, held: int) -> _Call | None:
        """The call whose turn it is, if any: one that was set aside, where regions that fail may have a connection."""
        room = held < max(1, sum(link.ready for link in self._last_use) // 2)
        for calls in [self._set_aside, self._waiting] if room else [self._waiting]:
            while calls:
                call = calls.popleft()
                if call.answer.called:
                    continue
                if self._reactor.seconds() > call.send_by:
                    call.give_up()
                    continue
                call.region = self._region(call.row)
                if room or call.region not in self._failing:
                    return call
                call.lacks = "its region failed, and its turn did not come in time"
                self._set_aside.append(call)
        return None

    def _region(self, row: bytes) -> bytes:
        starts = self._starts()
        return starts[bisect_right(starts, row) - 1] if starts else b""

    def _starts(self) -> list[bytes]:
        return next((link.starts for link in self._last_use if link.ready), [])

    def _held(self) -> list[ThriftLink]:
        """The connections of calls to regions that fail, one for each."""
        return [link for link, calls in self._under_way.items() for call in calls if call.region in self._failing]

    def _rank(self, held: list[ThriftLink], link: ThriftLink) -> tuple[bool, bool, int, int]:
        shunned = self._shunned.get(link.address, 0.0) > self._reactor.seconds()
        return link in held, shunned, link.load, self._last_use[link]

    def _answered(self, result: Any, call: _Call, link: ThriftLink) -> None:
        self._under_way[link].remove(call)
        failed = call.region in self._failing
        if not isinstance(result, Failure):
            self._failing.discard(call.region)
        elif isinstance(result.value, HBaseError) and not failed:
            self._failing.add(call.region)
            self._shunned[link.address] = self._reactor.seconds() + SHUN_SECONDS
        if failed and call.region not in self._failing:  # those of other regions are set aside again
            self._waiting.extendleft(reversed(self._set_aside))
            self._set_aside.clear()
        if failed:
            self._pump()
        call.answered(result)

    def _ping(self) -> None:
        for link in self._last_use:
            link.ping()

    def get(self, gets: Sequence[Get], until: float, sizes: Sequence[int] = ()) -> list[Deferred[Cells]]:
        """The cells of each of these rows; `sizes`: the bytes expected of each, where they are many.

        A call asks for rows of one region only: while a region is away, the rows of the others can be read.
        """
        answers: list[Deferred[Cells]] = [Deferred() for _ in gets]
        for part in self._parts([row for row, _ in gets], sizes or [0] * len(gets)):
            asked = [gets[index] for index in part]
            call = self.call("getMultiple", asked[0][0], get_multiple(self._table, asked), until)
            call.addCallback(_whole, len(part)).addBoth(_give, [answers[index] for index in part])
        return answers

    def written(self, row: bytes, cell: tuple[str, bytes], until: float) -> Deferred[float]:
        """When HBase wrote a cell, in seconds since the epoch by its clock."""
        return self.call("getMultiple", row, get_multiple(self._table, [(row, [cell])]), until).addCallback(written)

    def _parts(self, rows: Sequence[bytes], sizes: Sequence[int]) -> list[list[int]]:
        """How rows are divided among calls: indexes."""
        starts = self._starts()
        open_parts: dict[int, tuple[list[int], int]] = {}
        parts: list[list[int]] = []
        for index, (row, size) in enumerate(zip(rows, sizes, strict=True)):
            region = bisect_right(starts, row)
            part, bytes_so_far = open_parts.get(region, ([], 0))
            if not part or len(part) >= MOST_GETS or bytes_so_far + size > MOST_BYTES:
                part, bytes_so_far = [], 0
                parts.append(part)
            part.append(index)
            open_parts[region] = (part, bytes_so_far + size)
        return parts

    def check(
        self,
        row: bytes,
        puts: Sequence[Put],
        old: bytes | None,
        until: float,
        send_by: float | None = None,
        cell: tuple[str, bytes] = HEAD,
    ) -> Deferred[bool]:
        """Write to a row where its cell has the `old` value (None: is not there); whether it had."""
        arguments = check_and_mutate(self._table, row, puts, old, cell)
        return self.call("checkAndMutate", row, arguments, until, send_by)


async def trying(attempt: Callable[[], Coroutine[Any, Any, T | None]], until: float, clock: Clock) -> T:
    """What comes of an attempt that is not in vain: somebody else may write to the same row, and calls get lost.

    Raises UnavailableError where none was before `until`.
    """
    tries = 0
    while True:
        tries += 1
        try:
            if (found := await attempt()) is not None:
                return found
        except UnavailableError:
            if clock.seconds() >= until:
                raise
        await jitter(clock, until, tries)


async def jitter(clock: Clock, until: float, tries: int = 1) -> None:
    """Wait a little before another try. Raises UnavailableError where it is too late for one."""
    if clock.seconds() >= until:
        raise UnavailableError("other nodes kept writing to the same key")
    await pause(random.uniform(0, JITTER_SECONDS * min(tries, 8)), clock)


def _whole(results: Sequence[Any] | None, rows: int) -> list[Cells]:
    """What getMultiple has found in so many rows. Raises LostError where it does not speak of all of them."""
    if results is None or len(results) != rows:
        raise LostError("an answer that does not speak of all rows that were asked for")
    return cells(results)


def _give(found: Any, answers: list[Deferred[Cells]]) -> None:
    """The cells of each row, or the failure for all."""
    for answer, one in zip(answers, repeat(found) if isinstance(found, Failure) else found, strict=False):
        answer.callback(one)


class _Call:
    __slots__ = ("answer", "arguments", "lacks", "name", "region", "row", "send_by", "sent", "timer")

    def __init__(self, name: str, row: bytes, arguments: Any, send_by: float) -> None:
        self.name = name
        self.row = row
        self.region = b""
        self.arguments = arguments
        self.send_by = send_by
        self.sent = False
        self.lacks = "no connection in time"
        self.timer: Any = None
        self.answer: Deferred[Any] = Deferred()

    def answered(self, result: Any) -> None:
        if not self.answer.called:
            self._end()
            self.answer.callback(result)

    def give_up(self) -> None:
        if not self.answer.called:
            self._end()
            self.answer.errback(LostError("no answer in time") if self.sent else NotSentError(self.lacks))

    def _end(self) -> None:
        self.arguments = None
        cancel(self.timer)
