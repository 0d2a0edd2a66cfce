"""The network between processes, in the place of Perspective Broker: calls get lost, late, doubled, stuck."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.python.failure import Failure

from gopush.errors import UnavailableError
from gopush.model import Append, Appended, Forward, Head, Page, Push, Pushed, Read, Token, TokenState
from gopush.reports import Status

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.world import World

Run = Callable[[Any], "Deferred[Any]"]


class Call:
    """One call on its way. `cancelled`: its caller takes it back, unless it has left; `lose_reply`: no reply comes."""

    __slots__ = ("address", "answer", "caller", "cancelled", "lose_reply", "run")

    def __init__(self, caller: Process, address: str, run: Run) -> None:
        self.caller = caller
        self.address = address
        self.run = run
        self.cancelled = False
        self.lose_reply = False
        self.answer: Deferred[Any] = Deferred(self._cancel)

    def _cancel(self, _: Deferred[Any]) -> None:
        self.cancelled = True


class Network:
    """Carries calls. `trouble`: the chance that a call meets with an accident; `cuts`: pairs out of reach."""

    def __init__(self, world: World) -> None:
        self.trouble = 0.0
        self.cuts: dict[frozenset[str], int] = {}
        self._world = world
        self._clock = world.clock
        self._random = world.random
        self._stuck: list[tuple[Call, bool]] = []

    def call(self, caller: Process, address: str, run: Run) -> Deferred[Any]:
        """Have `run` called with the service at `address`."""
        call = Call(caller, address, run)
        if self._cut(caller.address, address):
            # Written to a connection that is dead by now it arrives with a retransmission, however late; before
            # a connection stands it waits, and whoever gives up takes it back.
            self._stuck.append((call, self._random.random() < 0.5))
        else:
            self._send(call)
        return call.answer

    def cut(self, one: str, other: str) -> None:
        """From now on these two can't reach each other."""
        pair = frozenset((one, other))
        self.cuts[pair] = self.cuts.get(pair, 0) + 1

    def mend(self, one: str, other: str) -> None:
        """Take back one cut()."""
        pair = frozenset((one, other))
        if pair not in self.cuts:
            return
        self.cuts[pair] -= 1
        if not self.cuts[pair]:
            del self.cuts[pair]
        stuck, self._stuck = self._stuck, []
        for call, sent in stuck:
            if self._cut(call.caller.address, call.address):
                self._stuck.append((call, sent))
            elif call.caller.alive and (sent or not call.cancelled):
                self._send(call)

    def heal(self) -> None:
        """All that was stuck arrives; nothing goes wrong any more."""
        self.trouble = 0.0
        for one, other in [tuple(pair) for pair in self.cuts]:
            self.cuts[frozenset((one, other))] = 1
            self.mend(one, other)

    def broken(self, calls: Sequence[Call]) -> None:
        """The process that served these calls is dead."""
        for call in calls:
            self._reply(call, _unavailable("the connection is lost"))

    def _cut(self, one: str, other: str) -> bool:
        return bool(self.cuts) and frozenset((one, other)) in self.cuts

    def _latency(self) -> float:
        return 0.0002 + 0.002 * self._random.random()

    def _send(self, call: Call) -> None:
        delay = self._latency()
        if self.trouble and self._random.random() < self.trouble:
            accident = self._random.randrange(4)
            self._world.note("accident", ("request lost", "reply lost", "late", "twice")[accident], call.address)
            if accident == 0:
                return
            if accident == 1:
                call.lose_reply = True
            elif accident == 2:
                delay += self._random.choice((0.1, 0.7, 1.5, 3.0, 6.0)) * self._random.random()
            else:
                again = Call(call.caller, call.address, call.run)
                again.lose_reply = True
                self._clock.after(delay + 3 * self._random.random(), self._arrive, again)
        self._clock.after(delay, self._arrive, call)

    def _arrive(self, call: Call) -> None:
        server = self._world.processes.get(call.address)
        if server is None or not server.alive:
            self._reply(call, _unavailable("nobody listens there"))
            return
        server.serving[call] = None
        self._clock.after(0, self._serve, call, server, owner=server)

    def _serve(self, call: Call, server: Process) -> None:
        maybeDeferred(call.run, server.service).addBoth(self._served, call, server)

    def _served(self, result: object, call: Call, server: Process) -> None:
        if isinstance(result, Failure) and not isinstance(result.value, UnavailableError):
            self._world.violated(0, "", f"a call raised {result.value!r}: {result.getTraceback()}")
        server.serving.pop(call, None)
        if not self._cut(call.caller.address, call.address):
            self._reply(call, result)

    def _reply(self, call: Call, result: object) -> None:
        if not call.lose_reply:
            self._clock.after(self._latency(), self._answer, call, result, owner=call.caller)

    def _answer(self, call: Call, result: object) -> None:
        if not call.answer.called:
            call.answer.callback(result)


class Remote:
    """A service in another process, as its client sees it: what comets, message and web ask of each other."""

    def __init__(self, network: Network, caller: Process, address: str) -> None:
        self._network = network
        self._caller = caller
        self._address = address

    def stop(self) -> None:
        """The connection is let go; what was sent is sent."""

    def _call(self, run: Run) -> Deferred[Any]:
        return self._network.call(self._caller, self._address, run)

    def push(self, pushes: Sequence[Push]) -> Deferred[list[Pushed]]:
        return self._call(lambda comet: comet.push(pushes))

    def forward(self, forwards: Sequence[Forward]) -> Deferred[None]:
        return self._call(lambda comet: comet.forward(forwards))

    def close(self, keys: Sequence[str]) -> Deferred[list[int]]:
        return self._call(lambda comet: comet.close(keys))

    def subscribers(self, keys: Sequence[str]) -> Deferred[list[int]]:
        return self._call(lambda comet: comet.subscribers(keys))

    def append(self, appends: Sequence[Append]) -> Deferred[list[Appended]]:
        return self._call(lambda message: message.append(appends))

    def read(self, reads: Sequence[Read]) -> Deferred[list[Page | None]]:
        return self._call(lambda message: message.read(reads))

    def heads(self, keys: Sequence[str]) -> Deferred[list[Head | None]]:
        return self._call(lambda message: message.heads(keys))

    def delete(self, key: str) -> Deferred[None]:
        return self._call(lambda message: message.delete(key))

    def create_token(self, key: str, token: Token) -> Deferred[None]:
        return self._call(lambda message: message.create_token(key, token))

    def revoke_token(self, key: str, digest: bytes) -> Deferred[bool]:
        return self._call(lambda message: message.revoke_token(key, digest))

    def tokens(self, key: str) -> Deferred[list[Token]]:
        return self._call(lambda message: message.tokens(key))

    def check_token(self, key: str, digest: bytes) -> Deferred[TokenState]:
        return self._call(lambda message: message.check_token(key, digest))

    def ping(self) -> Deferred[None]:
        return self._call(lambda service: service.ping())

    def status(self) -> Deferred[Status]:
        return self._call(lambda _: succeed(Status("", 0, None, None)))


def _unavailable(reason: str) -> Failure:
    return Failure(UnavailableError(reason))
