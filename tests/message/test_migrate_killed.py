"""`gopush migrate` is killed, or interrupted, while the source serves on: nothing is lost, nothing is there twice."""

from __future__ import annotations

import os
import random
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from gopush_client import Publisher
from tests.chaos.cluster import ROOT, Node
from tests.integration.systems import settle
from tests.servers.redis import RedisServer

PATIENCE_SECONDS = 1800

Messages = dict[str, list[tuple[int, bytes]]]


class Publishing:
    """Pushes to some of the keys, on and on; `acknowledged`: key, mid and body of each."""

    def __init__(self, node: Node, keys: list[str]) -> None:
        self.acknowledged: list[tuple[str, int, bytes]] = []
        self._node = node
        self._keys = keys
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._push, daemon=True)

    def _push(self) -> None:
        draw = random.Random(7)
        with Publisher(f"http://{self._node.address('admin')}", deadline=25) as publisher:
            number = 0
            while not self._ending.wait(0.005):
                number += 1
                key, body = draw.choice(self._keys), b'{"late": %d}' % number
                self.acknowledged.append((key, publisher.push(key, body, expire=86400), body))

    @contextmanager
    def going(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._ending.set()
            self._thread.join(90)
            assert not self._thread.is_alive()


def migrate(source: Path, redis: RedisServer) -> subprocess.Popen[str]:
    return begun("--from", f"sqlite:{source}", "--to", f"redis:node1:1 {redis.source}")


def begun(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "gopush", "migrate", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def await_names(running: subprocess.Popen[str], redis: RedisServer, names: int) -> None:
    """Until there are so many names in Redis."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while redis.call("DBSIZE") < names:
        assert running.poll() is None, "it was over before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.001)


def kill_at(running: subprocess.Popen[str], redis: RedisServer, names: int) -> None:
    await_names(running, redis, names)
    running.kill()
    assert running.wait(60) == -9, "it was over before it was killed"


def in_sqlite(path: Path) -> Messages:
    found: Messages = defaultdict(list)
    rows = "SELECT key, mid, body FROM messages JOIN logs ON logs.id = messages.log ORDER BY log, mid"
    for key, mid, body in sqlite3.connect(path).execute(rows):
        found[key].append((mid, body))
    return found


def in_redis(redis: RedisServer, keys: list[str]) -> Messages:
    found: Messages = {}
    for first in range(0, len(keys), 500):
        some = keys[first : first + 500]
        script = "local r = {} for i, k in ipairs(KEYS) do r[i] = redis.call('LRANGE', k, 0, -1) end return r"
        answers: Any = redis.call("EVAL", script, len(some), *(f"gopush:m:{key}" for key in some))
        for key, members in zip(some, answers, strict=True):
            found[key] = [(int(struct.unpack_from(">d", one)[0]), one[16:]) for one in members]
    return found


@pytest.mark.parametrize(
    ("keys", "each"),
    [(5_000, 2), pytest.param(100_000, 10, marks=pytest.mark.slow)],
    ids=["10,000 messages", "1,000,000 messages"],
)
def test_nothing_is_lost_or_doubled(tmp_path: Path, keys: int, each: int) -> None:
    names = [f"key-{number}" for number in range(keys)]
    node = Node("gopush", "gopush", tmp_path, {})
    file = tmp_path / "gopush.sqlite"
    with RedisServer() as redis:
        try:
            node.start()
            settle([node], comets=1, messages=1)
            began = time.monotonic()
            with Publisher(f"http://{node.address('admin')}", deadline=25) as publisher:
                for number in range(each):
                    for first in range(0, keys, 5_000):
                        publisher.push_many(names[first : first + 5_000], {"number": number}, expire=86400)
            tell(f"{keys * each} messages are there", began)
            publishing = Publishing(node, names[: keys // 2])
            with publishing.going():
                for part in (5, 2):
                    kill_at(migrate(file, redis), redis, 2 * keys // part)
                began = time.monotonic()
                whole = migrate(file, redis)
                out, err = whole.communicate(timeout=PATIENCE_SECONDS)
                assert whole.returncode == 1, err
                assert "in use: stop it, and make a last pass" in out
                tell(out, began)
            node.stop()
            began = time.monotonic()
            last = migrate(file, redis)
            out, err = last.communicate(timeout=PATIENCE_SECONDS)
            assert last.returncode == 0, err
            tell(out, began)
            assert [path.name for path in tmp_path.iterdir() if "migrate" in path.name] == [], "a copy stays behind"
            kept = in_sqlite(file)
            assert in_redis(redis, names) == kept
            assert len(publishing.acknowledged) > 10
            for key, mid, body in publishing.acknowledged:
                assert [one for at, one in kept[key] if at == mid] == [body]
            assert sum(map(len, kept.values())) == keys * each + len(publishing.acknowledged)
            for key, mid, _ in publishing.acknowledged[-100:]:
                assert struct.unpack_from(">d", redis.call("GET", f"gopush:h:{key}"))[0] >= mid
        finally:
            node.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_pass_ends_and_leaves_no_copy_behind(tmp_path: Path, number: signal.Signals) -> None:
    node = Node("gopush", "gopush", tmp_path, {})
    with RedisServer() as redis:
        try:
            node.start()
            settle([node], comets=1, messages=1)
            with Publisher(f"http://{node.address('admin')}", deadline=25) as publisher:
                publisher.push_many([f"key-{at}" for at in range(10_000)], "kept", expire=86400)
            running = migrate(tmp_path / "gopush.sqlite", redis)
            await_names(running, redis, 500)
            running.send_signal(number)
            out, err = running.communicate(timeout=60)
            assert (running.returncode, out) == (130, "")
            assert err == "gopush: interrupted; what was moved so far stays: try again\n"
            assert not list(tmp_path.glob("*-migrate"))
        finally:
            node.kill()


@pytest.mark.parametrize(
    ("source", "target", "connections"),
    [
        (["sqlite:{file}"], "redis:node1:1 tcp@{silent}, node2:1 tcp@{silent}", 2),
        (["sqlite:{file}"], "hbase:{silent}", 2),
        (["cluster-redis:{silent}", "--before", "1000"], "redis:node1:1 {redis}", 1),
    ],
    ids=["redis", "hbase", "cluster-redis"],
)
def test_an_interrupt_before_a_server_has_answered_is_no_error(
    tmp_path: Path, redis: RedisServer, source: list[str], target: str, connections: int
) -> None:
    with sqlite3.connect(tmp_path / "x.sqlite"), socket.create_server(("127.0.0.1", 0)) as silent, ExitStack() as held:
        at = f"127.0.0.1:{silent.getsockname()[1]}"
        named = [each.format(file=tmp_path / "x.sqlite", silent=at, redis=redis.source) for each in (*source, target)]
        running = begun("--from", *named[:-1], "--to", named[-1])
        silent.settimeout(60)
        for _ in range(connections):
            held.enter_context(silent.accept()[0])
        running.send_signal(signal.SIGTERM)
        out, err = running.communicate(timeout=60)
        assert (running.returncode, out) == (130, "")
        assert err == "gopush: interrupted; what was moved so far stays: try again\n"


def tell(what: str, since: float) -> None:
    """For who runs the long form (-s)."""
    print(f"{what.strip()} ({time.monotonic() - since:.1f} s)")
