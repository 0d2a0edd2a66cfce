"""A channel's cursor (delivery rule 3): ascending, each once, no holes. Pure: offers and pages in, messages out."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gopush.comet.channel import Channel
from gopush.comet.session import REPLAY_BYTES, REPLAY_MESSAGES, Session
from gopush.model import Head, Message, Page


def session() -> Session:
    """A channel only keeps sessions."""
    return cast(Session, object())


def at(cursor: int) -> Channel:
    channel = Channel("k")
    channel.begin(cursor)
    return channel


def body(mid: int) -> bytes:
    return b"%d" % mid


def offer(channel: Channel, mid: int, previous: int) -> None:
    channel.offer(mid, previous, body(mid))


def taken(channel: Channel) -> list[int]:
    messages = channel.take()
    assert all(message.body == body(message.mid) for message in messages)
    return [message.mid for message in messages]


def page(*mids: int, last: int | None = None, trimmed: int = 0, more: bool = False) -> Page:
    head = Head(max(mids, default=0) if last is None else last, trimmed)
    return Page([Message(mid, body(mid)) for mid in mids], head, more)


def read(channel: Channel, answer: Page | None) -> int:
    """Read the log and get this answer."""
    cursor = channel.begin_read()
    channel.end_read(answer)
    return cursor


# --- the gap check ---


def test_previous_equals_the_cursor_deliver() -> None:
    channel = at(16)
    offer(channel, 32, 16)
    assert taken(channel) == [32]
    assert channel.cursor == 32
    assert not channel.behind


def test_messages_that_follow_each_other_are_taken_together() -> None:
    channel = at(16)
    for mid in (32, 48, 64):
        offer(channel, mid, mid - 16)
    assert taken(channel) == [32, 48, 64]
    assert taken(channel) == []


@pytest.mark.parametrize("mid", [16, 32])
def test_at_or_below_the_cursor_there_is_nothing_to_do(mid: int) -> None:
    channel = at(32)
    offer(channel, mid, mid - 16)
    assert taken(channel) == []
    assert not channel.behind
    assert channel.waiting_messages == 0


def test_a_hole_holds_everything_later_back() -> None:
    channel = at(16)
    offer(channel, 48, 32)
    offer(channel, 64, 48)
    assert taken(channel) == []
    assert channel.cursor == 16
    assert channel.behind


def test_what_comes_before_the_hole_goes_out() -> None:
    channel = at(16)
    offer(channel, 32, 16)
    offer(channel, 64, 48)
    assert taken(channel) == [32]
    assert channel.behind


def test_messages_out_of_order_wait_for_each_other() -> None:
    channel = at(16)
    offer(channel, 64, 48)
    offer(channel, 32, 16)
    assert taken(channel) == [32]
    offer(channel, 48, 32)
    assert taken(channel) == [48, 64]
    assert not channel.behind


def test_the_same_message_offered_twice_is_delivered_once() -> None:
    channel = at(16)
    offer(channel, 64, 48)
    offer(channel, 64, 48)
    offer(channel, 48, 32)
    offer(channel, 64, 48)
    offer(channel, 32, 16)
    assert channel.waiting_messages == 3
    assert taken(channel) == [32, 48, 64]
    offer(channel, 32, 16)
    assert taken(channel) == []


def test_a_message_without_its_body_has_to_be_read() -> None:
    channel = at(16)
    channel.offer(32, 16, None)
    assert taken(channel) == []
    assert channel.behind
    assert read(channel, page(32)) == 16
    assert taken(channel) == [32]
    assert not channel.behind


def test_a_predecessor_that_the_store_has_lost_hides_nothing() -> None:
    """The store lost its tail: what it appends next points before the cursor; nothing lies between."""
    channel = at(64)
    offer(channel, 80, 32)
    assert taken(channel) == [80]


# --- reading ---


def test_reading_fills_the_hole() -> None:
    channel = at(16)
    offer(channel, 64, 48)
    assert read(channel, page(32, 48, 64)) == 16
    assert taken(channel) == [32, 48, 64]
    assert channel.cursor == 64


def test_reading_proves_that_a_hole_is_empty() -> None:
    """What lay there has expired or was never kept (expire=0, delivery rule 7)."""
    channel = at(16)
    offer(channel, 64, 48)
    read(channel, page(64))
    assert taken(channel) == [64]


def test_messages_that_are_never_kept_are_merged_with_those_that_are_read() -> None:
    channel = at(16)
    offer(channel, 48, 32)  # never kept
    offer(channel, 80, 64)  # never kept
    read(channel, page(32, 64, last=80))
    assert taken(channel) == [32, 48, 64, 80]


def test_a_read_proves_what_was_offered_before_it_began() -> None:
    channel = at(16)
    offer(channel, 48, 32)
    channel.begin_read()
    offer(channel, 80, 64)  # appended after the read began, perhaps
    channel.end_read(page(48, last=48))
    assert taken(channel) == [48]
    assert channel.behind
    read(channel, page(64, 80))
    assert taken(channel) == [64, 80]


def test_a_message_that_follows_what_was_proven_needs_no_further_read() -> None:
    """The log's last message was never kept and not offered here; the next one names it as its predecessor."""
    channel = at(16)
    channel.offer(32, 16, None)
    channel.begin_read()
    offer(channel, 64, 48)
    channel.end_read(page(32, last=48))
    assert taken(channel) == [32, 64]
    assert not channel.behind


def test_an_empty_page_moves_the_cursor_to_the_head() -> None:
    channel = at(16)
    channel.offer(64, 0, None)
    read(channel, page(last=64))
    assert taken(channel) == []
    assert channel.cursor == 64
    assert not channel.behind


def test_a_store_that_lost_its_tail_is_believed() -> None:
    """What was offered without its body is gone: waiting for it would be for ever."""
    channel = at(16)
    channel.offer(64, 48, None)
    read(channel, page(last=16))
    assert taken(channel) == []
    assert channel.cursor == 64
    assert not channel.behind


def test_messages_that_the_store_lost_but_the_comet_has_are_delivered() -> None:
    channel = at(16)
    offer(channel, 64, 48)
    read(channel, page(32, last=32))
    assert taken(channel) == [32, 64]
    assert channel.cursor == 64


def test_page_by_page() -> None:
    channel = at(0)
    channel.offer(96, 0, None)
    assert read(channel, page(16, 32, last=96, more=True)) == 0
    assert taken(channel) == [16, 32]
    assert channel.behind
    assert read(channel, page(48, 64, last=96, more=True)) == 32
    assert taken(channel) == [48, 64]
    assert read(channel, page(80, 96)) == 64
    assert taken(channel) == [80, 96]
    assert not channel.behind


def test_a_page_proves_no_more_than_up_to_its_last_message() -> None:
    channel = at(0)
    offer(channel, 64, 48)
    read(channel, page(16, 32, last=64, more=True))
    assert taken(channel) == [16, 32]
    read(channel, page(48, 64))
    assert taken(channel) == [48, 64]


def test_a_page_shows_that_the_log_goes_on() -> None:
    channel = at(0)
    channel.offer(32, 0, None)
    read(channel, page(16, 32, last=96, more=True))
    assert taken(channel) == [16, 32]
    assert channel.behind


def test_what_was_delivered_while_a_read_was_under_way_is_not_delivered_again() -> None:
    channel = at(16)
    channel.begin_read()
    offer(channel, 32, 16)
    assert taken(channel) == [32]
    channel.end_read(page(32, 48))
    assert taken(channel) == [48]


def test_a_read_that_failed_proves_nothing() -> None:
    channel = at(16)
    offer(channel, 48, 32)
    read(channel, None)
    assert not channel.reading
    assert taken(channel) == []
    assert channel.behind


def test_bodies_that_wait_are_counted() -> None:
    channel = at(16)
    channel.offer(48, 32, b"x" * 100)
    channel.offer(64, 48, b"x" * 10)
    channel.offer(64, 48, b"x" * 10)
    assert (channel.waiting_messages, channel.waiting_bytes) == (2, 110)
    channel.end_read(Page([Message(32, b"y" * 5)], Head(64, 0), False))
    assert (channel.waiting_messages, channel.waiting_bytes) == (3, 115)
    channel.take()
    assert (channel.waiting_messages, channel.waiting_bytes) == (0, 0)


# --- gaps ---


def test_a_hole_that_was_trimmed_away_is_a_gap() -> None:
    channel = at(16)
    offer(channel, 80, 64)
    read(channel, page(64, 80, trimmed=48))
    assert channel.gap
    assert taken(channel) == [64, 80]


def test_trimming_up_to_the_cursor_is_no_gap() -> None:
    channel = at(16)
    offer(channel, 48, 32)
    read(channel, page(32, 48, trimmed=16))
    assert not channel.gap


def test_trimmed_messages_that_the_comet_has_are_no_gap() -> None:
    channel = at(16)
    offer(channel, 32, 16)
    offer(channel, 48, 32)
    channel.offer(64, 48, None)
    read(channel, page(64, trimmed=48))
    assert not channel.gap
    assert taken(channel) == [32, 48, 64]


def test_a_trimmed_message_before_those_that_the_comet_has_is_a_gap() -> None:
    channel = at(16)
    offer(channel, 48, 32)
    read(channel, page(trimmed=48, last=48))
    assert channel.gap
    assert taken(channel) == [48]


def test_expiry_is_no_gap() -> None:
    channel = at(16)
    offer(channel, 80, 64)
    read(channel, page(80))
    assert not channel.gap


# --- the first cursor ---


def test_without_a_cursor_nothing_is_delivered() -> None:
    channel = Channel("k")
    offer(channel, 32, 16)
    assert taken(channel) == []
    assert not channel.behind


def test_the_first_cursor_is_where_the_log_ends() -> None:
    channel = at(48)
    assert channel.cursor == 48
    assert not channel.behind
    offer(channel, 64, 48)
    assert taken(channel) == [64]


def test_what_was_offered_before_the_cursor_was_known_is_delivered() -> None:
    """It was appended after somebody asked to join: the head that was read may lie before or behind it."""
    for head in (16, 32, 48):
        channel = Channel("k")
        offer(channel, 32, 16)
        offer(channel, 48, 32)
        channel.begin(head)
        assert taken(channel) == [32, 48]


def test_a_subscriber_that_was_let_in_blindly_gets_what_came_since_it_asked() -> None:
    channel = Channel("k")
    channel.remember_since(40)
    channel.remember_since(56)
    channel.begin(64)
    assert channel.cursor == 40
    assert channel.behind
    assert read(channel, page(48, 64)) == 40
    assert taken(channel) == [48, 64]


def test_an_empty_log_begins_at_0() -> None:
    channel = at(0)
    offer(channel, 16, 0)
    assert taken(channel) == [16]


# --- who is there ---


def test_subscribers_are_counted_live_or_recovering() -> None:
    channel, one, two = at(0), session(), session()
    channel.start_recovery(one)
    assert channel.subscribers == 1
    channel.settle(two)
    assert channel.subscribers == 2
    channel.settle(one)
    assert channel.subscribers == 2
    assert (list(channel.live), list(channel.recovering)) == ([two, one], [])
    channel.remove(one)
    channel.remove(one)
    channel.remove(session())
    assert channel.subscribers == 1


def test_the_bridge_is_what_the_channel_delivered_while_somebody_joined() -> None:
    channel, joiner = at(16), session()
    channel.start_recovery(joiner)
    for mid in (32, 48, 64):
        offer(channel, mid, mid - 16)
        taken(channel)
    assert [message.mid for message in channel.bridge(32) or []] == [48, 64]
    assert [message.mid for message in channel.bridge(16) or []] == [32, 48, 64]
    assert channel.bridge(64) == []
    assert channel.bridge(0) is None  # before the joiner came


def test_there_is_no_bridge_over_a_gap() -> None:
    """Delivery rule 4: who joins reads again, and hears +g for what was trimmed after its own cursor."""
    channel = at(16)
    channel.start_recovery(session())
    offer(channel, 64, 48)
    read(channel, page(64, trimmed=48))
    assert taken(channel) == [64]
    assert channel.bridge(16) is None
    assert channel.bridge(64) == []


def test_the_bridge_begins_with_the_first_cursor() -> None:
    channel, joiner = Channel("k"), session()
    channel.start_recovery(joiner)
    channel.begin(32)
    offer(channel, 48, 32)
    taken(channel)
    assert [message.mid for message in channel.bridge(32) or []] == [48]
    assert channel.bridge(16) is None


def test_the_bridge_is_kept_until_the_last_joiner_is_in_or_gone() -> None:
    channel, one, two = at(0), session(), session()
    channel.start_recovery(one)
    offer(channel, 16, 0)
    taken(channel)
    channel.start_recovery(two)
    channel.settle(one)
    assert [message.mid for message in channel.bridge(0) or []] == [16]
    channel.remove(two)
    offer(channel, 32, 16)
    taken(channel)
    assert channel.bridge(16) is None


def test_the_bridge_is_bounded_in_messages() -> None:
    channel, joiner = at(0), session()
    channel.start_recovery(joiner)
    for i in range(1, REPLAY_MESSAGES + 3):
        offer(channel, 16 * i, 16 * (i - 1))
    taken(channel)
    assert channel.bridge(16) is None
    assert len(channel.bridge(32) or []) == REPLAY_MESSAGES


def test_the_bridge_is_bounded_in_bytes() -> None:
    channel, joiner = at(0), session()
    channel.start_recovery(joiner)
    for mid in (16, 32, 48):
        channel.offer(mid, mid - 16, b"x" * (REPLAY_BYTES // 2))
    channel.take()
    assert channel.bridge(0) is None
    assert len(channel.bridge(16) or []) == 2


# --- all of it ---


@given(st.data())
def test_whatever_is_lost_late_or_repeated_all_that_is_kept_arrives_once_and_in_order(data: Any) -> None:
    """The log grows; offers come late, twice, bodiless or never; reads come late or fail; some is never kept."""
    draw = data.draw
    channel, got = at(0), []
    log: list[int] = []
    kept: list[int] = []
    late: list[tuple[int, int, bytes | None]] = []
    answer: Page | None = None

    def append() -> None:
        mid = (log[-1] if log else 0) + 16 * draw(st.integers(1, 3))
        previous = log[-1] if log else 0
        log.append(mid)
        if draw(st.booleans()):
            kept.append(mid)
        for text in draw(st.lists(st.sampled_from([body(mid), None]), max_size=2)):
            late.append((mid, previous, text))

    def tell() -> None:
        if late:
            channel.offer(*late.pop(draw(st.integers(0, len(late) - 1))))

    def ask() -> None:
        nonlocal answer
        if not channel.reading:
            cursor = channel.begin_read()
            after = [mid for mid in kept if mid > cursor]
            limit = draw(st.integers(1, 4))
            answer = page(*after[:limit], last=log[-1] if log else 0, more=len(after) > limit)

    def reply() -> None:
        if channel.reading:
            channel.end_read(answer if draw(st.booleans()) else None)

    for step in draw(st.lists(st.sampled_from([append, append, tell, tell, ask, reply]), max_size=40)):
        step()
        got += taken(channel)
    while late:
        tell()
    channel.end_read(None)
    channel.offer(log[-1] if log else 0, 0, None)  # the sweep
    rounds = 0
    got += taken(channel)
    while channel.behind:
        cursor = channel.begin_read()
        channel.end_read(page(*[mid for mid in kept if mid > cursor], last=log[-1]))
        got += taken(channel)
        rounds += 1
        assert rounds < 3
    assert all(one < two for one, two in pairwise(got))
    assert set(kept) <= set(got) <= set(log)
    assert not channel.gap
    assert (channel.waiting_messages, channel.waiting_bytes) == (0, 0)
