"""What 44b05c5 has written stays readable: files of its own (older.py makes them), in SQLite and in Redis."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from gopush.client import cli
from tests.chaos.cluster import Ini, Node
from tests.clients import TcpClient
from tests.integration.systems import settle
from tests.integration.test_administration import http
from tests.message.older import KNOWN, SQLITE, push, restore
from tests.servers.redis import RedisServer


@pytest.fixture(params=["sqlite", "redis", "moved"])
def older(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Node, Any]]:
    """A process on such a store, or on one that it was moved into; and what must be there."""
    kind: str = request.param
    with ExitStack() as stack:
        ini: Ini = {"storage": {"store": "5", "type": "sqlite" if kind == "sqlite" else "redis"}}
        file = tmp_path / "gopush.sqlite"
        shutil.copyfile(SQLITE, file)
        if kind != "sqlite":
            redis = stack.enter_context(RedisServer())
            ini["redis"] = {"source": f"node1:1 {redis.source}"}
            if kind == "redis":
                restore(redis)
            else:
                assert cli.main(["migrate", "--from", f"sqlite:{file}", "--to", f"redis:node1:1 {redis.source}"]) == 0
        node = Node("gopush", "gopush", tmp_path, ini)
        stack.callback(node.kill)
        node.start()
        settle([node], comets=1, messages=1)
        yield node, json.loads(KNOWN.read_text())["redis" if kind == "redis" else "sqlite"]


def messages(device: TcpClient, count: int) -> list[list[Any]]:
    """As an old client reads them: the text byte for byte."""
    found = [json.loads(device.message()) for _ in range(count)]
    return [[one["mid"], one["msg"]] for one in found]


def test_all_of_it_is_there(older: tuple[Node, Any]) -> None:
    node, known = older
    for key, kept in known["kept"].items():
        with TcpClient(node.ports["tcp"]) as device:
            device.subscribe(key, "30", "", "", "0")
            assert messages(device, len(kept)) == kept
    with TcpClient(node.ports["tcp"]) as device:
        device.subscribe("trimmed", "30", "", "1", "16")
        assert device.read(4) == b"+g\r\n", "what was trimmed is told"
    _, answer = http(node.address("admin"), "GET", "/1/admin/key", key="guarded")
    digest = sha256(known["token"].encode()).hexdigest()
    assert [one["digest"] for one in answer["data"]["tokens"]] == [digest]


def test_it_goes_on(older: tuple[Node, Any]) -> None:
    """Ids are known, and no mid goes back."""
    node, known = older
    kept = known["kept"]
    for number, (mid, _) in enumerate(kept["id"]):
        assert push(node, "id", "0", id=f"order-{number}") == mid
    lasts = {**known["last"], **{key: messages[-1][0] for key, messages in kept.items()}}
    for key, last in lasts.items():
        assert push(node, key, '"on"') > last
    with TcpClient(node.ports["tcp"]) as device:
        device.subscribe("trimmed", "30", "", "", "0")
        assert messages(device, 4) == kept["trimmed"][1:]
        assert json.loads(device.message())["msg"] == '"on"'
    with TcpClient(node.ports["tcp"]) as device:
        device.subscribe("deleted", "30", "", "1", str(known["last"]["deleted"]))
        assert json.loads(device.message())["msg"] == "on"
