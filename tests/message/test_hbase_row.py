"""What a key's row becomes, without HBase: the traps that its cells have (gopush/message/hbase/row.py)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gopush.errors import RET_OK, UnavailableError
from gopush.message.hbase.codec import HBaseError, create_table, request
from gopush.message.hbase.create import split_frames, splits
from gopush.message.hbase.row import (
    HEAD,
    SLACK_SECONDS,
    Cells,
    RowHead,
    after,
    body_in,
    decide,
    emptied,
    fenced,
    firsts_of,
    head_in,
    head_of,
    head_put,
    merged,
    row_head,
    row_key,
    slot_cell,
    slot_puts,
    token_cell,
    token_ends,
    token_put,
)
from gopush.message.rules import NO_HEAD, KeptLog, pushed_here
from gopush.model import MID_STEP, Append, Push, mid_at

NOW = 1_700_000_000.0
LIFE = 100.0


def push(body: bytes = b"1", *, expire: int = 60, id: str = "", dedupe: int = 60) -> Append:
    return Append(Push("k", body, expire, id, dedupe, NOW + 1000), 0)


def written(cells: Cells, *appends: Append, now: float = NOW, most: int = 3, stamp: bytes = b"12345678") -> Cells:
    """The row after these appends."""
    decision = decide(row_head(cells.get(HEAD)), firsts_of(cells), appends, most, LIFE, now, stamp)
    return {**cells, **{cell: value for put in decision.puts for cell, value in put.cells.items()}}


def head(cells: Cells) -> RowHead:
    found = row_head(cells[HEAD])
    assert found is not None
    return found


def bodies(cells: Cells, now: float = NOW) -> list[bytes | None]:
    return [body_in(record, cells.get(slot_cell(record.slot))) for record in after(head(cells), 0, now)]


def test_slots_are_used_again_and_no_more_of_them_than_messages() -> None:
    cells: Cells = {}
    for number in range(20):
        cells = written(cells, push(b"%d" % number))
    assert bodies(cells) == [b"17", b"18", b"19"]
    assert {cell for cell in cells if cell[1].startswith(b"s")} == {slot_cell(slot) for slot in range(3)}


def test_of_a_batch_only_what_stays_is_written() -> None:
    decision = decide(None, {}, [push(b"%d" % n) for n in range(1000)], 3, LIFE, NOW, b"12345678")
    assert (len(decision.puts[1].cells), decision.trimmed) == (3, 997)


def test_a_slot_that_holds_another_message_differs_from_the_heads() -> None:
    old = written({}, push(b"old"), most=1)
    new = written(old, push(b"new"), most=1)
    record = head(old).records[0]
    assert body_in(record, new[slot_cell(record.slot)]) is None
    assert body_in(record, None) is None


def test_a_head_never_ends_before_the_one_beneath_it() -> None:
    """HBase would let the older one come to light again."""
    cells = written({}, push(expire=5000))
    long = head(cells)
    (put, _) = emptied(long, LIFE, NOW + 1, b"abcdefgh")
    assert put.seconds == 5000 + LIFE - 1 + SLACK_SECONDS
    empty = row_head(put.cells[HEAD])
    assert empty is not None
    assert (empty.ends, empty.stays, empty.records) == (NOW + 1 + LIFE, long.stays, ())
    again = head(written({HEAD: put.cells[HEAD]}, push(expire=1), now=NOW + 2))
    assert again.stays == long.stays


def test_a_log_that_has_ended_begins_anew_though_its_head_is_there() -> None:
    cells = written({}, push(expire=1))
    decision = decide(head(cells), {}, [push()], 3, LIFE, NOW + 1 + LIFE, b"abcdefgh")
    assert (decision.answers[0].ret, decision.answers[0].previous) == (RET_OK, 0)


def test_a_repeat_writes_only_where_it_asks_for_a_longer_memory() -> None:
    cells = written({}, push(id="a", dedupe=60))
    same = decide(head(cells), firsts_of(cells), [push(id="a", dedupe=60)], 3, LIFE, NOW, b"abcdefgh")
    assert (same.puts, same.answers[0].repeat) == ([], True)
    longer = written(cells, push(id="a", dedupe=600))
    assert firsts_of(longer)["a"].until == NOW + 600
    assert bodies(longer) == [b"1"]


def test_a_fence_changes_the_stamp_alone() -> None:
    before = head(written({}, push()))
    (put,) = fenced(before, NOW, b"abcdefgh")
    assert row_head(put.cells[HEAD]) == before._replace(stamp=b"abcdefgh")
    (put,) = fenced(None, NOW, b"abcdefgh")
    nothing = row_head(put.cells[HEAD])
    assert nothing is not None
    assert (nothing.last, nothing.trimmed, nothing.ends, nothing.records) == (0, 0, 0, ())


def test_where_a_log_ends_is_found_without_a_look_at_its_records() -> None:
    """To unpack a thousand records of each of a thousand heads took a third of a second."""
    value = written({}, *[push() for _ in range(5)])[HEAD]
    now = NOW + 1
    assert head_in(value + b"no record", now) == head_of(row_head(value), now)
    assert head_in(value + b"no record", now).trimmed > 0
    assert head_in(None, now) == NO_HEAD


def test_a_revoked_token_stays_as_long_as_what_it_covers() -> None:
    made = token_put(b"d", NOW + 500, None, NOW).cells[token_cell(b"d")]
    revoked = token_put(b"d", 0, made, NOW + 10)
    assert token_ends(revoked.cells[token_cell(b"d")]) == 0
    assert revoked.seconds == 490 + SLACK_SECONDS


def test_a_row_of_a_later_version_is_left_alone() -> None:
    value = written({}, push())[HEAD]
    with pytest.raises(UnavailableError, match="a row's version is 2, not 1"):
        row_head(b"\2" + value[1:])


def test_rows_are_spread_by_their_hash() -> None:
    rows = [row_key("gopush:", f"key-{number}") for number in range(256)]
    assert all(row[4:].startswith(b"gopush:key-") for row in rows)
    assert len({row[0] >> 4 for row in rows}) == 16


@pytest.mark.parametrize("regions", [1, 2, 16])
def test_each_start_of_a_region_begins_a_frame(regions: int) -> None:
    starts = splits(regions)
    message = request("createTable", 1, create_table(b"t", starts))
    frames = split_frames(message, starts)
    assert b"".join(frames) == message
    assert [frame[:4] for frame in frames[1:]] == starts


def test_an_error_of_hbase_tells_no_key() -> None:
    """Keys are logged at the level debug alone."""
    said = "Failed after attempts=2, exceptions:\n java.io.IOException: row 'gopush:secret-key' on table 'gopush'"
    error = HBaseError(said)
    assert str(error) == "IOException"
    assert "secret-key" in error.text
    assert "secret" not in str(HBaseError("row secret")) + str(HBaseError(None))


@pytest.mark.parametrize("said", ["gopush", "push:gopush", "gopush is disabled."])
def test_an_error_that_names_but_the_table_says_that_hbase_does_not_serve_it(said: str) -> None:
    assert str(HBaseError(said)) == "HBase does not serve the table (is it disabled, or dropped?)"


MOST = 6
BASE = mid_at(NOW) - 1600


def taken_over(cells: Cells, log: KeptLog, interrupted: bool = False, inserted: bool = False) -> Cells:
    """The row after a log was taken over, or after its bodies alone were written."""
    old = row_head(cells.get(HEAD))
    mids = {record.mid for record in old.records} if old else set()
    new, slots = merged(old, log, mids if inserted else pushed_here(mids, log), MOST, NOW, b"abcdefgh")
    puts = [*slot_puts(new, slots, NOW), *([] if interrupted else [head_put(new, NOW)])]
    return {**cells, **{cell: value for put in puts for cell, value in put.cells.items()}}


def kept(*messages: tuple[int, bytes], last: int = 0, trimmed: int = 0) -> KeptLog:
    found = [(mid, NOW + 60, body) for mid, body in messages]
    return KeptLog("k", max([last, *(mid for mid, _ in messages)]), trimmed, NOW + 60 + LIFE, found, (), ())


@given(st.lists(st.sampled_from([0, 60]), max_size=8), st.integers(0, 8), st.integers(0, 5), st.booleans())
def test_a_log_is_taken_over_once_however_often_and_what_came_after_it_stays(
    before: list[int], source: int, behind: int, interrupted: bool
) -> None:
    """A head never goes back, and until it is written the row reads as before."""
    cells: Cells = {}
    for number, expire in enumerate(before):
        cells = written(cells, push(b"own %d" % number, expire=expire), most=MOST)
    base = mid_at(NOW) - MID_STEP * (source + 100 * behind % 3)
    log = kept(*((base + MID_STEP * number, b"moved %d" % number) for number in range(source)), last=base)
    if interrupted:
        half = taken_over(cells, log, interrupted=True)
        if before:
            assert head(half) == head(cells)
            assert bodies(half) == bodies(cells)
        cells = half
    own = [record for record in head(cells).records if record.mid > log.last] if before else []
    after_it = taken_over(cells, log)
    found = head(after_it)
    assert found.last == max(log.last, head(cells).last if before else 0)
    mids = [record.mid for record in found.records]
    assert mids == sorted(set(mids))
    assert mids == [*(mid for mid, _, _ in log.messages), *(record.mid for record in own)][-MOST:]
    assert None not in bodies(after_it)
    again = taken_over(after_it, log)
    assert head(again)[1:5] == found[1:5]
    assert bodies(again) == bodies(after_it)


def test_what_was_pushed_here_between_two_passes_stays() -> None:
    cells = taken_over({}, kept((BASE, b"a")))
    cells = taken_over(
        {**cells, **taken_over(cells, kept((BASE + 32, b"own")), inserted=True)}, kept((BASE, b"a"), (BASE + 64, b"b"))
    )
    assert bodies(cells) == [b"a", b"own", b"b"]
    assert bodies(taken_over(cells, kept((BASE, b"a"), (BASE + 64, b"b")))) == [b"a", b"own", b"b"]
    assert bodies(taken_over(cells, kept((BASE + 80, b"c")))) == [b"c"], "msg/del took what was before"


def test_what_is_inserted_keeps_all_that_is_there() -> None:
    cells = written({}, push(b"own"), most=MOST)
    mid = head(cells).last
    old = kept((mid - 64, b"a"), (mid - 32, b"b"))
    cells = taken_over(cells, old, inserted=True)
    assert bodies(cells) == [b"a", b"b", b"own"]
    assert head(cells).last == mid
    cells = written(cells, *(push(b"%d" % number) for number in range(4)), most=MOST)
    assert bodies(cells) == [b"b", b"own", b"0", b"1", b"2", b"3"]
    assert head(cells).trimmed == mid - 64
    assert bodies(taken_over(cells, old, inserted=True))[0] == b"b", "what was trimmed stays away"
