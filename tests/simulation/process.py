"""Processes: each with its own steady clock, wall clock and view of the cluster, and a life to lose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import Deferred, maybeDeferred, succeed

from gopush.comet.channel import Channel
from gopush.comet.housekeeping import Housekeeping
from gopush.comet.service import Comet
from gopush.membership.node import Together
from gopush.membership.view import StaticCoordination, View
from gopush.message.service import StoreService
from gopush.model import Append, Message, NodeInfo, Pushed, snap
from gopush.reports import Status
from gopush.routing.comets import Comets
from gopush.routing.messages import Messages
from gopush.routing.pending import OnAnswers
from gopush.rpc.settings import RpcSettings
from gopush.web.counters import WebCounters
from gopush.web.history import Listing, Offline
from gopush.web.params import PublishRequest
from gopush.web.polling import Polls
from gopush.web.publisher import Publisher
from gopush.web.responses import Pages
from gopush.web.settings import HttpSettings
from tests.simulation.clock import ProcessClock, Timer
from tests.simulation.network import Remote
from tests.simulation.way import Way

if TYPE_CHECKING:
    from tests.simulation.connection import Connection
    from tests.simulation.world import World

EPOCH = 1_700_000_000.0
RPC = RpcSettings()
HTTP = HttpSettings()
SESSION_SECONDS = 1.0


class Process:
    """One process from its start to its death; another one may follow at the same address."""

    service: Any

    def __init__(self, world: World, address: str, view: View) -> None:
        self.world = world
        self.address = address
        self.alive = True
        self.frozen = False
        self.leaving = False
        self.held: list[Timer] = []
        self.serving: dict[Any, None] = {}
        self.clock = ProcessClock(world.clock, self)
        self.coordination = StaticCoordination(view)
        self.offset = 0.0
        self.born = world.clock.now
        self.thawed = -10.0
        self.view_due = 0.0

    def connect_message(self, info: NodeInfo) -> Any:
        """A message node, as this process calls it."""
        return Remote(self.world.network, self, info.id)

    def connect_comet(self, info: NodeInfo) -> Any:
        """A comet, as this process calls it."""
        return Remote(self.world.network, self, info.id)

    def wall(self) -> float:
        """This process's wall clock, in seconds since the epoch."""
        return EPOCH + self.world.clock.now + self.offset

    def steady_since(self, time: float) -> bool:
        """Whether it has run without a break since `time`."""
        return self.alive and not self.frozen and self.born <= time and self.thawed <= time

    def freeze(self) -> None:
        """Stop running; time goes on."""
        self.frozen = True

    def wake(self) -> None:
        """Run what was due meanwhile: timers first or what came from outside first, as it happens."""
        self.frozen = False
        self.leaving = False
        self.thawed = self.world.clock.now
        held, self.held = self.held, []
        io_first = self.world.random.random() < 0.5
        for timer in sorted(held, key=lambda timer: timer.io != io_first):
            self.world.clock.push(self.world.clock.now, timer)

    def die(self) -> None:
        """End without a word: all its calls break."""
        self.alive = False
        self.held = []
        calls, self.serving = list(self.serving), {}
        self.world.network.broken(calls)


class RecordingMessages(Messages):
    """A comet's way to the message nodes; the floors of its appends are held against what it delivered (rule 2)."""

    def __init__(self, process: CometProcess, connect: Callable[[NodeInfo], Any], own: str = "") -> None:
        super().__init__(process.clock, process.coordination, connect, RPC, own)
        self._process = process

    def append(self, appends: Sequence[Append], answered: OnAnswers) -> None:
        for append in appends:
            self._check(append.push.key, append.floor)
        super().append(appends, answered)

    def _check(self, key: str, floor: int) -> None:
        channel, mid = self._process.highest.get(key, (None, 0))
        if channel is not None and channel is self._process.comet.channels.get(key) and floor < mid:
            self._process.world.violated(2, key, f"{mid} was delivered, but the floor of a push is {floor}")


class CometProcess(Process):
    """A comet with its upkeep, and the connections to it."""

    messages: Messages
    comets: Comets

    def __init__(self, world: World, address: str, view: View) -> None:
        super().__init__(world, address, view)
        self.connections: list[Connection] = []
        self.highest: dict[str, tuple[Channel | None, int]] = {}
        self.messages = self.to_messages()
        self.comets = Comets(self.clock, self.coordination, self.connect_comet, RPC, self.wall)
        self.comet = self.service = Comet(
            self.clock, self.coordination, self.messages, self.comets, world.plan.settings, address, self.wall
        )
        self.housekeeping = Housekeeping(self.comet, self.coordination, SESSION_SECONDS)
        self.isolated = inf  # since when it reaches nobody
        self.housekeeping.start()

    def to_messages(self) -> Messages:
        """Its way to the message nodes."""
        return RecordingMessages(self, self.connect_message)

    def delivered(self, key: str, mid: int) -> None:
        """A live subscriber of the key was sent this message."""
        channel = self.comet.channels.get(key)
        known, highest = self.highest.get(key, (None, 0))
        self.highest[key] = (channel, max(mid, highest) if known is channel else mid)

    def die(self) -> None:
        super().die()
        for connection in self.connections:
            connection.died()


class MessageProcess(Process):
    """A message node; all of them share the store."""

    def __init__(self, world: World, address: str, view: View) -> None:
        super().__init__(world, address, view)
        self.way = Way(world.store)
        self.keeper = self.service = StoreService(self.way, self.clock)


class WebProcess(Process):
    """A web node: what is behind its HTTP calls."""

    messages: Messages
    comets: Comets

    def __init__(self, world: World, address: str, view: View) -> None:
        super().__init__(world, address, view)
        self.messages = Messages(self.clock, self.coordination, self.connect_message, RPC)
        self.comets = Comets(self.clock, self.coordination, self.connect_comet, RPC, self.wall)
        self.serve_http()

    def serve_http(self) -> None:
        """Take pushes and fetches."""
        self.publisher = Publisher(self.comets, HTTP, RPC.push_deadline, self.wall, self.clock, WebCounters())
        self.offline = Offline(self.messages, HTTP, WebCounters(), None, cast(Polls, None))  # no fetch waits here

    def push(self, key: str, body: bytes, expire: int, push_id: str | None) -> Deferred[Pushed]:
        """What an admin call does."""
        answer: Deferred[Pushed] = Deferred()
        self.publisher.push_soon(PublishRequest(key, body, expire, push_id), answer.callback)
        return answer

    def fetch(self, key: str, cursor: int) -> Deferred[list[Message]]:
        """What `/1/msg/get` does."""
        return Deferred.fromCoroutine(self._fetch(key, snap(cursor)))

    async def _fetch(self, key: str, cursor: int) -> list[Message]:
        found: list[Message] = []

        def take(message: Message) -> bytes:
            found.append(message)
            return b"0"

        listing = Listing(b"[", take, b"]")
        pages = await self.offline.read(key, cursor, "", listing)
        while isinstance(pages, Pages) and await pages.more():
            pass
        return found

    def delete(self, key: str) -> Deferred[int]:
        """What `/1/admin/msg/del` does."""
        return self.messages.delete(key).addCallback(lambda _: self.comets.close(key))


class EqualProcess(CometProcess, MessageProcess, WebProcess):
    """All in one: its comet has messages stored in the process while that reaches the store (gopush/embedded/)."""

    def __init__(self, world: World, address: str, view: View) -> None:
        super().__init__(world, address, view)
        self.service = Together(self.keeper, self.comet)
        self.serve_http()  # by the same ways as the comet

    def to_messages(self) -> Messages:
        return RecordingMessages(self, self.connect_message, self.address)

    def connect_message(self, info: NodeInfo) -> Any:
        return Here(self, lambda: self.keeper) if info.id == self.address else super().connect_message(info)

    def connect_comet(self, info: NodeInfo) -> Any:
        return Here(self, lambda: self.comet) if info.id == self.address else super().connect_comet(info)


class Here:
    """A service of the process itself. What it answers later, the process hears while it runs."""

    def __init__(self, process: Process, service: Callable[[], Any]) -> None:
        self._process = process
        self._service = service

    def __getattr__(self, name: str) -> Any:
        return partial(self._call, name)

    def _call(self, name: str, *args: Any) -> Deferred[Any]:
        if name == "status":
            return succeed(Status("", 0, None, None))
        made: Deferred[Any] = maybeDeferred(getattr(self._service(), name), *args)
        if made.called:
            return made
        answer: Deferred[Any] = Deferred()
        made.addBoth(lambda result: self._process.world.clock.after(0, _hear, answer, result, owner=self._process))
        return answer

    def stop(self) -> None:
        """It stays."""


def _hear(answer: Deferred[Any], result: object) -> None:
    if not answer.called:
        answer.callback(result)
