"""protocol.md, section 10: signed tokens bind a key and an end, and need no look-up."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from jwt.algorithms import HMACAlgorithm
from twisted.logger import capturedLogs

from gopush.auth import MAX_BYTES, SignedTokens, is_signed, signed_tokens
from gopush.config import reload as files
from gopush.errors import SettingsError
from gopush.rpc.settings import TokenSettings

NONE_HEAD = b'{"alg":"none"}'
HS256_HEAD = b'{"alg":"HS256","typ":"JWT"}'
SECRET = "0123456789abcdef0123456789abcdef"
RSA_KEY = rsa.generate_private_key(65537, 2048)
ED_KEY = Ed25519PrivateKey.generate()
UNKNOWN_CURVES = [
    b"""-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoEcz1UBgi0DQgAEnmOxyrItqdqWyEHfWUX3yi+chKMB
Yt5v6SpW7tz2VrqxJapoHHyHitQ72NTdEO6lQdoAZjIR6YXF+UlSU+JBTw==
-----END PUBLIC KEY-----
""",
    b"""-----BEGIN PUBLIC KEY-----
MDIwEAYHKoZIzj0CAQYFK4EEAAYDHgAEt25CcP8Swo4d0GI9c1K3bpR9Ju/G3b0C
PhhHMg==
-----END PUBLIC KEY-----
""",
]
"""SM2 and secp112r1: OpenSSL has made them, and cryptography knows none of them."""
SIGNERS: dict[str, Any] = {"HS256": SECRET, "RS256": RSA_KEY, "EdDSA": ED_KEY}


def public(private: Any) -> bytes:
    pem: bytes = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


def private(key: Any) -> bytes:
    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem


def known(tmp_path: Path, algorithm: str) -> SignedTokens:
    path = tmp_path / algorithm
    path.write_bytes(SECRET.encode() + b"\n" if algorithm == "HS256" else public(SIGNERS[algorithm]))
    found = signed_tokens(TokenSettings(algorithm=algorithm, key_file=str(path)))
    assert found is not None
    return found


def claims(**more: Any) -> dict[str, Any]:
    return {"sub": "Terry-Mao", "exp": int(time.time()) + 600} | more


def sign(algorithm: str, payload: dict[str, Any], signer: Any = None) -> str:
    return jwt.encode(payload, signer or SIGNERS[algorithm], algorithm=algorithm)


@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "EdDSA"])
def test_the_right_holder_is_let_in_and_nobody_else(tmp_path: Path, algorithm: str) -> None:
    tokens = known(tmp_path, algorithm)
    good = sign(algorithm, claims())
    assert is_signed(good)
    assert tokens.allow(good, "Terry-Mao")
    assert not tokens.allow(good, "terry-mao")
    assert not tokens.allow(good, "Terry-Mao2")
    assert not tokens.allow(sign(algorithm, claims(exp=int(time.time()) - 1)), "Terry-Mao")
    assert not tokens.allow(sign(algorithm, {"sub": "Terry-Mao"}), "Terry-Mao")
    assert not tokens.allow(sign(algorithm, {"exp": int(time.time()) + 600}), "Terry-Mao")
    head, body, signature = good.split(".")
    assert not tokens.allow(f"{head}.{body}.", "Terry-Mao")
    assert not tokens.allow(f"{head}.{body}.{signature[:-8]}AAAAAAAA", "Terry-Mao")
    other = json.dumps(claims(sub="victim")).encode()
    assert not tokens.allow(f"{head}.{part(other)}.{signature}", "victim")


@pytest.mark.parametrize(
    "more", [{"iat": time.time() + 30}, {"iat": 0}, {"iat": "now"}, {"jti": 7}, {"jti": "7"}, {"iss": "login"}]
)
def test_claims_that_say_nothing_of_who_is_let_in_refuse_nobody(tmp_path: Path, more: dict[str, Any]) -> None:
    """RFC 7519, section 4.1.6: `iat` tells an age. A login service's clock may be ahead, and libraries write it."""
    payload = json.dumps(claims(**more)).encode()
    assert known(tmp_path, "HS256").allow(hs256(payload), "Terry-Mao")


@pytest.mark.parametrize(
    "more", [{"aud": "another service"}, {"aud": ["gopush"]}, {"aud": ""}, {"aud": []}, {"aud": {}}, {"nbf": 2**33}]
)
def test_a_token_for_another_service_or_a_later_time_is_refused(tmp_path: Path, more: dict[str, Any]) -> None:
    """RFC 7519, sections 4.1.3 and 4.1.5."""
    payload = json.dumps(claims(**more)).encode()
    assert not known(tmp_path, "HS256").allow(hs256(payload), "Terry-Mao")


@pytest.mark.parametrize("more", [{"crit": ["x"], "x": 1}, {"crit": ["exp"], "exp": 1}, {"crit": []}])
def test_a_token_whose_reader_has_to_understand_more_is_refused(tmp_path: Path, more: dict[str, Any]) -> None:
    """RFC 7515, section 4.1.11."""
    head = json.dumps({"alg": "HS256"} | more).encode()
    assert not known(tmp_path, "HS256").allow(hs256(json.dumps(claims()).encode(), head=head), "Terry-Mao")


@pytest.mark.parametrize("more", [{"exp": "9999999999"}, {"nbf": "1"}, {"nbf": True}])
def test_a_time_is_a_number(tmp_path: Path, more: dict[str, Any]) -> None:
    """RFC 7519, section 2: NumericDate."""
    tokens = known(tmp_path, "HS256")
    assert not tokens.allow(hs256(json.dumps(claims(**more)).encode()), "Terry-Mao")
    assert tokens.allow(hs256(json.dumps(claims(exp=time.time() + 600.5, nbf=1)).encode()), "Terry-Mao")


@pytest.mark.parametrize("exp", ["soon", None, [], {}, 1e400, -1, True, 2**70])
def test_an_end_that_is_none_is_refused_or_far_away(tmp_path: Path, exp: object) -> None:
    tokens = known(tmp_path, "HS256")
    payload = json.dumps({"sub": "Terry-Mao", "exp": exp}).encode()
    assert tokens.allow(hs256(payload), "Terry-Mao") == (exp == 2**70)


@pytest.mark.parametrize("sub", [None, 1, ["Terry-Mao"], {"Terry-Mao": 1}, True])
def test_a_subject_that_is_no_text_is_refused(tmp_path: Path, sub: object) -> None:
    payload = json.dumps({"sub": sub, "exp": int(time.time()) + 600}).encode()
    assert not known(tmp_path, "HS256").allow(hs256(payload), "Terry-Mao")


def test_the_token_does_not_choose_its_algorithm(tmp_path: Path) -> None:
    """`none`, and the public key as the secret of HS256, are the known ways to forge."""
    tokens = known(tmp_path, "RS256")
    payload = json.dumps(claims()).encode()
    assert not tokens.allow(f"{part(NONE_HEAD)}.{part(payload)}.", "Terry-Mao")
    assert not tokens.allow(hs256(payload, public(RSA_KEY)), "Terry-Mao")
    assert not tokens.allow(sign("EdDSA", claims()), "Terry-Mao")


@pytest.mark.parametrize("token", ["..", "a.b.c", "a.b.c.d", "\u00fc.\u00fc.\u00fc", "." * 4000, "[" * 3000 + "..", ""])
def test_rubbish_is_refused(tmp_path: Path, token: str) -> None:
    assert not known(tmp_path, "HS256").allow(token, "Terry-Mao")


def test_deep_json_and_long_tokens_are_refused(tmp_path: Path) -> None:
    tokens = known(tmp_path, "HS256")
    assert not tokens.allow(hs256(b"[" * 2900), "Terry-Mao")
    assert not tokens.allow(hs256(json.dumps(claims(pad="x" * MAX_BYTES)).encode()), "Terry-Mao")


def test_the_key_is_changed_without_a_restart(tmp_path: Path) -> None:
    tokens = known(tmp_path, "HS256")
    new = SECRET[::-1]
    (tmp_path / "HS256").write_text(new)
    files.reload()
    assert not tokens.allow(sign("HS256", claims()), "Terry-Mao")
    assert tokens.allow(sign("HS256", claims(), new), "Terry-Mao")


@pytest.mark.parametrize(
    ("algorithm", "content"),
    [
        ("HS256", b"too short"),
        ("RS256", b"no PEM"),
        ("RS256", public(ED_KEY)),
        ("RS256", public(rsa.generate_private_key(65537, 1024))),
        ("EdDSA", public(RSA_KEY)),
        ("EdDSA", public(generate_ec(SECP256R1()))),
        ("EdDSA", private(ED_KEY)),
        ("RS256", private(RSA_KEY)),
        ("RS256", SECRET.encode()),
    ],
    ids=("short", "no PEM", "Ed25519", "1024 bits", "RSA", "P-256", "private Ed25519", "private RSA", "secret"),
)
def test_a_key_of_another_kind_or_too_weak_stops_the_start(tmp_path: Path, algorithm: str, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=str(path)):
        signed_tokens(TokenSettings(algorithm=algorithm, key_file=str(path)))


def no_reload(tmp_path: Path, algorithm: str, content: bytes, why: str) -> tuple[Path, str]:
    """A file of this content is refused in one line, and what was read before holds. The file; how the line begins."""
    tokens = known(tmp_path, algorithm)
    path = tmp_path / algorithm
    path.write_bytes(content)
    with capturedLogs() as logged:
        files.reload()
    said = f"[token] signed.key: {path}: {why}"
    assert len([event for event in logged if str(event.get("wrong")).startswith(said)]) == 1
    assert tokens.allow(sign(algorithm, claims()), "Terry-Mao")
    return path, said


@pytest.mark.parametrize(
    "content",
    [
        public(ED_KEY),
        private(RSA_KEY),
        ED_KEY.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        SECRET.encode() + b"\n" + public(ED_KEY),
    ],
    ids=("public", "private", "ssh", "secret and public"),
)
def test_a_key_in_the_place_of_a_secret_stops_the_start_and_no_reload(tmp_path: Path, content: bytes) -> None:
    """The library refuses it with each token, and not as it refuses a token."""
    path, said = no_reload(tmp_path, "HS256", content, "holds a key or certificate, and HS256 needs a secret")
    with pytest.raises(SettingsError, match=f"^{re.escape(said)}[^\n]*$"):
        signed_tokens(TokenSettings(algorithm="HS256", key_file=str(path)))


def test_a_library_that_refuses_the_key_refuses_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a release of it raises, it is the stranger's token that is refused."""
    tokens = known(tmp_path, "HS256")
    good = sign("HS256", claims())

    def refuse(*_: object) -> bytes:
        raise jwt.InvalidKeyError

    monkeypatch.setattr(HMACAlgorithm, "prepare_key", refuse)
    assert not tokens.allow(good, "Terry-Mao")


@pytest.mark.parametrize("content", UNKNOWN_CURVES)
def test_a_key_of_a_kind_that_nobody_reads_stops_the_start_and_no_reload(tmp_path: Path, content: bytes) -> None:
    path, _ = no_reload(tmp_path, "EdDSA", content, "holds no public key")
    with pytest.raises(SettingsError, match=rf"^\[token\] signed\.key: {path}: holds no public key [^\n]*$"):
        signed_tokens(TokenSettings(algorithm="EdDSA", key_file=str(path)))


def test_a_secret_in_the_place_of_its_file_is_not_shown() -> None:
    with pytest.raises(SettingsError, match=r"\[token\] signed\.key: the file cannot be read: No such file") as wrong:
        signed_tokens(TokenSettings(algorithm="HS256", key_file="hunter2" * 5))
    assert "hunter2" not in str(wrong.value)


def test_no_algorithm_means_no_signed_tokens() -> None:
    assert signed_tokens(TokenSettings()) is None
    with pytest.raises(SettingsError, match=r"signed\.key"):
        signed_tokens(TokenSettings(algorithm="HS256"))


def part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def hs256(payload: bytes, secret: bytes = SECRET.encode(), head: bytes = HS256_HEAD) -> str:
    signed = f"{part(head)}.{part(payload)}"
    return f"{signed}.{part(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}"
