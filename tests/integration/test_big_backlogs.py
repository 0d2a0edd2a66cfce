"""Big messages that many resume on at once: all get them, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from tests.chaos.cluster import Cluster
from tests.chaos.wire import BrokenError, Http, TcpDevice, UnreachableError
from tests.integration.systems import settle

MESSAGES = 6
BODY = 4 * 2**20 - 4096
PUSHES = 100
PATIENCE_SECONDS = 120.0


async def resume(web: str, key: str) -> list[str]:
    """Read the backlog of a key to its end, on as many connections as that takes; why each of them ended before."""
    http, cursor = Http(web), 0
    got, broken = 0, list[str]()
    began = time.monotonic()
    while got < MESSAGES:
        answer = await http.call("GET", "/1/server/get", {"k": key, "p": 2}, b"", 10)
        said = b""
        try:
            device = await TcpDevice.open(answer["data"]["server"], key, cursor)
            try:
                while got < MESSAGES:
                    message = await device.receive()
                    device.beat()
                    if message[:1] == b"{":
                        cursor = json.loads(message[-60:].partition(b',"mid":')[2].partition(b",")[0])
                        got += 1
                    else:
                        said = message[:20]
            finally:
                device.close()
        except (BrokenError, UnreachableError) as wrong:
            broken.append(f"after {time.monotonic() - began:.1f} s, {got} messages and {said!r}: {wrong!r}")
            await asyncio.sleep(0.2)
    http.close()
    return broken


async def push_others(admin: str, stop: asyncio.Event) -> list[int]:
    """Pushes to keys of their own, at least PUSHES; their answers."""
    http = Http(admin)
    rets: list[int] = []
    while len(rets) < PUSHES or not stop.is_set():
        answer = await http.call("POST", "/1/admin/push/private", {"key": f"other{len(rets)}", "expire": 60}, b"1", 10)
        rets.append(answer["ret"])
        await asyncio.sleep(0.05)
    http.close()
    return rets


async def play(cluster: Cluster, devices: int) -> tuple[list[list[str]], list[int]]:
    web, admin = cluster["web-1"].address("http"), cluster["web-1"].address("admin")
    http = Http(admin)
    for _ in range(MESSAGES):
        answer: Any = await http.call(
            "POST", "/1/admin/push/private", {"key": "big", "expire": 3600}, b'"' + b"x" * BODY + b'"', 10
        )
        assert answer["ret"] == 0
    stop = asyncio.Event()
    others = asyncio.create_task(push_others(admin, stop))
    resuming = [asyncio.create_task(resume(web, "big")) for _ in range(devices)]
    await asyncio.wait(resuming, timeout=PATIENCE_SECONDS)
    served = [task.result() for task in resuming if task.done()]
    for task in resuming:
        task.cancel()
    stop.set()
    return served, await others


@pytest.mark.parametrize("devices", [5, pytest.param(16, marks=pytest.mark.slow)])
def test_many_that_resume_on_big_messages_are_served_and_others_are_not_refused(devices: int) -> None:
    with Cluster().running() as cluster:
        settle(cluster.nodes.values(), comets=2, messages=2)
        began = time.monotonic()
        broken, rets = asyncio.run(play(cluster, devices))
        print(f"{time.monotonic() - began:.1f} s, {len(rets)} pushes")
        logs = cluster.logs()
        assert [ret for ret in rets if ret] == []
        assert broken == [[]] * devices, logs
    assert "lost:" not in logs.replace("view lost", ""), logs
