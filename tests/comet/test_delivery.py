"""From channels to subscribers: rounds, slices, catching up (delivery rules 3, 5, 7 and 9)."""

from __future__ import annotations

from gopush.comet.delivery import CROWD_MSGBUFS, RETRY_SECONDS
from gopush.comet.rounds import SLICE_SUBSCRIBERS
from gopush.membership.view import View
from gopush.model import TCP_OLD, TCP_RAW, Append, Format, Forward, Message, NodeInfo, Push, old_json
from tests.comet.harness import Wire, World, frame, result

H = b"+h\r\n"


def append(world: World, body: bytes, expire: int = 600, key: str = "k", floor: int = 0) -> Forward:
    """Another comet appends: nothing is told here."""
    push = Push(key, body, expire, "", 0, world.now() + 4)
    answers: list[Forward] = []
    world.store.append([Append(push, floor)]).addCallback(
        lambda appended: answers.append(Forward(key, appended[0].mid, appended[0].previous, body, 0))
    )
    return answers[0]


def test_a_message_reaches_every_subscriber() -> None:
    world = World()
    wires = [world.subscribe()[1] for _ in range(3)]
    mid = world.pushed(b'{"a":1}')
    assert [wire.out for wire in wires] == [H + frame(mid, b'{"a":1}')] * 3
    assert world.comet.counters.deliveries == 3


def test_a_message_reaches_no_other_key() -> None:
    world = World()
    _, other = world.subscribe(key="other")
    world.pushed(b"1")
    assert other.out == H


def test_messages_of_one_turn_go_out_in_one_send() -> None:
    world = World()
    _, wire = world.subscribe()
    one, two = world.push(b"1", turns=0), world.push(b"2", turns=0)
    world.turns()
    assert wire.sends == [H, frame(one[0].mid, b"1") + frame(two[0].mid, b"2")]
    assert world.comet.counters.rounds == 1


def test_what_waits_for_a_step_may_deliver_the_next_message_which_comes_after() -> None:
    world = World()
    _, wire = world.subscribe()
    _, other = world.subscribe(key="other")
    delivery, channel = world.comet.delivery, world.comet.channels["k"]
    mids: list[int] = []

    def deliver_next(_: None) -> None:
        # A second subscriber has caught up: the next round is none of one message to the only subscriber.
        channel.settle(next(iter(world.comet.channels["other"].live)))
        following = append(world, b"2")
        mids.append(following.mid)
        channel.offer(following.mid, following.previous, following.body)
        delivery.advance(channel)

    first = append(world, b"1")
    delivery.next_step(channel).addCallback(deliver_next)
    world.turns()
    assert wire.out == H + frame(first.mid, b"1") + frame(mids[0], b"2")
    assert other.out == H + frame(mids[0], b"2")


def test_a_message_is_framed_once_per_format() -> None:
    framed: list[bytes] = []

    def counted(message: Message) -> bytes:
        framed.append(message.body)
        return TCP_RAW.message(message)

    world = World()
    format = Format(counted, TCP_RAW.reply)
    wires = [world.subscribe(format=format)[1] for _ in range(5)] + [world.subscribe(format=TCP_OLD)[1]]
    mid = world.pushed(b'"x"')
    assert framed == [b'"x"']
    assert {wire.sends[-1] for wire in wires[:5]} == {frame(mid, b'"x"')}
    assert wires[5].sends[-1] == TCP_OLD.message(Message(mid, b'"x"'))
    assert old_json(Message(mid, b'"x"')) in wires[5].out


def test_a_message_that_is_never_kept_is_delivered_to_who_is_connected() -> None:
    """Delivery rule 7."""
    world = World()
    _, wire = world.subscribe()
    kept, never, last = world.pushed(b"1"), world.pushed(b"2", expire=0), world.pushed(b"3")
    assert wire.out == H + frame(kept, b"1") + frame(never, b"2") + frame(last, b"3")
    _, later = world.subscribe(mid=0)
    assert later.out == H + frame(kept, b"1") + frame(last, b"3")


def test_a_push_that_is_under_way_finds_who_has_come_meanwhile() -> None:
    """Its key had another channel when it came, and none for a while."""
    world = World()
    session, _ = world.subscribe()
    world.node.hold = ("append",)
    answers = world.push(b"1", expire=0)
    session.abort()
    world.turns()
    assert not world.comet.channels
    _, wire = world.subscribe()
    world.node.release()
    world.turns()
    assert wire.out == H + frame(answers[0].mid, b"1")


# --- slices ---


def crowd(world: World, size: int) -> list[Wire]:
    return [world.subscribe()[1] for _ in range(size)]


def served(wires: list[Wire], body: bytes) -> int:
    return sum(b'"msg":%b,' % body in wire.out for wire in wires)


def test_a_big_channel_is_served_in_slices() -> None:
    world = World(max_subscribers=10_000)
    wires = crowd(world, 2 * SLICE_SUBSCRIBERS + 10)
    forward = append(world, b"1")
    world.comet.forward([forward])
    steps = []
    for _ in range(4):
        world.turns(1)
        steps.append(served(wires, b"1"))
    assert steps == [SLICE_SUBSCRIBERS, 2 * SLICE_SUBSCRIBERS, len(wires), len(wires)]
    assert world.comet.counters.rounds == 1
    assert world.comet.counters.deliveries == len(wires)


def test_others_get_their_turn_between_slices() -> None:
    world = World(max_subscribers=10_000)
    wires = crowd(world, 3 * SLICE_SUBSCRIBERS)
    _, other = world.subscribe(key="other")
    world.comet.forward([append(world, b"1")])
    world.turns(1)
    world.comet.forward([append(world, b"2", key="other")])
    world.turns(1)
    assert b'"msg":2' in other.out
    assert served(wires, b"1") < len(wires)


def test_a_message_that_comes_between_slices_comes_after_for_everybody() -> None:
    world = World(max_subscribers=10_000)
    wires = crowd(world, 2 * SLICE_SUBSCRIBERS)
    one = append(world, b"1")
    world.comet.forward([one])
    world.turns(1)
    two = append(world, b"2")
    world.comet.forward([two])
    world.turns()
    assert {wire.out for wire in wires} == {H + frame(one.mid, b"1") + frame(two.mid, b"2")}


def test_who_joins_between_slices_gets_what_comes_after_its_acceptance() -> None:
    world = World(max_subscribers=10_000)
    crowd(world, 2 * SLICE_SUBSCRIBERS)
    one = append(world, b"1")
    world.comet.forward([one])
    world.turns(1)
    _, plain = world.subscribe(turns=0)
    _, resuming = world.subscribe(mid=0, turns=0)
    two = append(world, b"2")
    world.comet.forward([two])
    world.turns()
    assert plain.out == H + frame(two.mid, b"2")
    assert resuming.out == H + frame(one.mid, b"1") + frame(two.mid, b"2")


def test_rounds_do_not_overtake_each_other_though_those_served_first_have_gone() -> None:
    world = World(max_subscribers=10_000)
    wires = crowd(world, 2 * SLICE_SUBSCRIBERS)
    one = append(world, b"1")
    world.comet.forward([one])
    world.turns(1)
    for wire in wires[:SLICE_SUBSCRIBERS]:
        wire.tells_at_once = True
        wire.abort()
    channel = world.comet.channels["k"]
    two = append(world, b"2")
    channel.offer(two.mid, two.previous, two.body)
    world.comet.delivery.advance(channel)
    world.turns()
    assert {wire.out for wire in wires[SLICE_SUBSCRIBERS:]} == {H + frame(one.mid, b"1") + frame(two.mid, b"2")}


def test_nothing_is_read_between_slices() -> None:
    """What is read then could not go out."""
    world = World(max_subscribers=10_000)
    wires = crowd(world, 4 * SLICE_SUBSCRIBERS)
    world.comet.forward([append(world, b"1")])
    world.turns(1)
    append(world, b"2")
    world.comet.forward([append(world, b"3")])
    world.turns(1)
    assert world.comet.counters.catch_ups == 0
    world.turns()
    assert world.comet.counters.catch_ups == 1
    assert served(wires, b"2") == served(wires, b"3") == len(wires)


def test_who_goes_between_slices_is_no_trouble() -> None:
    world = World(max_subscribers=10_000)
    wires = crowd(world, 2 * SLICE_SUBSCRIBERS)
    world.comet.forward([append(world, b"1")])
    world.turns(1)
    for wire in wires:
        wire.abort()
    world.turns()
    assert world.comet.channels == {}


def test_a_slow_subscriber_delays_nobody() -> None:
    """Delivery rule 9; protocol.md, section 9: `msgbuf`: a connection that is this far behind is closed."""
    world = World(msgbuf_messages=5)
    _, slow = world.subscribe(reads=False)
    _, quick = world.subscribe()
    mids = [world.pushed(b"%d" % i) for i in range(10)]
    assert slow.aborted
    assert quick.out == H + b"".join(frame(mid, b"%d" % i) for i, mid in enumerate(mids))
    assert world.comet.channels["k"].subscribers == 1
    assert world.comet.counters.slow_closed == 1


def test_whom_a_round_closes_does_not_disturb_it() -> None:
    world = World(msgbuf_messages=1)
    _, slow = world.subscribe(reads=False)
    slow.tells_at_once = True
    _, quick = world.subscribe()
    mids = [world.pushed(b"%d" % i) for i in range(4)]
    assert slow.aborted
    assert quick.out.count(b'"mid":') == len(mids)


# --- bursts ---


def burst(world: World, first: int, count: int) -> list[Forward]:
    """So many messages of another comet's, all at once."""
    forwards = [append(world, b"%d" % number) for number in range(first, first + count)]
    world.comet.forward(forwards)
    return forwards


def frames(forwards: list[Forward]) -> bytes:
    return b"".join(frame(forward.mid, forward.body or b"") for forward in forwards)


def test_a_burst_reaches_a_crowd_that_reads_though_the_log_has_not_kept_it() -> None:
    """Delivery rule 9: nobody of these is slow. What comes while a round is under way is in memory: nothing is read."""
    world = World(store=2, max_subscribers=10_000, msgbuf_messages=8)
    wires = crowd(world, 2 * SLICE_SUBSCRIBERS + 1)
    forwards = []
    for turn in range(3):
        forwards += burst(world, 20 * turn, 20)
        world.turns(1)
    world.turns()
    assert {wire.out for wire in wires} == {H + frames(forwards)}
    assert world.comet.counters.catch_ups == 0


def test_a_burst_of_large_messages_reaches_a_crowd_that_reads() -> None:
    world = World(max_subscribers=10_000, msgbuf_bytes=400)
    wires = crowd(world, 2 * SLICE_SUBSCRIBERS + 1)
    forwards = []
    for turn in range(3):
        forwards += [append(world, b"%d" % (10**200 + 10 * turn + number)) for number in range(4)]
        world.comet.forward(forwards[-4:])
        world.turns(1)
    world.turns()
    assert {wire.out for wire in wires} == {H + frames(forwards)}


def test_what_comes_faster_than_rounds_go_is_bounded() -> None:
    """Its subscribers are closed, and resume; the log was never out of reach. That counts once, whatever comes until
    their connections have ended.
    """
    world = World(max_subscribers=10_000, msgbuf_messages=8)
    wires = crowd(world, 5 * SLICE_SUBSCRIBERS)
    burst(world, 0, 1)
    world.turns(1)
    burst(world, 1, 8 * CROWD_MSGBUFS)
    world.turns(1)
    assert not any(wire.closed for wire in wires)
    burst(world, 1 + 8 * CROWD_MSGBUFS, 1)
    world.turns(1)
    assert all(wire.aborted for wire in wires)
    burst(world, 2 + 8 * CROWD_MSGBUFS, 1)
    world.turns()
    assert (world.comet.counters.overruns, world.comet.counters.overflows) == (1, 0)
    assert world.comet.channels == {}


def test_a_crowd_that_waits_for_a_read_may_have_as_much_waiting_as_for_a_round() -> None:
    """A burst ends in a hole: the round's end is no reason to close anybody."""
    world = World(store=100, max_subscribers=10_000, msgbuf_messages=8)
    wires = crowd(world, 2 * SLICE_SUBSCRIBERS)
    forwards = burst(world, 0, 1)
    world.turns(1)
    forwards.append(append(world, b"1"))
    forwards += burst(world, 2, 20)
    world.node.late = ("read",)
    world.turns()
    world.node.release()
    world.turns()
    assert {wire.out for wire in wires} == {H + frames(forwards)}


def test_a_burst_goes_out_in_parts_of_msgbuf() -> None:
    """All of a send counts as waiting while its last byte does."""
    world = World(msgbuf_messages=8)
    wires = crowd(world, 2)
    wires[0].send = lambda data: Wire.send(wires[0], data) + 1  # type: ignore[method-assign]
    forwards = burst(world, 0, 20)
    world.turns()
    assert wires[0].sends[1:] == [frames(forwards[at : at + 2]) for at in range(0, 20, 2)]
    assert [wire.out for wire in wires] == [H + frames(forwards)] * 2
    assert world.comet.counters.deliveries == 40
    assert world.comet.counters.sent_bytes == 2 * len(frames(forwards))


def test_parts_are_bounded_in_bytes_and_one_message_is_never_too_much() -> None:
    world = World(msgbuf_bytes=40)
    _, wire = world.subscribe()
    forwards = [append(world, b"1" * size) for size in (4, 6, 7, 3, 30, 1)]
    world.comet.forward(forwards)
    world.turns()
    sends = [forwards[0:2], forwards[2:4], forwards[4:5], forwards[5:6]]
    assert wire.sends[1:] == [frames(send) for send in sends]


def test_a_gap_is_reported_before_the_first_part_alone() -> None:
    world = World(store=6, msgbuf_messages=8)
    _, resuming = world.subscribe(mid=0)
    forwards = [append(world, b"%d" % i) for i in range(10)]
    world.comet.forward([forwards[-1]])
    world.turns()
    assert resuming.out == H + b"+g\r\n" + frames(forwards[4:])
    assert len(resuming.sends) == 4


# --- catching up ---


def test_a_lost_forward_is_repaired_by_the_next_one() -> None:
    """Delivery rule 3: what lies between is read and delivered first."""
    world = World()
    _, wire = world.subscribe()
    one, two, three = append(world, b"1"), append(world, b"2"), append(world, b"3")
    world.comet.forward([three])
    world.turns()
    assert wire.out == H + frame(one.mid, b"1") + frame(two.mid, b"2") + frame(three.mid, b"3")
    assert world.comet.counters.catch_ups == 1


def test_forwards_out_of_order_are_delivered_in_order_and_once() -> None:
    world = World()
    _, wire = world.subscribe()
    one, two, three = append(world, b"1"), append(world, b"2", expire=0), append(world, b"3")
    world.comet.forward([three])
    world.comet.forward([one, two, one])
    world.turns()
    world.comet.forward([two, three])
    world.turns()
    assert wire.out == H + frame(one.mid, b"1") + frame(two.mid, b"2") + frame(three.mid, b"3")


def test_a_forward_without_its_body_is_read() -> None:
    world = World()
    _, wire = world.subscribe()
    forward = append(world, b"1")
    world.comet.forward([forward._replace(body=None)])
    world.turns()
    assert wire.out == H + frame(forward.mid, b"1")


def test_until_the_read_succeeds_nothing_later_is_delivered() -> None:
    world = World()
    _, wire = world.subscribe()
    one, two = append(world, b"1"), append(world, b"2")
    world.node.mode = "silent"
    world.comet.forward([two])
    world.wait(6)
    three = append(world, b"3")
    world.comet.forward([three])
    world.turns()
    assert wire.out == H
    assert not wire.closed
    world.node.mode = "up"
    world.wait(5)
    assert wire.out == H + frame(one.mid, b"1") + frame(two.mid, b"2") + frame(three.mid, b"3")


def test_a_read_that_failed_is_repeated_and_not_at_once() -> None:
    world = World()
    _, wire = world.subscribe()
    one, two = append(world, b"1"), append(world, b"2")
    world.coordination.adopt(View(world.coordination.view.comets, ()))
    world.comet.forward([two])
    world.turns()
    assert world.comet.counters.catch_ups == 1
    world.wait(RETRY_SECONDS * 2.5)
    assert world.comet.counters.catch_ups == 3
    world.coordination.register_message(NodeInfo("", 0, ("m1",)))
    world.wait(RETRY_SECONDS * 2)
    assert wire.out == H + frame(one.mid, b"1") + frame(two.mid, b"2")


def test_reading_ends_with_the_last_subscriber() -> None:
    world = World()
    _, wire = world.subscribe()
    append(world, b"1")
    world.node.mode = "silent"
    world.comet.forward([append(world, b"2")])
    world.turns()
    wire.abort()
    world.wait(5)
    catch_ups = world.comet.counters.catch_ups
    world.wait(5)
    assert world.comet.counters.catch_ups == catch_ups


def test_a_long_hole_is_not_read_to_its_end_for_nobody() -> None:
    world = World(store=2000)
    _, wire = world.subscribe()
    forwards = [append(world, b"%d" % i) for i in range(600)]
    world.node.late = ("read",)
    world.comet.forward([forwards[-1]])
    world.turns()
    wire.abort()
    world.turns()
    world.node.release()
    world.turns()
    assert world.node.count("read") == 1


def test_a_long_hole_is_read_page_by_page() -> None:
    world = World(store=2000)
    _, wire = world.subscribe()
    forwards = [append(world, b"%d" % i) for i in range(600)]
    world.comet.forward([forwards[-1]])
    world.turns()
    assert wire.out == H + b"".join(frame(forward.mid, b"%d" % i) for i, forward in enumerate(forwards))
    assert world.node.count("read") == 3


def test_a_hole_that_was_trimmed_is_reported_to_those_that_gave_a_mid() -> None:
    """Delivery rule 4: +g."""
    world = World(store=2)
    _, plain = world.subscribe()
    _, resuming = world.subscribe(mid=0)
    forwards = [append(world, b"%d" % i) for i in range(4)]
    world.comet.forward([forwards[3]])
    world.turns()
    messages = frame(forwards[2].mid, b"2") + frame(forwards[3].mid, b"3")
    assert plain.out == H + messages
    assert resuming.out == H + b"+g\r\n" + messages
    assert world.comet.counters.gaps == 1
    mid = world.pushed(b"4")
    assert resuming.out == H + b"+g\r\n" + messages + frame(mid, b"4")


def test_what_a_batch_of_our_own_trims_at_once_is_delivered_all_the_same() -> None:
    """The log is read after the store took the batch, and before the comet has its answer."""
    world = World(store=2)
    _, wire = world.subscribe(mid=0)
    world.node.late = ("append",)
    pushes = [Push("k", b"%d" % i, 600, f"id-{i}", 60, world.now() + 4) for i in range(4)]
    answered = result(world.comet.push(pushes))
    world.turns()
    world.comet.delivery.sweep(world.comet.channels.values())
    world.turns()
    assert world.node.count("read") == 2
    assert wire.out == H
    world.node.release()
    world.turns()
    ((*answers,),) = answered
    assert wire.out == H + b"".join(frame(answer.mid, b"%d" % i) for i, answer in enumerate(answers))
    assert world.comet.counters.gaps == 0


def test_a_hole_that_has_expired_is_no_gap() -> None:
    world = World()
    _, resuming = world.subscribe(mid=0)
    append(world, b"1", expire=1)
    world.wait(2)
    two = append(world, b"2")
    world.comet.forward([two])
    world.turns()
    assert resuming.out == H + frame(two.mid, b"2")


def test_too_much_that_waits_for_a_read_closes_the_subscribers() -> None:
    """Delivery rule 3: bounded; they resume."""
    world = World(msgbuf_messages=10)
    _, wire = world.subscribe()
    append(world, b"0")
    world.node.hold = ("read",)
    for i in range(10):
        world.comet.forward([append(world, b"%d" % i)])
    world.turns()
    assert not wire.closed
    world.comet.forward([append(world, b"10")])
    world.turns()
    assert wire.aborted
    assert world.comet.counters.overflows == 1
    assert world.comet.channels == {}


def test_too_many_bytes_that_wait_for_a_read_close_the_subscribers() -> None:
    world = World(msgbuf_bytes=1000)
    _, wire = world.subscribe()
    append(world, b"0")
    world.node.hold = ("read",)
    world.comet.forward([append(world, b"1" * 5000)])
    world.turns()
    assert not wire.closed  # a single message never closes
    world.comet.forward([append(world, b"2")])
    world.turns()
    assert wire.aborted


def test_too_much_that_waits_for_the_first_cursor_closes_too() -> None:
    world = World(msgbuf_messages=10)
    world.node.hold = ("heads",)
    _, wire = world.subscribe()
    for i in range(11):
        world.comet.forward([append(world, b"%d" % i)])
    world.turns()
    assert wire.aborted


# --- the sweep ---


def test_the_sweep_finds_what_nobody_reported() -> None:
    """Delivery rule 5."""
    world = World()
    _, wire = world.subscribe()
    forward = append(world, b"1")
    world.comet.delivery.sweep(world.comet.channels.values())
    world.turns()
    assert wire.out == H + frame(forward.mid, b"1")


def test_the_sweep_reads_heads_only_and_packed() -> None:
    world = World()
    for i in range(10):
        world.subscribe(key=f"k{i}")
    world.node.calls.clear()
    world.comet.delivery.sweep(world.comet.channels.values())
    world.turns()
    assert world.node.calls == [("heads", [f"k{i}" for i in range(10)])]


def test_a_sweep_that_fails_is_no_trouble() -> None:
    world = World()
    _, wire = world.subscribe()
    append(world, b"1")
    world.node.mode = "down"
    world.comet.delivery.sweep(world.comet.channels.values())
    world.wait(3)
    assert wire.out == H
    assert not wire.closed
