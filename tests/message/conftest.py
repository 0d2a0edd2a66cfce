"""Stores to test: each in an empty place of its own, the Redis ones on one real server."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gopush.message.hbase.settings import HBaseSettings
from gopush.message.memory import MemoryStore
from gopush.message.redis.settings import RedisSettings, sources
from gopush.message.redis.store import RedisStore
from gopush.message.sqlite.settings import SqliteSettings
from gopush.message.sqlite.store import SqliteStore
from gopush.message.store import Store, StoreSettings
from tests.conftest import reactor
from tests.message.subject import FakeTime, Subject
from tests.servers.hbase import HBaseServer, ThriftServer
from tests.servers.redis import RedisServer

OpenStore = Callable[..., Subject]
_prefixes = itertools.count()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Who is not root may mount a disk in a namespace alone: there a process of its own runs the test."""
    if "disk" not in pyfuncitem.fixturenames or os.geteuid() == 0:
        return None
    unshare = ["unshare", "--map-root-user", "--mount"]
    disk: Any = pyfuncitem.funcargs["disk"]
    own = f"--basetemp={disk.parent / 'own'}"
    command = [*unshare, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", own, pyfuncitem.nodeid]
    ended = subprocess.run(command, cwd=pyfuncitem.config.rootpath, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, f"needs root, or user namespaces:\n{ended.stdout}{ended.stderr}"
    return True


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Redis that was lost again at once is left alone for a fifth of the time."""
    monkeypatch.setattr("gopush.message.redis.link.RETRY_SECONDS", 0.1)


@pytest.fixture(scope="session")
def thrift() -> Iterator[ThriftServer]:
    """The Thrift server of an HBase that serves for all tests."""
    with HBaseServer() as hbase, ThriftServer(hbase) as server:
        yield server


@pytest.fixture
def open_store(
    in_reactor: Any, tmp_path: Path, redis: RedisServer, request: pytest.FixtureRequest
) -> Iterator[OpenStore]:
    """Open an empty store: memory, sqlite, redis or hbase, keeping `store` messages a key."""
    opened: list[Subject] = []

    def open_one(kind: str, store: int = 20, head_life: float = 86400.0) -> Subject:
        number = next(_prefixes)
        prefix = f"test{number}-{time.time_ns()}:"
        settings = StoreSettings(store, head_life)
        clock = FakeTime()

        def make() -> Store:
            if kind == "memory":
                return MemoryStore(settings, now=clock)
            if kind == "sqlite":
                return SqliteStore(settings, SqliteSettings(str(tmp_path / f"{number}.sqlite")), reactor, clock)
            if kind == "hbase":
                from gopush.message.hbase.store import HBaseStore

                thrift = request.getfixturevalue("thrift")
                return HBaseStore(settings, hbase_settings(thrift, prefix=prefix), reactor, clock)
            return RedisStore(settings, redis_settings(redis, prefix=prefix), reactor)

        subject = Subject(kind, in_reactor, make, None if kind == "redis" else clock)
        opened.append(subject)
        return subject

    yield open_one
    for subject in opened:
        subject.close()


@pytest.fixture(params=["memory", "sqlite", "redis", "hbase"])
def kind(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture
def subject(kind: str, open_store: OpenStore) -> Subject:
    return open_store(kind)


def redis_settings(
    *servers: RedisServer, prefix: str = "gopush:", wait: int = 0, timeout: float = 5.0
) -> RedisSettings:
    """Settings for these servers, named node1, node2 and so on."""
    listed = ", ".join(f"node{i}:1 {server.source}" for i, server in enumerate(servers, 1))
    return RedisSettings(timeout, prefix, wait, sources(listed))


def hbase_settings(*servers: ThriftServer, prefix: str = "gopush:", timeout: float = 20.0) -> HBaseSettings:
    """Settings for these Thrift servers."""
    return HBaseSettings(tuple(server.address for server in servers), servers[0].table, prefix, timeout)


def eventually(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """What `condition` gives, as soon as that is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)
    return found
