"""A process's own service as it is offered to the others, the calls that administer it, and whether others reach it."""

from __future__ import annotations

from collections.abc import Callable
from secrets import token_hex
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

import gopush
from gopush.errors import StartError, UnavailableError
from gopush.membership.view import Coordination
from gopush.model import MAX_WEIGHT, NodeInfo
from gopush.net.clock import Clock, repeating, within
from gopush.reports import Load, Status
from gopush.rpc.client import Remote

ANNOUNCE_SECONDS = 0.5
"""How long a caller waits until the others can see the change, which comes in any case."""

log = Logger()


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
        self._identity = token_hex(16)
        self._process = [self]

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._service, name)
        setattr(self, name, found)  # the next look finds it at once
        return found

    def beside(self, other: LocalNode) -> None:
        """Be one process with `other`, at the same address: it drains, and changes its weight, after this one."""
        self._process = other._process = [self, other]
        other._identity = self._identity

    def status(self) -> Deferred[Status]:
        """See NodeService."""
        age = int(self._clock.seconds() - self._started)
        return succeed(Status(gopush.__version__, age, *self._load()))

    def identity(self) -> Deferred[str]:
        """See NodeService."""
        return succeed(self._identity)

    def defend(self, connect: Callable[[NodeInfo], Remote], refused: Callable[[StartError], object]) -> None:
        """Where another process advertises the address of this one, call that address; see Coordination.contest()."""
        self._coordination.contest(lambda: self._leads_here(connect(self.info._replace(rpc=(self.info.id,)))), refused)

    def _leads_here(self, remote: Remote) -> Deferred[bool | None]:
        def answered(answer: Any) -> bool | None:
            remote.stop()
            return None if isinstance(answer, Failure) else bool(answer == self._identity)

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
        self.info = self.info._replace(draining=True)
        return self._coordination.announce(self.info)

    def _announce(self, **changed: Any) -> Deferred[None]:
        announced: Deferred[None] = succeed(None)
        for node in self._process:
            node.info = node.info._replace(**changed)
            announced.addCallback(lambda _, info: self._coordination.announce(info), node.info)
        seen: Deferred[None] = Deferred()
        announced.chainDeferred(seen)
        return self._soon(seen)

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
    """Calls `itself`, this process through its advertised addresses. A call may take `timeout` seconds."""

    def __init__(self, clock: Clock, itself: Remote, timeout: float) -> None:
        self.lost = False
        """Whether nobody answers there."""
        self._clock = clock
        self._itself = itself
        self._timeout = timeout
        self._missed = 0
        self._checking = repeating(self._check, clock)

    def start(self) -> None:
        """Begin to look."""
        self._checking.start(CHECK_SECONDS, now=False)

    def stop(self) -> None:
        """Look no more."""
        if self._checking.running:
            self._checking.stop()
        self._itself.stop()

    def check(self) -> None:
        """Raise UnavailableError where nobody answers: for the process's health."""
        if self.lost:
            raise UnavailableError(f"nobody answers at the address that this process advertises, {self._where}")

    @property
    def _where(self) -> str:
        return ", ".join(self._itself.info.rpc)

    def _check(self) -> Deferred[None]:
        call: Deferred[Any] = within(self._timeout, self._itself.identity(), self._clock)
        return call.addCallbacks(self._answered, self._missing)

    def _answered(self, _: str) -> None:
        self._missed = 0
        if self.lost:
            self.lost = False
            log.info("this process answers again at the address that it advertises, {where}", where=self._where)

    def _missing(self, failure: Failure) -> None:
        self._missed += 1
        if self._missed >= MISSED and not self.lost:
            self.lost = True
            log.error(
                "nobody answers at the address that this process advertises, {where}: {reason}; other nodes cannot "
                "send it messages (check [base] rpc.advertise, rpc.bind and the firewall)",
                where=self._where,
                reason=failure.getErrorMessage(),
            )
