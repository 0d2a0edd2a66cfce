"""A comet on a clock that tests move: an in-memory store, nodes whose answers tests rule, connections that record."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred, fail, succeed

from gopush.comet.housekeeping import Housekeeping
from gopush.comet.service import Comet
from gopush.comet.session import SendLag, Session
from gopush.comet.settings import SubscriberSettings
from gopush.membership.view import StaticCoordination
from gopush.message.memory import MemoryStore
from gopush.message.store import StoreSettings
from gopush.model import TCP_RAW, Format, Message, NodeInfo, Push, Pushed, Subscribe, raw_json
from gopush.reports import Status
from gopush.routing.comets import Comets
from gopush.routing.messages import Messages
from gopush.rpc.settings import RpcSettings

EPOCH = 1_700_000_000.0
MANY_TURNS = 10_000


class Clock(task.Clock):
    """A clock whose reactor turns as a real one does: what is called later in a turn has its turn in the next."""

    def advance(self, amount: float) -> None:
        self.rightNow += amount
        for call in [call for call in self.calls if call.getTime() <= self.rightNow]:
            if call.active():
                self.calls.remove(call)
                call.called = 1
                call.func(*call.args, **call.kw)

    @property
    def due(self) -> bool:
        """Whether something waits for the next turn."""
        return any(call.getTime() <= self.rightNow for call in self.calls)


class Wire:
    """A connection. While it does not read, what is sent waits; `out` is what the client has got."""

    kind = "tcp"

    def __init__(self, clock: Clock | None = None) -> None:
        self.out = b""
        self.sends: list[bytes] = []
        self.reads = True
        self.tells_at_once = False
        self.waiting = b""
        self.finished = False
        self.aborted = False
        self.on_closed: Callable[[], object] = lambda: None
        self._clock = clock
        self._drained: list[Deferred[None]] = []

    def send(self, data: bytes) -> int:
        self.sends.append(data)
        if self.reads:
            self.out += data
        else:
            self.waiting += data
        return len(self.waiting)

    def finish(self) -> None:
        self.finished = True
        self._close()

    def abort(self) -> None:
        self.aborted = True
        self._close()

    def behind(self) -> SendLag | None:
        return SendLag("tcp", "client:1", len(self.waiting), 0.0, len(self.waiting)) if self.waiting else None

    def drained(self) -> Deferred[None]:
        waiting: Deferred[None] = Deferred()
        if self.waiting:
            self._drained.append(waiting)
        else:
            waiting.callback(None)
        return waiting

    def read_all(self) -> None:
        """The client reads all that waits, and stops again."""
        self.out, self.waiting = self.out + self.waiting, b""
        waiting, self._drained = self._drained, []
        for drained in waiting:
            drained.callback(None)

    @property
    def closed(self) -> bool:
        return self.finished or self.aborted

    def _close(self) -> None:
        """As Twisted does, the connection's end is told in a turn of its own, unless the test wants it at once."""
        if self.tells_at_once:
            self._tell()
        elif self._clock is not None:
            self._clock.callLater(0, self._tell)

    def _tell(self) -> None:
        on_closed, self.on_closed = self.on_closed, lambda: None
        on_closed()
        self.read_all()


class FaultyService:
    """A service as its callers reach it: "up", "down" (calls fail) or "silent" (no call is answered). "sick": it
    answers, but its store does not.

    The calls named in `hold` wait for release(), those in `late` are made but answered only then. What is made is
    noted in `calls`.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.mode = "up"
        self.hold: tuple[str, ...] = ()
        self.late: tuple[str, ...] = ()
        self.calls: list[tuple[str, Any]] = []
        self._held: list[tuple[Deferred[Any], Callable[[], Any]]] = []

    def __getattr__(self, name: str) -> Callable[..., Deferred[Any]]:
        return lambda *args: self._call(name, *args)

    def _call(self, name: str, *args: Any) -> Deferred[Any]:
        if self.mode == "down" or (self.mode == "sick" and name != "status"):
            return fail(ConnectionError("down"))
        if self.mode == "silent":
            return Deferred()
        if name == "status":
            return succeed(Status("1", 0, None, None))
        if name in self.hold:
            waiting: Deferred[Any] = Deferred()
            self._held.append((waiting, lambda: self._through(name, *args)))
            return waiting
        answer = self._through(name, *args)
        if name in self.late:
            waiting = Deferred()
            self._held.append((waiting, lambda: answer))
            return waiting
        return answer

    def _through(self, name: str, *args: Any) -> Deferred[Any]:
        self.calls.append((name, *args))
        answer: Deferred[Any] = getattr(self.inner, name)(*args)
        return answer

    def release(self) -> None:
        """Let through what is held, and what comes from now on."""
        self.hold = self.late = ()
        held, self._held = self._held, []
        for waiting, call in held:
            if not waiting.called:
                call().chainDeferred(waiting)

    def stop(self) -> None:
        """The caller lets go."""

    def count(self, name: str) -> int:
        return sum(call[0] == name for call in self.calls)


class World:
    """One message node `m1` on a memory store and any number of comets."""

    def __init__(self, *names: str, store: int = 20, rpc: RpcSettings | None = None, **settings: Any) -> None:
        self.clock = Clock()
        self.skew = 0.0  # of all clocks
        self.comet_skew = 0.0  # of the comets' besides
        self.rpc = rpc or RpcSettings()
        self.settings = SubscriberSettings(**settings)
        self.coordination = StaticCoordination()
        self.store = MemoryStore(StoreSettings(store=store), now=self.now)
        self.node = FaultyService(self.store)
        self.messages = Messages(self.clock, self.coordination, lambda _: self.node, self.rpc)
        self.services: dict[str, FaultyService] = {}
        self.coordination.register_message(NodeInfo("", 0, ("m1",)))
        self.comets = Comets(self.clock, self.coordination, self._comet_of, self.rpc, self.now)
        for name in names or ("c1",):
            self.add_comet(name)
        self._ids = count()

    def now(self) -> float:
        return EPOCH + self.skew + self.clock.seconds()

    def comet_now(self) -> float:
        return self.now() + self.comet_skew

    def add_comet(self, name: str) -> Comet:
        comet = Comet(self.clock, self.coordination, self.messages, self.comets, self.settings, name, self.comet_now)
        self.services[name] = FaultyService(comet)
        self.coordination.register_comet(NodeInfo(f"node-{name}", 0, (name,)))
        return comet

    def _comet_of(self, info: NodeInfo) -> Any:
        return self.services[info.id]

    def comet_named(self, name: str) -> Comet:
        comet = self.services[name].inner
        assert isinstance(comet, Comet)
        return comet

    @property
    def comet(self) -> Comet:
        return self.comet_named(next(iter(self.services)))

    def housekeeping(self) -> Housekeeping:
        housekeeping = Housekeeping(self.comet, self.coordination, 30.0)
        housekeeping.start()
        return housekeeping

    def turns(self, turns: int = MANY_TURNS) -> None:
        """Let the reactor turn, without any time going by, this often or until there is nothing to do."""
        for _ in range(turns):
            if not self.clock.due:
                return
            self.clock.advance(0)
        assert turns < MANY_TURNS, "the reactor never rests"

    def wait(self, seconds: float, step: float = 0.05) -> None:
        """Let time go by."""
        for _ in range(round(seconds / step)):
            self.clock.advance(step)
            self.turns()

    def open(self, comet: Comet | None = None, format: Format = TCP_RAW, reads: bool = True) -> tuple[Session, Wire]:
        comet = comet or self.comet
        wire = Wire(self.clock)
        wire.reads = reads
        session = Session(wire, format, comet.settings, self.clock.seconds())
        wire.on_closed = lambda: comet.closed(session)
        comet.opened(session)
        return session, wire

    def subscribe(
        self,
        mid: int | None = None,
        key: str = "k",
        token: str = "",
        comet: Comet | None = None,
        format: Format = TCP_RAW,
        reads: bool = True,
        turns: int = MANY_TURNS,
    ) -> tuple[Session, Wire]:
        """A client's request arrives."""
        session, wire = self.open(comet, format, reads)
        (comet or self.comet).subscribe(session, Subscribe(key, 30, token, "1", mid), format)
        self.turns(turns)
        return session, wire

    def push(
        self, body: bytes, key: str = "k", expire: int = 600, id: str = "", turns: int = MANY_TURNS
    ) -> list[Pushed]:
        """A publisher's push; the list gets its answer."""
        push = Push(key, body, expire, id or f"own-{next(self._ids)}", 60, self.now() + self.rpc.push_deadline)
        answers: list[Pushed] = []
        self.comets.push([push], lambda _, pushed: answers.extend(pushed))
        self.turns(turns)
        return answers

    def pushed(self, body: bytes, key: str = "k", expire: int = 600, id: str = "") -> int:
        """Push and give the mid."""
        (answer,) = self.push(body, key, expire, id)
        assert answer.ret == 0
        return answer.mid


def frame(mid: int, body: bytes) -> bytes:
    """A message as a TCP client of today reads it."""
    json = raw_json(Message(mid, body))
    return b"$%d\r\n%b\r\n" % (len(json), json)


def result(deferred: Deferred[Any]) -> list[Any]:
    """What a Deferred has fired with, if it has: its result or its exception."""
    fired: list[Any] = []
    deferred.addCallbacks(fired.append, lambda failure: fired.append(failure.value))
    return fired


def done(value: Any = None) -> Deferred[Any]:
    return succeed(value)
