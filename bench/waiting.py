"""What who waits costs the store.

What message nodes ask the store in a minute: while so many wait by `wait=60` for messages that do not come, and while
as many are subscribed over TCP, whose channels the sweep compares with the store every 30 s. 1 where waiting is dearer.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence
from urllib.request import urlopen

from bench.load import Load, compiled, directory
from bench.runner import ADDRESS, LOAD_CORE, SERVER_CORE
from bench.system import Equals
from gopush.client.options import positive

SECONDS = 65
SETTLE_SECONDS = 40
NAMES = ("reads", "heads")


def main(arguments: Sequence[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.waiting", description=__doc__)
    parser.add_argument("waiters", type=positive, nargs="?", default=10_000, help="how many (10,000)")
    waiters: int = parser.parse_args(arguments).waiters
    program = compiled(directory())
    calls: dict[str, dict[str, int]] = {}
    for client in ("tcp", "poll"):
        with Equals(SERVER_CORE) as system:
            options = {"subscribers": waiters, "keys": waiters, "expect": 1, "lag": SETTLE_SECONDS + SECONDS + 10}
            load = Load(program, LOAD_CORE, {client: getattr(system, ADDRESS[client]), "prefix": "waits", **options})
            live = load.ready()
            load.go()
            time.sleep(SETTLE_SECONDS)
            before = counted(system.stat)
            time.sleep(SECONDS)
            calls[client] = {name: count - before[name] for name, count in counted(system.stat).items()}
            print(f"{live:,} by {client}: {calls[client]} in {SECONDS} s", flush=True)
    return int(sum(calls["poll"].values()) > 1.1 * sum(calls["tcp"].values()))


def counted(address: str) -> dict[str, int]:
    """What a message node has asked its store so far."""
    with urlopen(f"http://{address}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    return {
        name: sum(int(float(value)) for value in re.findall(rf"^gopush_message_{name}_total ([0-9.e+]+)$", text, re.M))
        for name in NAMES
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
