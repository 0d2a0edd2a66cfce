"""100,000 live connections on one machine, over six comet nodes or members, and a message to every one of them. Each
node has a key of its own; a process may have 20,000 open files at most on many machines, so each node has a load
generator, too, and addresses 127.0.0.x of its own.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from urllib.request import urlopen

from bench.load import Load, compiled, directory, resident_bytes
from bench.system import START_SECONDS, Cluster, Equals
from gopush.client.options import positive

NODES = 6
CORES = (0, 1)
SOURCES = 16


def main(arguments: Sequence[str]) -> int:
    """Connect, push, and tell; 1 unless everybody received the message once."""
    parser = argparse.ArgumentParser(prog="python -m bench.many", description=__doc__)
    parser.add_argument("connections", type=positive, nargs="?", default=100_000, help="how many (100,000)")
    parser.add_argument("members", nargs="?", choices=["members"], help="over members, not comet nodes")
    options = parser.parse_args(arguments)
    wanted: int = options.connections
    each = -(-wanted // NODES)
    program = compiled(directory())
    with Equals(*CORES, nodes=NODES) if options.members else Cluster(*CORES, comets=NODES) as cluster:
        before = resident_bytes(cluster.processes)
        prefixes = _prefixes(cluster)
        began = time.monotonic()
        loads = [
            Load(
                program,
                None,
                {"tcp": tcp, "prefix": prefix, "subscribers": each, "sources": SOURCES, "source": 2 + SOURCES * node}
                | {"expect": 1, "lag": 60, "at_once": 64},
            )
            for node, (tcp, prefix) in enumerate(prefixes.items())
        ]
        ready = [load.ready() for load in loads]
        live = sum(ready)
        print(f"{live:,} connections in {time.monotonic() - began:.1f} s, of each node: {ready}", flush=True)
        print(f"{(resident_bytes(cluster.processes) - before) / live:,.0f} bytes of RSS a connection")
        for load in loads:
            load.go()
        publishers = [
            Load(program, None, {"admin": cluster.admin, "prefix": prefix, "publishers": 1, "messages": 1})
            for prefix in prefixes.values()
        ]
        for publisher in publishers:
            publisher.ready()
        for publisher in publishers:
            publisher.go()
        failed = sum(publisher.figures()["failed"] for publisher in publishers)
        figures = [load.figures() for load in loads]
    delivered = sum(found["delivered"] for found in figures)
    closed = sum(found["closed"] + found["refused"] for found in figures)
    once = all(found["delivered"] == found["live"] and not found["disordered"] for found in figures)
    slowest = max(found.get("delivery_max", 0) for found in figures) / 1000
    print(f"{delivered:,.0f} received, the last {slowest:.2f} s after its push")
    print(f"{failed:.0f} pushes failed, {closed:.0f} connections")
    return int(not once or live < wanted or failed > 0)


def _prefixes(cluster: Cluster | Equals) -> dict[str, str]:
    """For each comet's TCP address a prefix that makes a key of its node, once web sees all nodes."""
    end = time.monotonic() + START_SECONDS
    while len(_looked_up(cluster)) < len(cluster.comets):
        if time.monotonic() > end:
            raise RuntimeError("the nodes are not all in use")
        time.sleep(0.5)
    return _looked_up(cluster)


def _looked_up(cluster: Cluster | Equals) -> dict[str, str]:
    found: dict[str, str] = {}
    for number in range(100):
        prefix = f"all{number}k"
        with urlopen(f"http://{cluster.public}/1/server/get?k={prefix}{0:07d}&p=2", timeout=10) as answer:
            found.setdefault(json.load(answer)["data"]["server"], prefix)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
