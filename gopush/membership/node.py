"""A process's own service as it is offered to the others, the calls that administer it, and whether others reach it."""

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
from gopush.membership.view import Coordination, View
from gopush.model import MAX_WEIGHT, NodeInfo
from gopush.net.clock import Clock, quiet, repeating, within
from gopush.reports import Load, Status
from gopush.rpc.client import Remote
from gopush.rpc.logins import Logins
from gopush.rpc.remote import RemoteNode
from gopush.rpc.settings import RpcSettings

ANNOUNCE_SECONDS = 0.5
"""How long a caller waits until the others can see the change, which comes in any case."""

LEAVE_SECONDS = 4.5
"""How long leaving may take, until the others know of it included, where they still call after that."""

log = Logger()


async def until_quiet(busy: Callable[[], bool], least: float, since: float, clock: Clock) -> None:
    """Once this process has left: wait until nobody keeps it `busy` any more, see quiet().

    LEAVE_SECONDS at most `since` it began to leave, but `least` in any case.
    """
    if not await quiet(busy, least, max(least, since + LEAVE_SECONDS - clock.seconds()), clock):
        log.warn("leaving, although other nodes still call this one")


class LocalNode:
    """Implements NodeService; all other calls are those of `service`. `load`: what a comet holds."""

    def __init__(
        self,
        clock: Clock,
        coordination: Coordination,
        info: NodeInfo,
        service: object,
        load: Callable[[], Load] = Load,
    ) -> None:
        self.info = info
        self._clock = clock
        self._coordination = coordination
        self._service = service
        self._load = load
        self._started = clock.seconds()
        self.own_identity = token_hex(16)
        """What identity() answers in this process alone."""
        self._process = [self]

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._service, name)
        setattr(self, name, found)  # the next look finds it at once
        return found

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
        log.info("an administrator sets the weight from {before} to {weight}", before=self.info.weight, weight=weight)
        return self._announce(weight=weight)

    def drain(self, draining: bool) -> Deferred[None]:
        """See NodeService."""
        log.info("an administrator {verb} this process", verb="drains" if draining else "takes back", draining=draining)
        return self._announce(draining=draining)

    def tell_store(self, store: str) -> Deferred[None]:
        """The data behind this message node are these."""
        self.info = self.info._replace(store=store)
        return self._soon(self._coordination.announce(self.info))

    def leave(self) -> Deferred[None]:
        """Drain for good: this process ends soon. Fires once the others can see it, or after a few seconds."""
        self._coordination.leaving = True
        self.info = self.info._replace(draining=True)
        return self._coordination.announce(self.info)

    def _announce(self, **changed: Any) -> Deferred[None]:
        announced: Deferred[None] = succeed(None)
        for node in self._process:
            node.info = node.info._replace(**changed)
            # Not what holds now: another call may change that before this one's turn comes.
            announced.addCallback(lambda _, node: self._coordination.announce(node.info), node)
        seen: Deferred[None] = Deferred()
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
        setattr(self, name, found)
        return found


CHECK_SECONDS = 2.0
MISSED = 2
"""So many calls in a row must fail."""


class Reachability:
    """Calls `itself`, this process through its advertised addresses, and looks whether others let this process in.

    `identity`: what this process answers (LocalNode.own_identity). A call may take `timeout` seconds. `logins`: what
    came of this process's logins at others; `probe`: makes some, in a process that otherwise calls nobody.
    """

    def __init__(
        self,
        clock: Clock,
        itself: Remote,
        identity: str,
        timeout: float,
        coordination: Coordination,
        logins: Logins,
        probe: LoginProbe | None = None,
    ) -> None:
        self._clock = clock
        self._itself = itself
        self._identity = identity
        self._timeout = timeout
        self._logins = logins
        self._probe = probe
        self._missed = 0
        self._refusals = 0
        self._fault = ""
        """What is wrong at the advertised addresses; empty: nothing, for all that is known."""
        self._refusal: str | None = None
        self._elders: frozenset[str] | None = None
        self._checking = repeating(self._check, clock)
        coordination.watch(self._joined)

    @property
    def lost(self) -> bool:
        """Whether this process does not answer there, or all others refuse it: then nobody sends it messages."""
        return bool(self._fault) or self._refusal is not None

    def start(self) -> None:
        """Begin to look."""
        self._checking.start(CHECK_SECONDS, now=False)

    def stop(self) -> None:
        """Look no more."""
        if self._checking.running:
            self._checking.stop()
        self._itself.stop()
        if self._probe is not None:
            self._probe.stop()
        self._logins.complaints.stop()

    def check(self) -> None:
        """Raise UnavailableError where this process does not answer, or all refuse it: for the process's health."""
        if self._fault:
            raise UnavailableError(self._fault)
        if self._refusal is not None:
            raise UnavailableError(self._refusal)

    @property
    def _where(self) -> str:
        return ", ".join(self._itself.info.rpc)

    def _joined(self, view: View) -> None:
        own = self._itself.info.id
        if self._elders is None and view.knows(own):
            self._elders = frozenset(info.id for info in (*view.comets, *view.messages) if info.id != own)

    def _check(self) -> Deferred[None]:
        if self._probe is not None:
            self._probe.look()
        self._look_at_logins()
        call: Deferred[Any] = within(self._timeout, self._itself.identity(), self._clock)
        return call.addCallbacks(self._answered, self._unanswered)

    def _look_at_logins(self) -> None:
        refusal = self._logins.refusal(self._elders or ())
        self._refusals = 0 if refusal is None else self._refusals + 1
        if refusal is None and self._refusal is not None:
            log.info("another process lets this one in again")
        elif self._refusals == MISSED:
            log.error("{refusal}; this process is not ready (check [rpc] secret, tls.ca and tls.cert)", refusal=refusal)
        if self._refusals == 0 or self._refusals >= MISSED:
            self._refusal = refusal

    def _answered(self, identity: str) -> None:
        if identity != self._identity:
            self._missing(f"another process answers at the address that this process advertises, {self._where}")
            return
        self._missed = 0
        if self._fault:
            self._fault = ""
            log.info("this process answers again at the address that it advertises, {where}", where=self._where)

    def _unanswered(self, failure: Failure) -> None:
        fault = f"nobody answers at the address that this process advertises, {self._where}"
        self._missing(fault, f": {failure.getErrorMessage()}")

    def _missing(self, fault: str, reason: str = "") -> None:
        self._missed += 1
        if self._missed >= MISSED and fault != self._fault:
            self._fault = fault
            log.error(
                "{fault}{reason}; other nodes cannot send it messages (check [base] rpc.advertise, rpc.bind, "
                "[rpc] tls.cert and the firewall)",
                fault=fault,
                reason=reason,
            )


class LoginProbe:
    """Logs in at other processes, one after the other, until one lets this one in; that connection is kept.

    `own`: the NodeInfo.id of this process.
    """

    def __init__(self, coordination: Coordination, own: str, connect: Callable[[NodeInfo], Remote]) -> None:
        self._coordination = coordination
        self._own = own
        self._connect = connect
        self._callers: dict[str, Remote] = {}

    def look(self) -> None:
        """Go on with the next one, unless one lets this process in. Every few seconds."""
        view = self._coordination.view
        others = {info.id: info for info in (*view.comets, *view.messages) if info.id != self._own}
        kept = next((id for id, caller in self._callers.items() if id in others and caller.connected), None)
        for id in [id for id in self._callers if id not in others or kept not in (None, id)]:
            self._callers.pop(id).stop()
        untried = next((info for id, info in others.items() if id not in self._callers), None)
        if kept is None and untried is not None:
            self._callers[untried.id] = self._connect(untried)

    def stop(self) -> None:
        """Let go of all connections."""
        for caller in self._callers.values():
            caller.stop()
        self._callers.clear()
