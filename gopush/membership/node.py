"""A process's own service as it is offered to the others, and the calls that administer it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from secrets import token_hex
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

import gopush
from gopush.errors import StartError, UnavailableError
from gopush.membership.view import Coordination
from gopush.model import MAX_WEIGHT, NodeInfo
from gopush.net.clock import Clock, pause, within
from gopush.reports import Load, Status
from gopush.rpc.remote import RemoteNode
from gopush.rpc.settings import RpcSettings

ANNOUNCE_SECONDS = 0.5
"""How long a caller waits until the others can see the change, which comes in any case."""

LEAVE_SECONDS = 4.5
"""How long leaving may take, until the others know of it included, where they still call after that."""

LOOK_SECONDS = 0.1
CALM_LOOKS = 5
"""How often in a row nothing must be under way before that is believed."""

log = Logger()


async def until_quiet(busy: Callable[[], bool], least: float, since: float, clock: Clock) -> None:
    """Once this process has left: wait until nobody keeps it `busy` any more.

    LEAVE_SECONDS at most `since` it began to leave, but `least` in any case.
    """
    earliest = clock.seconds() + least
    latest = max(earliest, since + LEAVE_SECONDS)
    calm = 0
    while True:
        calm = 0 if busy() else calm + 1
        now = clock.seconds()
        if calm >= CALM_LOOKS and now >= earliest:
            return
        if now >= latest:
            log.warn("leaving, although other nodes still call this one")
            return
        await pause(LOOK_SECONDS, clock)


class LocalNode:
    """Implements NodeService. `load`: what a comet holds."""

    def __init__(
        self, clock: Clock, coordination: Coordination, info: NodeInfo, load: Callable[[], Load] = Load
    ) -> None:
        self.info = info
        self._clock = clock
        self._coordination = coordination
        self._load = load
        self._started = clock.seconds()
        self.own_identity = token_hex(16)
        """What identity() answers in this process alone."""
        self._process = [self]

    def beside(self, other: LocalNode) -> None:
        """Be one process with `other`, at the same address: it drains, and changes its weight, after this one."""
        self._process = other._process = [self, other]
        other.own_identity = self.own_identity

    def status(self) -> Deferred[Status]:
        """See NodeService."""
        age = int(self._clock.seconds() - self._started)
        return succeed(Status(gopush.__version__, age, *self._load()))

    def identity(self) -> Deferred[str]:
        """See NodeService."""
        return succeed(self.own_identity)

    def defend(self, rpc: RpcSettings, refused: Callable[[StartError], object]) -> None:
        """Where another process advertises the address of this one, call that address; see Coordination.contest()."""
        self._coordination.contest(partial(self._leads_here, rpc), refused)

    def _leads_here(self, rpc: RpcSettings) -> Deferred[bool | None]:
        remote = RemoteNode(self._clock, self.info._replace(rpc=(self.info.id,)), rpc, rpc.attempt_timeout)

        def answered(answer: Any) -> bool | None:
            remote.stop()
            return None if isinstance(answer, Failure) else bool(answer == self.own_identity)

        asked: Deferred[Any] = remote.identity()
        return asked.addBoth(answered)

    def set_weight(self, weight: int) -> Deferred[None]:
        """See NodeService."""
        if not 1 <= weight <= MAX_WEIGHT:
            return fail(UnavailableError(f"the weight is not from 1 to {MAX_WEIGHT}"))
        view = self._coordination.view  # an operator may have written another one into the znode
        known = (info.weight for info in view.registered if info.place == self.info.place)
        return self._announce(f"sets the weight from {next(known, self.info.weight)} to {weight}", weight=weight)

    def drain(self, draining: bool) -> Deferred[None]:
        """See NodeService."""
        return self._announce(f"{'drains' if draining else 'takes back'} this process", draining=draining)

    def tell_store(self, store: str) -> Deferred[None]:
        """The data behind this message node are these."""
        self.info = self.info._replace(store=store)
        return self._soon(self._coordination.announce(self.info, "store"))

    def leave(self) -> Deferred[None]:
        """Drain for good: this process ends soon. Fires once the others can see it, or after a few seconds."""
        self._coordination.leaving = True
        self.info = self.info._replace(draining=True)
        return self._coordination.announce(self.info, "draining")

    def _announce(self, act: str, **changed: Any) -> Deferred[None]:
        if self._coordination.leaving:
            return fail(UnavailableError("this process is about to end"))
        log.info("an administrator {act}", act=act, **changed)
        announced: Deferred[None] = succeed(None)
        for node in self._process:
            node.info = node.info._replace(**changed)
            # Not what holds now: another call may change that before this one's turn comes.
            announced.addCallback(lambda _, node: self._coordination.announce(node.info, *changed), node)
        seen: Deferred[None] = Deferred()  # of its own: who waits gives up, and the announcing goes on
        announced.chainDeferred(seen)
        return self._soon(seen).addCallback(self._in_effect)

    def _in_effect(self, _: None) -> None:
        if not self._coordination.connected:
            raise UnavailableError("ZooKeeper is away: this takes effect once it is back")

    def _soon(self, announced: Deferred[None]) -> Deferred[None]:
        return within(ANNOUNCE_SECONDS, announced, self._clock).addErrback(lambda _: None)


class Together:
    """Several services at one address: the first that has a call answers it."""

    def __init__(self, *services: object) -> None:
        self._services = services

    def __getattr__(self, name: str) -> Any:
        found = next(getattr(service, name) for service in self._services if hasattr(service, name))
        setattr(self, name, found)  # the next look finds it at once
        return found
