"""`python -m tests.chaos.many [N]`: one comet's N subscribers (10,000), when it is killed: how soon all are back.

Each has a key of its own and resumes, on TCP, from a process beside the cluster. Nobody pushes before all are back on
the other comets; then one message to some of the keys must come.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import sys
import time
from collections import Counter
from itertools import count, islice

from gopush.hashring import HashRing
from tests.chaos.cluster import SESSION_SECONDS, Cluster, Node
from tests.chaos.publisher import Publisher
from tests.chaos.wire import BrokenError, Http, TcpDevice, UnreachableError

BACK_SECONDS = 15.0
JOIN_SECONDS = 120.0
CONNECTING = 200
AGAIN_SECONDS = (0.3, 1.0)
CHECKED_KEYS = 200


class Crowd:
    """Subscribers that come back by themselves."""

    def __init__(self, size: int, webs: list[str]) -> None:
        ring = HashRing({"node1": 1, "node2": 1, "node3": 1})
        names = (f"crowd-{number}" for number in count())
        self.keys = list(islice((name for name in names if ring.node_of(name) == "node2"), size))
        self.at: dict[str, str] = {}
        """Where each key's subscriber is subscribed now."""
        self.got: set[str] = set()
        self._webs = webs
        self._http: asyncio.Queue[Http] = asyncio.Queue()
        for number in range(CONNECTING):
            self._http.put_nowait(Http(webs[number % len(webs)]))

    async def run(self, key: str) -> None:
        """One subscriber, for ever."""
        while True:
            try:
                await self._once(key)
            except (UnreachableError, BrokenError, TimeoutError):
                self.at.pop(key, None)
            await asyncio.sleep(random.uniform(*AGAIN_SECONDS))

    async def _once(self, key: str) -> None:
        http = await self._http.get()
        try:
            answer = await http.call("GET", "/1/server/get", {"k": key, "p": 2}, b"", 5.0)
        finally:
            self._http.put_nowait(http)
        if answer["ret"] != 0:
            raise BrokenError(str(answer))
        address = answer["data"]["server"]
        device = await TcpDevice.open(address, key, 0)
        try:
            if await asyncio.wait_for(device.receive(), 10.0) != b"+h":
                raise BrokenError("refused")
            self.at[key] = address
            while True:
                if json.loads(await device.receive())["msg"]:
                    self.got.add(key)
        finally:
            device.close()


async def everybody(crowd: Crowd, but: str, seconds: float) -> float:
    """Wait until all are subscribed, none of them at the address `but`; how many seconds that took."""
    began = time.monotonic()
    while len(crowd.at) < len(crowd.keys) or but in crowd.at.values():
        if time.monotonic() > began + seconds:
            raise RuntimeError(f"{len(crowd.at)} of {len(crowd.keys)} are subscribed after {seconds:g} s")
        await asyncio.sleep(0.05)
    return time.monotonic() - began


async def measure(cluster: Cluster, size: int) -> bool:
    """Kill the comet that has them; whether all were back in time."""
    crowd = Crowd(size, [web.address("http") for web in cluster.webs])
    tasks = [asyncio.create_task(crowd.run(key)) for key in crowd.keys]
    joining = await everybody(crowd, "", JOIN_SECONDS)
    print(f"{size} subscribers joined within {joining:.1f} s: {dict(Counter(crowd.at.values()))}")
    before = _cpu(cluster)
    victim = cluster["comet-2"]
    del before[victim.name]
    own = time.process_time()
    await asyncio.to_thread(victim.kill)
    back = await everybody(crowd, victim.address("tcp"), 60.0)
    used = {name: after - before[name] for name, after in _cpu(cluster).items()}
    print(f"Their comet was killed; all were back after {back:.1f} s: {dict(Counter(crowd.at.values()))}")
    print(f"CPU seconds: {', '.join(f'{name} {seconds:.1f}' for name, seconds in used.items())}")
    print(f"             this program {time.process_time() - own:.1f}")
    publisher = Publisher("many", crowd.keys, 0.0, lambda: [web.address("admin") for web in cluster.webs], "many")
    checked = crowd.keys[:: max(1, size // CHECKED_KEYS)]
    for key in checked:
        await publisher.push(key, kept=False)
    await asyncio.sleep(1)
    silent = [key for key in checked if key not in crowd.got]
    print(f"{len(checked) - len(silent)} of {len(checked)} keys got a message that was pushed then")
    for task in tasks:
        task.cancel()
    return back <= BACK_SECONDS and not silent


def _cpu(cluster: Cluster) -> dict[str, float]:
    alive: list[Node] = [node for node in cluster.nodes.values() if node.dead_since is None]
    return {node.name: node.cpu_seconds() for node in alive}


def main() -> int:
    """See the head of this file."""
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    cluster = Cluster()
    cluster.add("comet", "comet-3", "node3")
    print(f"ZooKeeper sessions last {SESSION_SECONDS} s")
    with cluster.running():
        return 0 if asyncio.run(measure(cluster, size)) else 1


if __name__ == "__main__":
    sys.exit(main())
