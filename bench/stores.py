"""What an append costs in SQLite, Redis and HBase, in one run."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from twisted.internet import defer, reactor, task

from gopush.message.hbase.settings import HBaseSettings
from gopush.message.hbase.store import HBaseStore
from gopush.message.redis.settings import RedisSettings, sources
from gopush.message.redis.store import RedisStore
from gopush.message.sqlite.settings import SqliteSettings
from gopush.message.sqlite.store import SqliteStore
from gopush.message.store import Store, StoreSettings
from gopush.model import Append, Push, Read
from tests.servers.hbase import HBaseServer, ThriftServer
from tests.servers.redis import RedisServer

BODY = b'"' + b"x" * 98 + b'"'
SECONDS = 5.0
TIMEOUT = 20.0
KEPT = (1, 20, 200, 1000, 5000)
_TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def servers() -> Iterator[tuple[dict[str, Callable[[int], Store]], dict[str, int]]]:
    """How to open each store, keeping so many messages a key, and the processes behind them by name."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = stack.enter_context(RedisServer("appendonly yes", "appendfsync everysec"))
        hbase = stack.enter_context(HBaseServer())
        thrift = stack.enter_context(ThriftServer(hbase, limit=10.0))
        running = {"redis": redis.process, "hbase": hbase.process, "thrift": thrift.process}
        processes = {name: process.pid for name, process in running.items() if process is not None}
        listed = RedisSettings(TIMEOUT, sources=sources(f"node1:1 {redis.source}"))
        in_hbase = HBaseSettings((thrift.address,), timeout=TIMEOUT)
        stores: dict[str, Callable[[int], Store]] = {
            "SQLite": lambda kept: SqliteStore(StoreSettings(kept), SqliteSettings(f"{folder}/{kept}"), reactor),
            "Redis": lambda kept: RedisStore(StoreSettings(kept), listed, reactor),
            "HBase": lambda kept: HBaseStore(StoreSettings(kept), in_hbase, reactor),
        }
        yield stores, processes


def cpu_seconds(processes: dict[str, int]) -> dict[str, float]:
    """What each process, and this one, has used."""
    used = {"gopush": time.process_time()}
    for name, pid in processes.items():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        used[name] = (int(fields[11]) + int(fields[12])) / _TICKS
    return used


def appends(keys: Sequence[str], count: int, run: int) -> list[Append]:
    """A batch, with ids."""
    until = time.time() + 600
    return [Append(Push(keys[n % len(keys)], BODY, 600, f"{run}-{n}", 0, until), 0) for n in range(count)]


async def many(store: Store, size: int, processes: dict[str, int]) -> str:
    """Batches of so many appends, one after the other, to 1,000 keys."""
    keys = [f"many{n}" for n in range(1000)]
    before, began, taken, run = cpu_seconds(processes), time.monotonic(), [], 0
    while time.monotonic() < began + SECONDS:
        run += 1
        at = time.monotonic()
        answers = await store.append(appends(keys[run * size % 1000 :] + keys, size, run * 10_000 + size))
        assert all(answer.ret == 0 for answer in answers)
        taken.append(time.monotonic() - at)
    total, after = run * size, cpu_seconds(processes)
    used = {name: (after[name] - before[name]) / total * 1e6 for name in after}
    spent = ", ".join(f"{name} {us:.0f}" for name, us in used.items() if us >= 1)
    rate = total / (time.monotonic() - began)
    return f"{size} at once: {median(taken) * 1e3:.1f} ms, {rate:,.0f}/s; us of CPU each: {spent}"


async def growth(open_store: Callable[[int], Store], kept: int) -> str:
    """An append, and a read of the last 20 messages, of a key that keeps so many."""
    store = open_store(kept)
    await store.start()
    key = f"kept{kept}"
    for start in range(0, kept, 500):
        await store.append(appends([key], min(500, kept - start), -start - kept * 100_000))
    took: dict[str, list[float]] = {"append": [], "read": []}
    for run in range(50):
        at = time.monotonic()
        (answer,) = await store.append(appends([key], 1, run + kept * 100_000))
        took["append"].append(time.monotonic() - at)
        at = time.monotonic()
        await store.read([Read(key, answer.mid - 160 * 20, 20)])
        took["read"].append(time.monotonic() - at)
    await store.stop()
    return f"{kept} kept: " + ", ".join(f"{name} {median(times) * 1e3:.2f} ms" for name, times in took.items())


async def measure(stores: dict[str, Callable[[int], Store]], processes: dict[str, int]) -> None:
    """All stores, one after the other."""
    for name, open_store in stores.items():
        store = open_store(20)
        await store.start()
        for size in (1, 30, 1000):
            if size == 1:
                await many(store, size, processes)  # warms it up
            print(f"{name}: {await many(store, size, processes)}", flush=True)
        await store.stop()
        for kept in KEPT:
            print(f"{name}: {await growth(open_store, kept)}", flush=True)


def main(arguments: Sequence[str]) -> None:
    """See the head of this file."""
    argparse.ArgumentParser(prog="python -m bench.stores", description=__doc__).parse_args(arguments)
    with servers() as (stores, processes):
        react: Any = task.react
        react(lambda _: defer.Deferred.fromCoroutine(measure(stores, processes)))


if __name__ == "__main__":
    main(sys.argv[1:])
