"""How two nodes prove to each other that they know the secret of the cluster, before anything else is said. Pure.

The caller sends a nonce and the address that it calls. The node that has this address answers with a nonce of its own
and its proof; only then does the caller prove itself. A proof is a MAC over who proves, both nonces and the address:
so none can be used again, sent back to its maker, or passed on by somebody in the middle who has another address.
"""

from __future__ import annotations

import hashlib
import hmac
from functools import lru_cache
from secrets import token_bytes

LEAST_SECRET_BYTES = 16
NONCE_BYTES = 32
_CALLER = b"gopush caller"
_CALLEE = b"gopush callee"
_ITERATIONS = 100_000
"""Who calls gets a proof, and may guess secrets by it: each guess costs him as much as each start costs us, 30 ms."""


def strong(secret: str) -> str:
    """The secret as it stands in an ini file. Raises ValueError where it could be guessed; empty: there is none."""
    size = len(secret.encode())
    if 0 < size < LEAST_SECRET_BYTES:
        raise ValueError(f"has only {size} bytes: use at least {LEAST_SECRET_BYTES} (openssl rand -hex 32 makes some)")
    return secret


class Proof:
    """What both sides have to prove in one connection to `address`. Raises ValueError for what is no nonce."""

    __slots__ = ("_key", "_said")

    def __init__(self, secret: str, caller_nonce: bytes, callee_nonce: bytes, address: bytes) -> None:
        if not len(caller_nonce) == len(callee_nonce) == NONCE_BYTES:
            raise ValueError("a nonce of another length")
        self._key = _key(secret)
        self._said = caller_nonce + callee_nonce + address

    @property
    def caller(self) -> bytes:
        """The caller's proof."""
        return self._mac(_CALLER)

    @property
    def callee(self) -> bytes:
        """The proof of the node that is called."""
        return self._mac(_CALLEE)

    def is_caller(self, proof: object) -> bool:
        """Whether the caller knows the secret."""
        return isinstance(proof, bytes) and hmac.compare_digest(proof, self.caller)

    def is_callee(self, proof: object) -> bool:
        """Whether the node that is called knows the secret."""
        return isinstance(proof, bytes) and hmac.compare_digest(proof, self.callee)

    def _mac(self, side: bytes) -> bytes:
        return hmac.digest(self._key, side + self._said, "sha256")


def nonce() -> bytes:
    """A new one."""
    return token_bytes(NONCE_BYTES)


@lru_cache
def _key(secret: str) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", secret.encode(), b"gopush rpc", _ITERATIONS)
