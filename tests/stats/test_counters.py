"""Every number that a process shows moves when that happens which it counts; what nothing moves has to go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock as StillClock
from twisted.internet.testing import MemoryReactorClock

from gopush.comet.busy_keys import SLICE_KEYS, WALK_SECONDS
from gopush.comet.delivery import CROWD_MSGBUFS
from gopush.comet.node import CometNode
from gopush.comet.node import show as show_comet
from gopush.comet.rounds import SLICE_SUBSCRIBERS
from gopush.comet.settings import CometSettings, SubscriberSettings
from gopush.daemon.gc import collector
from gopush.embedded.node import EmbeddedNode
from gopush.embedded.settings import EmbeddedSettings
from gopush.membership.view import StaticCoordination, View
from gopush.message.memory import MemoryStore
from gopush.message.node import MessageNode
from gopush.message.node import show as show_message
from gopush.message.redis.settings import RedisSettings, sources
from gopush.message.redis.store import RedisStore
from gopush.message.service import StoreService
from gopush.message.settings import MessageSettings
from gopush.message.sqlite.settings import SqliteSettings
from gopush.message.sqlite.store import SqliteStore
from gopush.message.store import Store, StoreSettings
from gopush.model import Append, Appended, Forward, NodeInfo, Push, Read, Token, mid_at
from gopush.net.eager import EagerReactor
from gopush.net.http.request import Request, plain
from gopush.net.http.site import Site
from gopush.net.limits import ConnectionLimiter, ConnectionSettings
from gopush.net.proxy_protocol import ProxyFactory
from gopush.net.tls import ServerTls
from gopush.routing.stat import show as show_view
from gopush.routing.stat import show_batchers
from gopush.rpc.settings import RpcSettings
from gopush.stats.resource import Health, Statistics
from gopush.stats.summary import Complaints
from gopush.web.keys import make
from gopush.web.node import WebNode
from gopush.web.node import show as show_web
from gopush.web.settings import WebSettings
from tests.clients import WebSocketClient, opening
from tests.comet.harness import World as Comets
from tests.comet.harness import result
from tests.comet.wire import CometServer
from tests.conftest import InReactor, reactor
from tests.fixtures import eventually
from tests.http.client import Client
from tests.http.conftest import Serve, serve
from tests.http.test_channel import poll, routes
from tests.message.subject import START, FakeTime
from tests.servers import free_port
from tests.servers.authority import Authority
from tests.web.conftest import MakeWorld, make_world
from tests.web.whole import Whole

assert all((make_world, serve))  # fixtures

LIBRARY = ("process_", "gopush_process_", "python_", "gopush_build")
"""What is the same, or prometheus_client's affair, whatever a process does."""


def numbers(statistics: Statistics) -> dict[str, Any]:
    """Families of a process, but for those of the library, with their samples."""
    answer = statistics.metrics.response(Request(b"GET", b"/metrics"))
    families = text_string_to_metric_families(answer.body.decode())
    return {family.name: family.samples for family in families if not family.name.startswith(LIBRARY)}


class Moves:
    """Watches families. `prefix`: of those that count."""

    def __init__(self, *prefix: str) -> None:
        self._prefix = prefix
        self.shown: set[str] = set()
        self.moved: set[str] = set()

    @contextmanager
    def watch(self, *shows: Callable[[Statistics], None]) -> Iterator[Callable[[], None]]:
        """Compare before with after, and with each call of what is given: gauges go up and down again."""
        statistics = Statistics(None)
        for show in shows:
            show(statistics)
        before = numbers(statistics)

        def look() -> None:
            self.moved |= {name for name, samples in numbers(statistics).items() if samples != before[name]}

        yield look
        look()
        self.shown |= {name for name in before if name.startswith(self._prefix)}

    @property
    def stood_still(self) -> set[str]:
        return self.shown - self.moved


def append(world: Comets, body: bytes) -> Forward:
    """Another comet appends; what it tells of it."""
    push = Push("k", body, 600, "", 60, world.now() + 4)
    ((appended,),) = result(world.store.append([Append(push, 0)]))
    return Forward("k", appended.mid, appended.previous, body, 0)


class Comet:
    """What can happen to a comet, each in a world of its own."""

    def __init__(self, moves: Moves) -> None:
        self._moves = moves

    @contextmanager
    def world(self, *names: str, **settings: Any) -> Iterator[tuple[Comets, Callable[[], None]]]:
        world = Comets(*names, **settings)
        with self._moves.watch(lambda statistics: show_comet(world.comet, statistics)) as look:
            yield world, look

    def delivers(self) -> None:
        with self.world() as (world, look):
            _, wire = world.subscribe()
            world.pushed(b"1")
            look()
            wire.abort()
            world.turns()
            world.node.mode = "down"
            world.push(b"2")
            world.wait(5, 0.5)

    def closes_who_is_too_slow(self) -> None:
        with self.world(msgbuf_messages=3) as (world, _):
            world.subscribe(reads=False)
            for _ in range(9):
                world.pushed(b"1")

    def closes_who_is_deaf(self) -> None:
        with self.world() as (world, _):
            world.pushed(b"1")
            world.subscribe(mid=0, reads=False)
            world.wait(15, 0.5)

    def cannot_look_at_all_keys_in_time(self) -> None:
        with self.world() as (world, _):
            for number in range(SLICE_KEYS + 1):
                world.subscribe(key=f"k{number}")
            world.comet.keys("", 1)
            world.clock.advance(WALK_SECONDS)
            world.turns()

    def makes_a_mistake(self) -> None:
        with self.world() as (world, _):
            _, wire = world.subscribe()
            wire.send = lambda data: len(data) // 0  # type: ignore[method-assign]
            world.pushed(b"1")

    def catches_up(self) -> None:
        with self.world(store=2) as (world, _):
            world.subscribe(mid=0)
            forwards = [append(world, b"1") for _ in range(4)]
            world.comet.forward([forwards[-1]])
            world.turns()

    def waits_for_the_log(self) -> None:
        with self.world(msgbuf_messages=3) as (world, look):
            world.subscribe()
            append(world, b"0")
            world.node.hold = ("read",)
            for number in range(5):
                world.comet.forward([append(world, b"%d" % number)])
                look()
            world.turns()

    def is_overrun(self) -> None:
        with self.world(max_subscribers=1000, msgbuf_messages=1) as (world, _):
            for _ in range(2 * SLICE_SUBSCRIBERS + 1):
                world.subscribe()
            world.comet.forward([append(world, b"0")])
            world.turns(1)
            world.comet.forward([append(world, b"%d" % number) for number in range(1 + CROWD_MSGBUFS)])
            world.turns()

    def moves_whom_it_does_not_own(self) -> None:
        with self.world("c1") as (world, _):
            world.housekeeping()
            world.subscribe()
            world.services["c9"] = world.services["c1"]
            view = world.coordination.view
            world.coordination.adopt(View([NodeInfo("other", 0, ("c9",))], view.messages))
            world.wait(2, 0.5)
            world.subscribe()  # refused
            world.comet.push([Push("k", b"1", 60, "", 60, world.now() + 4)])  # and the owner is told
            world.turns()

    def is_cut_off(self) -> None:
        with self.world() as (world, _):
            world.housekeeping()
            session, _ = world.subscribe()
            session.deadline += 1000
            world.coordination.connected = False
            world.node.mode = "down"
            world.wait(35, 0.5)
            world.subscribe()

    def refuses(self) -> None:
        with self.world(auth=True) as (world, _):
            world.subscribe(mid=mid_at(world.now() + 3600))
            world.subscribe(token="wrong")
            world.pushed(b"1")
            world.subscribe(token="wrong")
        with self.world(max_subscribers=1) as (world, _):
            world.subscribe()
            world.subscribe()
        with self.world() as (world, _):
            housekeeping = world.housekeeping()
            world.open()
            world.wait(8, 0.5)
            housekeeping.stop()
            meet_the_limit(world.comet.counters)

    def refuses_a_page(self) -> None:
        connections = ConnectionSettings(origins=("https://www.example.org",))
        server = CometServer(SubscriberSettings(connections=connections), StoreSettings())
        with (
            self._moves.watch(lambda statistics: show_comet(server.comet, statistics)),
            WebSocketClient(server.websocket) as client,
        ):
            client.send(opening("/sub?key=k&heartbeat=30", Origin="https://evil.example"))
            assert client.rest().startswith(b"HTTP/1.1 403")
            with WebSocketClient(server.websocket) as other:
                other.send(opening("/elsewhere"))
                assert other.rest().startswith(b"HTTP/1.1 404")
        server.stop()


def meet_the_limit(counters: Any) -> None:
    """Somebody waits, sends on after the last word or too much of a handshake; an address has too many connections."""
    limiter = ConnectionLimiter(StillClock(), ConnectionSettings(most_of_address=1), 1000, counters)
    limiter.wait(lambda: None, begins=True)
    limiter.counters.accept_waits_ended += 1
    limiter.counters.cut_off_leftovers += 1
    limiter.counters.refused_tls += 1
    limiter.opened("10.0.0.1")
    assert not limiter.admits("10.0.0.1")
    proxied = ProxyFactory(EagerReactor(StillClock(), limiter), None)
    assert proxied.buildProtocol(IPv4Address("TCP", "10.0.0.1", 1)) is None


def comet_moves() -> Moves:
    moves = Moves("gopush_comet_")
    comet = Comet(moves)
    comet.delivers()
    comet.closes_who_is_too_slow()
    comet.closes_who_is_deaf()
    comet.cannot_look_at_all_keys_in_time()
    comet.makes_a_mistake()
    comet.catches_up()
    comet.waits_for_the_log()
    comet.is_overrun()
    comet.moves_whom_it_does_not_own()
    comet.is_cut_off()
    comet.refuses()
    comet.refuses_a_page()
    return moves


class Silent(MemoryStore):
    """Never answers an append."""

    def append(self, appends: Any) -> Deferred[list[Appended]]:
        return Deferred()


def message_moves(in_reactor: InReactor, tmp_path: Path) -> Moves:
    moves = Moves("gopush_message_")
    now = FakeTime()
    settings = StoreSettings(store=2)

    @contextmanager
    def node(store: Store) -> Iterator[StoreService]:
        message = StoreService(store, StillClock())
        with moves.watch(lambda statistics: show_message(message, statistics)):
            yield message

    def item(id: str = "", deadline: float = START + 60) -> Append:
        return Append(Push("k", b"1", 1, id, 60, deadline), 0)

    with node(MemoryStore(settings, now=now)) as message:
        message.append([item("a"), item("a"), item(deadline=0), item(), item()])
        message.read([Read("k", 0, 9)])
        message.heads(["k"])
        now.seconds += 2
        message.append([item()])
        message.delete("k")
        for number in range(1001):
            message.create_token("k", Token(b"%d" % number, int(now()) + 60))
    with node(Silent(settings, now=now)) as message:
        message.append([item()])
    sqlite = SqliteStore(settings, SqliteSettings(str(tmp_path / "x.sqlite")), reactor)
    with node(sqlite) as message:
        in_reactor(sqlite.start)
        in_reactor(message.heads, ["k"])
        in_reactor(message.backup, str(tmp_path / "copy"), "1")
        eventually(lambda: message.stores["sqlite"].counters.backups)
        in_reactor(message.backup, "relative", "2")
        in_reactor(sqlite.stop)
    away = RedisSettings(sources=sources(f"node1:1 tcp@127.0.0.1:{free_port()}"))
    with node(RedisStore(settings, away, reactor)) as message:
        message.heads(["k"]).addErrback(lambda _: None)
        message.stores["node1"].skew = 0.1  # of a real one: tests/message/test_redis_moods.py
    return moves


def web_moves(make_world: MakeWorld, in_reactor: InReactor, tmp_path: Path) -> Moves:
    moves = Moves("gopush_web_")
    key, line = make("billing")
    pusher, pusher_line = make("pusher")
    (tmp_path / "keys").write_text(f"{line}:1\n{pusher_line}::push\n")
    locked = f"Authorization: Bearer {key}\r\n"
    world = make_world(api_keys=str(tmp_path / "keys"), auth=True, key_rate=1)
    with moves.watch(lambda statistics: show_web(world.web, statistics)):
        world.get("/1/server/get", k="k", p="1")
        world.get("/1/msg/get", k="k", m="0", t="wrong")
        world.post("/1/admin/push/private", b"1", key="k", expire="60")
        envelope = b'{"m":"1","k":["k"]}'
        for _ in range(3):
            world.post("/1/admin/push/mprivate", envelope, headers=locked, expire="60")
        world.admin_call("GET", "/1/admin/nodes", headers=f"X-Api-Key: {pusher}\r\n")
        world.admin_call("GET", "/1/admin/nodes", headers="X-Api-Key: wrong\r\n")
        world.post("/1/admin/push/private", b"1", headers="Origin: https://evil.example\r\n", key="k", expire="60")
        meet_the_limit(world.web.counters)
    stream_and_wait(moves, in_reactor)
    open_world = make_world(key_rate=1, connections=ConnectionSettings(proxies=("10.0.0.7",)))
    with moves.watch(lambda statistics: show_web(open_world.web, statistics)):
        for _ in range(2):
            open_world.post("/1/admin/push/private", b"1", key="k", expire="60")
        open_world.admin_call("GET", "/1/admin/nodes", headers="Host: evil.example\r\n")
        open_world.admin_call("GET", "/1/admin/nodes", headers="X-Forwarded-For: 203.0.113.7\r\n")
    return moves


def stream_and_wait(moves: Moves, in_reactor: InReactor) -> None:
    """A stream that goes on after a deletion, one too many, one that no comet has, one that does not read, and a read
    that waits in vain."""
    whole = Whole(in_reactor, {}, {"max_subscribers": 1, "msgbuf_bytes": 1 << 16})
    counters = whole.counters()
    with moves.watch(lambda statistics: show_web(whole.node._web, statistics)) as look:
        with whole.stream("k").began(), Client(whole.ports["admin"]) as admin, whole.stream("k") as more:
            assert [event.type for event in more.events()] == ["refused"]
            admin.request("POST", "/1/admin/msg/del", b"key=k")
            poll(lambda: counters.streams_resumed > 0)
            look()
        with whole.stream("away").began():
            in_reactor(setattr, whole.comet, "owns", lambda key: key != "away")
            in_reactor(whole.comet.close, ["away"])
            whole.push("away", b"1")
            poll(lambda: counters.log_reads > 0)
            look()
        with whole.stream("deaf", rcvbuf=4096).began():
            while not counters.streams_slow:
                whole.push("deaf", b'"%b"' % (b"x" * (1 << 18)), expire=0)
        with Client(whole.ports["http"]) as waiting:
            waiting.send(b"GET /1/msg/get?k=w&m=0&wait=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            poll(lambda: counters.polls_opened > counters.polls_closed)
            look()
            assert waiting.answer().status == 200
        poll(lambda: counters.streams_opened == counters.streams_closed)
    whole.close()


def http_moves(serve: Serve) -> Moves:
    moves = Moves("gopush_http_")
    server = serve(routes(), StillClock())
    with (
        moves.watch(lambda statistics: show_http(server.factory, statistics)) as look,
        Client(server.port) as idle,
        Client(server.port, rcvbuf=4096) as deaf,
        Client(server.port) as wrong,
    ):
        wrong.send(b"GET / HTTP/9.9\r\n\r\n")
        assert wrong.answer().status in (400, 505)
        idle.send(b"GET /echo?q=0 HTTP/1.1\r\n\r\n")
        assert idle.answer().status == 200
        look()
        deaf.send(b"GET /big HTTP/1.1\r\n\r\n" * 10)
        poll(lambda: any(channel.stalled for channel in server.factory.channels))
        server.advance(60)
    return moves


def show_http(site: Site, statistics: Statistics) -> None:
    statistics.port(reactor, (), Health(StillClock(), lambda: succeed(None)), http=site)


def batcher_moves() -> Moves:
    """Of the calls to comets, which those to message nodes share."""
    moves = Moves("gopush_lane_")
    world = Comets(
        "c1", "c2", rpc=RpcSettings(call_timeout=0.5, attempt_timeout=0.8, push_deadline=1.0, lane_messages=3)
    )
    services = world.services.values()
    with moves.watch(lambda statistics: show_batchers(statistics, comets=world.comets.numbers)) as look:
        for limiter in services:
            limiter.late = ("push",)
        for _ in range(9):
            world.push(b"1")
        look()
        world.wait(1.5, 0.5)
        for limiter in services:
            limiter.release()
            limiter.mode = "down"
        world.turns()
        world.push(b"1")
        world.wait(2, 0.5)
    return moves


class Lost(StaticCoordination):
    """May lose its coordinator."""

    connected = True


def process_moves(tmp_path: Path) -> Moves:
    """What all processes show."""
    moves = Moves(
        "gopush_view_", "gopush_coordinator_", "gopush_gc_", "gopush_rpc_", "gopush_ready", "gopush_certificate_"
    )
    coordination, clock = Lost(), StillClock()
    health = Health(clock, lambda: succeed(None))

    def show(statistics: Statistics) -> None:
        show_view(coordination, clock, statistics)
        statistics.port(MemoryReactorClock(), (), health)

    with moves.watch(show):
        result(health.before(lambda _: plain(200))(Request(b"GET", b"/metrics")))  # type: ignore[arg-type]
        issued = Authority(tmp_path).issue("node")
        ServerTls(str(issued.certificate), str(issued.key))
        coordination.register_comet(NodeInfo("node1", 0, ("c1:1",)))
        coordination.register_message(NodeInfo("", 0, ("m1:1",)))
        coordination.connected = False
        clock.advance(5)
        for phase in ("start", "stop"):
            collector.collected(phase, {"generation": 0})
        complaints = Complaints(clock)
        complaints.warn("login", "a stranger")
        complaints.stop()
    return moves


def test_every_number_of_every_role_moves(
    serve: Serve, make_world: MakeWorld, in_reactor: InReactor, tmp_path: Path
) -> None:
    parts = {
        "comet": comet_moves(),
        "message": message_moves(in_reactor, tmp_path),
        "web": web_moves(make_world, in_reactor, tmp_path),
        "http": http_moves(serve),
        "lane": batcher_moves(),
        "process": process_moves(tmp_path),
    }
    assert {name: part.stood_still for name, part in parts.items() if part.stood_still} == {}
    moved = set().union(*(part.moved for part in parts.values()))
    shown = {name: set(numbers(statistics)) for name, statistics in in_reactor(every_role).items()}
    assert {name: families - moved for name, families in shown.items() if families - moved} == {}
    assert shown["embedded"] == moved


def every_role() -> dict[str, Statistics]:
    """Of processes as they are before they start, and call nobody."""
    reactor = MemoryReactorClock()
    return {
        "embedded": EmbeddedNode(reactor, EmbeddedSettings(storage="memory")).statistics,
        "comet": CometNode(reactor, CometSettings(), StaticCoordination()).statistics,
        "message": MessageNode(reactor, MessageSettings(), StaticCoordination()).statistics,
        "web": WebNode(reactor, WebSettings(), StaticCoordination()).statistics,
    }
