"""Whether others reach this process, and let it in, and whether it reaches any of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from gopush.errors import UnavailableError
from gopush.membership.view import Coordination, View
from gopush.model import NodeInfo
from gopush.net.clock import Clock, repeating, within
from gopush.rpc.client import Remote
from gopush.rpc.logins import Logins

CHECK_SECONDS = 2.0
MISSED = 2
"""So many calls in a row must fail."""

log = Logger()


@dataclass(eq=False, repr=False)
class Reachability:
    """Calls `itself`, this process through its advertised addresses, and looks whether others let this process in.

    `identity`: what this process answers (LocalNode.own_identity). A call may take `timeout` seconds. `logins`: what
    came of this process's logins at others; `probe`: makes some, in a process that otherwise calls nobody.
    """

    _clock: Clock
    _itself: Remote
    _identity: str
    _timeout: float
    _coordination: Coordination
    _logins: Logins
    _probe: LoginProbe | None = None
    _missed: int = field(default=0, init=False)
    _refusals: int = field(default=0, init=False)
    _isolated: int = field(default=0, init=False)
    _fault: str = field(default="", init=False)
    """What is wrong at the advertised addresses; empty: nothing, for all that is known."""
    _refusal: str | None = field(default=None, init=False)
    _elders: frozenset[str] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._own = self._itself.info.id
        self._checking = repeating(self._check, self._clock)
        self._coordination.watch(self._joined)

    @property
    def lost(self) -> bool:
        """Whether this process does not answer there, or all others refuse it: then nobody sends it messages."""
        return bool(self._fault or self._refusal)

    def start(self) -> None:
        """Begin to look."""
        self._checking.start(CHECK_SECONDS, now=False)

    def stop(self) -> None:
        """Look no more."""
        self._checking.stop()
        self._itself.stop()
        if self._probe is not None:
            self._probe.stop()
        self._logins.complaints.stop()

    def check(self) -> None:
        """Raise UnavailableError where this process does not answer, or all refuse it: for the process's health."""
        if wrong := self._fault or self._refusal:
            raise UnavailableError(wrong)

    @property
    def _where(self) -> str:
        return ", ".join(self._itself.info.rpc)

    def _joined(self, view: View) -> None:
        if self._elders is None and view.knows(self._own):
            self._elders = frozenset(view.others(self._own))

    def _check(self) -> Deferred[None]:
        if self._probe is not None:
            self._probe.look()
        self._look_at_logins()
        self._look_around()
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

    def _look_around(self) -> None:
        """Its own pushes may still work, so it stays ready."""
        isolation = self._logins.isolation(self._coordination.view.others(self._own))
        if isolation is None and self._isolated >= MISSED:
            log.info("this process reaches others again, or fewer than two are left")
        self._isolated = 0 if isolation is None else self._isolated + 1
        if self._isolated == MISSED:
            log.warn(
                "this process reaches none of the others (check the network and the firewall here): {reasons}",
                reasons=isolation,
            )

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
        others = self._coordination.view.others(self._own)
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
