"""No message, token or secret is logged at any level, no key above debug; and nobody forges a line."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from twisted.logger import LogLevel, formatEvent, globalLogPublisher

from gopush.auth import signed_tokens
from gopush.comet.settings import SubscriberSettings
from gopush.config.schema import load
from gopush.errors import RET_PARAMETER, SettingsError
from gopush.message.store import StoreSettings
from gopush.model import is_key
from gopush.rpc.settings import RpcSettings, TokenSettings
from gopush.web.keys import make
from tests.clients import TcpClient, WebSocketClient, opening, request
from tests.comet.wire import CometServer
from tests.http.client import Client
from tests.web.conftest import MakeWorld

KEY = "a-key-of-somebody"
SECRET = "hush-hush-hush-hush-hush-hush-hush"
BODY = b'"a-private-message"'


@pytest.fixture
def logged() -> Iterator[list[tuple[LogLevel, str]]]:
    """Every line and every value that is logged, with its level."""
    lines: list[tuple[LogLevel, str]] = []

    def observe(event: Any) -> None:
        values = [str(value) for name, value in event.items() if not name.startswith("log_") or name == "log_failure"]
        lines.append((event.get("log_level", LogLevel.info), " ".join([formatEvent(event) or "", *values])))

    observer: Any = observe
    globalLogPublisher.addObserver(observer)
    yield lines
    globalLogPublisher.removeObserver(observer)


def check(lines: list[tuple[LogLevel, str]], *hidden: str) -> None:
    for level, line in lines:
        assert not any(secret in line for secret in (SECRET, BODY.decode().strip('"'), *hidden)), line
        assert level is LogLevel.debug or KEY not in line, line


def test_subscribers_leave_no_trace(logged: list[tuple[LogLevel, str]], reactor_thread: object, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    tokens = TokenSettings(algorithm="HS256", key_file=str(tmp_path / "secret"))
    good = jwt.encode({"sub": KEY, "exp": int(time.time()) + 60}, SECRET, algorithm="HS256")
    server = CometServer(SubscriberSettings(auth=True, tokens=tokens), StoreSettings())
    try:
        server.create_token(KEY, SECRET)
        for token in (SECRET, good, SECRET[1:], good[:-2], "..", ""):
            with TcpClient(server.tcp) as client:
                client.send(request("sub", KEY, "30", token, "1"))
                client.read(4)
            with WebSocketClient(server.websocket) as browser:
                browser.send(opening(f"/sub?key={KEY}&heartbeat=30&token={token}&ver=1"))
                browser.until(b"\r\n\r\n")
        server.push(KEY, BODY)
        server.fail_push(KEY)
    finally:
        server.stop()
    check(logged, good)


def test_callers_leave_no_trace(logged: list[tuple[LogLevel, str]], make_world: MakeWorld, tmp_path: Path) -> None:
    key, line = make("billing")
    (tmp_path / "keys").write_text(line)
    world = make_world(api_keys=str(tmp_path / "keys"), auth=True)
    headers = f"Authorization: Bearer {key}\r\n"
    token = json.loads(world.post("/1/admin/token", b"", headers, key=KEY).body)["data"]["token"]
    for given in (headers, f"Authorization: Bearer {SECRET}\r\n", f"X-Api-Key: {SECRET}\r\n"):
        world.post("/1/admin/push/private", BODY, given, key=KEY, expire="60")
        world.post("/1/admin/push/mprivate", b'{"m":"1","k":"%b"}' % KEY.encode(), given, expire="60")
    for down in (False, True):
        world.messages.down = down
        for shown in (token, SECRET):
            world.get("/1/msg/get", k=KEY, m="0", t=shown)
    check(logged, key, token)


def test_settings_show_no_secret(tmp_path: Path, logged: list[tuple[LogLevel, str]]) -> None:
    path = tmp_path / "rpc.ini"
    path.write_text(f"[rpc]\nsecret = {SECRET}\ntimeout = x\n")
    with pytest.raises(SettingsError) as wrong:
        load(RpcSettings, path)
    assert SECRET not in str(wrong.value)
    (tmp_path / "key").write_text(SECRET)
    with pytest.raises(SettingsError) as wrong:
        signed_tokens(TokenSettings(algorithm="RS256", key_file=str(tmp_path / "key")))
    assert SECRET not in str(wrong.value)
    check(logged)


@pytest.mark.parametrize("forged", ["a\nb", "a\r\nb", "a\0b", "a\x1b[2Jb", "a\x7fb", "a\x85b", "a\u2028b"])
def test_no_key_forges_a_line(forged: str, logged: list[tuple[LogLevel, str]], make_world: MakeWorld) -> None:
    """A key has no control characters; and what is logged of a request is percent-encoded as it came."""
    world = make_world()
    answer = world.post("/1/admin/push/private", b"1", key=forged, expire="0")
    refused = json.loads(answer.body)["ret"] == RET_PARAMETER
    assert refused == (not is_key(forged))
    with Client(world.public.port) as client:
        client.request("GET", "/1/msg/get%0A%0Dforged?k=k&m=0")
    for _, line in logged:
        assert forged not in line
        assert "\nforged" not in line
