"""protocol.md, sections 1 and 10: a valid signed token needs no created key; another is refused with `-a`."""

from __future__ import annotations

import time
from pathlib import Path

import jwt
import pytest

from gopush.rpc.settings import TokenSettings
from tests.clients import TcpClient, request
from tests.comet.conftest import Start

SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def tokens(tmp_path: Path) -> TokenSettings:
    path = tmp_path / "secret"
    path.write_text(SECRET)
    return TokenSettings(algorithm="HS256", key_file=str(path))


def sign(key: str, life: float = 600, secret: str = SECRET) -> str:
    return jwt.encode({"sub": key, "exp": int(time.time() + life)}, secret, algorithm="HS256")


def test_signed_and_created_tokens_side_by_side(start: Start, tokens: TokenSettings, key: str) -> None:
    server = start(auth=True, tokens=tokens)

    def answer(token: str) -> bytes:
        with TcpClient(server.tcp) as client:
            client.send(request("sub", key, "30", token, "1"))
            return client.read(4)

    assert answer(sign(key)) == b"+h\r\n"
    assert answer(sign("another")) == b"-a\r\n"
    assert answer(sign(key, life=-2)) == b"-a\r\n"
    assert answer(sign(key, secret=SECRET[::-1])) == b"-a\r\n"
    assert answer("opaque") == b"-c\r\n"
    server.create_token(key, "opaque")
    assert answer("opaque") == b"+h\r\n"
    assert answer("another") == b"-a\r\n"
    assert server.comet.counters.refused_token == 4
