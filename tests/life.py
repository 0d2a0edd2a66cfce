"""Every station of a push and of a subscription, traced in a cluster: a web node, a comet, a message node.

`python -m tests.life` writes them into docs/architecture.md; tests/integration/test_life.py compares.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.chaos.cluster import ROOT, Cluster, Node
from tests.chaos.wire import Http, TcpDevice
from tests.integration.systems import settle

DOCUMENT = ROOT / "docs" / "architecture.md"
PROCESSES = ("web-1", "comet-1", "message-1")
TRACES = 40
WAIT_SECONDS = 60.0
LIVE, KEPT = "live", "kept"

Stations = dict[str, list[tuple[str, str]]]
"""By the role of a process: which functions it enters, as file and name."""


class Life:
    """A cluster whose processes are traced while something happens in it. Subscribers need a token."""

    def __init__(self, cluster: Cluster) -> None:
        self._nodes = [cluster[name] for name in PROCESSES]
        self._directory = cluster.directory
        self._admin = Http(cluster["web-1"].address("admin"))
        self._comet = cluster["comet-1"].address("tcp")
        self._tokens: dict[str, str] = {}
        self._subscriber: TcpDevice
        self._devices: list[TcpDevice] = []

    async def prepare(self) -> None:
        """Somebody subscribes to a key that gets pushes, and to one with a message that is kept."""
        for key in (LIVE, KEPT):
            answer = await self._admin.call("POST", "/1/admin/token", {"key": key, "expire": 600}, b"", WAIT_SECONDS)
            self._tokens[key] = answer["data"]["token"]
            self._devices.append(await self._subscribe(key, None))
        self._subscriber = self._devices[0]
        await self._push(KEPT)

    async def push(self) -> None:
        """One push: it is stored, delivered and answered."""
        await self._push(LIVE)
        await self._subscriber.receive()

    async def subscription(self) -> None:
        """One subscription with a token that gets what it missed, and an answer to its heartbeat."""
        device = await self._subscribe(KEPT, 0)
        await device.receive()
        device.beat()
        assert await device.receive() == b"+h"
        self._devices.append(device)  # it stays: what its end would enter is no part of this

    async def traces(self, happens: Callable[[], Awaitable[None]]) -> AsyncIterator[Stations]:
        """What each process enters while it happens: once more, and again, with whatever timers are due meanwhile."""
        for _ in range(TRACES):
            for node in self._nodes:
                self._file(node).unlink(missing_ok=True)
                self._file(node).with_suffix(".begun").unlink(missing_ok=True)
            await self._toggle(".begun")
            await happens()
            await self._toggle(".trace")
            yield {
                node.role.removeprefix("gopush-"): [
                    (file, name) for file, name in json.loads(self._file(node).read_text())
                ]
                for node in self._nodes
                if self._file(node).stat().st_size > len("[]")
            }

    async def _push(self, key: str) -> None:
        answer = await self._admin.call(
            "POST", "/1/admin/push/private", {"key": key, "expire": 600}, b'{"a":1}', WAIT_SECONDS
        )
        assert answer["ret"] == 0, answer

    async def _subscribe(self, key: str, mid: int | None) -> TcpDevice:
        device = await TcpDevice.open(self._comet, key, mid, self._tokens[key])
        assert await device.receive() == b"+h"
        return device

    def _file(self, node: Node) -> Path:
        return self._directory / f"{node.name}.trace"

    async def _toggle(self, suffix: str) -> None:
        for node in self._nodes:
            os.kill(node.pid, signal.SIGUSR2)
        deadline = time.monotonic() + WAIT_SECONDS
        while not all(self._file(node).with_suffix(suffix).exists() for node in self._nodes):
            assert time.monotonic() < deadline, "a process does not trace"
            await asyncio.sleep(0.005)


@asynccontextmanager
async def life() -> AsyncIterator[Life]:
    """Start the cluster, with all in place for a push and a subscription."""
    cluster = Cluster()
    for name in set(cluster.nodes) - set(PROCESSES):
        del cluster.nodes[name]
    for node in cluster.nodes.values():
        node.launcher = ("-m", "tests.tracing", str(cluster.directory / f"{node.name}.trace"))
        if node.role != "message":
            node.set({"channel": {"auth": "yes"}})
    with cluster.running():
        settle(cluster.nodes.values(), comets=1, messages=1)
        running = Life(cluster)
        await running.prepare()
        yield running


def documented(title: str) -> Stations:
    """What the section of this title names."""
    stations: Stations = {}
    for line in _section(title).splitlines():
        if found := re.fullmatch(r"    (\S+)", line):
            stations[found[1]] = []
        elif found := re.fullmatch(r"      (\S+) +(\S+)", line):
            stations[list(stations)[-1]].append((found[1], found[2]))
    return stations


def sizes(stations: Stations) -> tuple[int, int]:
    """How many files and functions all processes enter."""
    union = {station for entered in stations.values() for station in entered}
    return len({file for file, _ in union}), len(union)


def _section(title: str) -> str:
    return DOCUMENT.read_text().split(f"## {title}\n")[1].split("\n## ")[0]


def _shown(stations: Stations) -> str:
    return "\n".join(
        line
        for role, entered in stations.items()
        for line in (f"    {role}", *(f"      {file:<28} {name}" for file, name in entered))
    )


async def _write() -> None:
    async with life() as running:
        for title, happens in (
            ("The life of a push", running.push),
            ("The life of a subscription", running.subscription),
        ):
            seen: Counter[str] = Counter()
            shown: dict[str, Any] = {}
            async for stations in running.traces(happens):
                shown[_shown(stations)] = stations
                seen[_shown(stations)] += 1
            ((often, times),) = seen.most_common(1)
            print(title, sizes(shown[often]), f"{times} of {TRACES}")
            before = _section(title)
            head = before.split("\n    ")[0]
            DOCUMENT.write_text(DOCUMENT.read_text().replace(before, f"{head}\n{often}\n", 1))


if __name__ == "__main__":
    asyncio.run(_write())
