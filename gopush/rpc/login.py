"""How a caller gets in where a secret is set: each side proves that it knows it, by calls of plain PB.

The caller sends a nonce and the address that it calls. The node that has this address answers with a nonce of its own
and its proof; only then does the caller prove itself. A proof is a MAC over who proves, both nonces and the address:
so none can be used again, sent back to its maker, or passed on by somebody in the middle who has another address.

While the cluster changes its secret, a process has two: the node that is called gives a proof of each, and the caller
proves one that it has, too.
"""

# Perspective Broker is not typed:
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Sequence
from functools import lru_cache
from secrets import token_bytes
from typing import Any

from twisted.cred.credentials import UsernamePassword
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.spread import pb

from gopush.rpc.broker import Broker, Reachable

USER = b"gopush"


class Door(Reachable):
    """What one caller meets, and behind it the `calls`. See server.ServerFactory for the rest."""

    def __init__(self, calls: Any, secrets: Sequence[str], addresses: Collection[str], *, legacy: bool) -> None:
        self._calls = calls
        self._secrets = secrets
        self._addresses = {address.encode() for address in addresses}
        self._legacy = legacy
        self._expected: Collection[bytes] = ()

    def called(self, broker: Broker, name: str, arguments: Any) -> Any:
        """See Reachable."""
        if name == "challenge":
            return self._challenge(broker, *arguments)
        if name == "prove":
            return self._prove(broker, *arguments)
        if name == "login" and self._legacy:
            return self._login(broker, *arguments)
        if name == "login":
            raise broker.turn_away("it proves its secret as older releases do ([rpc] secret.legacy = yes admits them)")
        raise ValueError(name)

    def _challenge(self, broker: Broker, theirs: bytes, address: bytes) -> tuple[bytes, ...]:
        if self._addresses and address not in self._addresses:
            raise broker.turn_away(f"it calls {address!r:.100}, which is not the address of this node")
        mine = token_bytes(NONCE_BYTES)
        self._expected, ours = zip(*(_proofs(secret, theirs, mine, address) for secret in self._secrets), strict=True)
        broker.challenged = True
        return mine, *ours

    def _prove(self, broker: Broker, proof: bytes) -> Any:
        expected, self._expected = self._expected, ()
        broker.challenged = False
        if not any(_proves(proof, one) for one in expected):
            raise broker.turn_away("it gives the wrong secret")
        return self._admit(broker)

    def _admit(self, broker: Broker) -> Any:
        broker.settled()
        broker.calls = self._calls
        return self._calls

    def _login(self, broker: Broker, user: bytes) -> tuple[bytes, pb.Referenceable]:
        challenge = pb.challenge()
        return challenge, _Challenger(self._admit, pb.respond(challenge, self._secrets[0].encode()))


class _Challenger(Reachable):
    """Where a caller of an older release answers the challenge of PB's own login (MD5: it proves only the caller)."""

    def __init__(self, admit: Any, expected: bytes) -> None:
        self._admit = admit
        self._expected: bytes | None = expected

    def called(self, broker: Broker, name: str, arguments: Any) -> Any:
        """See Reachable."""
        (response, _) = arguments
        expected, self._expected = self._expected, None
        if name != "respond" or expected is None or not hmac.compare_digest(response, expected):
            raise broker.turn_away("it gives the wrong secret")
        return self._admit(broker)


def enter(
    factory: pb.PBClientFactory, broker: Broker, secrets: Sequence[str], address: str, *, legacy: bool
) -> Deferred[Any]:
    """Log in; fires with what to call. It says nothing to a node that does not know one of the secrets.

    `address`: the one that was called. `legacy`: to one that knows no proofs, log in as older releases do.
    """
    mine, called = token_bytes(NONCE_BYTES), address.encode()

    def challenged(answer: Any) -> Deferred[Any]:
        theirs, *proofs = answer
        for secret in secrets:
            ours, expected = _proofs(secret, mine, theirs, called)
            if any(_proves(proof, expected) for proof in proofs):
                return root.callRemote("prove", ours)  # type: ignore[no-any-return]
        raise broker.turn_away("it gives the wrong secret")

    def refused(failure: Failure) -> Any:
        if not (failure.check(pb.NoSuchMethod) or "it gives no secret" in failure.getErrorMessage()):
            return failure  # a node that knows proofs says why: the older login proves less, and hides that
        if legacy:
            return factory.login(UsernamePassword(USER, secrets[0].encode()))
        raise pb.Error("refused: it is of an older release, which proves no secret ([rpc] secret.legacy = yes)")

    root = broker.remoteForName("root")
    entered: Deferred[Any] = root.callRemote("challenge", mine, called)
    return entered.addCallbacks(challenged, refused)


NONCE_BYTES = 32
_ITERATIONS = 100_000
"""A caller gets a proof, and may guess secrets by it: each guess costs it as much as each start costs us, 30 ms."""


def _proofs(secret: str, caller_nonce: bytes, callee_nonce: bytes, address: bytes) -> tuple[bytes, bytes]:
    """The proof of the caller, and that of the node that is called, in one connection to `address`. Raises ValueError
    for what is no nonce.
    """
    if not len(caller_nonce) == len(callee_nonce) == NONCE_BYTES:
        raise ValueError("a nonce of another length")
    key, said = _key(secret), caller_nonce + callee_nonce + address
    return hmac.digest(key, b"gopush caller" + said, "sha256"), hmac.digest(key, b"gopush callee" + said, "sha256")


def _proves(proof: object, expected: bytes) -> bool:
    """Whether this, which a stranger sent, is the proof that is expected."""
    return isinstance(proof, bytes) and hmac.compare_digest(proof, expected)


@lru_cache
def _key(secret: str) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", secret.encode(), b"gopush rpc", _ITERATIONS)
