"""Subscriptions at the comet of another process, from a reader here to its session there, without a socket."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed

from gopush.comet import feed_server
from gopush.errors import UnavailableError
from gopush.feed import ENDED, FeedItem, FeedRequest, Write
from gopush.membership.view import View
from gopush.model import TCP_RAW, Format, NodeInfo, Subscribe
from gopush.reports import Lag
from gopush.rpc.codec import COMET_CALLS, pack, unpack
from gopush.web import feed_client, feed_writer
from tests.comet.harness import World, frame
from tests.fixtures import Logged

OWNER = NodeInfo("node-c1", 0, ("c1",))


class Peer:
    """The connection to a comet: what goes over it is packed as on the wire. It is a FeedCaller at the other end."""

    connected = True
    connections = 1

    def __init__(self, comet: feed_server.FeedServer) -> None:
        self.comet = comet
        self.items: list[FeedItem] = []
        self.taken = 0
        self.silent = False
        self.frozen = False
        self.older = False
        self.refused: list[str] = []
        self.stopped = False
        self.met: Callable[[], object] = list
        self._out: list[Deferred[Any]] = []
        self._lost: list[Callable[[], object]] = []

    # --- FeedPeer ---

    def feed(self, wanted: Sequence[FeedRequest], closed: Sequence[int], read: Sequence[int]) -> Deferred[None]:
        if self.older:
            return fail(UnavailableError("its call 'feed' cannot be read"))
        if self.frozen:
            return Deferred()
        values = unpack(pack((wanted, closed, read)), COMET_CALLS["feed"].read_arguments)
        return self.comet.feed(self, *values)

    def feed_next(self) -> Deferred[list[FeedItem]]:
        if self.silent or self.frozen or self.older:
            return Deferred()
        self.taken += 1
        coming: Deferred[Any] = self.comet.feed_next(self)
        coming.addCallback(lambda items: unpack(pack(items), COMET_CALLS["feed_next"].answer))
        given: Deferred[Any] = Deferred()
        self._out.append(given)
        coming.addCallback(self._came, given)
        return given

    def stop(self) -> Deferred[None]:
        self.stopped = True
        self.lose()
        return succeed(None)

    # --- FeedCaller ---

    def notifyOnDisconnect(self, notifier: Callable[[], object]) -> None:
        self._lost.append(notifier)

    def refuse(self, reason: str) -> None:
        self.refused.append(reason)
        self.lose()

    # --- the test ---

    def lose(self) -> None:
        """The connection breaks."""
        self.connected = False
        lost, self._lost = self._lost, []
        for notifier in lost:
            notifier()
        out, self._out = self._out, []
        for given in out:
            if not given.called:
                given.errback(UnavailableError("lost"))

    def _came(self, items: list[FeedItem], given: Deferred[Any]) -> None:
        self.items += items
        if not given.called:
            self._out.remove(given)
            given.callback(items)


class Client:
    """A reader. `waits`: how many bytes it says then wait for its client."""

    peer = "client:1"

    def __init__(self) -> None:
        self.cursor = 0
        self.writes: list[bytes] = []
        self.waits = 0
        self.fails = False
        self.heard: list[Any] = []
        self.drained: Deferred[None] | None = None
        self.write: Write = self._write

    def _write(self, data: bytes) -> int:
        if self.fails:
            raise ValueError("a mistake")
        self.writes.append(data)
        return self.waits

    def accepted(self) -> None:
        self.heard.append("accepted")

    def refused(self, reply: bytes) -> None:
        self.heard.append(reply)

    def ended(self, reached: bool) -> None:
        self.heard.append(reached)

    def waiting(self) -> Lag | None:
        return None

    def until_drained(self) -> Deferred[None]:
        return succeed(None) if self.drained is None else self.drained

    @property
    def out(self) -> bytes:
        return b"".join(self.writes)


class Far:
    """A process with clients, and a comet in another one."""

    def __init__(self, **settings: Any) -> None:
        self.world = World(**{"max_subscribers": 1000, **settings})
        self.comet = feed_server.FeedServer(self.world.comet)
        self.peers: list[Peer] = []
        self.older = False
        self.feed = feed_client.RemoteFeed(self.world.clock, self.world.coordination, self._connect)

    def _connect(self, owner: NodeInfo, met: Callable[[], object]) -> Peer:
        peer = Peer(self.comet)
        peer.older = self.older
        peer.met = met
        self.peers.append(peer)
        return peer

    @property
    def peer(self) -> Peer:
        return self.peers[-1]

    def subscribe(
        self,
        key: str = "k",
        mid: int | None = None,
        format: Format = TCP_RAW,
        client: Client | None = None,
        owner: NodeInfo = OWNER,
    ) -> tuple[Client, feed_writer.RemoteSubscription]:
        client = client or Client()
        subscription = self.feed.open(owner, Subscribe(key, 30, "", "1", mid), format, client)
        subscription.start()
        return client, subscription

    def clients(self, number: int) -> list[Client]:
        clients = [self.subscribe()[0] for _ in range(number)]
        self.world.turns()
        return clients

    def subscribers(self, key: str = "k") -> int:
        channel = self.world.comet.channels.get(key)
        return 0 if channel is None else channel.subscribers


def test_a_message_for_many_travels_once_and_reaches_each() -> None:
    far = Far()
    clients = far.clients(3)
    assert [client.heard for client in clients] == [["accepted"]] * 3
    far.peer.items.clear()
    mid = far.world.pushed(b'"hello"')
    assert [item.data for item in far.peer.items] == [frame(mid, b'"hello"')]
    assert [client.out for client in clients] == [frame(mid, b'"hello"')] * 3
    assert [client.cursor for client in clients] == [mid] * 3
    assert far.subscribers() == 3
    assert far.world.comet.counters.open_connections()["sse"] == 3


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("noticed_by", ["the next look", "a new reader"])
def test_a_connection_that_is_lost_while_no_call_is_out_is_noticed(
    noticed_by: str, back: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too much waits for its clients to ask for more; the comet has forgotten them meanwhile."""
    far = Far()
    clients = far.clients(3)
    with monkeypatch.context() as patch:
        patch.setattr(feed_client, "MOST_PENDING", -1)
        far.world.pushed(b"1")
        far.peer.lose()
        far.peer.connected = back
        far.peer.connections += back
    assert [client.heard for client in clients] == [["accepted"]] * 3
    if noticed_by == "a new reader":
        clients.append(far.subscribe()[0])
        far.world.turns()
    else:
        far.feed.links[OWNER.rpc]._take_next()
    assert [client.heard[-1] for client in clients] == [False] * len(clients)


def test_what_was_kept_comes_first_page_by_page_as_the_client_reads() -> None:
    far = Far()
    bodies = [b'"%d%b"' % (each, b"x" * 400_000) for each in range(12)]
    mids = [far.world.pushed(body) for body in bodies]
    client = Client()
    client.drained = Deferred()
    far.subscribe(mid=0, client=client)
    far.world.turns()
    assert 0 < client.cursor < mids[-1]
    before = client.cursor
    far.world.wait(60)
    assert client.cursor == before
    assert far.subscribers() == 1
    drained, client.drained = client.drained, None
    drained.callback(None)
    far.world.turns()
    assert client.out == b"".join(map(frame, mids, bodies))


def test_who_waits_for_its_turn_gets_what_came_meanwhile_with_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    far = Far()
    clients = far.clients(4)
    monkeypatch.setattr(feed_writer, "WRITES_IN_A_TURN", 1)
    mids = [far.world.pushed(b'"%d"' % each) for each in range(2)]
    far.world.turns()
    assert [client.out for client in clients] == [b"".join(frame(mid, b'"%d"' % at) for at, mid in enumerate(mids))] * 4
    for each in range(2):
        far.world.push(b'"%d"' % each, turns=0)
    far.world.turns()
    assert len(clients[-1].writes) < 4


def test_a_refusal_is_passed_on() -> None:
    far = Far(max_subscribers=1)
    first, _ = far.subscribe()
    second, _ = far.subscribe()
    far.world.turns()
    assert (first.heard, second.heard) == (["accepted"], [b"-l\r\n"])
    assert far.subscribers() == 1


def test_who_is_closed_there_hears_of_it_after_its_messages() -> None:
    far = Far()
    (client,) = far.clients(1)
    far.world.push(b'"last"', turns=0)
    far.world.turns()
    far.world.comet.close(["k"])
    far.world.turns()
    assert client.writes
    assert client.heard == ["accepted", True]
    assert far.subscribers() == 0


def test_who_leaves_here_is_closed_there_whether_it_had_begun_or_not() -> None:
    far = Far()
    _, subscription = far.subscribe()
    far.world.turns()
    _, other = far.subscribe("other")
    subscription.close()
    other.close()
    far.world.turns()
    assert far.subscribers() == far.subscribers("other") == 0
    assert far.world.comet.counters.open_connections()["sse"] == 0


def test_subscriptions_begin_a_few_in_each_turn() -> None:
    far = Far()
    far.clients(1)
    subscriptions = [far.subscribe()[1] for _ in range(100)]
    far.world.turns(1)
    assert far.world.comet.counters.opened_connections["sse"] == 1 + feed_server.IN_A_TURN
    subscriptions[-1].close()
    far.world.turns()
    assert far.subscribers() == 100


def test_a_broken_connection_ends_the_subscriptions_at_both_ends() -> None:
    far = Far()
    clients = far.clients(100)
    far.peer.lose()
    far.world.turns()
    assert [client.heard for client in clients] == [["accepted", False]] * 100
    assert far.subscribers() == 0
    assert far.world.comet.counters.open_connections()["sse"] == 0


def only(far: Far, *names: str) -> None:
    """All see these comets, and no others."""
    view = far.world.coordination.view
    far.world.coordination.adopt(View([info for info in view.comets if info.id in names], view.messages))


def test_readers_leave_a_frozen_comet_once_others_have_its_keys_spread_over_a_second() -> None:
    far = Far()
    clients = far.clients(90)
    far.world.add_comet("c2")
    far.world.wait(5)
    assert [client.heard for client in clients] == [["accepted"]] * 90
    far.peer.frozen = True
    clients += [far.subscribe()[0] for _ in range(10)]
    only(far, "c2")
    only(far, "c2")
    ended: list[int] = []
    for _ in range(feed_client.LEAVE_STEPS):
        far.world.wait(feed_client.LEAVE_SECONDS / feed_client.LEAVE_STEPS)
        ended.append(sum(client.heard[-1:] == [False] for client in clients))
    assert ended == list(range(5, 101, 5))
    assert all(client.heard.count(False) == 1 for client in clients)
    assert far.peer.stopped
    assert not far.feed.links


def test_readers_stay_at_a_comet_that_comes_back_while_they_leave() -> None:
    far = Far()
    clients = far.clients(100)
    far.world.add_comet("c2")
    back = far.world.coordination.view
    only(far, "c2")
    far.world.wait(feed_client.LEAVE_SECONDS / 2)
    far.world.coordination.adopt(back)
    far.world.wait(5)
    assert sum(client.heard == ["accepted"] for client in clients) == far.subscribers() == 50
    only(far, "c2")
    far.world.wait(feed_client.LEAVE_SECONDS)
    assert [client.heard for client in clients] == [["accepted", False]] * 100


def test_a_process_that_takes_nothing_is_cut_off() -> None:
    far = Far()
    far.clients(2)
    far.peer.silent = True
    far.world.wait(4 * feed_server.LOOK_SECONDS)
    assert far.peer.refused == ["took nothing of what came for its 2 event streams"]
    assert far.subscribers() == 0


def test_one_that_takes_stays_for_hours() -> None:
    far = Far()
    far.clients(2)
    far.world.wait(3600, 1)
    assert far.peer.refused == []
    assert far.subscribers() == 2
    assert len(far.peers) == 1


def test_what_waits_for_a_process_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    far = Far()
    clients = far.clients(2)
    far.peer.silent = True
    far.world.wait(feed_server.LOOK_SECONDS + 1)  # what was asked for is answered
    monkeypatch.setattr(feed_server, "MOST_WAITING_BYTES", 5000)
    for _ in range(10):
        far.world.push(b'"%b"' % (b"x" * 1000))
    assert far.subscribers() == 0
    assert far.world.comet.counters.slow_closed == 2
    far.peer.silent = False
    coming: list[Any] = []
    far.comet.feed_next(far.peer).addCallback(coming.extend)
    assert (sorted(coming[-1].numbers), coming[-1].data) == ([1, 2], ENDED)
    assert sum(len(item.data) for item in coming) < 7000
    assert [client.heard for client in clients] == [["accepted"]] * 2


def test_who_resumes_where_there_is_no_room_is_ended_and_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    far = Far()
    for _ in range(4):
        far.world.pushed(b'"%b"' % (b"x" * 400_000))
    client, _ = far.subscribe()
    far.world.turns()
    far.peer.silent = True
    far.world.wait(feed_server.LOOK_SECONDS + 1)
    for most in (100_000, 900_000):  # no room for the first page, and none behind it
        monkeypatch.setattr(feed_server, "MOST_WAITING_BYTES", most)
        far.subscribe(mid=0)
        far.world.turns()
        assert far.subscribers() == 1
    assert far.world.comet.counters.slow_closed == 2
    assert client.heard == ["accepted"]


def test_a_client_that_does_not_read_is_given_up_and_the_others_go_on() -> None:
    far = Far()
    slow, other = far.clients(2)
    slow.waits = feed_writer.MOST_UNREAD_BYTES + 1000
    far.world.push(b'"1"')
    assert (slow.heard, other.heard) == (["accepted", True], ["accepted"])
    far.world.push(b'"2"')
    assert (len(slow.writes), len(other.writes)) == (1, 2)
    assert far.subscribers() == 1


def test_one_long_message_is_not_too_much() -> None:
    far = Far()
    (client,) = far.clients(1)
    body = b'"%b"' % (b"x" * 2 * feed_writer.MOST_UNREAD_BYTES)
    client.waits = len(body)
    far.world.push(body)
    client.waits += 1000
    far.world.push(b'"short"')
    assert client.heard == ["accepted"]
    client.waits = 2 * len(body)
    far.world.push(body)
    assert client.heard == ["accepted", True]


def test_the_mistake_of_one_client_is_not_the_others(logged: Logged) -> None:
    far = Far()
    wrong, other = far.clients(2)
    wrong.fails = True
    far.world.push(b'"1"')
    assert (wrong.heard, other.heard) == (["accepted", True], ["accepted"])
    assert other.writes
    assert logged.lines("passing messages on to a client failed")


def test_a_comet_that_knows_no_such_call_is_named_once(logged: Logged) -> None:
    far = Far()
    far.older = True
    for _ in range(3):
        client, _ = far.subscribe()
        far.world.turns()
        assert client.heard == [False]
        assert far.peer.stopped
    assert len(logged.lines("cannot subscribe at the comet c1: its call 'feed' cannot be read")) == 1
    far.older = False
    far.clients(1)
    far.world.push(b'"1"')
    said = [event["log_format"] for event in logged.events]
    assert said.count("event streams and waiting reads can subscribe again at the comet {comet}") == 1


def test_who_waits_hears_of_a_comet_that_is_met_unless_it_is_of_no_use() -> None:
    far = Far()
    heard: list[str] = []
    far.feed.watch(lambda: heard.append("reached"))
    far.clients(1)
    far.peer.met()
    assert heard == ["reached"]
    far.peer.lose()
    far.world.turns()
    far.peer.connected = far.peer.older = True
    far.clients(1)
    far.peer.met()
    assert heard == ["reached"]


def test_a_connection_that_nobody_needs_is_closed() -> None:
    far = Far()
    _, subscription = far.subscribe()
    far.world.turns()
    subscription.close()
    far.world.wait(feed_client.IDLE_SECONDS - 1)
    assert not far.peer.stopped
    _, subscription = far.subscribe()
    far.world.wait(2 * feed_client.IDLE_SECONDS)
    assert not far.peer.stopped
    subscription.close()
    far.world.wait(feed_client.IDLE_SECONDS + 1)
    assert far.peer.stopped
    assert not far.feed.links
    (client,) = far.clients(1)
    assert client.heard == ["accepted"]


def test_a_comet_that_is_back_with_another_second_address_is_connected_anew() -> None:
    far = Far()
    (old,) = far.clients(1)
    new, _ = far.subscribe(owner=OWNER._replace(rpc=("c1", "second")))
    far.world.turns()
    assert (len(far.peers), new.heard) == (2, ["accepted"])
    far.peers[0].lose()
    far.peers[0].connected = False
    far.world.turns()
    assert old.heard[-1] != "accepted"
    far.world.wait(feed_client.IDLE_SECONDS + 1)
    assert [peer.stopped for peer in far.peers] == [True, False]
    assert new.heard == ["accepted"]


def test_it_stops_with_its_process() -> None:
    far = Far()
    far.clients(2)
    far.feed.stop()
    far.world.turns()
    assert far.peer.stopped
    assert far.subscribers() == 0
