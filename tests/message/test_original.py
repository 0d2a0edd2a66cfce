"""What gopush-cluster keeps, read, and where it belongs in a log of ours (docs/migration.md)."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gopush.message.original import KeyState, OldMessage, mark, old_message, placed
from gopush.model import MID_STEP, Head, mid_at, snap

NOTHING = KeyState(Head(0, 0), [])


@pytest.mark.parametrize(
    ("member", "body"),
    [
        (b'{"msg":{"a":1},"expire":9}', b'{"a":1}'),
        (b'{"msg":"\\u003c\xc3\xa4","expire":9}', b'"\\u003c\xc3\xa4"'),
        (b'{"msg":[1e400, -0.10 ,123456789012345678901234567890],"expire":9}', None),
        (b' { "expire" : 9 , "msg" : null } ', b"null"),
        (b'{"msg":{"expire":1,"msg":2},"expire":9}', b'{"expire":1,"msg":2}'),
        (b'{"msg":' + b"7" * 5000 + b',"expire":9}', b"7" * 5000),
    ],
)
def test_a_message_is_taken_byte_for_byte(member: bytes, body: bytes | None) -> None:
    expected = body or b"[1e400, -0.10 ,123456789012345678901234567890]"
    assert old_message(b"14500000000000012", member) == OldMessage(14500000000000012, 9, expected)


@pytest.mark.parametrize(
    "member",
    [
        b"",
        b"7",
        b"{}",
        b'{"msg":1}',
        b'{"expire":9}',
        b'{"msg":1,"expire":"9"}',
        b'{"msg":1,"expire":9.5}',
        b'{"msg":1,"expire":-9}',
        b'{"msg":1,"expire":9}x',
        b'{"msg":1,"expire":9',
        b'{"msg":1 "expire":9}',
        b'{"msg":NaN,"expire":9}',
        b'{"msg":,"expire":9}',
        b'{"msg":"\xff","expire":9}',
        b'{1:2,"msg":1,"expire":9}',
        b'{"msg":' + b"[" * 100_000 + b"]" * 100_000 + b',"expire":9}',
        bytes(range(32)),
    ],
)
def test_what_is_none_of_it_is_recognized(member: bytes) -> None:
    assert old_message(b"16", member) is None


def test_a_score_that_is_no_mid_is_none() -> None:
    assert old_message(b"inf", b'{"msg":1,"expire":9}') is None
    assert old_message(b"1.45e+16", b'{"msg":1,"expire":9}') == OldMessage(14500000000000000, 9, b"1")


def log(*messages: tuple[int, bytes]) -> list[OldMessage]:
    return [OldMessage(mid, 9, body) for mid, body in messages]


def there(messages: Sequence[OldMessage], *own: int, trimmed: int = 0) -> KeyState:
    """A log that holds these, and messages of its own."""
    marks = sorted([(one.mid, mark(one.expires, one.body)) for one in messages] + [(mid, b"") for mid in own])
    return KeyState(Head(marks[-1][0], trimmed), marks)


def test_scores_are_snapped_and_ascend_where_they_collide() -> None:
    found = placed(log((1600, b"a"), (1602, b"b"), (1606, b"c"), (1700, b"d")), NOTHING)
    assert [(one.mid, one.body) for one in found] == [(1600, b"a"), (1616, b"b"), (1632, b"c"), (1696, b"d")]


@pytest.mark.parametrize(("second", "again"), [(1_450_000_000, {7}), (1_700_000_000, {7}), (1_810_000_000, {6, 7})])
def test_a_device_goes_on_with_its_mid_and_misses_none(second: int, again: set[int]) -> None:
    """docs/migration.md: Redis's double rounds too; which mids bring the device its last message once more."""
    found = set()
    for mid in range(mid_at(second), mid_at(second) + 64):
        moved = old_message(b"%.17g" % float(mid), b'{"msg":1,"expire":9}')
        assert moved is not None
        assert snap(moved.mid) >= snap(mid), "a lower one: the device would miss what is between"
        found |= {mid % MID_STEP} if snap(moved.mid) > snap(mid) else set()
    assert found == again


def test_all_comes_before_what_gopush_was_pushed_itself() -> None:
    found = placed(log((1600, b"a"), (1700, b"b"), (1800, b"c")), there([], 1696, 3200))
    assert [one.mid for one in found] == [1600, 1664, 1680]


def test_what_was_moved_before_is_not_moved_again_also_where_its_neighbours_have_gone() -> None:
    source = log((1600, b"a"), (1602, b"b"), (1606, b"c"))
    moved = placed(source, NOTHING)
    for left in (source, source[1:], source[2:], []):
        assert placed(left, there(moved)) == []
    late = log((1604, b"late"))
    (found,) = placed([*source[:2], *late, source[2]], there(moved))
    assert found.mid not in {one.mid for one in moved}


def test_what_has_been_trimmed_since_stays_away() -> None:
    assert placed(log((1600, b"a"), (1700, b"b")), there([], 3200, trimmed=1600)) == log((1696, b"b"))


mids = st.integers(0, 60).map(lambda number: 10_000 + 5 * number)


@given(
    st.lists(st.tuples(mids, st.binary(max_size=1)), unique_by=lambda one: one[1], max_size=12),
    st.sets(mids, max_size=5),
    st.data(),
)
def test_nothing_is_lost_doubled_or_out_of_order(
    found: list[tuple[int, bytes]], native: set[int], data: st.DataObject
) -> None:
    """However often a move is interrupted, and whatever of the source has gone meanwhile."""
    source = log(*sorted(found))
    own = sorted({snap(mid) for mid in native})
    moved: list[OldMessage] = []
    state = there([], *own) if own else NOTHING
    for _ in range(3):
        left = [one for one in source if data.draw(st.booleans())]
        new = placed(left, state)
        assert [one.body for one in new] == [one.body for one in left if one not in seen(source, moved)]
        moved += new
        state = there(moved, *own) if moved or own else NOTHING
    last = placed(source, state)
    whole = [*moved, *last]
    assert sorted(one.body for one in whole) == sorted(one.body for one in source)
    taken = [one.mid for one in whole] + own
    assert len(set(taken)) == len(taken)
    assert all(mid % MID_STEP == 0 for mid in taken)
    assert not own or all(one.mid < min(own) for one in moved[:1])


def seen(source: list[OldMessage], moved: list[OldMessage]) -> list[OldMessage]:
    bodies = {one.body for one in moved}
    return [one for one in source if one.body in bodies]


@given(
    st.lists(st.tuples(mids, st.binary(max_size=1)), unique_by=lambda one: one[1], max_size=12),
    st.sets(mids, max_size=5),
)
def test_a_whole_move_keeps_the_order(found: list[tuple[int, bytes]], native: set[int]) -> None:
    source = log(*sorted(found))
    own = sorted({snap(mid) for mid in native})
    new = placed(source, there([], *own) if own else NOTHING)
    assert [one.body for one in new] == [one.body for one in source]
    mids = [one.mid for one in new] + own
    assert mids == sorted(set(mids))


def test_json_of_the_original_is_read() -> None:
    """As Go's encoding/json writes it."""
    body = {"text": "a\u2028<b>", "n": 12345678901234567890}
    text = json.dumps(body, separators=(",", ":"))
    found = old_message(b"14500000000000016", b'{"msg":%b,"expire":1445000000}' % text.encode())
    assert found is not None
    assert json.loads(found.body) == body
