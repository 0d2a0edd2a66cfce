"""Appends to a row in memory whose writes have answers that a test rules (gopush/message/hbase/append.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from twisted.internet.defer import Deferred, ensureDeferred, fail, succeed

from gopush.errors import RET_INTERNAL, RET_OK, UnavailableError
from gopush.message.hbase.append import RowAppend
from gopush.message.hbase.client import Client, NotSentError
from gopush.message.hbase.codec import HBaseError
from gopush.message.hbase.connection import LostError
from gopush.message.hbase.row import HEAD, Cells, Put, after, body_in, decide, firsts_of, row_head, slot_cell
from gopush.message.store import StoreCounters, StoreSettings
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
    ensureDeferred(writing.run(1.0, 2.0)).addBoth(outcomes.append)
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


class Away(Row):
    """Not served; then there is no connection."""

    def get(self, *_: object) -> Deferred[Cells]:
        self.writes += 1
        first = HBaseError("org.apache.hadoop.hbase.NotServingRegionException: k")
        return fail(first if self.writes == 1 else NotSentError("no connection in time"))


def test_what_hbase_said_is_logged_where_the_last_try_is_not_even_sent() -> None:
    """It is still what another node may send."""
    failure = outcome(Away(), item(b"1"))
    assert failure.check(NotSentError)
    assert failure.getErrorMessage() == "NotServingRegionException; then no connection in time"
