"""What came of this process's logins at others: whether it reaches any, whether any of them lets it in, and why not."""

# Perspective Broker is not typed:
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from OpenSSL import SSL
from twisted.python.failure import Failure
from twisted.spread import pb

from gopush.model import NodeInfo
from gopush.net.clock import Clock
from gopush.net.tls_protocol import handshake_trouble, is_wrong_name
from gopush.stats.summary import Complaints


class Applicant(Protocol):
    """Who logs in: a Remote."""

    info: NodeInfo


def is_refusal(failure: Failure) -> bool:
    """Whether an attempt to log in reached somebody, and one side does not trust the other: waiting mends nothing."""
    return failure.check(pb.Error, SSL.Error) is not None or is_wrong_name(failure)


def why(failure: Failure, address: str) -> str:
    """Why a call to `address`, or an attempt to log in there, failed; for people."""
    if failure.check(pb.PBConnectionLost, pb.DeadReferenceError):
        return "connection lost"
    if is_wrong_name(failure):
        host = address.rpartition(":")[0]
        return f"the certificate there ([rpc] tls.cert) is not for {host}, the name or address that it advertises"
    return handshake_trouble(failure) or failure.getErrorMessage() or str(failure.type)


class Logins:
    """Of one process. `own`: its NodeInfo.id; that it lets itself in says nothing."""

    def __init__(self, clock: Clock, own: str = "") -> None:
        self.complaints = Complaints(clock)
        """Of all callers: the log has one line for a peer, however many connections to it there are."""
        self._own = own
        self._outcomes: dict[Applicant, str | None] = {}
        """Why the last attempt was refused; None: it was not."""
        self._unreached: dict[Applicant, str] = {}
        """Why its last attempt to reach its process failed. Other connections to that process may be idle: they have
        noticed nothing yet."""

    def admitted(self, caller: Applicant) -> None:
        """It may call."""
        self._outcomes[caller] = None
        self._reached(caller.info.id)

    def refused(self, caller: Applicant, reason: str) -> None:
        """It may not."""
        self._outcomes[caller] = reason
        self._reached(caller.info.id)

    def unreached(self, caller: Applicant, reason: str) -> None:
        """It reaches nobody."""
        self._outcomes.pop(caller, None)
        self._unreached[caller] = reason

    def forget(self, caller: Applicant) -> None:
        """It calls no more."""
        self._outcomes.pop(caller, None)
        self._unreached.pop(caller, None)

    def _reached(self, id: str) -> None:
        self._unreached = {caller: reason for caller, reason in self._unreached.items() if caller.info.id != id}

    def isolation(self, others: Collection[str]) -> str | None:
        """Why none of these (NodeInfo.id) is reached; None: one is, one was not tried yet, or there are not two.

        A single one may just be dead.
        """
        unreached = {caller.info.id: reason for caller, reason in self._unreached.items()}
        if len(others) < 2 or not unreached.keys() >= set(others):
            return None
        return _named({id: unreached[id] for id in others})

    def refusal(self, elders: Collection[str]) -> str | None:
        """Why no process that was reached lets this one in; None: one does, or none was reached.

        `elders`: those (NodeInfo.id) that were there before this one. Where it is one against one, the newcomer is
        taken to be the wrong one: a stranger must not put out a cluster of one node.
        """
        outcomes = {caller: reason for caller, reason in self._outcomes.items() if caller.info.id != self._own}
        refusing = {caller.info.id: reason for caller, reason in outcomes.items() if reason is not None}
        if (
            len(refusing) == 0
            or None in outcomes.values()
            or (len(refusing) == 1 and refusing.keys().isdisjoint(elders))
        ):
            return None
        return f"all other processes that this one reaches refuse its login: {_named(refusing)}"


MOST_NAMED = 3


def _named(reasons: Mapping[str, str]) -> str:
    named = ", ".join(f"{id}: {reason}" for id, reason in sorted(reasons.items())[:MOST_NAMED])
    return f"{named}, and {len(reasons) - MOST_NAMED} more" if len(reasons) > MOST_NAMED else named
