"""Nobody reads what too few replicas have (wait = 1), also while the master moves; the connections are fakes. What is
said of connections that are lost again and again.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from gopush.errors import RET_OK, UnavailableError
from gopush.message.redis.connection import Script, UnreplicatedError
from gopush.message.redis.server import RedisServer
from gopush.message.redis.settings import RedisSettings, sources
from gopush.message.store import StoreSettings
from gopush.model import Append, Head, Page, Push, Read, Token, mid_at
from tests.fixtures import lines_logged

NOW = 1_800_000_000.0
LAST = mid_at(NOW) + 16


class FakeLink:
    """A connection to a server; the test answers what it was asked."""

    def __init__(self) -> None:
        self.server = "one"
        self.connected = True
        self.asked: list[tuple[str, Deferred[bytes]]] = []
        self.waits: list[str] = []
        self.left = 0

    def run(self, script: Script, arguments: list[Any], replicas: int = 0, again: bool = True) -> Deferred[bytes]:
        answer: Deferred[bytes] = Deferred()
        self.asked.append((script.name, answer))
        self.waits += [script.name] * (replicas > 0)
        return answer

    def answer(self, name: str) -> None:
        """The one question that is open: this script."""
        ((asked, answering),) = self.asked
        assert asked == name
        self.asked.clear()
        answering.callback(ANSWERS[name])

    def leave(self) -> None:
        self.left += 1

    def ping(self) -> Deferred[None]:
        return succeed(None)

    async def look(self) -> None:
        pass


HEAD = struct.pack(">dd", LAST, 0)
ANSWERS = {
    "read": msgpack.packb([NOW, "", HEAD, False, 0, [struct.pack(">dd", LAST, NOW + 9) + b"1"]]),
    "heads": struct.pack(">d", NOW) + HEAD,
    "append": msgpack.packb([NOW + 1, 0, 0, "", RET_OK, LAST, 0, False]),
    "touch": msgpack.packb(["id", NOW + 1]),
    "delete": b"",
    "tokens": msgpack.packb([1]),
}

Ask = Callable[[RedisServer], Deferred[Any]]
ASKS: dict[str, Ask] = {
    "read": lambda server: server.read([Read("k", 0, 9)]),
    "heads": lambda server: server.heads(["k"]),
}

WRITES: dict[str, tuple[str, Ask]] = {
    "delete": ("delete", lambda server: server.delete("k")),
    "create": ("tokens", lambda server: server.create_token("k", Token(b"digest", int(NOW) + 9))),
    "revoke": ("tokens", lambda server: server.revoke_token("k", b"digest")),
}


class Servers:
    """A server of the store, and its two connections."""

    def __init__(self) -> None:
        settings = RedisSettings(3.0, "gopush:", 1, sources("node1:1 unix@/nowhere"))
        (source,) = settings.sources
        self.store = RedisServer(Clock(), source, settings, StoreSettings())
        self.reads, self.writes = FakeLink(), FakeLink()
        links: Any = self.store
        links._reads, links._writes = self.reads, self.writes

    def ask(self, name: str) -> list[Any]:
        """Read, and see the answer: what comes of it is in the list once it is there."""
        came: list[Any] = []
        ASKS[name](self.store).addBoth(came.append)
        self.reads.answer(name)
        return came

    def reconnected(self, part: str, server: str) -> None:
        """This connection was lost and is back, at this server."""
        getattr(self, part).server = server
        self.store._tell(part, "the connection was lost")
        self.store._tell(part, None)


@pytest.fixture
def servers() -> Servers:
    return Servers()


def reported(came: list[Any]) -> int:
    """The last mid that a reader got."""
    ((one,),) = came
    head: Head = one.head if isinstance(one, Page) else one
    return head.last


@pytest.mark.parametrize("name", ASKS)
def test_what_replicas_confirm_is_reported(servers: Servers, name: str) -> None:
    came = servers.ask(name)
    assert came == []
    servers.writes.answer("touch")
    assert reported(came) == LAST
    assert reported(servers.ask(name)) == LAST, "it is known now"


@pytest.mark.parametrize("name", ASKS)
def test_what_a_new_master_confirms_says_nothing_of_what_is_at_the_old_one(servers: Servers, name: str) -> None:
    """The fail-over comes while the replicas are asked: the question goes on to the new master."""
    came = servers.ask(name)
    servers.reconnected("writes", "two")
    servers.writes.answer("touch")
    assert came[0].check(UnavailableError)


@pytest.mark.parametrize("name", ASKS)
def test_reads_that_are_still_at_the_old_master_report_nothing(servers: Servers, name: str) -> None:
    """The other connection was lost alone, and came back at the new master, which has confirmed something already."""
    servers.reconnected("writes", "two")
    servers.store._touch()
    servers.writes.answer("touch")
    came = servers.ask(name)
    servers.writes.answer("touch")
    assert came[0].check(UnavailableError)
    assert servers.reads.left == 1, "nor do they stay there"


def test_reads_that_come_back_at_the_old_master_later_leave_it(servers: Servers) -> None:
    """Nothing else would: each read would be refused for as long as that server lives."""
    servers.reads.connected = False
    servers.reconnected("writes", "two")
    assert servers.reads.left == 0
    servers.reads.connected = True
    servers.reconnected("reads", "one")
    assert servers.reads.left == 1


@pytest.mark.parametrize("part", ["reads", "writes"])
def test_what_replicas_have_is_known_through_a_lost_connection(servers: Servers, part: str) -> None:
    """Too few of them may be there by now: that does not make all keys unreadable."""
    servers.reconnected("writes", "one")
    servers.ask("read")
    servers.writes.answer("touch")
    servers.reconnected(part, "one")
    assert reported(servers.ask("read")) == LAST


def test_a_clock_that_steps_back_between_two_reads_is_noticed(servers: Servers) -> None:
    """Else a mid of the new time would lie below what replicas had of the old one."""
    servers.ask("read")
    servers.writes.answer("touch")
    assert reported(servers.ask("read")) == LAST
    servers.store._tell_clock("reads", NOW + 9, None)
    assert servers.ask("read") == [], "it is an earlier time"
    servers.writes.answer("touch")


def test_what_replicas_have_is_unknown_once_a_server_has_started_anew(servers: Servers) -> None:
    """Or another one is there: its run id says so."""
    servers.reconnected("writes", "one")
    servers.ask("read")
    servers.writes.answer("touch")
    for part in ("writes", "reads"):
        servers.reconnected(part, "two")
    assert servers.ask("read") == []
    servers.reconnected("writes", "one")
    servers.writes.answer("touch")


def test_a_page_in_pieces_is_of_one_server(servers: Servers) -> None:
    """The first piece, where much had expired, is of the old master, the other one of the new one."""
    passed = msgpack.packb([NOW, "", HEAD, True, LAST - 16, []])
    came: list[Any] = []
    servers.store.read([Read("k", 0, 9)]).addBoth(came.append)
    servers.reads.asked.pop()[1].callback(passed)
    for part in ("writes", "reads"):
        servers.reconnected(part, "two")
    servers.reads.answer("read")
    servers.writes.answer("touch")
    assert came[0].check(UnavailableError)


@pytest.mark.parametrize("name", WRITES)
def test_writes_share_what_waits_for_replicas(servers: Servers, name: str) -> None:
    """While these are away each WAIT holds up all that Redis got behind it: pushes, and a deletion that ran long after
    its caller was told that it had failed.
    """
    script, write = WRITES[name]
    came: list[Any] = []
    for _ in range(3):
        write(servers.store).addBoth(came.append)
    assert [asked for asked, _ in servers.writes.asked] == [script] * 3, "they run at once"
    running, servers.writes.asked = servers.writes.asked, []
    for _, answer in running:
        answer.callback(ANSWERS[script])
    assert came == []
    servers.writes.answer("touch")
    assert len(came) == 1, "the others had not run when this was sent"
    servers.writes.answer("touch")
    assert len(came) == 3
    assert servers.writes.waits == ["touch"] * 2


@pytest.mark.parametrize("name", WRITES)
def test_a_write_at_the_old_master_is_none(servers: Servers, name: str) -> None:
    script, write = WRITES[name]
    came: list[Any] = []
    write(servers.store).addBoth(came.append)
    servers.writes.answer(script)
    servers.reconnected("writes", "two")
    servers.writes.answer("touch")
    assert came[0].check(UnavailableError)


def test_pings_share_a_write(servers: Servers) -> None:
    """Health checks and the look of every five seconds would pile up as well."""
    came: list[Any] = []
    for look in (servers.store.ping, servers.store.touch, servers.store.ping):
        look().addBoth(came.append)
    servers.writes.answer("touch")
    assert came == [None] * 3


MISSING = "only 0 of 1 replicas confirmed it in time"


def missing(servers: Servers) -> None:
    """A look finds that too few replicas are there."""
    servers.store.touch()
    ((_, answer),) = servers.writes.asked
    servers.writes.asked.clear()
    answer.errback(UnreplicatedError(MISSING))


@pytest.mark.parametrize("name", WRITES)
def test_no_write_and_no_ping_waits_for_replicas_that_are_missing(servers: Servers, name: str) -> None:
    """Each WAIT for them would hold up the pushes behind it."""
    missing(servers)
    script, write = WRITES[name]
    came: list[Any] = []
    servers.store.ping().addBoth(came.append)
    write(servers.store).addBoth(came.append)
    servers.writes.answer(script)
    assert len(came) == 2
    for failed in came:
        assert failed.check(UnavailableError)
        assert MISSING in failed.getErrorMessage()
    assert servers.writes.waits == ["touch"]


def test_who_had_to_wait_for_the_next_look_hears_that_they_are_missing_with_the_first(servers: Servers) -> None:
    servers.store.touch()
    came = servers.ask("read")
    ((_, answer),) = servers.writes.asked
    servers.writes.asked.clear()
    answer.errback(UnreplicatedError(MISSING))
    assert came[0].check(UnreplicatedError)
    assert servers.writes.asked == []


@pytest.mark.parametrize("how", ["look", "read", "append", "reconnected"])
def test_replicas_that_are_back_are_waited_for_again(servers: Servers, how: str) -> None:
    missing(servers)
    if how == "look":
        servers.store.touch()
        servers.writes.answer("touch")
    elif how == "read":
        came = servers.ask("read")
        servers.writes.answer("touch")
        assert reported(came) == LAST, "it does not wait for the next look"
    elif how == "append":
        servers.store.append([Append(Push("k", b"1", 60, "id", 60, NOW + 60), 0)])
        servers.writes.answer("append")
    else:
        servers.reconnected("writes", "one")
    deleted: list[Any] = []
    servers.store.delete("k").addBoth(deleted.append)
    servers.writes.answer("delete")
    assert deleted == []
    servers.writes.answer("touch")
    assert deleted == [None]


def test_a_server_that_hangs_again_and_again_has_one_pair_of_lines_after_the_first(servers: Servers) -> None:
    """One hang alone ends at once; the end of those that come again is said after some calm, though nobody pushes."""
    store = servers.store
    clock: Clock = store._reactor
    with lines_logged(lambda line: line.startswith("Redis ")) as lines:

        def tell(trouble: str | None) -> None:
            for part, link in ("reads", servers.reads), ("writes", servers.writes):
                link.connected = trouble is None
                store._tell(part, trouble)

        def well() -> None:
            """As links say every half a second."""
            for part in ("reads", "writes"):
                store._troubles.end(part, calm=True)

        def hang() -> None:
            tell("no answer within 1 s")
            clock.advance(1)
            tell(None)

        hang()
        pair = ["Redis node1: no answer within 1 s", "Redis node1: all is well again"]
        assert lines == pair
        for _ in range(9):
            clock.advance(3)
            well()
            hang()
        assert lines == [*pair, pair[0]]
        store._tell_refusal(Failure(UnavailableError("OOM")))
        assert lines[3:] == ["Redis node1: OOM"], "it answers"
        clock.advance(5)
        well()
        assert lines[4:] == []
        clock.advance(5)
        well()
        store._touched(ANSWERS["touch"])
        assert lines[4:] == pair[1:]
