"""How a subscriber gets in: protocol.md, sections 1 to 3, and delivery rule 4."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import pytest
from twisted.internet.defer import Deferred

from gopush.comet.channel import Channel
from gopush.comet.recovery import RETRY_SECONDS
from gopush.comet.session import REPLAY_MESSAGES, State
from gopush.membership.view import View
from gopush.message.memory import MemoryStore
from gopush.model import MID_STEP, TCP_RAW, Head, NodeInfo, Subscribe, Token, mid_at
from gopush.routing.messages import PAGE_MESSAGES
from tests.comet.harness import World, frame
from tests.comet.test_delivery import append

H = b"+h\r\n"


def frames(world: World, mids: list[int]) -> bytes:
    return b"".join(frame(mid, b"%d" % i) for i, mid in enumerate(mids))


# --- the plain way ---


def test_a_plain_subscriber_is_let_in_at_once_where_the_cursor_is_known() -> None:
    world = World()
    world.subscribe()
    world.node.mode = "silent"
    session, wire = world.subscribe(turns=0)
    assert wire.out == H
    assert session.state is State.LIVE


def test_the_first_subscriber_is_answered_once_the_channel_has_a_cursor() -> None:
    """Delivery rule 4: +h is sent only then, so that nothing can be missed between it and /1/msg/get."""
    world = World()
    world.node.hold = ("heads",)
    session, wire = world.subscribe()
    assert wire.out == b""
    assert session.state is State.RECOVERING
    world.node.release()
    world.turns()
    assert wire.out == H


def test_channels_that_begin_in_one_turn_ask_for_their_cursors_together() -> None:
    world = World()
    joined = [world.subscribe(key=f"k{number}", turns=0) for number in range(5)]
    world.turns()
    assert [wire.out for _, wire in joined] == [H] * 5
    assert [items for name, items in world.node.calls if name == "heads"] == [[f"k{number}" for number in range(5)]]


def test_a_key_whose_log_cannot_be_read_keeps_no_other_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """All heads that are asked for together failed with one; so did a sweep."""
    world = World()
    away = {"k1"}

    def heads(keys: Sequence[str]) -> Deferred[list[Head | None]]:
        read = MemoryStore.heads(world.store, keys)
        return read.addCallback(
            lambda found: [None if key in away else head for key, head in zip(keys, found, strict=True)]
        )

    monkeypatch.setattr(world.store, "heads", heads)
    joined = [world.subscribe(key=f"k{number}", turns=0) for number in range(3)]
    world.turns()
    assert [wire.out for _, wire in joined] == [H, b"", H]
    world.comet.delivery.sweep(world.comet.channels.values())
    world.turns()
    away.clear()
    world.wait(RETRY_SECONDS)
    assert [wire.out for _, wire in joined] == [H] * 3


def test_one_channel_that_fails_to_begin_keeps_no_other_out(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    begin = Channel.begin

    def failing(channel: Channel, cursor: int) -> None:
        if channel.key == "k1":
            raise RuntimeError("broken")
        begin(channel, cursor)

    monkeypatch.setattr(Channel, "begin", failing)
    joined = [world.subscribe(key=f"k{number}", turns=0) for number in range(3)]
    world.turns()
    assert [wire.out for _, wire in joined] == [H, b"", H]
    assert world.comet.counters.errors == 1


def test_a_plain_subscriber_gets_nothing_of_before() -> None:
    world = World()
    world.pushed(b"1")
    _, wire = world.subscribe()
    assert wire.out == H
    mid = world.pushed(b"2")
    assert wire.out == H + frame(mid, b"2")


def test_what_is_pushed_while_the_cursor_is_looked_for_is_not_lost() -> None:
    world = World()
    world.pushed(b"0")
    world.node.hold = ("heads",)
    _, wire = world.subscribe()
    mid = world.pushed(b"1")
    assert wire.out == b""
    world.node.release()
    world.turns()
    assert wire.out == H + frame(mid, b"1")


@pytest.mark.parametrize("mode", ["silent", "down"])
def test_a_plain_subscriber_is_let_in_after_2_s_where_the_store_cannot_be_read(mode: str) -> None:
    world = World()
    world.node.mode = mode
    session, wire = world.subscribe()
    world.wait(1.9)
    assert wire.out == b""
    world.wait(0.2)
    assert wire.out == H
    assert session.state is State.LIVE


def test_who_was_let_in_blindly_gets_what_came_since_it_asked() -> None:
    """The channel takes its cursor when the store is back; the client's own fetch said 65535 and is repeated."""
    world = World()
    world.pushed(b"before")
    world.wait(1)
    world.node.mode = "down"
    _, wire = world.subscribe()
    world.wait(1)
    one = append(world, b"1")
    world.wait(2)
    two = append(world, b"2")
    assert wire.out == H
    world.node.mode = "up"
    world.wait(4)
    assert wire.out == H + frame(one.mid, b"1") + frame(two.mid, b"2")
    mid = world.pushed(b"3")
    assert wire.out.endswith(frame(mid, b"3"))


@pytest.mark.parametrize("skew", [-3600, 3600])
def test_who_was_let_in_blindly_gets_what_came_since_it_asked_whatever_the_comets_clock_shows(skew: float) -> None:
    """A slow one brings nothing of before, one that is ahead hides nothing: what the store gave tells its time."""
    world = World()
    world.comet_skew = skew
    world.pushed(b"before", key="other")
    world.pushed(b"before")
    world.wait(30, 1)
    world.node.mode = "down"
    _, wire = world.subscribe()
    world.wait(3)
    one = append(world, b"1")
    world.node.mode = "up"
    world.wait(1)
    assert wire.out == H + frame(one.mid, b"1")


def test_who_went_before_it_was_let_in_leaves_no_trace() -> None:
    world = World()
    world.node.mode = "silent"
    session, wire = world.subscribe()
    wire.abort()
    world.wait(5)
    assert wire.out == b""
    assert world.comet.channels == {}
    assert session.state is State.CLOSING
    world.node.mode = "up"
    world.wait(3)
    _, wire = world.subscribe()
    assert wire.out == H


def test_heartbeats_right_behind_the_request_are_answered_after_it() -> None:
    world = World()
    world.node.hold = ("heads",)
    session, wire = world.subscribe()
    session.heard(2, 0.0)
    world.node.release()
    world.turns()
    assert wire.out == H * 3


# --- resume ---


def test_a_resume_gives_what_is_kept_after_the_mid_then_the_live_messages() -> None:
    world = World()
    mids = [world.pushed(b"%d" % i) for i in range(5)]
    _, wire = world.subscribe(mid=mids[1])
    assert wire.out == H + frame(mids[2], b"2") + frame(mids[3], b"3") + frame(mids[4], b"4")
    mid = world.pushed(b"5")
    assert wire.out.endswith(frame(mids[4], b"4") + frame(mid, b"5"))


def test_a_resume_from_0_gives_all_that_is_kept() -> None:
    world = World()
    mids = [world.pushed(b"%d" % i) for i in range(3)]
    for mid in (0, -16, -(2**63)):
        assert world.subscribe(mid=mid)[1].out == H + frames(world, mids)


def test_a_resume_from_the_last_mid_gives_nothing() -> None:
    world = World()
    mid = world.pushed(b"1")
    assert world.subscribe(mid=mid)[1].out == H


@pytest.mark.parametrize("mid", [0, MID_STEP])
def test_a_resume_on_a_key_that_was_never_written(mid: int) -> None:
    """MID_STEP: of one that was subscribed before the first message."""
    world = World()
    _, wire = world.subscribe(mid=mid)
    assert wire.out == H
    mid = world.pushed(b"1")
    assert wire.out == H + frame(mid, b"1")


def test_a_resume_leaves_out_what_has_expired() -> None:
    world = World()
    world.pushed(b"1", expire=1)
    kept = world.pushed(b"2")
    world.wait(2)
    assert world.subscribe(mid=0)[1].out == H + frame(kept, b"2")


def test_the_order_on_the_wire() -> None:
    """+h, +g, the backlog, answers to the heartbeats that came meanwhile, the live messages."""
    world = World(store=2)
    mids = [world.pushed(b"%d" % i) for i in range(4)]
    world.node.hold = ("read",)
    session, wire = world.subscribe(mid=mids[0])
    session.heard(2, world.clock.seconds())
    live = world.pushed(b"4")
    assert wire.out == b""
    world.node.release()
    world.turns()
    assert wire.out == H + b"+g\r\n" + frame(mids[3], b"3") + frame(live, b"4") + H * 2
    last = world.pushed(b"5")
    assert wire.out.endswith(H * 2 + frame(last, b"5"))


@pytest.mark.parametrize(("seen", "gap"), [(0, True), (1, True), (2, False), (3, False), (4, False)])
def test_a_gap_is_reported_where_messages_after_the_mid_were_trimmed(seen: int, gap: bool) -> None:
    """Of 5 messages 3 were trimmed: who has seen the third has missed nothing."""
    world = World(store=2)
    mids = [world.pushed(b"%d" % i) for i in range(5)]
    _, wire = world.subscribe(mid=mids[seen])
    left = [frame(mid, b"%d" % i) for i, mid in enumerate(mids) if i > max(seen, 2)]
    assert wire.out == H + (b"+g\r\n" if gap else b"") + b"".join(left)


def test_a_gap_is_reported_to_who_was_there_before_the_first_message() -> None:
    world = World(store=2)
    mids = [world.pushed(b"%d" % i) for i in range(5)]
    _, wire = world.subscribe(mid=MID_STEP)
    assert wire.out == H + b"+g\r\n" + frame(mids[3], b"3") + frame(mids[4], b"4")


@pytest.mark.parametrize("mid", [0, -16])
def test_who_asks_for_all_there_is_gets_no_gap(mid: int) -> None:
    world = World(store=2)
    mids = [world.pushed(b"%d" % i) for i in range(5)]
    _, wire = world.subscribe(mid=mid)
    assert wire.out == H + frame(mids[3], b"3") + frame(mids[4], b"4")


def test_what_expired_or_was_never_kept_is_no_gap() -> None:
    world = World()
    mid = world.pushed(b"0")
    world.pushed(b"1", expire=1)
    world.pushed(b"2", expire=0)
    world.wait(2)
    kept = world.pushed(b"3")
    assert world.subscribe(mid=mid)[1].out == H + frame(kept, b"3")


def test_the_backlog_goes_out_page_by_page_as_the_socket_drains() -> None:
    """Delivery rule 9: it does not count for the limits of slow subscribers."""
    world = World(store=10_000, msgbuf_messages=5, msgbuf_bytes=100)
    mids = [world.pushed(b"%d" % i) for i in range(2 * PAGE_MESSAGES + 10)]
    session, wire = world.subscribe(mid=0, reads=False)
    world.wait(1)
    assert wire.waiting == H + frames(world, mids[:PAGE_MESSAGES])
    wire.read_all()
    world.wait(1)
    assert wire.waiting.count(b'"mid"') == PAGE_MESSAGES
    states = [session.state]
    wire.read_all()
    world.turns()
    wire.reads = True
    wire.read_all()
    assert wire.out == H + frames(world, mids)
    assert [*states, session.state] == [State.RECOVERING, State.LIVE]
    assert not wire.closed


def test_live_messages_during_a_long_resume_come_once_and_in_order() -> None:
    world = World(store=10_000)
    _, other = world.subscribe()
    mids = [world.pushed(b"%d" % i) for i in range(PAGE_MESSAGES + 10)]
    session, wire = world.subscribe(mid=0, reads=False)
    for i in range(20):
        mids.append(world.pushed(b"%d" % (PAGE_MESSAGES + 10 + i)))
    wire.reads = True
    wire.read_all()
    session.heard(1, world.clock.seconds())
    world.turns()
    mids.append(world.pushed(b"%d" % len(mids)))
    assert wire.out == H + frames(world, mids[:-1]) + H + frame(mids[-1], b"%d" % (len(mids) - 1))
    assert other.out == H + frames(world, mids)


def test_what_is_delivered_between_a_resumes_last_page_and_its_arrival_is_not_missed() -> None:
    """A message that is never kept cannot be read: it comes over the bridge."""
    world = World()
    world.subscribe()
    mid = world.pushed(b"0")
    world.node.late = ("read",)
    _, wire = world.subscribe(mid=0)
    never, kept = world.pushed(b"1", expire=0), world.pushed(b"2")
    assert wire.out == b""
    world.node.release()
    world.turns()
    assert wire.out == H + frame(mid, b"0") + frame(never, b"1") + frame(kept, b"2")
    assert world.node.count("read") == 1


def test_a_resume_reads_again_where_the_bridge_is_too_long() -> None:
    world = World(store=5000)
    world.subscribe()
    world.node.late = ("read",)
    _, wire = world.subscribe(mid=0)
    mids = [world.pushed(b"%d" % i) for i in range(REPLAY_MESSAGES + 10)]
    world.node.release()
    world.turns()
    assert wire.out == H + frames(world, mids)


def test_a_resume_ahead_of_the_channel_waits_for_it() -> None:
    """The notices are lost: the channel catches up first, so that its cursor never passes anybody by."""
    world = World()
    _, other = world.subscribe()
    one, two = append(world, b"1"), append(world, b"2")
    session, wire = world.subscribe(mid=one.mid)
    assert wire.out == H + frame(two.mid, b"2")
    assert session.state is State.LIVE
    assert other.out == H + frame(one.mid, b"1") + frame(two.mid, b"2")
    mid = world.pushed(b"3")
    assert wire.out.endswith(frame(mid, b"3"))
    assert other.out.endswith(frame(mid, b"3"))


def test_a_resume_while_a_round_goes_on_reads_the_log_once_more_and_not_in_each_turn() -> None:
    world = World(max_subscribers=1000, msgbuf_messages=64)
    for _ in range(500):
        world.subscribe()
    world.comet.forward([append(world, b"%d" % number) for number in range(200)])
    world.turns(3)
    world.comet.forward([append(world, b"late")])
    world.node.calls.clear()
    session, wire = world.subscribe(mid=0, turns=0)
    turns = 0
    while world.comet.channels["k"].busy:
        world.turns(1)
        turns += 1
    world.turns()
    assert session.state is State.LIVE
    assert wire.out.count(b"late") == 1
    assert world.node.count("read") <= 3 < 20 < turns


def test_a_cursor_ahead_of_the_log_is_kept_to() -> None:
    """The store lost what the client has seen: what comes next gets a higher mid (delivery rule 2)."""
    world = World()
    mid = world.pushed(b"1")
    ahead = mid + 30 * 10_000_000
    session, wire = world.subscribe(mid=ahead)
    assert wire.out == H
    assert session.state is State.LIVE
    assert world.pushed(b"2") > ahead
    assert wire.out.count(b'"mid"') == 1


def test_a_cursor_ahead_of_the_log_takes_nothing_from_others() -> None:
    """Delivery rule 3: a clock that is ahead gave the cursor (`/1/time/get`), and another comet appends below it."""
    world = World()
    _, other = world.subscribe()
    _, wire = world.subscribe(mid=mid_at(world.now() + 30))
    world.comet.forward([append(world, b"1")])
    world.turns()
    assert other.out.count(b'"mid"') == 1
    assert wire.out.count(b'"mid"') == 1


def test_a_resume_where_the_store_lost_what_the_channel_has_delivered() -> None:
    world = World()
    _, other = world.subscribe()
    world.pushed(b"0")
    world.store.logs.clear()
    session, wire = world.subscribe(mid=0)
    assert wire.out == H
    assert session.state is State.LIVE
    mid = world.pushed(b"1")
    assert wire.out == H + frame(mid, b"1")
    assert other.out.endswith(frame(mid, b"1"))


def test_a_resume_where_the_store_lost_what_the_resume_has_read() -> None:
    """The channel cannot read it any more: its cursor passes it all the same."""
    world = World()
    _, other = world.subscribe()
    one = append(world, b"1")
    world.node.late = ("read",)
    session, wire = world.subscribe(mid=0)
    world.store.logs.clear()
    world.node.release()
    world.turns()
    assert wire.out == H + frame(one.mid, b"1")
    assert session.state is State.LIVE
    mid = world.pushed(b"2")
    assert mid > one.mid
    assert wire.out == H + frame(one.mid, b"1") + frame(mid, b"2")
    assert other.out == H + frame(mid, b"2")


def test_a_cursor_more_than_60_s_ahead_is_a_parameter_error() -> None:
    world = World()
    limit = mid_at(world.now() + 60)
    _, wire = world.subscribe(mid=limit)
    assert wire.out == H
    _, wire = world.subscribe(mid=limit + MID_STEP)
    assert wire.out == b"-p\r\n"
    assert wire.finished
    assert world.comet.counters.refused_parameter == 1
    assert world.comet.channels["k"].subscribers == 1


@pytest.mark.parametrize("skew", [-3600, -61, 3600])
def test_a_mid_that_was_given_is_good_whatever_the_comets_clock_shows(skew: float) -> None:
    """Delivery rule 2: that clock is slow, or has stepped back; -p would tell the client never to come again."""
    world = World()
    mids = [world.pushed(b"%d" % i) for i in range(3)]
    world.comet_skew = skew
    for seen in range(3):
        assert world.subscribe(mid=mids[seen])[1].out == H + frames(world, mids)[len(frames(world, mids[: seen + 1])) :]
    assert world.subscribe(mid=mids[2] + 7200 * 10_000_000)[1].out == b"-p\r\n"


def test_a_mid_that_was_given_is_good_after_all_clocks_stepped_back() -> None:
    world = World()
    mid = world.pushed(b"0")
    world.skew = -7200
    _, wire = world.subscribe(mid=mid)
    assert wire.out == H
    assert world.pushed(b"1") == mid + MID_STEP
    assert wire.out == H + frame(mid + MID_STEP, b"1")
    _, again = world.subscribe(mid=mid + MID_STEP)
    assert again.out == H


def test_what_the_store_lost_counts_while_its_comet_knows_of_it() -> None:
    world = World()
    world.subscribe()
    mid = world.pushed(b"0")
    world.store.logs.clear()
    world.skew = -7200
    assert world.subscribe(mid=mid)[1].out == H


def test_heads_are_read_only_for_mids_above_the_clock() -> None:
    world = World()
    mid = world.pushed(b"0")
    world.subscribe()
    heads = world.node.count("heads")
    for cursor in (0, mid, mid_at(world.now() + 60)):
        world.subscribe(mid=cursor)
    assert world.node.count("heads") == heads


@pytest.mark.parametrize("mode", ["silent", "down"])
def test_where_the_head_cannot_be_read_a_mid_above_the_clock_is_closed_without_a_word(mode: str) -> None:
    world = World()
    mid = world.pushed(b"0")
    world.comet_skew = -3600
    world.node.mode = mode
    _, wire = world.subscribe(mid=mid)
    world.wait(3)
    assert wire.aborted
    assert wire.out == b""
    assert world.comet.counters.refused_parameter == 0
    assert world.comet.channels == {}


def test_who_goes_while_the_head_is_read_leaves_no_trace() -> None:
    world = World()
    mid = world.pushed(b"0")
    world.comet_skew = -3600
    world.node.hold = ("heads",)
    _, wire = world.subscribe(mid=mid)
    wire.abort()
    world.turns()
    world.node.release()
    world.turns()
    assert wire.out == b""
    assert world.comet.channels == {}


def test_a_key_that_moves_while_the_head_is_read_is_refused() -> None:
    world = World()
    mid = world.pushed(b"0")
    world.comet_skew = -3600
    world.node.hold = ("heads",)
    _, wire = world.subscribe(mid=mid)
    world.services["c9"] = world.services["c1"]
    world.coordination.adopt(View([NodeInfo("elsewhere", 0, ("c9",))], world.coordination.view.messages))
    world.node.release()
    world.turns()
    assert wire.out == b"-n\r\n"


def test_a_mid_that_was_given_does_not_stand_in_for_the_token() -> None:
    world = World(auth=True)
    create(world, "secret")
    mid = world.pushed(b"0")
    world.comet_skew = -3600
    assert world.subscribe(token="wrong", mid=mid)[1].out == b"-a\r\n"
    assert world.subscribe(token="secret", mid=mid)[1].out == H
    assert world.subscribe(token="wrong", mid=mid + MID_STEP)[1].out == b"-p\r\n"


@pytest.mark.parametrize("mode", ["silent", "down"])
def test_a_resume_is_closed_where_the_store_cannot_be_read(mode: str) -> None:
    world = World()
    world.node.mode = mode
    _, wire = world.subscribe(mid=0)
    world.wait(1.5)
    assert not wire.closed
    world.wait(4)
    assert wire.aborted
    assert wire.out == b""
    assert world.comet.channels == {}


def test_a_resume_survives_a_short_failure_of_the_store() -> None:
    world = World()
    mid = world.pushed(b"0")
    world.node.mode = "down"
    _, wire = world.subscribe(mid=0)
    world.wait(1)
    world.node.mode = "up"
    world.wait(3)
    assert wire.out == H + frame(mid, b"0")


def test_a_resume_that_loses_the_store_half_way_is_closed() -> None:
    world = World(store=1000)
    for i in range(PAGE_MESSAGES + 1):
        world.pushed(b"%d" % i)
    session, wire = world.subscribe(mid=0, reads=False)
    world.node.mode = "down"
    wire.read_all()
    world.wait(4)
    assert wire.aborted
    assert session.state is State.CLOSING


def test_who_goes_half_way_leaves_no_trace() -> None:
    world = World(store=1000)
    for i in range(PAGE_MESSAGES + 1):
        world.pushed(b"%d" % i)
    _, wire = world.subscribe(mid=0, reads=False)
    wire.abort()
    world.wait(1)
    reads = world.node.count("read")
    world.wait(5)
    assert world.comet.channels == {}
    assert world.node.count("read") == reads


def test_who_goes_while_the_channel_catches_up_with_it_leaves_no_trace() -> None:
    world = World()
    _, other = world.subscribe()
    forward = append(world, b"1")
    world.node.hold = ("read",)
    _, wire = world.subscribe(mid=forward.mid)
    append(world, b"2")
    world.node.release()
    world.node.hold = ("read",)
    world.turns()
    wire.abort()
    other.abort()
    world.turns()
    assert world.comet.channels == {}
    assert world.comet.delivery._ahead == {}


def test_who_is_sent_away_half_way_hears_nothing_more() -> None:
    """Its key moved to another comet while its backlog was read."""
    world = World()
    world.pushed(b"0")
    world.node.hold = ("read",)
    session, wire = world.subscribe(mid=0)
    wire.on_closed = lambda: None  # the client takes its time to go
    world.comet.refuse(session, b"-n\r\n")
    world.node.release()
    world.wait(1)
    assert wire.out == b"-n\r\n"


def test_plain_and_resuming_subscribers_meet_on_a_new_channel() -> None:
    world = World()
    mids = [world.pushed(b"%d" % i) for i in range(3)]
    _, resuming = world.subscribe(mid=mids[0], turns=0)
    _, plain = world.subscribe(turns=0)
    world.turns()
    mid = world.pushed(b"3")
    assert plain.out == H + frame(mid, b"3")
    assert resuming.out == H + frame(mids[1], b"1") + frame(mids[2], b"2") + frame(mid, b"3")


def test_many_resume_at_once_each_from_its_own_cursor() -> None:
    world = World()
    mids = [world.pushed(b"%d" % i) for i in range(10)]
    wires = [world.subscribe(mid=mid, turns=0)[1] for mid in mids]
    world.turns()
    last = world.pushed(b"10")
    for seen, wire in enumerate(wires):
        assert wire.out == H + b"".join(frame(mids[i], b"%d" % i) for i in range(seen + 1, 10)) + frame(last, b"10")


# --- what is never kept, while others read the log (delivery rule 7) ---


def test_what_is_never_kept_reaches_the_live_though_somebody_resumes_before_its_answer() -> None:
    """The store has numbered it, and waits for a replica: the log that is read meanwhile ends behind it."""
    world = World()
    _, live = world.subscribe()
    mid = world.pushed(b"0")
    world.node.late = ("append",)
    answers = world.push(b"1", expire=0)
    _, resuming = world.subscribe(mid=mid)
    assert answers == []
    world.node.release()
    world.turns()
    ((ret, never),) = answers
    assert ret == 0
    assert live.out == H + frame(mid, b"0") + frame(never, b"1")
    assert resuming.out == H + frame(never, b"1")
    last = world.pushed(b"2")
    assert live.out.endswith(frame(never, b"1") + frame(last, b"2"))
    assert resuming.out == H + frame(never, b"1") + frame(last, b"2")


@pytest.mark.parametrize("expire", [0, 600])
def test_what_is_under_way_reaches_the_live_in_order_though_the_log_has_what_follows(expire: int) -> None:
    world = World()
    _, live = world.subscribe()
    mid = world.pushed(b"0")
    world.node.late = ("append",)
    answers = [world.push(b"1", expire=0), world.push(b"2", expire=expire), world.push(b"3", expire=0)]
    appended = append(world, b"4")
    world.comet.forward([appended])
    _, resuming = world.subscribe(mid=mid)
    world.node.release()
    world.turns()
    bodies = [b"1", b"2", b"3"]
    frames = sorted((answer.mid, frame(answer.mid, body)) for ((answer,), body) in zip(answers, bodies, strict=True))
    got = live.out.removeprefix(H + frame(mid, b"0"))
    assert got.count(b'"mid"') == 4
    for _, one in frames:
        assert one in got
    assert resuming.out == H + got


def test_what_is_never_kept_survives_the_sweep() -> None:
    world = World(sweep=1.0)
    world.housekeeping()
    _, live = world.subscribe()
    for i in range(20):
        world.node.late = ("append",)
        answers = world.push(b"%d" % i, expire=0)
        world.wait(0.9, 0.3)
        world.node.release()
        world.turns()
        assert live.out.endswith(frame(answers[0].mid, b"%d" % i))


def test_who_resumes_page_by_page_gets_what_is_never_kept_meanwhile() -> None:
    world = World(store=10_000)
    _, live = world.subscribe()
    mids = [world.pushed(b"%d" % i) for i in range(PAGE_MESSAGES + 2)]
    _, wire = world.subscribe(mid=0, reads=False)
    world.node.late = ("append",)
    answers = world.push(b"%d" % len(mids), expire=0)
    wire.reads = True
    wire.read_all()
    world.turns()
    world.node.release()
    world.turns()
    mids += [answers[0].mid, world.pushed(b"%d" % (len(mids) + 1))]
    assert live.out == wire.out == H + frames(world, mids)


def test_a_new_channel_takes_no_cursor_past_what_is_under_way() -> None:
    world = World()
    world.pushed(b"0")
    world.node.hold = ("heads",)
    _, wire = world.subscribe(mid=mid_at(world.now()))
    assert wire.out == H
    world.node.late = ("append",)
    answers = world.push(b"1", expire=0)
    world.node.hold = ()
    world.wait(0.5)
    _, other = world.subscribe()
    world.node.release()
    world.turns()
    assert wire.out == other.out == H + frame(answers[0].mid, b"1")


def test_a_push_that_is_lost_keeps_nobody_out() -> None:
    world = World()
    _, live = world.subscribe()
    mid = world.pushed(b"0")
    world.node.hold = ("append",)
    world.push(b"1", expire=0)
    _, resuming = world.subscribe(mid=mid)
    other = append(world, b"2")
    world.comet.forward([other])
    world.wait(5)
    assert resuming.out == H + frame(other.mid, b"2")
    assert live.out == H + frame(mid, b"0") + frame(other.mid, b"2")
    assert not world.comet._unanswered._batches
    assert not world.comet._unanswered._waiting


def test_a_stream_of_what_is_never_kept_lets_others_in() -> None:
    """Some of it is always under way: only what was at the time of the read counts."""
    world = World()
    _, live = world.subscribe()
    mid = world.pushed(b"0")
    resuming = None
    for i in range(1, 40):
        world.node.late = ("append",)
        world.push(b"%d" % i, expire=0)
        if i == 5:
            _, resuming = world.subscribe(mid=mid)
        held, world.node._held = world.node._held, []
        for waiting, call in held:
            call().chainDeferred(waiting)
        world.push(b"0", expire=0)  # follows the one that was answered, and is answered with the next
        world.wait(0.05)
    assert resuming is not None
    assert live.out.count(b'"mid"') > 35
    assert resuming.out.count(b'"mid"') > 30


# --- auth (protocol.md, section 1: -a and -c) ---


def create(world: World, token: str, key: str = "k", life: int = 3600) -> None:
    world.store.create_token(key, Token(sha256(token.encode()).digest(), int(world.now()) + life))


def test_a_good_token_lets_in() -> None:
    world = World(auth=True)
    create(world, "secret")
    assert world.subscribe(token="secret")[1].out == H
    assert world.subscribe(token="secret", mid=0)[1].out == H


@pytest.mark.parametrize("token", ["", "wrong"])
def test_a_missing_or_bad_token_is_refused(token: str) -> None:
    world = World(auth=True)
    create(world, "secret")
    _, wire = world.subscribe(token=token)
    assert wire.out == b"-a\r\n"
    assert wire.finished
    assert world.comet.counters.refused_token == 1
    assert world.comet.channels == {}


@pytest.mark.parametrize("token", ["", "wrong"])
def test_a_key_that_nobody_created_is_refused_before_the_token(token: str) -> None:
    world = World(auth=True)
    create(world, "secret", key="other")
    _, wire = world.subscribe(token=token)
    assert wire.out == b"-c\r\n"
    assert wire.finished
    assert world.comet.counters.refused_key == 1


def test_a_key_with_a_kept_message_was_created() -> None:
    world = World(auth=True)
    world.pushed(b"1")
    assert world.subscribe(token="wrong")[1].out == b"-a\r\n"


def test_an_expired_token_is_none() -> None:
    world = World(auth=True)
    create(world, "old", life=10)
    create(world, "new", life=100)
    world.wait(11)
    assert world.subscribe(token="old")[1].out == b"-a\r\n"
    assert world.subscribe(token="new")[1].out == H


def test_with_auth_off_a_token_is_ignored() -> None:
    world = World()
    assert world.subscribe(token="whatever")[1].out == H
    assert world.node.count("check_token") == 0


def test_where_the_token_cannot_be_checked_the_connection_is_closed_without_a_word() -> None:
    world = World(auth=True)
    world.node.mode = "down"
    _, wire = world.subscribe(token="secret")
    world.wait(3)
    assert wire.out == b""
    assert wire.closed


def test_heartbeats_while_the_token_is_checked_are_answered_after_the_acceptance() -> None:
    world = World(auth=True)
    create(world, "secret")
    world.node.hold = ("check_token",)
    session, wire = world.subscribe(token="secret")
    session.heard(1, 0.0)
    world.node.release()
    world.turns()
    assert wire.out == H * 2


def test_who_goes_while_the_token_is_checked_leaves_no_trace() -> None:
    world = World(auth=True)
    create(world, "secret")
    world.node.hold = ("check_token",)
    _, wire = world.subscribe(token="secret")
    wire.abort()
    world.turns()
    world.node.release()
    world.turns()
    assert wire.out == b""
    assert world.comet.channels == {}


def test_a_key_that_moves_while_the_token_is_checked_is_refused() -> None:
    world = World(auth=True)
    create(world, "secret")
    world.node.hold = ("check_token",)
    _, wire = world.subscribe(token="secret")
    away = NodeInfo("elsewhere", 0, ("c9",))
    world.services["c9"] = world.services["c1"]
    world.coordination.adopt(View([away], world.coordination.view.messages))
    world.node.release()
    world.turns()
    assert wire.out == b"-n\r\n"
    assert world.comet.channels == {}


# --- -n and -l ---


def test_a_key_of_another_comet_is_refused() -> None:
    world = World("c1", "c2")
    keys = [f"key-{i}" for i in range(50)]
    for key in keys:
        owner = world.coordination.view.owner(key)
        assert owner is not None
        for name in ("c1", "c2"):
            _, wire = world.subscribe(key=key, comet=world.comet_named(name))
            assert wire.out == (H if owner.id == name else b"-n\r\n")
            assert wire.finished == (owner.id != name)
    one, two = world.comet_named("c1"), world.comet_named("c2")
    assert one.counters.refused_node + two.counters.refused_node == len(keys)


def test_another_comets_key_is_refused_before_the_token() -> None:
    world = World("c1", "c2", auth=True)
    key = next(f"key-{i}" for i in range(50) if not world.comet.owns(f"key-{i}"))
    assert world.subscribe(key=key)[1].out == b"-n\r\n"
    assert world.node.count("check_token") == 0


def test_a_comet_that_knows_of_no_comet_refuses() -> None:
    world = World()
    world.coordination.adopt(View())
    assert world.subscribe()[1].out == b"-n\r\n"


def test_the_connections_of_a_key_are_limited() -> None:
    world = World(max_subscribers=2)
    _, first = world.subscribe()
    world.subscribe(mid=0)
    for mid in (None, 0):
        _, wire = world.subscribe(mid=mid)
        assert wire.out == b"-l\r\n"
        assert wire.finished
    assert world.subscribe(key="other")[1].out == H
    assert world.comet.counters.refused_limit == 2
    first.abort()
    world.turns()
    assert world.subscribe()[1].out == H


def test_who_still_joins_counts_for_the_limit() -> None:
    world = World(max_subscribers=1)
    world.node.hold = ("heads",)
    world.subscribe()
    assert world.subscribe()[1].out == b"-l\r\n"


# --- what remains ---


def test_channels_without_subscribers_are_dropped() -> None:
    """Delivery rule 10."""
    world = World()
    wires = [world.subscribe(mid=mid)[1] for mid in (None, 0, None)]
    assert list(world.comet.channels) == ["k"]
    for wire in wires:
        wire.abort()
    world.turns()
    assert world.comet.channels == {}
    counters = world.comet.counters
    assert (counters.channels_accessed, counters.channels_created, counters.channels_deleted) == (3, 1, 1)
    assert (counters.connections_added, counters.connections_removed) == (3, 3)


def test_a_connection_that_never_asks_leaves_no_trace() -> None:
    world = World()
    session, wire = world.open()
    wire.abort()
    world.turns()
    assert session.state is State.CLOSING
    assert world.comet.channels == {}
    assert world.comet.counters.connections_removed == 1


def test_a_bug_on_the_way_closes_the_subscriber_and_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    monkeypatch.setattr(world.messages, "read", lambda *_: 1 // 0)
    session, wire = world.open()
    world.comet.subscribe(session, Subscribe("k", 30, "", "1", 0), TCP_RAW)
    world.turns()
    assert wire.aborted
