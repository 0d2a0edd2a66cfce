"""Signed tokens (JWT, RFC 7519): a client with one may subscribe to its key and read missed messages, without a
look-up.

The claims are `sub`, the key, and `exp`; the settings name the algorithm, and never the token itself. Services create
all other tokens (protocol.md, section 10).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import HMACAlgorithm
from jwt.api_jwt import decode_complete

from gopush.config.reload import ReloadingFile, lasting
from gopush.errors import SettingsError
from gopush.rpc.settings import TokenSettings

MAX_BYTES = 4096
# When it was made refuses no token (RFC 7519, section 4.1.6): the maker's clock may be ahead. Nor does its number.
_OPTIONS: Any = {"require": ["exp", "sub"], "verify_iat": False, "verify_jti": False}
LEAST_SECRET_BYTES = 32
LEAST_RSA_BITS = 2048
_HS256 = HMACAlgorithm(HMACAlgorithm.SHA256)


class SignedTokens:
    """Knows good tokens by the key in a file, which is read anew when it changes."""

    def __init__(self, algorithm: str, path: Path) -> None:
        """Raises SettingsError where the file holds no such key."""
        self._algorithm = algorithm
        self._path = lasting(path)
        self._file: ReloadingFile[Any] = ReloadingFile([self._path], self._read, "[token] signed.key")

    def allow(self, token: str, key: str) -> bool:
        """Whether this is a token for `key` that holds now."""
        if len(token) > MAX_BYTES:
            return False
        try:
            read = decode_complete(token, self._file.value, algorithms=[self._algorithm], options=_OPTIONS)
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            return False
        claims = read["payload"]
        # The library does not look at an `aud` that is empty, nor at what kind of value a time is, and of old not at
        # `crit`, which names what a reader has to understand (RFC 7515, section 4.1.11).
        if "aud" in claims or "crit" in read["header"]:
            return False
        return claims["sub"] == key and all(type(claims.get(time, 0)) in (int, float) for time in ("exp", "nbf"))

    def _read(self) -> Any:
        data = self._path.read_bytes()
        if self._algorithm == "HS256":
            secret = data.strip()
            if len(secret) < LEAST_SECRET_BYTES:
                raise SettingsError(f"{self._path}: a secret has at least {LEAST_SECRET_BYTES} bytes")
            try:
                _HS256.prepare_key(secret)  # as each token has it done
            except jwt.InvalidKeyError:
                raise SettingsError(
                    f"{self._path}: holds a key or certificate, and HS256 needs a secret (openssl rand -hex 32);"
                    " a public key is for RS256 or EdDSA"
                ) from None
            return secret
        try:
            key = load_pem_public_key(data)
        except (ValueError, UnsupportedAlgorithm):
            raise SettingsError(f"{self._path}: holds no public key in PEM that gopush can read") from None
        wanted = RSAPublicKey if self._algorithm == "RS256" else Ed25519PublicKey
        if not isinstance(key, wanted) or (isinstance(key, RSAPublicKey) and key.key_size < LEAST_RSA_BITS):
            raise SettingsError(
                f"{self._path}: holds no public key for {self._algorithm}"
                f" (RS256: RSA of at least {LEAST_RSA_BITS} bits; EdDSA: Ed25519)"
            )
        return key


def is_signed(token: str) -> bool:
    """Whether a token has the form of a signed one; those that services create have no dot."""
    return token.count(".") == 2


def signed_tokens(settings: TokenSettings) -> SignedTokens | None:
    """What knows the signed tokens that the settings allow, if any. Raises SettingsError."""
    if settings.algorithm == "none":
        return None
    if not settings.key_file:
        raise SettingsError(f"[token] signed.key: names no file; {settings.algorithm} needs one")
    return SignedTokens(settings.algorithm, Path(settings.key_file))
