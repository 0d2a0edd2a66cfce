"""protocol.md, section 10: a read that waits loses no message while its key's comet changes or cannot be reached.

Step by step, without a socket: each answer of the store and of a comet comes when the test says so.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from gopush.errors import UnavailableError
from gopush.feed import Reader, last_mid
from gopush.membership.view import StaticCoordination, View
from gopush.model import REFUSE_LIMIT, REFUSE_NODE, Format, Head, Message, NodeInfo, Page, Subscribe
from gopush.routing.messages import Messages
from gopush.routing.pending import OnAnswers
from gopush.web import polling
from gopush.web.counters import WebCounters
from gopush.web.follower import Followers
from gopush.web.log_reader import LogReader
from gopush.web.polling import LINES, Polls
from tests.fixtures import left_to_the_collector
from tests.web.fakes import FakeMessages

OWNER = NodeInfo("node-c1", 0, ("c1",))


class Way:
    """A subscription, on its way to the comet until the test has it accepted."""

    def __init__(self, reader: Reader) -> None:
        self.reader: Reader | None = reader

    def start(self) -> None:
        """See Subscription."""

    def close(self) -> None:
        self.reader = None

    def over(self, refusal: bytes = b"") -> None:
        """The comet refuses it, or dies."""
        reader, self.reader = self.reader, None
        assert reader is not None
        if refusal:
            reader.refused(refusal)
        else:
            reader.ended(reached=False)


class World:
    """A key with its log, its comet, and those who wait."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.log: list[Message] = []
        self.ways: list[Way] = []
        self.room = True
        self.looked: list[list[str]] = []
        self._reads: list[tuple[Deferred[Page], Page]] = []
        self.coordination = StaticCoordination(View([OWNER]))
        messages: Any = self
        counters = WebCounters()
        self.log_reader = LogReader(self.clock, messages, counters)
        followers = Followers(self.clock, self.coordination, [self], self.log_reader, lambda: 1.0)
        self.polls = Polls(followers, messages, counters, lambda: self.room)

    def open(self, owner: NodeInfo, request: Subscribe, format: Format, reader: Reader) -> Way:
        """See Feed."""
        self.ways.append(Way(reader))
        return self.ways[-1]

    def watch(self, reached: Callable[[], object]) -> None:
        """See Feed."""

    def heads(self, keys: Sequence[str], answered: OnAnswers) -> None:
        """See Messages."""
        self.looked.append(list(keys))
        answered(range(len(keys)), [Head(self.log[-1].mid if self.log else 0, 0)] * len(keys))

    def read(self, key: str, after: int) -> Deferred[Page]:
        """See Messages. It sees what is there now, however late the answer comes."""
        head = Head(self.log[-1].mid if self.log else 0, 0)
        self._reads.append((Deferred(), Page([message for message in self.log if message.mid > after], head, False)))
        return self._reads[-1][0]

    # --- the test ---

    @property
    def reading(self) -> int:
        return len(self._reads)

    @property
    def live(self) -> list[Way]:
        return [way for way in self.ways if way.reader is not None]

    def wait(self, seconds: int = 30) -> list[Any]:
        """Holds the answer's mids, once it is there."""
        answers: list[Any] = []
        waiting: Deferred[Any] = self.polls.wait("k", "", 0, seconds)
        waiting.addCallbacks(lambda found: answers.append(mids(found)), lambda failure: answers.append(failure.type))
        return answers

    def accept(self) -> None:
        """The comet accepts who is on the way."""
        (way,) = self.live
        assert way.reader is not None
        way.reader.accepted()

    def answer_read(self) -> None:
        """The oldest read has its answer."""
        coming, page = self._reads.pop(0)
        coming.callback(page)

    def fail_read(self) -> None:
        self._reads.pop(0)[0].errback(UnavailableError("away"))

    def store(self, mid: int, live: bool = False, body: bytes = b"1") -> None:
        """A push; `live`: it comes to all that are subscribed."""
        self.log.append(Message(mid, body))
        for way in self.live if live else ():
            assert way.reader is not None
            way.reader.write(LINES.message(self.log[-1]))

    def pass_seconds(self, seconds: int) -> None:
        self.clock.pump([1] * seconds)

    def move(self, refusal: bytes = REFUSE_NODE) -> None:
        """The key's comet changes: all follow it, and are on their way."""
        for way in self.live:
            way.over(refusal)
        self.clock.advance(0.2)


def mids(found: Any) -> list[int]:
    return [last_mid(message) for message in found] if isinstance(found, list) else [m.mid for m in found.messages]


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize("refusal", [b"", REFUSE_NODE])
def test_who_is_on_the_way_to_a_comet_does_not_wait_there_for_its_client(world: World, refusal: bytes) -> None:
    """What is stored before it is subscribed comes nowhere: the client that comes back has it read."""
    answers = world.wait(2)
    world.accept()
    world.answer_read()
    world.move(refusal)
    world.pass_seconds(2)
    world.answer_read()
    assert answers == [[]]
    world.store(16)
    assert world.live == []
    answers = world.wait()
    world.accept()
    world.store(32, live=True)
    world.answer_read()
    assert answers == [[16, 32]]


def test_a_read_that_ends_as_the_time_does_leaves_nobody_half_subscribed(world: World) -> None:
    """The time is over, which is seen within a second, and it is on its way to another comet."""
    world.clock.advance(0.5)
    answers = world.wait(1)
    world.accept()
    world.move()
    world.clock.advance(0.9)
    world.answer_read()
    assert answers == [[]]
    assert world.live == []


def test_at_its_end_it_reads_what_came_while_it_was_not_subscribed(world: World) -> None:
    answers = world.wait(2)
    world.accept()
    world.answer_read()
    world.move()
    world.store(16)
    world.pass_seconds(2)
    world.answer_read()
    assert answers == [[16]]


def test_what_an_older_read_found_does_not_go_with_what_comes_now(world: World) -> None:
    answers = world.wait()
    world.store(16)
    world.accept()
    world.move()
    world.store(32)
    world.accept()
    world.store(48, live=True)
    world.answer_read()
    assert answers == []
    world.answer_read()
    assert answers == [[16, 32, 48]]


def test_an_older_read_that_found_nothing_leaves_what_has_come(world: World) -> None:
    answers = world.wait()
    world.accept()
    world.move()
    world.accept()
    world.store(16, live=True)
    world.answer_read()
    assert answers == []
    world.answer_read()
    assert answers == [[16]]


def test_an_older_read_that_fails_fails_nobody(world: World) -> None:
    answers = world.wait()
    world.accept()
    world.move()
    world.store(16)
    world.accept()
    world.fail_read()
    assert answers == []
    world.answer_read()
    assert answers == [[16]]


def test_a_key_that_moves_again_and_again_does_not_put_off_the_end(world: World) -> None:
    """After its time it subscribes no more, and the read that is under way is the last."""
    answers = world.wait(2)
    for _ in range(3):
        world.accept()
        world.move()
        world.clock.advance(0.3)
    world.accept()
    world.pass_seconds(2)
    assert world.live == []
    world.store(16)
    assert world.reading == 4
    for _ in range(3):
        world.answer_read()
    assert answers == []
    world.answer_read()
    assert answers == [[]]
    assert world.reading == 0


def test_too_much_that_comes_meanwhile_is_read_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """At another comet the count begins anew."""
    monkeypatch.setattr(polling, "MAX_CAME_BYTES", 100)
    answers = world.wait()
    world.accept()
    world.move()
    world.accept()
    for mid in (16, 32, 48):
        world.store(mid, live=True, body=b'"%30d"' % mid)
    world.answer_read()
    assert answers == []
    world.answer_read()
    assert answers == []
    world.answer_read()
    assert answers == [[16, 32, 48]]


def test_who_comes_back_waits_where_it_was(world: World) -> None:
    answers = world.wait(2)
    world.accept()
    world.answer_read()
    world.pass_seconds(2)
    assert answers == [[]]
    answers = world.wait()
    assert (len(world.ways), world.reading) == (1, 0)
    world.store(16, live=True)
    assert answers == [[16]]


@pytest.mark.parametrize("refusal", [b"", REFUSE_NODE, REFUSE_LIMIT])
def test_what_is_there_does_not_wait_for_a_comet_that_cannot_be_reached(world: World, refusal: bytes) -> None:
    """It is read once, however often the comet cannot be reached, and once more at the end."""
    answers = world.wait(20)
    world.store(16)
    world.move(refusal)
    world.answer_read()
    assert answers == [[16]]
    assert world.live == []
    answers = world.wait(20)
    world.log.clear()
    for _ in range(10):
        world.move(refusal)
        world.pass_seconds(1)
    assert world.reading == 1
    world.answer_read()
    world.store(32)
    world.pass_seconds(10)
    world.answer_read()
    assert answers == [[32]]


@pytest.mark.parametrize("hangs", [False, True])
def test_what_comes_while_no_comet_can_be_reached_does_not_wait_for_the_end(world: World, hangs: bool) -> None:
    """The comet of one that was subscribed is away, or each attempt to subscribe hangs."""
    answers = world.wait(60)
    if not hangs:
        world.accept()
        world.answer_read()
        world.move(b"")
    else:
        world.pass_seconds(2)
        world.answer_read()
    world.store(16)
    world.pass_seconds(3)
    world.answer_read()
    assert answers == [[16]]
    assert (world.reading, world.live) == (0, [])


def test_what_is_there_does_not_wait_where_no_comet_is_known(world: World) -> None:
    world.coordination.view = View()
    world.store(16)
    answers = world.wait()
    world.answer_read()
    assert (answers, world.ways, world.polls.followers.paused) == ([[16]], [], {})


def test_a_store_that_answers_within_the_call(world: World) -> None:
    """Who has its answer already is not followed."""
    messages = FakeMessages()
    world.polls.messages = cast(Messages, messages)
    mid = messages.append("k", b"1")
    world.coordination.view = View()
    assert (world.wait(), world.polls.followers.paused) == ([[mid]], {})


def test_what_is_there_does_not_wait_for_a_comet_that_says_nothing(world: World) -> None:
    """A frozen one, say. A subscription that it accepts after all goes on."""
    answers = world.wait()
    world.pass_seconds(2)
    world.answer_read()
    assert answers == []
    world.accept()
    world.answer_read()
    world.pass_seconds(5)
    assert (answers, world.reading) == ([], 0)
    world.store(16, live=True)
    assert answers == [[16]]


def test_what_is_there_does_not_wait_for_room(world: World) -> None:
    world.room = False
    world.store(16)
    answers = world.wait()
    world.answer_read()
    assert answers == [[16]]
    world.log.clear()
    answers = world.wait(3)
    world.answer_read()
    world.store(32)
    world.pass_seconds(3)
    world.answer_read()
    assert answers == [[32]]
    assert world.ways == []


def test_who_comes_while_web_leaves_is_answered_at_once(world: World) -> None:
    world.store(16)
    world.polls.stop()
    answers = world.wait()
    world.answer_read()
    assert answers == [[16]]
    world.log.clear()
    answers = world.wait()
    world.answer_read()
    assert (answers, world.ways) == ([[]], [])


def test_a_store_and_a_comet_that_are_away(world: World) -> None:
    """It waits for either; at the end the store counts."""
    answers = world.wait(3)
    world.move()
    world.fail_read()
    assert answers == []
    world.pass_seconds(3)
    world.fail_read()
    assert answers == [UnavailableError]
    answers = world.wait(3)
    world.accept()
    world.fail_read()
    assert answers == [UnavailableError]


@pytest.mark.parametrize("way", ["a message", "in vain", "parked", "gone", "late"])
def test_a_poll_that_is_over_is_freed_by_reference_counts_alone(world: World, way: str) -> None:
    gc.collect()
    for _ in range(3):
        answers: list[Any] = []
        waiting = world.polls.wait("k", "", 0, 2)
        waiting.addCallback(answers.append)
        if way != "late":
            world.accept()
            world.answer_read()
        if way == "a message":
            world.store(16, live=True)
        elif way == "gone":
            waiting.cancel()
        world.pass_seconds(2 if way == "in vain" else 6)
        if way == "late":
            world.answer_read()
            world.pass_seconds(6)
        assert answers
        world.polls.stop()  # what is parked goes, too
        world.polls.leaving = False
        world.ways.clear()
        world.log.clear()
    assert left_to_the_collector(["Poll"]) == []
