"""One live peer, and the kinds of calls that are made to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from twisted.internet.defer import Deferred, DeferredList, fail, maybeDeferred
from twisted.logger import Logger

from gopush.errors import UnavailableError
from gopush.model import NodeInfo
from gopush.net.clock import Clock, repeating, within
from gopush.routing.batcher import Batcher
from gopush.routing.pending import Waiting
from gopush.rpc.settings import RpcSettings


class Service(Protocol):
    """What every peer can do."""

    def ping(self) -> Deferred[None]:
        """Answer."""

    def stop(self) -> object:
        """Let go of the connection."""


S = TypeVar("S", bound=Service)


@dataclass(eq=False, slots=True)
class BatchCall(Generic[S]):
    """A kind of call: how a batch of it is sent, and how long that may take.

    `ordered`: a key's calls keep their order. `moves`: what one peer failed is tried at the others, and what it
    `refused`, as its answer tells; `again`: where all did, they are asked again after a pause. `most`: how many of them
    one batch may hold, where their answers are big. `long`: an answer may take as long again while it flows in.
    """

    send: Callable[[S, list[Any]], Deferred[list[Any]]]
    timeout: float
    ordered: bool = False
    moves: bool = True
    most: int | None = None
    refused: Callable[[Any], bool] | None = None
    again: Callable[[Any], bool] = lambda _: False
    long: bool = False


class Peer(Generic[S]):
    """One live peer. `logged`: the log says that it is not healthy; that is not logged again before `quiet_until`."""

    __slots__ = ("batchers", "healthy", "info", "logged", "quiet_until", "service", "waiting")

    def __init__(self, info: NodeInfo, service: S) -> None:
        self.info = info
        self.service = service
        self.healthy = True
        self.logged = False
        self.quiet_until = float("-inf")
        self.batchers: dict[tuple[BatchCall[S], str], Batcher] = {}
        self.waiting: dict[BatchCall[S], Waiting] = {}


QUIET_SECONDS = 60.0
"""How often a peer that answers pings and nothing else is logged: the lines are for people."""

log = Logger()


class HealthChecker(Generic[S]):
    """Pings unresponsive peers until they answer. `live`: by NodeInfo.id; `changed`: called when one fails or heals."""

    def __init__(
        self, clock: Clock, live: Mapping[str, Peer[S]], settings: RpcSettings, changed: Callable[[], None]
    ) -> None:
        self._clock = clock
        self._live = live
        self._settings = settings
        self._changed = changed
        self._pinging = repeating(self._ping, clock)

    def add(self, peer: Peer[S], does: str) -> None:
        """This peer did not answer, or refused: `does` says it."""
        if not peer.healthy or self._live.get(peer.info.id) is not peer:
            return
        peer.healthy = False
        self._changed()
        peer.logged = self._clock.seconds() >= peer.quiet_until
        if peer.logged:
            peer.quiet_until = self._clock.seconds() + QUIET_SECONDS
            way = "this process asks others first until it answers a ping"
            alone = "there is no other one to ask"
            log.warn("{peer} {does}; {way}", peer=peer.info.id, does=does, way=way if len(self._live) > 1 else alone)
        if not self._pinging.running:
            self._pinging.start(self._settings.ping, now=False)

    def stop(self) -> None:
        """Ask no more."""
        self._pinging.stop()

    def _ping(self) -> None:
        unhealthy = [peer for peer in self._live.values() if not peer.healthy]
        if not unhealthy:
            self._pinging.stop()
        for peer in unhealthy:
            ping = within(self._settings.call_timeout, maybeDeferred(peer.service.ping), self._clock)
            ping.addCallbacks(lambda _, peer=peer: self._recovered(peer), lambda _: None)

    def _recovered(self, peer: Peer[S]) -> None:
        if not peer.healthy:
            peer.healthy = True
            self._changed()
            if peer.logged:
                log.info("{peer} answers again", peer=peer.info.id)


class Here:
    """A service of this process in the place of a connection to another one: letting go of it does not stop it.

    A caller that gives a call up hears no more of it, and the call goes on, as in another process.
    """

    def __init__(self, service: object) -> None:
        self._service = service

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._service, name)

        def call(*arguments: Any) -> Deferred[Any]:
            made: Deferred[Any] = found(*arguments)
            if made.called:
                return made
            answer: Deferred[Any] = Deferred()
            made.chainDeferred(answer)
            return answer

        setattr(self, name, call)  # the next look finds it at once
        return call

    def stop(self) -> None:
        """See Peers."""


STORE = "store: "
"""What a message node's ping says first where its store does not answer (message/service.py)."""


def one_of(asked: list[Deferred[Any]]) -> Deferred[None]:
    """Fires as soon as one of these does. Fails with UnavailableError where none does."""
    if not asked:
        return fail(UnavailableError("no such node is known"))
    return DeferredList(asked, fireOnOneCallback=True, consumeErrors=True).addCallback(_one_answered)


def _one_answered(outcome: Any) -> None:
    """From a DeferredList: a pair, or all failures; why a store does not answer comes first, best in our own words."""
    if isinstance(outcome, list):
        reasons = [failure.getErrorMessage() for _, failure in outcome]
        raise UnavailableError(min(reasons, key=lambda reason: (STORE not in reason, not reason.startswith(STORE))))
