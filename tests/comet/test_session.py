"""One subscriber's connection (protocol.md, sections 1 and 2; delivery rule 9), without any channel."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gopush.comet.session import MAX_OWED_HEARTBEATS, Backlog, Session, State
from gopush.model import REFUSE_NODE, REFUSE_PARAMETER, TCP_OLD, TCP_RAW, Format, Message, Subscribe
from tests.comet.harness import Wire, frame


class Limits:
    handshake = 5
    msgbuf_messages = 10
    msgbuf_bytes = 1000


HTML = Format(lambda message: b"<%b>" % message.body, lambda reply: b"{%b}" % reply.strip())


def waiting(now: float = 100.0) -> tuple[Session, Wire]:
    wire = Wire()
    return Session(wire, TCP_RAW, Limits(), now), wire


def recovering(heartbeat: int = 30, mid: int | None = None, now: float = 100.0) -> tuple[Session, Wire]:
    session, wire = waiting(now)
    session.join(Subscribe("k", heartbeat, "", "1", mid), TCP_RAW, now)
    return session, wire


def live(reads: bool = True) -> tuple[Session, Wire]:
    session, wire = recovering()
    session.accept()
    session.go_live()
    wire.reads = reads
    wire.out = b""
    return session, wire


# --- deadlines ---


def test_the_request_must_arrive_within_5_s() -> None:
    session, _ = waiting(now=100.0)
    assert session.state is State.WAITING
    assert session.deadline == 105.0


@pytest.mark.parametrize("heartbeat", [30, 86400, 2**63 - 1])
def test_silence_of_heartbeat_plus_5_s_ends_it(heartbeat: int) -> None:
    session, _ = recovering(heartbeat, now=100.0)
    assert session.deadline == 100.0 + heartbeat + 5
    session.heard(1, 120.5)
    assert session.deadline == 120.5 + heartbeat + 5
    session.accept()
    session.go_live()
    session.heard(1, 130.0)
    assert session.deadline == 130.0 + heartbeat + 5


def test_messages_to_the_client_do_not_put_its_deadline_off() -> None:
    session, _ = live()
    session.deliver(b"x", 1)
    assert session.deadline == 135.0


def test_nothing_puts_the_end_off_once_the_last_word_is_said() -> None:
    session, wire = live()
    session.finish(REFUSE_NODE, 110.0)
    session.heard(3, 114.0)
    assert session.deadline == 115.0
    assert wire.out == b"-n\r\n"


def test_a_heartbeat_before_the_request_is_none() -> None:
    session, wire = waiting()
    session.heard(1, 104.0)
    assert session.deadline == 105.0
    assert wire.sends == []


# --- heartbeats ---


@pytest.mark.parametrize("heartbeats", [1, 2, 100])
def test_each_heartbeat_is_answered(heartbeats: int) -> None:
    session, wire = live()
    session.heard(heartbeats, 101.0)
    assert wire.out == b"+h\r\n" * heartbeats
    assert len(wire.sends) == 2  # the first was the +h of the subscription


def test_heartbeats_while_recovering_are_answered_after_the_backlog() -> None:
    session, wire = recovering(mid=0)
    session.heard(2, 101.0)
    session.accept()
    session.catch_up([Message(16, b"1")], gap=False)
    session.heard(1, 102.0)
    session.catch_up([Message(32, b"2")], gap=False)
    assert wire.out == b"+h\r\n" + frame(16, b"1") + frame(32, b"2")
    session.go_live()
    assert wire.out == b"+h\r\n" + frame(16, b"1") + frame(32, b"2") + b"+h\r\n" * 3
    session.heard(1, 103.0)
    assert wire.out.endswith(b"+h\r\n" * 4)


def test_owed_heartbeats_are_answered_once() -> None:
    session, wire = recovering()
    session.heard(1, 100.0)
    session.accept()
    session.go_live()
    session.go_live()
    assert wire.out == b"+h\r\n" * 2


def test_who_floods_heartbeats_while_recovering_is_closed() -> None:
    session, wire = recovering()
    session.heard(MAX_OWED_HEARTBEATS, 100.0)
    assert not wire.aborted
    assert not session.too_slow
    session.heard(1, 100.0)
    assert wire.aborted
    assert session.too_slow  # so it is counted
    assert wire.sends == []


# --- the states ---


def test_the_way_of_a_subscriber() -> None:
    session, wire = waiting()
    assert (session.state, session.request, session.resumes) == (State.WAITING, None, False)
    session.join(Subscribe("k", 30, "", "", None), TCP_OLD, 100.0)
    assert (session.state, session.resumes) == (State.RECOVERING, False)
    assert session.format is TCP_OLD
    session.accept()
    session.go_live()
    states = [session.state]
    session.finish(REFUSE_NODE, 101.0)
    assert [*states, session.state] == [State.LIVE, State.CLOSING]
    assert wire.out == b"+h\r\n-n\r\n"
    assert wire.finished


@pytest.mark.parametrize("mid", [0, 16, -16])
def test_who_gives_a_mid_resumes(mid: int) -> None:
    session, _ = recovering(mid=mid)
    assert session.resumes


@pytest.mark.parametrize("start", [waiting, recovering, live])
@pytest.mark.parametrize("reply", [b"-p\r\n", b"-a\r\n", b"-c\r\n", b"-n\r\n", b"-l\r\n"])
def test_a_refusal_is_said_once_and_closes(start: object, reply: bytes) -> None:
    session, wire = start()  # type: ignore[operator]
    session.finish(reply, 100.0)
    session.finish(b"-p\r\n", 100.0)
    assert wire.out == reply
    assert wire.finished
    assert not wire.aborted


def test_a_refusal_has_the_form_of_the_wire() -> None:
    wire = Wire()
    Session(wire, HTML, Limits(), 0.0).finish(REFUSE_PARAMETER, 0.0)
    assert wire.out == b"{-p}"


def test_all_that_is_said_has_the_form_of_the_wire() -> None:
    wire = Wire()
    session = Session(wire, HTML, Limits(), 0.0)
    session.join(Subscribe("k", 30, "", "1", 16), HTML, 0.0)
    session.heard(2, 0.0)
    session.accept()
    session.catch_up([Message(48, b"1")], gap=True)
    session.go_live()
    session.heard(1, 0.0)
    assert wire.out == b"{+h}{+g}<1>{+h}{+h}{+h}"


def test_the_end_without_a_word() -> None:
    session, wire = live()
    session.finish(b"", 100.0)
    assert wire.out == b""
    assert wire.finished
    assert session.deadline == 105.0


def test_closing_by_force_says_nothing() -> None:
    session, wire = live()
    session.abort()
    assert (session.state, wire.out, wire.aborted, wire.finished) == (State.CLOSING, b"", True, False)


def test_a_subscriber_that_still_joins_gets_nothing_live() -> None:
    session, wire = recovering()
    session.deliver(b"x", 1)
    assert wire.sends == []


@pytest.mark.parametrize("end", [lambda session: session.finish(b"-n\r\n", 0.0), lambda session: session.abort()])
def test_after_the_last_word_nothing_follows(end: object) -> None:
    session, wire = recovering(mid=0)
    session.heard(1, 100.0)
    end(session)  # type: ignore[operator]
    said = wire.out
    session.accept()
    session.catch_up([Message(16, b"1")], gap=True)
    session.go_live()
    session.deliver(b"x", 1)
    session.heard(1, 101.0)
    session.finish(b"-p\r\n", 101.0)
    assert wire.out == said
    assert session.state is State.CLOSING


def test_catching_up_with_nothing_sends_nothing() -> None:
    session, wire = recovering(mid=0)
    session.catch_up([], gap=False)
    assert wire.sends == []


def test_the_gap_comes_before_the_messages_and_in_one_send() -> None:
    session, wire = recovering(mid=16)
    session.catch_up([Message(48, b"1"), Message(64, b"2")], gap=True)
    assert wire.sends == [b"+g\r\n" + frame(48, b"1") + frame(64, b"2")]


# --- slow subscribers (delivery rule 9): closed past 10 messages or 1000 bytes here ---


def test_as_many_messages_as_allowed_may_wait_and_no_more() -> None:
    session, wire = live(reads=False)
    for _ in range(10):
        session.deliver(b"m", 1)
    assert not wire.aborted
    session.deliver(b"m", 1)
    assert wire.aborted


def test_messages_that_go_out_together_count_each() -> None:
    session, wire = live(reads=False)
    session.deliver(b"m" * 9, 9)
    session.deliver(b"m", 1)
    assert not wire.aborted
    session.deliver(b"mm", 2)
    assert wire.aborted


def test_as_many_bytes_as_allowed_may_wait_and_no_more() -> None:
    session, wire = live(reads=False)
    session.deliver(b"m" * 500, 1)
    session.deliver(b"m" * 500, 1)
    assert not wire.aborted
    session.deliver(b"m", 1)
    assert wire.aborted


def test_a_single_message_never_closes() -> None:
    session, wire = live(reads=False)
    session.deliver(b"m" * 5000, 1)
    assert not wire.aborted
    wire.read_all()
    session.deliver(b"m" * 5000, 1)
    assert not wire.aborted


def test_heartbeats_behind_a_single_big_message_do_not_close() -> None:
    """It takes longer than a heartbeat on a slow line."""
    session, wire = live(reads=False)
    session.deliver(b"m" * 5000, 1)
    for _ in range(5):
        session.heard(1, 101.0)
    assert not wire.aborted
    wire.read_all()
    assert wire.out.endswith(b"m" + b"+h\r\n" * 5)


def test_a_single_big_message_behind_heartbeats_does_not_close() -> None:
    session, wire = live(reads=False)
    session.heard(2, 101.0)
    session.deliver(b"m" * 5000, 1)
    assert not wire.aborted


def test_only_what_still_waits_counts() -> None:
    """The first 900 bytes of a message are out: 100 wait, and 800 more may."""
    session, wire = live(reads=False)
    session.deliver(b"m" * 1000, 1)
    wire.waiting = wire.waiting[900:]
    session.deliver(b"m" * 800, 1)
    assert not wire.aborted
    session.deliver(b"m" * 101, 1)
    assert wire.aborted


def test_who_reads_again_starts_anew() -> None:
    session, wire = live(reads=False)
    for _ in range(5):
        for _ in range(10):
            session.deliver(b"m", 1)
        wire.read_all()
    assert not wire.aborted


def test_who_reads_slowly_but_keeps_up_is_never_closed() -> None:
    session, wire = live(reads=False)
    for _ in range(200):
        session.deliver(b"m" * 90, 1)
        wire.waiting = wire.waiting[-450:]
    assert not wire.aborted


def test_heartbeats_sent_without_reading_the_answers_close() -> None:
    session, wire = live(reads=False)
    for _ in range(10):
        session.heard(1, 101.0)
    assert not wire.aborted
    session.heard(1, 101.0)
    assert wire.aborted


def test_heartbeats_of_one_segment_count_each() -> None:
    session, wire = live(reads=False)
    session.heard(11, 101.0)
    assert wire.aborted


def test_any_number_of_heartbeats_is_answered_while_the_client_reads() -> None:
    session, wire = live()
    session.heard(5000, 101.0)
    session.heard(5000, 101.0)
    assert not wire.aborted


def test_catching_up_counts_for_no_limit() -> None:
    session, wire = recovering(mid=0)
    wire.reads = False
    session.accept()
    session.catch_up([Message(16 * i, b"m" * 100) for i in range(1, 101)], gap=False)
    session.go_live()
    for _ in range(10):
        session.deliver(b"m", 1)
    assert not wire.aborted
    session.deliver(b"m", 1)
    assert wire.aborted


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 100)), max_size=40))
def test_a_backlog_counts_the_sends_that_are_not_wholly_out(steps: list[tuple[int, int]]) -> None:
    backlog, sends, behind = Backlog(), [], 0
    for size, out in steps:
        behind = max(behind - out, 0) + size
        sends.append(size)
        backlog.add(size, 1, 1, behind)
        left, expected = behind, 0
        for each in reversed(sends):
            if left <= 0:
                break
            left -= each
            expected += 1
        assert backlog.messages == backlog.lines == expected
        assert backlog.bytes == behind
