"""HBase and its Thrift servers die, freeze and move under two message nodes: what was acknowledged is there, once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from gopush.errors import RET_INTERNAL, RET_OK
from gopush.message.hbase.settings import HBaseSettings
from gopush.message.hbase.store import HBaseStore
from gopush.message.store import StoreSettings
from tests.conftest import reactor
from tests.message.conftest import eventually
from tests.message.subject import Subject
from tests.servers.hbase import HBaseServer, ThriftServer
from tests.servers.thrift_proxy import ThriftProxy

pytestmark = pytest.mark.slow

ROUNDS = 5
KEYS = 5
TIMEOUT = 1.0
"""[hbase] timeout; Thrift's own limits are shorter."""

Nodes = Callable[..., "Writers"]


@pytest.fixture(scope="module")
def hbase() -> Iterator[HBaseServer]:
    with HBaseServer(region_servers=2) as server:
        yield server


@pytest.fixture(scope="module")
def thrifts(hbase: HBaseServer) -> Iterator[list[ThriftServer]]:
    servers = [ThriftServer(hbase, limit=0.8 * TIMEOUT) for _ in range(2)]
    for server in servers:
        server.start()
    yield servers
    for server in servers:
        server.stop()


class Writers:
    """Who push, a key each, to one of two message nodes and then the other, with an id, until it is acknowledged."""

    def __init__(self, nodes: list[Subject]) -> None:
        self.nodes = nodes
        self.bodies: dict[str, list[bytes]] = {}
        self.longest = 0.0
        """Seconds that a push was refused for."""
        self.refused = 0
        self._prefix = f"{time.time_ns()}-"
        self._ended = threading.Event()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Push meanwhile, and for as long as it takes that all keys were pushed to after it."""
        self._ended.clear()
        keys = [f"{self._prefix}{n}" for n in range(KEYS)]
        threads = [threading.Thread(target=self._write, args=(key,)) for key in keys]
        for thread in threads:
            thread.start()
        try:
            eventually(lambda: len(self.bodies) == KEYS and all(self.bodies.values()), 120)
            yield
            counts = {key: len(self.bodies[key]) for key in keys}
            eventually(lambda: all(len(self.bodies[key]) > counts[key] + 1 for key in keys), 300)
        finally:
            self._ended.set()
            for thread in threads:
                thread.join(60)

    def _write(self, key: str) -> None:
        bodies = self.bodies.setdefault(key, [])
        while not self._ended.is_set():
            body = b"%d" % len(bodies)
            began, tries = time.monotonic(), 0
            while self.nodes[tries % 2].push(key, body, id=body.decode(), dedupe=600, deadline=time.time() + 4).ret:
                tries += 1
                time.sleep(0.02)
            if tries:
                self.longest = max(self.longest, time.monotonic() - began)
                self.refused += tries
            bodies.append(body)
            time.sleep(0.05)

    def check(self) -> None:
        """All that was acknowledged is there, once, in order."""
        for key, bodies in self.bodies.items():
            assert len(bodies) <= 1000
            assert self.nodes[0].bodies(key) == bodies


@pytest.fixture
def writers(in_reactor: Any) -> Iterator[Nodes]:
    opened: list[Subject] = []

    def make(*addresses: str) -> Writers:
        settings = HBaseSettings(addresses, timeout=TIMEOUT)
        stores = [
            Subject("hbase", in_reactor, lambda: HBaseStore(StoreSettings(1000), settings, reactor), None)
            for _ in range(2)
        ]
        opened.extend(stores)
        return Writers(stores)

    yield make
    for subject in opened:
        subject.close()


def rounds(name: str, make: Callable[[], Writers], act: Callable[[], None]) -> None:
    longest = []
    for _ in range(ROUNDS):
        writers = make()
        with writers.writing():
            act()
        writers.check()
        longest.append(writers.longest)
    print(f"\n{name}: refused for at most {', '.join(f'{seconds:.2f}' for seconds in longest)} s")


def test_hbase_is_killed(writers: Nodes, hbase: HBaseServer, thrifts: list[ThriftServer]) -> None:
    def act() -> None:
        hbase.kill()
        hbase.start()

    rounds("HBase killed", lambda: writers(thrifts[0].address, thrifts[1].address), act)


def test_the_thrift_server_is_killed(writers: Nodes, thrifts: list[ThriftServer]) -> None:
    def act() -> None:
        thrifts[0].kill()
        thrifts[0].start()

    rounds("Thrift server killed", lambda: writers(thrifts[0].address), act)


def test_one_of_two_thrift_servers_is_killed(writers: Nodes, thrifts: list[ThriftServer]) -> None:
    def act() -> None:
        thrifts[0].kill()
        time.sleep(1)  # the fault lasts so long

    def make() -> Writers:
        if thrifts[0].process is None:
            thrifts[0].start()
        return writers(thrifts[0].address, thrifts[1].address)

    rounds("one of two Thrift servers killed", make, act)
    thrifts[0].start()


def test_a_thrift_server_is_frozen(writers: Nodes, thrifts: list[ThriftServer]) -> None:
    def act() -> None:
        thrifts[0].freeze()
        time.sleep(5)  # the fault lasts so long
        thrifts[0].thaw()

    rounds("one of two Thrift servers frozen for 5 s", lambda: writers(thrifts[0].address, thrifts[1].address), act)


def test_a_region_is_moved(writers: Nodes, hbase: HBaseServer, thrifts: list[ThriftServer]) -> None:
    def act() -> None:
        (before,) = thrifts[1].region_servers()
        hbase.empty(before)
        assert thrifts[1].region_servers() != {before}

    rounds("region moved", lambda: writers(thrifts[0].address, thrifts[1].address), act)


def test_an_answer_is_lost_and_repeated_through_another_node(writers: Nodes, thrifts: list[ThriftServer]) -> None:
    for round_ in range(ROUNDS):
        with ThriftProxy(thrifts[0].port) as proxy:
            (first, _), (second, _) = writers(proxy.address).nodes, writers(thrifts[1].address).nodes
            key = f"{time.time_ns()}-{round_}"
            before = second.push(key, b"before")
            proxy.lose("checkAndMutate")
            answers: list[int] = []
            pushing = threading.Thread(target=lambda: answers.append(first.push(key, b"lost", id="a").ret))  # noqa: B023
            pushing.start()
            assert proxy.landed.acquire(timeout=30)
            proxy.close_all(for_good=True)
            pushing.join(30)
            assert answers == [RET_INTERNAL]
            repeated = second.push(key, b"lost", id="a")
            assert (repeated.ret, repeated.previous, repeated.repeat) == (RET_OK, before.mid, True)
            assert second.bodies(key) == [b"before", b"lost"]
