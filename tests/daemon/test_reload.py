"""SIGHUP: what can change while a process runs is read anew, checked first."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gopush.config.schema import Section, adopt, load, load_file
from gopush.config.values import count, text
from gopush.daemon.service import reload
from gopush.web.keys import make
from gopush.web.settings import WebSettings
from tests.chaos.cluster import Node
from tests.fixtures import Logged
from tests.http.client import Client


@dataclass(frozen=True)
class Inner:
    most: int = Section("channel")("most", "1", count(), "", live=True)
    name: str = Section("base")("name", "a", text, "")


@dataclass(frozen=True)
class Outer:
    bind: str = Section("base")("bind", "here", text, "")
    inner: Inner = field(default_factory=Inner)


def test_what_is_live_is_taken_and_all_else_named(tmp_path: Path) -> None:
    settings = load(Outer, None)
    (tmp_path / "ini").write_text("[base]\nbind = there\nname = a\n[channel]\nmost = 2\n")
    assert adopt(settings, load(Outer, tmp_path / "ini")) == (["[channel] most"], ["[base] bind"])
    assert (settings.bind, settings.inner) == ("here", Inner(most=2))


@pytest.fixture
def directory() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="gopush-reload-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


def push(node: Node, key: str, api_key: str) -> tuple[int, bytes]:
    with Client(node.ports["admin"]) as client:
        target = f"/1/admin/push/private?key={key}&expire=60"
        answer = client.request("POST", target, b"1", f"Authorization: Bearer {api_key}\r\n")
        return answer.status, answer.body


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_running_process_takes_limits_and_keys_and_keeps_them_where_the_file_is_wrong(directory: Path) -> None:
    (old, old_line), (new, new_line) = make("old"), make("new")
    keys = directory / "keys"
    keys.write_text(old_line + "\n")
    node = Node("gopush", "gopush", directory, {"admin": {"keys": str(keys)}})
    ini = directory / "gopush.ini"

    def reload(said: str) -> None:
        heard = node.log.read_text().count(said)
        os.kill(node.pid, signal.SIGHUP)
        eventually(lambda: node.log.read_text().count(said) > heard)

    try:
        node.start()
        before = ini.read_text()
        assert push(node, "k", old) == (200, b'{"ret":0}')
        assert push(node, "k", new)[0] == 401

        keys.write_text(new_line + "\n")
        ini.write_text(before.replace("[base]\n", "[base]\nproto = tcp\n") + "[push]\nexpire.max = 59\n")
        reload("settings read anew; changed: [push] expire.max")
        assert "changed in the file, but needs a restart: [base] proto" in node.log.read_text()
        assert push(node, "k", old)[0] == 401
        assert push(node, "k", new) == (200, b'{"ret":65534}')

        ini.write_text(before + "[push]\nexpire.max = many\n")
        keys.write_text("nonsense\n")
        reload("[push] expire.max: 'many'")
        eventually(lambda: "line 1 is not name:sha256" in node.log.read_text())
        assert push(node, "k", new) == (200, b'{"ret":65534}')

        ini.write_text(before)
        keys.write_text(new_line + "\n")
        reload("settings read anew; changed: [push] expire.max")
        assert push(node, "k", new) == (200, b'{"ret":0}')
    finally:
        node.kill()


def test_limits_of_keys_and_connections_change_while_a_process_runs(directory: Path) -> None:
    node = Node("gopush", "gopush", directory, {})
    ini = directory / "gopush.ini"

    def history(headers: str = "") -> tuple[int, dict[str, Any]]:
        with Client(node.ports["http"]) as client:
            answer = client.request("GET", "/1/msg/get?k=k&m=0", b"", headers)
            return answer.status, json.loads(answer.body) if answer.status == 200 else {}

    def kept() -> int:
        return len(history()[1].get("data", {"msgs": ()})["msgs"])

    def token_life() -> float:
        with Client(node.ports["admin"]) as client:
            made = json.loads(client.request("POST", "/1/admin/token?key=k", b"").body)
            return float(made["data"]["expires"]) - time.time()

    def reload(lines: str, changed: str) -> None:
        ini.write_text(before + lines)
        os.kill(node.pid, signal.SIGHUP)
        eventually(lambda: f"changed: {changed}\n" in node.log.read_text())

    try:
        node.start()
        before = ini.read_text()
        for _ in range(3):
            assert push(node, "k", "")[0] == 200
        assert kept() == 3
        assert token_life() > 86400

        reload("[storage]\nstore = 2\n[token]\nlife = 1h\n", "[token] life, [storage] store")
        assert push(node, "k", "")[0] == 200
        assert kept() == 2
        assert token_life() < 3601

        reload("[connections]\norigins = https://a.example\n", "[connections] origins, [token] life, [storage] store")
        assert history("Origin: https://b.example\r\n")[0] == 403
        assert history("Origin: https://a.example\r\n")[0] == 200

        reload("[channel]\nauth = yes\n", "[channel] auth, [connections] origins")
        assert history()[1] == {"ret": 65534}

        ini.write_text("")  # as an editor does before it writes, or what writes onto a full disk
        os.kill(node.pid, signal.SIGHUP)
        kept_on = f"{ini}: is empty: it holds no option; gopush keeps what it read before\n"
        eventually(lambda: kept_on in node.log.read_text())
        assert history()[1] == {"ret": 65534}
    finally:
        node.kill()


@pytest.mark.parametrize("began_empty", [True, False])
def test_who_began_with_an_empty_file_may_go_on_with_one(began_empty: bool, tmp_path: Path, logged: Logged) -> None:
    """A hook that sends SIGHUP once certificates are renewed makes no error of it."""
    path = tmp_path / "web.ini"
    path.write_text("# all are the defaults\n[base]\n")
    settings, is_empty = load_file(WebSettings, path)
    assert is_empty
    options: Any = SimpleNamespace(settings=settings, path=path, is_empty=began_empty)
    reload(options)
    kept_on = f"{path}: is empty: it holds no option; gopush keeps what it read before"
    assert logged.lines() == ([] if began_empty else [kept_on])
