"""The shared words: mids and cursors (protocol.md, section 3; delivery rule 2), keys, nodes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gopush.model import (
    MAX_CURSOR,
    MAX_INT64,
    MID_STEP,
    Message,
    NodeInfo,
    are_keys,
    is_key,
    is_plain,
    mid_at,
    next_mid,
    records,
    snap,
)

INT64 = st.integers(-(2**63), 2**63 - 1)
YEAR_2426 = 14_390_000_000


def test_a_mid_counts_100_ns_since_the_epoch() -> None:
    assert mid_at(1_700_000_000) == 17000000000000000
    assert mid_at(0) == 0


@given(st.floats(0, YEAR_2426))
def test_mids_are_multiples_of_16_and_exact_as_doubles(seconds: float) -> None:
    """So Redis scores and JavaScript keep them, until 2426."""
    mid = mid_at(seconds)
    assert mid % MID_STEP == 0
    assert int(float(mid)) == mid
    assert int(float(mid + MID_STEP)) == mid + MID_STEP
    assert abs(mid / 1e7 - seconds) < 1e-4


def test_the_next_mid_is_past_all_that_is_known() -> None:
    assert next_mid(last=160, floor=0, clock_mid=320) == 320
    assert next_mid(last=320, floor=0, clock_mid=320) == 336
    assert next_mid(last=160, floor=640, clock_mid=320) == 656
    assert next_mid(last=0, floor=0, clock_mid=0) == 16


@pytest.mark.parametrize(
    ("cursor", "snapped"),
    [
        (0, 0),
        (7, 0),
        (8, 16),
        (15, 16),
        (16, 16),
        (17, 16),
        (-8, 0),
        (-9, -16),
        (17000000000000001, 17000000000000000),
        (16999999999999999, 17000000000000000),
        (MAX_INT64, MAX_CURSOR),
        (MAX_CURSOR, MAX_CURSOR),
        (-(2**63), -(2**63)),
        (2**70, MAX_CURSOR),
        (-(2**70), -(2**63)),
    ],
)
def test_a_cursor_is_snapped(cursor: int, snapped: int) -> None:
    assert snap(cursor) == snapped


@given(INT64)
def test_snapping_gives_the_nearest_mid_within_int64(cursor: int) -> None:
    snapped = snap(cursor)
    assert snapped % MID_STEP == 0
    assert -(2**63) <= snapped < 2**63
    assert abs(snapped - cursor) <= 8 or snapped == MAX_CURSOR
    assert snap(snapped) == snapped


@given(st.integers(0, YEAR_2426 * 10_000_000).map(lambda mid: mid & ~15), st.sampled_from([-7, -2, -1, 0, 1, 2, 7]))
def test_what_javascript_prints_of_a_mid_is_snapped_back_to_it(mid: int, off: int) -> None:
    assert snap(mid + off) == mid
    assert snap(int(float(mid))) == mid


@pytest.mark.parametrize("key", ["a", "é" * 127, "k" * 255, "a b", "\u00a0", "\u200b", "😀", "\ue000"])
def test_keys(key: str) -> None:
    assert is_key(key)


@pytest.mark.parametrize(
    "key", ["", "k" * 256, "é" * 128, "\n", "a\x00", "\x1f", "\x7f", "\x85", "\u2028", "\u2029", "\ud800", "a\udfff"]
)
def test_what_is_no_key(key: str) -> None:
    assert not is_key(key)


@given(
    st.lists(
        st.sampled_from(
            ["", "k", "a\u00fc", "\ud800", "\udc00", "\x00", "\u2028", "\xad", "k" * 63, "\U0001f600" * 63, "k" * 256]
        )
        | st.text(max_size=70)
    )
)
def test_many_keys_are_looked_at_together_as_one_by_one(texts: list[str]) -> None:
    assert are_keys(texts) == all(map(is_key, texts))


def test_records_are_what_their_type_makes_of_each() -> None:
    found = records(Message, range(3), [b"a", b"b", b"c", b"more"])
    assert found == [Message(0, b"a"), Message(1, b"b"), Message(2, b"c")]
    assert [type(one) for one in found] == [Message] * 3


@given(st.text())
def test_plain_text_survives_lines_and_encodings(text: str) -> None:
    if is_plain(text):
        assert len(text.splitlines()) <= 1
        assert text.encode().decode() == text
        assert not any(ord(char) < 32 for char in text)


def test_a_process_is_known_by_where_it_is_called() -> None:
    first = NodeInfo("node1", 1, ("host:1", "host:2"))
    assert first.id == "host:1"
    assert first._replace(sequence=7).id == first.id
