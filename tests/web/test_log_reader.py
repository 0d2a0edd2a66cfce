"""protocol.md, section 10: an event stream goes on, each message once and in order, while its comet cannot be reached.

Step by step, without a socket: each answer of the store and of a comet comes when the test says so.
"""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import formatEvent

from gopush.errors import UnavailableError
from gopush.event_stream import COMMENT, GAP_EVENT, event
from gopush.feed import Reader
from gopush.membership.view import StaticCoordination, View
from gopush.model import REFUSE_NODE, Format, Head, Message, NodeInfo, Page, Subscribe
from gopush.net.http.request import chunk
from gopush.reports import Lag
from gopush.routing.pending import OnAnswers
from gopush.web.counters import WebCounters
from gopush.web.follower import Followers
from gopush.web.log_reader import LogReader
from gopush.web.streams import EventStream, EventStreams
from tests.fixtures import Logged, left_to_the_collector

COMET = NodeInfo("node-c1", 0, ("c1",))


class Way:
    """A subscription; `mid`: where it begins."""

    def __init__(self, reader: Reader, mid: int | None) -> None:
        self.reader: Reader | None = reader
        self.mid = mid

    def start(self) -> None:
        """See Subscription."""

    def close(self) -> None:
        self.reader = None

    def over(self, refusal: bytes = b"", reached: bool = False) -> None:
        reader, self.reader = self.reader, None
        assert reader is not None
        if refusal:
            reader.refused(refusal)
        else:
            reader.ended(reached)


class Answer:
    """What a client has got. `waits`: it has not read all of it."""

    in_chunks = False
    peer = "client:1"
    slow = False

    def __init__(self) -> None:
        self.out = b""
        self.waits = False
        self.over = ""

    def begin(self, head: object) -> None:
        """See HeldAnswer."""

    def send(self, data: bytes) -> int:
        self.out += data
        return 0

    def finish(self, data: bytes) -> None:
        self.over = data.decode()

    def abort(self) -> None:
        self.over = "aborted"

    def waiting(self) -> Lag | None:
        return Lag(1, 1.0, 0) if self.waits else None

    def until_drained(self) -> Awaitable[None]:
        return succeed(None)


class World:
    """Logs of keys, a comet, and streams. `trimmed` up to a mid; pages hold three messages."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.logs: dict[str, list[Message]] = {}
        self.trimmed = 0
        self.last = 0
        self.down = self.hold = self.unreadable = self.headless = False
        self.ways: list[Way] = []
        self.looked: list[list[str]] = []
        self.held: list[tuple[Deferred[Page], Page]] = []
        self.counters = WebCounters()
        self.reached: list[Callable[[], object]] = []
        messages: Any = self
        self.log_reader = LogReader(self.clock, messages, self.counters)
        coordination = StaticCoordination(View([COMET]))
        followers = Followers(self.clock, coordination, [self], self.log_reader, lambda: 1.0)
        self.streams = EventStreams(followers, messages, self.counters, lambda: True)

    # --- Feed ---

    def open(self, owner: NodeInfo, request: Subscribe, format: Format, reader: Reader) -> Way:
        self.ways.append(Way(reader, request.mid))
        return self.ways[-1]

    def watch(self, reached: Callable[[], object]) -> None:
        self.reached.append(reached)

    # --- Messages ---

    def heads(self, keys: Sequence[str], answered: OnAnswers) -> None:
        self.looked.append(list(keys))
        if self.down:
            answered(range(len(keys)), UnavailableError("away"))
        else:
            answered(range(len(keys)), [None if self.headless else self._head(key) for key in keys])

    def read(self, key: str, after: int) -> Deferred[Page]:
        if self.unreadable:
            return fail(UnavailableError("away"))
        found = [message for message in self.logs.get(key, ()) if message.mid > after]
        page = Page(found[:3], self._head(key), len(found) > 3)
        if not self.hold:
            return succeed(page)
        self.held.append((Deferred(), page))
        return self.held[-1][0]

    def head(self, key: str) -> Deferred[Head]:
        return Deferred()

    def _head(self, key: str) -> Head:
        log = self.logs.get(key)
        return Head(max(log[-1].mid if log else 0, self.last), self.trimmed)

    # --- the test ---

    @property
    def live(self) -> list[Way]:
        return [way for way in self.ways if way.reader is not None]

    def store(self, *mids: int, key: str = "k") -> None:
        self.logs.setdefault(key, []).extend(Message(mid, b"%d" % mid) for mid in mids)

    def stream(self, key: str = "k", mid: int = 16) -> Answer:
        """One that has begun at its comet."""
        answer: Any = Answer()
        stream = EventStream(self.streams, Subscribe(key, 30, "", "", mid), answer)
        self.streams.opened(stream)
        stream.start()
        reader = self.ways[-1].reader
        assert reader is not None
        reader.accepted()
        answer.out = b""
        return answer  # type: ignore[no-any-return]

    def lose(self) -> None:
        """The comet cannot be reached, and each attempt to is hopeless at once."""
        for way in self.live:
            way.over()

    def away(self, seconds: float) -> None:
        for _ in range(round(seconds * 10)):
            self.clock.advance(0.1)
            self.lose()


def events(*mids: int) -> bytes:
    return b"".join(event(Message(mid, b"%d" % mid)) for mid in mids)


@pytest.fixture
def world() -> World:
    return World()


def test_it_is_late_by_some_seconds_and_goes_on_at_the_comet(world: World) -> None:
    answer = world.stream()
    world.lose()
    world.store(32, 48)
    world.away(1.5)
    assert answer.out == events(32, 48)
    world.store(64)
    world.away(2.5)
    assert answer.out == events(32, 48, 64)
    world.clock.advance(10)
    (way,) = world.live
    assert way.mid == 64
    assert way.reader is not None
    way.reader.accepted()
    world.store(80)
    world.clock.pump([1] * 10)
    assert answer.out == events(32, 48, 64)
    assert (world.log_reader.unserved, world.counters.log_reads) == (0, 2)


def test_who_is_at_a_comet_costs_the_store_nothing(world: World) -> None:
    world.stream()
    world.store(32)
    world.clock.pump([0.5] * 20)
    assert not any(world.looked)


@pytest.mark.parametrize("framed", [bytes, chunk])
def test_a_subscription_under_way_is_left_alone_and_brings_nothing_twice(
    world: World, framed: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection has to be made first, or the comet is slow: begun anew at each page it would never be accepted."""
    monkeypatch.setattr(Answer, "in_chunks", framed is chunk)
    answer = world.stream()
    world.lose()
    world.clock.advance(0.2)
    (way,) = world.live
    assert (way.mid, way.reader is not None) == (16, True)
    for mid in range(32, 112, 16):
        world.store(mid)
        world.clock.pump([0.1] * 25)
    assert world.live == [way]
    seen = [framed(event(Message(mid, b"%d" % mid))) for mid in range(32, 208, 16)]
    assert answer.out == b"".join(seen[:5])
    reader: Any = way.reader
    reader.accepted()

    def deliver(last: int, *pieces: bytes) -> int:
        reader.cursor = last
        reader.write(b"".join(pieces))
        return reader.cursor  # type: ignore[no-any-return]

    gap = framed(GAP_EVENT)
    assert deliver(48, gap, *seen[:2]) == deliver(80, *seen[2:4]) == 96
    assert answer.out == b"".join(seen[:5])
    assert deliver(128, *seen[4:7]) == 128
    assert deliver(144, seen[7]) == 144
    assert answer.out == b"".join(seen[:8])
    assert (len(world.ways), world.log_reader.unserved) == (2, 0)


def test_a_gap_behind_what_was_read_meanwhile_is_reported(world: World) -> None:
    answer = world.stream()
    world.lose()
    world.store(32)
    world.clock.pump([0.1] * 25)
    (way,) = world.live
    reader: Any = way.reader
    reader.accepted()
    reader.cursor = 80
    reader.write(GAP_EVENT + events(64, 80))
    assert answer.out == events(32) + GAP_EVENT + events(64, 80)


def test_what_was_read_too_late_is_dropped(world: World) -> None:
    """The comet has it in the meantime, and sends it."""
    answer = world.stream()
    world.lose()
    world.hold = True
    world.store(32)
    world.away(1)
    world.clock.advance(2)
    (way,) = world.live
    assert way.reader is not None
    way.reader.accepted()
    ((coming, page),) = world.held
    coming.callback(page)
    assert answer.out == b""


def test_a_long_log_comes_page_by_page_as_the_client_reads(world: World) -> None:
    answer = world.stream()
    world.lose()
    world.store(*range(32, 32 + 16 * 8, 16))
    world.away(1.5)
    assert answer.out == events(*range(32, 32 + 16 * 8, 16))
    slow = world.stream()
    slow.waits = True
    world.away(5)
    assert (slow.out, slow.over) == (b"", "")
    slow.waits = False
    world.away(2.5)
    assert slow.out == answer.out


def test_a_gap_is_reported_once(world: World) -> None:
    answer = world.stream()
    world.lose()
    world.store(160, 176)
    world.trimmed = 144
    world.away(6)
    assert answer.out == GAP_EVENT + events(160, 176)


def test_what_is_not_kept_is_passed_over(world: World) -> None:
    answer = world.stream()
    world.lose()
    world.last = 160
    world.away(10)
    assert (answer.out, world.counters.log_reads) == (b"", 1)


def test_all_at_one_place_share_a_read_and_all_keys_a_look(world: World) -> None:
    answers = [world.stream() for _ in range(20)] + [world.stream(key="other") for _ in range(20)]
    world.lose()
    world.store(32)
    world.store(48, key="other")
    world.away(1.5)
    assert [answer.out for answer in answers] == [events(32)] * 20 + [events(48)] * 20
    assert [looked for looked in world.looked if looked] == [["k", "other"]]
    assert world.counters.log_reads == 2


def test_of_many_some_are_looked_at_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gopush.web.log_reader.READ_PER_SECOND", 4)
    answers = [world.stream(key=f"k{number}") for number in range(6)]
    for number in range(6):
        world.store(32, key=f"k{number}")
    world.lose()
    world.away(3)
    assert {len(looked) for looked in world.looked} <= {0, 1, 2}
    assert [answer.out for answer in answers] == [events(32)] * 6


def test_reads_under_way_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.log_reader._room.tokens = world.log_reader._room.limit = 2
    answers = [world.stream(key=f"k{number}") for number in range(5)]
    for number in range(5):
        world.store(32, key=f"k{number}")
    world.hold = True
    world.lose()
    world.away(5)
    assert len(world.held) == 2
    world.hold = False
    for coming, page in world.held:
        coming.callback(page)
    assert [answer.out for answer in answers] == [events(32)] * 5


def test_while_the_store_is_away_too_nothing_comes(world: World) -> None:
    answer = world.stream()
    world.down = True
    world.lose()
    world.store(32)
    world.away(5)
    assert (answer.out, answer.over) == (b"", "")
    world.down = False
    world.away(2.5)
    assert answer.out == events(32)


def test_a_stream_that_neither_comet_nor_log_serves_ends(world: World) -> None:
    """Its client would wait for good, and another web node may reach them."""
    answer, served = world.stream(), world.stream()
    world.down = True
    world.ways[0].over()
    for _ in range(80):
        world.clock.advance(0.1)
        for way in world.live[1:]:
            way.over()
    assert answer.over == ""
    world.down = False
    for _ in range(30):
        world.clock.advance(0.1)
    world.down = True
    for _ in range(90):
        world.clock.advance(0.1)
    assert answer.over == ""
    for _ in range(40):
        world.clock.advance(0.1)
    assert "store away" in answer.over
    assert (served.over, world.log_reader.unserved, len(world.streams.streams)) == ("", 0, 1)


@pytest.mark.parametrize("fault", ["unreadable", "headless"])
def test_a_stream_whose_own_log_cannot_be_read_ends_too(world: World, fault: str) -> None:
    """The store answers for others, and says where this log ends, or not even that."""
    answer = world.stream()
    setattr(world, fault, True)
    world.lose()
    world.store(32)
    world.away(9)
    assert answer.over == ""
    setattr(world, fault, False)
    world.away(3)
    assert answer.out == events(32)
    setattr(world, fault, True)
    world.store(48)
    world.away(7)
    assert answer.over == ""
    world.away(7)
    assert "store away" in answer.over
    assert answer.out == events(32)


def test_the_time_while_a_client_does_not_read_is_no_time_without_the_log(world: World) -> None:
    answer = world.stream()
    world.lose()
    world.away(3)
    answer.waits = True
    world.away(30)
    answer.waits = False
    world.down = True
    world.away(9.5)
    assert answer.over == ""
    world.away(5)
    assert "store away" in answer.over


def test_a_stream_that_has_not_begun_is_refused(world: World) -> None:
    """Its client may find another web node, which reaches the comet."""
    answer: Any = Answer()
    stream = EventStream(world.streams, Subscribe("k", 30, "", "", 16), answer)
    world.streams.opened(stream)
    stream.start()
    world.store(32)
    world.away(4)
    assert (answer.over, world.log_reader.unserved) == ("", 0)
    world.away(4)
    assert "comet away" in answer.over
    assert answer.out == b""
    assert world.log_reader.unserved == 0


@pytest.mark.parametrize(
    ("mid", "comet", "reason"),
    [
        (16, "is silent", "comet away"),
        (16, "has no store, then is silent", "store away"),
        (None, "is not asked: the head does not come", "store away"),
    ],
)
def test_a_stream_whose_attempt_does_not_end_is_refused_in_time(
    world: World, mid: int | None, comet: str, reason: str
) -> None:
    """An attempt at a frozen comet ends after up to ten seconds."""
    answer: Any = Answer()
    stream = EventStream(world.streams, Subscribe("k", 30, "", "", mid), answer)
    world.streams.opened(stream)
    stream.start()
    if comet == "has no store, then is silent":
        world.ways[-1].over(reached=True)
    world.clock.pump([0.1] * 49)
    assert answer.over == ""
    world.clock.pump([0.1] * 12)
    assert reason in answer.over
    assert answer.out == b""
    assert (world.live, world.streams.streams, world.counters.streams_refused) == ([], {}, 1)


def test_a_stream_whose_comet_answers_in_time_begins_and_stays(world: World) -> None:
    answer: Any = Answer()
    stream = EventStream(world.streams, Subscribe("k", 30, "", "", 16), answer)
    world.streams.opened(stream)
    stream.start()
    world.clock.pump([0.1] * 45)
    (way,) = world.live
    assert way.reader is not None
    way.reader.accepted()
    assert answer.out.endswith(b"id: 16\n\n")
    world.clock.pump([0.1] * 290)
    assert COMMENT not in answer.out
    world.clock.pump([0.1] * 20)
    assert answer.out.endswith(COMMENT)
    assert answer.over == ""


def test_where_a_comet_is_reached_again_those_who_wait_try_at_once(world: World) -> None:
    world.stream()
    world.lose()
    world.away(30)
    assert world.live == []
    for reached in world.reached:
        reached()
    world.clock.advance(1)
    assert len(world.live) == 1


def test_the_log_has_a_line_at_the_beginning_and_at_the_end(world: World, logged: Logged) -> None:
    for _ in range(3):
        world.stream()
    world.lose()
    world.away(1.5)
    assert (world.log_reader.unserved, logged.lines()) == (3, [])
    world.away(10)
    (line,) = logged.lines()
    assert line.startswith("3 event streams and waiting reads have no comet")
    world.clock.advance(10)
    for way in world.live:
        assert way.reader is not None
        way.reader.accepted()
    assert world.log_reader.unserved == 0
    world.clock.advance(0.5)
    assert "no event stream or waiting read is without a comet any more" in map(formatEvent, logged.events)


def test_the_log_has_one_pair_of_lines_for_one_outage(world: World, logged: Logged) -> None:
    """One waiting read comes after the other, and there are moments without any."""
    for _ in range(4):
        world.stream()
        world.lose()
        world.away(5)
        for stream in list(world.streams.streams):
            stream.hung_up()
        assert world.log_reader.unserved == 0
        world.away(15)
    assert len(logged.events) == 1
    world.away(50)
    beginning, end = map(formatEvent, logged.events)
    assert (beginning or "").startswith("1 event streams and waiting reads have no comet")
    assert end == "no event stream or waiting read is without a comet any more"
    assert world.clock.getDelayedCalls() == []


@pytest.mark.parametrize("refusal", [b"", REFUSE_NODE])
def test_who_has_left_is_read_for_no_more(world: World, refusal: bytes) -> None:
    world.stream()
    for way in world.live:
        way.over(refusal)
    for stream in list(world.streams.streams):
        stream.hung_up()
    world.store(32)
    world.clock.pump([0.5] * 10)
    assert not any(world.looked)
    assert world.clock.getDelayedCalls() == []


def test_the_mistake_of_one_read_is_logged_and_the_next_one_is_made(
    world: World, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = world.stream()
    monkeypatch.setattr(world, "read", lambda key, after: 1 / 0)
    world.lose()
    world.store(32)
    world.away(1.5)
    (mistake,) = logged.tracebacks()
    assert mistake["log_failure"].check(ZeroDivisionError)
    monkeypatch.undo()
    world.away(2.5)
    assert answer.out == events(32)


@pytest.mark.parametrize("end", ["lost", "hung_up", "store away"])
def test_a_stream_that_was_read_from_the_log_is_freed_by_reference_counts_alone(world: World, end: str) -> None:
    gc.collect()
    world.stream()
    (stream,) = world.streams.streams
    world.lose()
    world.store(32)
    world.away(9)
    if end == "store away":
        stream.cut_off()
    else:
        getattr(stream, end)()
    assert not world.streams.streams
    del stream
    world.ways.clear()
    assert left_to_the_collector(["EventStream"]) == []
