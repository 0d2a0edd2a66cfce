"""`python -m tests.chaos.many [N]`: one comet's N subscribers (10,000), when it is killed: how soon all are back.

Each has a key of its own and resumes, on TCP; one loop over all their sockets costs less than the cluster that it
shares the machine with. When all are back on the other comets, one message to some of the keys must come.
"""

from __future__ import annotations

import asyncio
import errno
import heapq
import random
import resource
import selectors
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from itertools import count, islice

from gopush.hashing import HashRing
from tests.chaos.cluster import SESSION_SECONDS, Cluster
from tests.chaos.publisher import Publisher
from tests.clients import request

BACK_SECONDS = 15.0
PATIENCE_SECONDS = 120.0
AGAIN_SECONDS = (0.3, 1.0)
PIPELINED = 50
CHECKED_KEYS = 200


class LookUps:
    """One connection to a web node, with many look-ups under way."""

    def __init__(self, address: str) -> None:
        self.asked: deque[str] = deque()
        self.socket = socket.create_connection(_host_port(address))
        self._waiting: deque[str] = deque()
        self._received = bytearray()

    def ask(self, key: str) -> None:
        """Look up a key; answers() will have it."""
        self._waiting.append(key)
        self._send()

    def answers(self) -> list[tuple[str, str]]:
        """What came: keys and addresses, empty ones where there is no comet."""
        self._received += self.socket.recv(1 << 16)
        found = []
        while (head := self._received.find(b"\r\n\r\n")) >= 0:
            length = int(self._received[:head].lower().split(b"content-length:")[1].split(b"\r\n")[0])
            if len(self._received) < head + 4 + length:
                break
            body = bytes(self._received[head + 4 : head + 4 + length])
            del self._received[: head + 4 + length]
            found.append((self.asked.popleft(), body.partition(b'"server":"')[2].partition(b'"')[0].decode()))
        self._send()
        return found

    def _send(self) -> None:
        keys = [self._waiting.popleft() for _ in range(min(len(self._waiting), PIPELINED - len(self.asked)))]
        self.asked += keys
        requests = (f"GET /1/server/get?k={key}&p=2 HTTP/1.1\r\nHost: chaos\r\n\r\n" for key in keys)
        self.socket.sendall("".join(requests).encode())


class Crowd:
    """Subscribers that come back by themselves; nothing happens but in turn()."""

    def __init__(self, keys: Sequence[str], webs: Sequence[str]) -> None:
        self.keys = keys
        self.at: dict[str, str] = {}
        """Where each key's subscriber is subscribed now."""
        self.got: set[str] = set()
        self._webs = [LookUps(web) for web in webs]
        self._selector = selectors.DefaultSelector()
        for web in self._webs:
            self._selector.register(web.socket, selectors.EVENT_READ, web)
        self._due = [(0.0, key) for key in keys]

    def turn(self) -> None:
        """Look up, connect, subscribe and read whatever is due."""
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            random.choice(self._webs).ask(heapq.heappop(self._due)[1])
        for ready, events in self._selector.select(0.02):
            if isinstance(ready.data, LookUps):
                for key, address in ready.data.answers():
                    self._connect(key, address)
            else:
                self._serve(ready.fileobj, *ready.data, connected=bool(events & selectors.EVENT_WRITE))  # type: ignore[arg-type]

    def _connect(self, key: str, address: str) -> None:
        if not address:
            self._again(key)
            return
        connection = socket.socket()
        connection.setblocking(False)
        if connection.connect_ex(_host_port(address)) in (0, errno.EINPROGRESS):
            self._selector.register(connection, selectors.EVENT_WRITE, (key, address))
        else:
            connection.close()
            self._again(key)

    def _serve(self, connection: socket.socket, key: str, address: str, *, connected: bool) -> None:
        try:
            if connected:
                connection.send(request("sub", key, "60", "", "1.0.5", "0"))
                self._selector.modify(connection, selectors.EVENT_READ, (key, address))
                return
            data = connection.recv(4096)
        except OSError:
            data = b""
        if data.startswith(b"+h"):
            self.at[key] = address
        if b"{" in data:
            self.got.add(key)
        if not data or b"-n" in data:
            self._selector.unregister(connection)
            connection.close()
            self.at.pop(key, None)
            self._again(key)

    def _again(self, key: str) -> None:
        heapq.heappush(self._due, (time.monotonic() + random.uniform(*AGAIN_SECONDS), key))

    def wait(self, but: str = "") -> float:
        """Until all are subscribed, none of them at the address `but`; how many seconds that took."""
        began = time.monotonic()
        while len(self.at) < len(self.keys) or but in self.at.values():
            self.turn()
            if time.monotonic() > began + PATIENCE_SECONDS:
                raise RuntimeError(f"{len(self.at)} of {len(self.keys)} are subscribed after {PATIENCE_SECONDS:g} s")
        return time.monotonic() - began


def measure(cluster: Cluster, size: int) -> bool:
    """Kill the comet that has them all; whether they were back in time."""
    ring = HashRing({"node1": 1, "node2": 1, "node3": 1})
    names = (f"crowd-{number}" for number in count())
    keys = list(islice((name for name in names if ring.node_of(name) == "node2"), size))
    crowd = Crowd(keys, [web.address("http") for web in cluster.webs])
    print(f"{size} subscribers joined within {crowd.wait():.1f} s: {dict(Counter(crowd.at.values()))}")
    victim = cluster["comet-2"]
    victim.kill()
    before, own = _cpu(cluster), time.process_time()
    back = crowd.wait(but=victim.address("tcp"))
    print(f"Their comet was killed; all were back after {back:.1f} s: {dict(Counter(crowd.at.values()))}")
    used = [f"{name} {seconds - before[name]:.1f}" for name, seconds in _cpu(cluster).items()]
    print(f"CPU seconds: {', '.join(used)}, this program {time.process_time() - own:.1f}")
    checked = keys[:: max(1, size // CHECKED_KEYS)]
    asyncio.run(_push(cluster, checked))
    until = time.monotonic() + 5
    while not crowd.got.issuperset(checked) and time.monotonic() < until:
        crowd.turn()
    print(f"{len(crowd.got & set(checked))} of {len(checked)} keys got a message that was pushed then")
    return back <= BACK_SECONDS and crowd.got.issuperset(checked)


async def _push(cluster: Cluster, keys: Sequence[str]) -> None:
    publisher = Publisher("many", keys, 0.0, lambda: [web.address("admin") for web in cluster.webs], "many")
    for key in keys:
        await publisher.push(key, kept=False)


def _cpu(cluster: Cluster) -> dict[str, float]:
    return {node.name: node.cpu_seconds() for node in cluster.nodes.values() if node.dead_since is None}


def _host_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def main() -> int:
    """See the head of this file."""
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    cluster = Cluster()
    cluster.add("comet", "comet-3", "node3")
    print(f"ZooKeeper sessions last {SESSION_SECONDS} s")
    with cluster.running():
        return 0 if measure(cluster, size) else 1


if __name__ == "__main__":
    sys.exit(main())
