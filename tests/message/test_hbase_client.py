"""Which connection a call to HBase takes, where servers or regions fail (gopush/message/hbase/client.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock, StringTransport

from gopush.errors import UnavailableError
from gopush.message.hbase.client import SHUN_SECONDS, Client, NotSentError
from gopush.message.hbase.codec import HBaseError, get_multiple, idl
from gopush.message.hbase.connection import ThriftLink
from gopush.message.hbase.reader import RowReader
from gopush.message.hbase.row import HEAD
from gopush.message.hbase.settings import HBaseSettings
from tests.comet.harness import EPOCH, Clock
from tests.message.test_hbase_codec import answer

AWAY = HBaseError("org.apache.hadoop.hbase.NotServingRegionException: it is away")
NEAR_ROW, FAR_ROW = b"a", b"z"


class Link:
    """A connection whose calls a test answers, oldest first; in a table of two regions."""

    def __init__(self, reactor: Any, address: str, *more: Any) -> None:
        self.address = address
        self.ready = True
        self.trouble: str | None = None
        self.starts = [b"", b"m"]
        self.calls: list[tuple[Any, Deferred[Any]]] = []
        self._free: Callable[[], None] = more[-2]

    @property
    def load(self) -> int:
        return len(self.calls)

    def call(self, name: str, arguments: Any) -> Deferred[Any]:
        self.calls.append((arguments, Deferred()))
        return self.calls[-1][1]

    def answer(self, failure: Exception | None = None) -> None:
        """Answer the oldest call: nothing is found, or it fails."""
        arguments, answer = self.calls.pop(0)
        if failure is None:
            answer.callback([idl.Result(columnValues=[]) for _ in arguments.gets])
        else:
            answer.errback(failure)
        self._free()


class Servers:
    """A client of Thrift servers "a:1", "b:1", …; `links` to each."""

    def __init__(self, count: int, links: int) -> None:
        self.clock = Clock()
        addresses = tuple(f"{name}:1" for name in "abcdef"[:count])
        settings = HBaseSettings(addresses, connections=links)
        self.client = Client(self.clock, settings, lambda *_: None)
        self.links: list[Any] = list(self.client._last_use)
        self.reader = RowReader(self.client, settings, self.clock, lambda: EPOCH)

    def ask(self, *rows: bytes, seconds: float = 600.0) -> list[Any]:
        """Read these rows; what comes of that: a dict for each, or a Failure."""
        outcomes: list[Any] = []
        for found in self.client.get([(row, [HEAD]) for row in rows], self.clock.seconds() + seconds):
            found.addBoth(outcomes.append)
        return outcomes

    def read(self, rows: Sequence[bytes], until: float = 600.0) -> list[Any]:
        """Read them as a store does; what comes of it: a list, or a Failure."""
        outcomes: list[Any] = []
        Deferred.fromCoroutine(self.reader.cells([(row, [HEAD]) for row in rows], until)).addBoth(outcomes.append)
        return outcomes

    def busy(self) -> set[str]:
        """The addresses that have calls under way."""
        return {link.address for link in self.links if link.calls}

    def answer(self, address: str, failure: Exception | None = None) -> None:
        """Answer a call at this address."""
        next(link for link in self.links if link.address == address and link.calls).answer(failure)


Make = Callable[[int, int], Servers]


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.setattr("gopush.message.hbase.client.ThriftLink", Link)
    return Servers


def test_a_server_that_fails_comes_after_the_others_for_a_while(servers: Make) -> None:
    """It had the least to do, so most calls went to it."""
    both = servers(2, 2)
    both.ask(NEAR_ROW)
    both.answer("a:1", AWAY)
    for _ in range(4):
        both.ask(FAR_ROW)
    assert both.busy() == {"b:1"}
    both.clock.advance(SHUN_SECONDS)
    both.ask(FAR_ROW)
    assert both.busy() == {"a:1", "b:1"}


def test_a_server_that_fails_is_asked_where_no_other_one_has_room(servers: Make) -> None:
    one = servers(1, 1)
    first = one.ask(NEAR_ROW)
    one.answer("a:1", AWAY)
    assert len(first) == 1
    second = one.ask(NEAR_ROW)
    one.answer("a:1")
    assert second == [{}]


def test_a_read_that_one_server_fails_is_asked_of_another(servers: Make) -> None:
    both = servers(2, 1)
    read = both.read([NEAR_ROW])
    both.answer("a:1", AWAY)
    assert both.busy() == {"b:1"}
    both.answer("b:1")
    assert read == [[{}]]


def test_what_is_asked_again_is_only_what_failed_and_once(servers: Make) -> None:
    both = servers(2, 1)
    read = both.read([FAR_ROW, NEAR_ROW])
    both.answer("a:1", AWAY)
    both.answer("b:1")
    (again,) = (arguments for link in both.links for arguments, _ in link.calls)
    assert [get.row for get in again.gets] == [FAR_ROW]
    both.answer("b:1", AWAY)
    assert both.busy() == set()
    assert read[0].check(UnavailableError)


def test_a_region_that_is_away_leaves_half_the_connections_to_the_others(servers: Make) -> None:
    """Its calls held all of them, each for as long as HBase tried, and those to all other regions failed with it."""
    all_ = servers(2, 2)
    all_.ask(FAR_ROW)
    all_.answer("a:1", AWAY)
    far = [all_.ask(FAR_ROW) for _ in range(10)]
    assert sorted(link.load for link in all_.links) == [0, 0, 1, 1]
    near = [all_.ask(NEAR_ROW) for _ in range(4)]
    assert sorted(link.load for link in all_.links) == [1, 1, 2, 2]
    for link in all_.links:
        if link.load == 2:
            link.answer()
            link.answer()
    assert near == [[{}]] * 4
    assert sum(link.load for link in all_.links) == 2
    held = next(link for link in all_.links if link.calls)
    held.answer(AWAY)
    assert sum(link.load for link in all_.links) == 2
    held = next(link for link in all_.links if link.calls)
    held.answer()
    assert sum(map(len, far)) == 2
    assert sum(link.load for link in all_.links) == 8


def test_what_waits_for_a_region_that_is_away_does_so_for_its_time_alone(servers: Make) -> None:
    one = servers(1, 1)
    one.ask(FAR_ROW)
    one.answer("a:1", AWAY)
    slow, late = one.ask(FAR_ROW), one.ask(FAR_ROW, seconds=1.0)
    one.clock.advance(1.0)
    one.clock.advance(0.0)
    assert late[0].check(NotSentError)
    one.answer("a:1", AWAY)
    assert slow[0].check(HBaseError)
    assert one.busy() == set()


def test_a_turn_that_is_too_late_for_a_call_is_the_next_ones(servers: Make) -> None:
    """Of those that wait for a region that is away. What is under way then is answered, and has the others go on."""
    some = servers(1, 2)
    some.ask(FAR_ROW)
    some.answer("a:1", AWAY)
    some.ask(FAR_ROW)
    late, others = some.ask(FAR_ROW, seconds=0.1), [some.ask(FAR_ROW) for _ in range(3)]
    some.clock.advance(0.2)
    some.answer("a:1", AWAY)
    assert late[0].check(NotSentError)
    assert "its region failed" in late[0].getErrorMessage()
    for number in range(3):
        assert list(map(len, others)) == [1] * number + [0] * (3 - number)
        some.answer("a:1", AWAY)
    assert [other[0].check(HBaseError) for other in others] == [HBaseError] * 3


def test_why_a_read_failed_is_what_its_first_try_says_where_there_is_no_second(servers: Make) -> None:
    some = servers(1, 2)
    silent = some.read([NEAR_ROW], some.clock.seconds() + 1)
    some.clock.pump([1, 0])
    assert "no answer in time" in silent[0].getErrorMessage()
    some.links[0].answer()
    away = some.read([FAR_ROW], some.clock.seconds() + 1)
    some.ask(FAR_ROW)  # holds the only connection that the region may have
    some.links[1].answer(AWAY)
    some.clock.pump([1, 0])
    assert away[0].check(HBaseError)


def test_a_busy_connection_learns_where_regions_begin_by_now_and_is_not_left_where_hbase_does_not_say() -> None:
    """After a split calls asked for rows of two regions: while one was away, those of the other failed with it."""
    reactor: Any = MemoryReactorClock()
    link: Any = ThriftLink(reactor, "a:1", b"gopush", 1.0, None, *[lambda *_: None] * 3)
    transport: Any = StringTransport()
    transport.setTcpNoDelay = lambda _: None
    connection = link.buildProtocol(None)
    connection.makeConnection(transport)

    def locations(number: int, *starts: bytes) -> None:
        found = [idl.RegionLocation(idl.ServerName("h"), idl.RegionInfo(1, b"gopush", start)) for start in starts]
        failed = None if starts else idl.IOError(message="java.io.IOException: it failed")
        result = idl.HBase.getAllRegionLocations_result(success=found or None, io=failed)
        connection.stringReceived(answer("getAllRegionLocations", result, number=number))

    probed = idl.HBase.getMultiple_result(success=[])
    connection.stringReceived(answer("getMultiple", probed, number=1))
    locations(2, b"")
    assert link.ready
    link.call("getMultiple", get_multiple(b"gopush", [(NEAR_ROW, [HEAD])]))
    link.ping()
    locations(4, b"", b"m")
    assert link.starts == [b"", b"m"]
    link.ping()
    locations(5)
    assert link.ready
    assert not transport.disconnecting
