"""Appends to a row in memory whose writes have answers that a test rules (gopush/message/hbase/append.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed

from gopush.errors import RET_INTERNAL, RET_OK, UnavailableError
from gopush.message.hbase.append import RowAppend
from gopush.message.hbase.appender import Appender
from gopush.message.hbase.client import Client, NotSentError
from gopush.message.hbase.codec import HBaseError
from gopush.message.hbase.connection import LostError
from gopush.message.hbase.row import HEAD, Cells, Put, after, body_in, decide, firsts_of, row_head, slot_cell
from gopush.message.hbase.settings import HBaseSettings
from gopush.message.rules import UNAVAILABLE
from gopush.message.store import StoreCounters, StoreNumbers, StoreSettings
from gopush.model import Append, Appended, Push
from tests.comet.harness import EPOCH, Clock

DONE, REFUSED, LOST = "done", "refused", "lost"


class Row:
    """A row and its Thrift server. `moods`: of the next writes whether they are done, and how they are answered."""

    def __init__(self, *moods: tuple[bool, str], between: Callable[[Row], None] | None = None) -> None:
        self.cells: dict[tuple[str, bytes], bytes] = {}
        self.writes = 0
        self._moods = list(moods)
        self._between = between

    def check(self, row: bytes, puts: Sequence[Put], old: bytes | None, *until: float) -> Deferred[bool]:
        """See Client."""
        self.writes += 1
        does, answer = self._moods.pop(0) if self._moods else (True, DONE)
        held = self.cells.get(HEAD) == old
        if does and held:
            self.put(puts)
        if self._between is not None:
            between, self._between = self._between, None
            between(self)
        return fail(LostError("no answer in time")) if answer == LOST else succeed(held and answer == DONE)

    def put(self, puts: Sequence[Put]) -> None:
        for put in puts:
            self.cells.update(put.cells)

    def get(self, row: bytes, wanted: object, until: float) -> Deferred[Cells]:
        return succeed(dict(self.cells))

    @property
    def bodies(self) -> list[bytes | None]:
        records = after(row_head(self.cells.get(HEAD)), 0, EPOCH)
        return [body_in(record, self.cells.get(slot_cell(record.slot))) for record in records]


def item(body: bytes, id: str = "") -> Append:
    return Append(Push("k", body, 60, id, 60, EPOCH + 1000), 0)


def outcome(row: Row, *appends: Append) -> Any:
    """What comes of appends, within a second: the answers, or a Failure."""
    clock = Clock()
    client = cast(Client, row)
    writing = RowAppend(b"k", appends, client, row.get, clock, lambda: EPOCH, StoreSettings(10), StoreCounters())
    outcomes: list[Any] = []
    Deferred.fromCoroutine(writing.run(1.0, 2.0)).addBoth(outcomes.append)
    for _ in range(300):
        clock.advance(0.01)
    return outcomes[0]


def appended(row: Row, *appends: Append) -> list[Appended]:
    """The answers to appends, within a second."""
    found = outcome(row, *appends)
    if isinstance(found, list):
        return found
    assert found.check(UnavailableError)
    return []


def other_writes(row: Row) -> None:
    """Another node appends to the row."""
    head = row_head(row.cells.get(HEAD))
    row.put(decide(head, firsts_of(row.cells), [item(b"other", "other")], 10, 100.0, EPOCH, b"another!").puts)


def test_what_was_written_is_answered() -> None:
    row = Row()
    assert [answer.ret for answer in appended(row, item(b"1"), item(b"2"))] == [RET_OK, RET_OK]
    assert row.bodies == [b"1", b"2"]
    assert row.writes == 1


def test_a_write_that_the_thrift_server_repeats_by_itself_is_stored_once() -> None:
    """Its first try was done; the second one finds the head of the first, and that is what we are answered."""
    for id in ("", "id"):
        row = Row((True, REFUSED))
        (answer,) = appended(row, item(b"1", id))
        assert (answer.ret, answer.repeat) == (RET_OK, False)
        assert row.bodies == [b"1"]


def test_what_it_repeats_is_known_by_its_id_under_another_nodes_write() -> None:
    row = Row((True, REFUSED), between=other_writes)
    (answer,) = appended(row, item(b"1", "id"))
    assert (answer.ret, answer.repeat) == (RET_OK, False)
    assert row.bodies == [b"1", b"other"]


def test_what_another_node_came_before_is_tried_again() -> None:
    for id in ("", "id"):
        row = Row((False, REFUSED), between=other_writes)
        (answer,) = appended(row, item(b"1", id))
        assert (answer.ret, answer.repeat) == (RET_OK, False)
        assert row.bodies == [b"other", b"1"]


def test_a_write_that_was_done_though_its_answer_was_lost_is_stored_once() -> None:
    row = Row((True, LOST))
    (answer,) = appended(row, item(b"1"))
    assert (answer.ret, answer.repeat) == (RET_OK, False)
    assert row.bodies == [b"1"]


def test_what_has_no_id_is_not_tried_again_where_it_may_lie_under_another_write() -> None:
    row = Row((True, LOST), between=other_writes)
    (answer,) = appended(row, item(b"1"))
    assert answer.ret == RET_INTERNAL
    assert row.bodies == [b"1", b"other"]


def test_what_other_nodes_always_come_before_is_refused_and_not_stored() -> None:
    row = Row(*[(False, REFUSED)] * 1000)
    assert [answer.ret for answer in appended(row, item(b"1"))] == [RET_INTERNAL]
    assert row.bodies == []


class Table(Row):
    """A client of a table of one row. While it is `silent` all but the first read has no answer in time."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.silent = True
        self._reads = 0
        self._clock = clock

    def get_rows(self, gets: Sequence[object], until: float) -> list[Deferred[Cells]]:
        self._reads += 1
        return [self._in_time(lambda: dict(self.cells), until, self._reads > 1) for _ in gets]

    def check(self, row: bytes, puts: Sequence[Put], old: bytes | None, *until: float) -> Deferred[bool]:
        return self._in_time(lambda: super(Table, self).check(row, puts, old), until[0])

    def _in_time(self, answer: Callable[[], Any], until: float, later: bool = True) -> Deferred[Any]:
        if self._clock.seconds() >= until:
            return fail(NotSentError("no connection in time"))
        if not (self.silent and later):
            return maybeDeferred(answer)
        late: Deferred[Any] = Deferred()
        self._clock.callLater(until - self._clock.seconds(), late.errback, LostError("no answer in time"))
        return late


def test_a_push_behind_a_slow_one_has_its_own_time() -> None:
    """It was written together with one that had waited for too long, and was refused with it."""
    clock = Clock()
    table = Table(clock)
    client = cast(Client, SimpleNamespace(get=table.get_rows, check=table.check))
    settings = HBaseSettings(timeout=1.0)
    appender = Appender(client, settings, StoreSettings(10), StoreNumbers(), clock, lambda: EPOCH, lambda _: None)
    outcomes: dict[bytes, int] = {}

    def push(body: bytes) -> None:
        appender.append([item(body)]).addCallback(lambda answers: outcomes.update({body: answers[0].ret}))

    def wait(seconds: float) -> None:
        for _ in range(round(seconds / 0.05)):
            clock.advance(0.05)

    push(b"slow")
    wait(0.1)
    push(b"late")
    wait(2.0)
    push(b"fresh")
    wait(0.85)
    table.silent = False
    wait(0.5)
    assert outcomes == {b"slow": RET_INTERNAL, b"late": UNAVAILABLE.ret, b"fresh": RET_OK}
    assert table.bodies == [b"fresh"]


class Away(Row):
    """Not served; then it fails so."""

    def __init__(self, then: UnavailableError) -> None:
        super().__init__()
        self.then = then

    def get(self, *_: object) -> Deferred[Cells]:
        self.writes += 1
        first = HBaseError("org.apache.hadoop.hbase.NotServingRegionException: k")
        return fail(first if self.writes == 1 else self.then)


@pytest.mark.parametrize("then", [NotSentError("no connection in time"), LostError("no answer in time")])
def test_what_hbase_said_is_logged_where_the_last_try_says_less(then: UnavailableError) -> None:
    """It is still what another node may send, where the last try was not even sent."""
    failure = outcome(Away(then), item(b"1"))
    assert failure.check(type(then))
    assert failure.getErrorMessage() == f"NotServingRegionException; then {then}"
