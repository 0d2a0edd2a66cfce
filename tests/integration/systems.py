"""gopush as users run it, in one process and as a cluster: real processes on ports and in directories of their own."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from tests.chaos.cluster import Cluster, Node

KEPT_MESSAGES = 6000
SETTLE_SECONDS = 60


@dataclass
class System:
    """A running gopush: the public and the admin addresses of its web nodes, and the processes that these are."""

    publics: list[str]
    admins: list[str]
    webs: list[Node]
    nodes: list[Node]
    """All its processes."""

    @property
    def public(self) -> str:
        """Any of them."""
        return random.choice(self.publics)

    @property
    def admin(self) -> str:
        """Any of them."""
        return random.choice(self.admins)


@contextmanager
def embedded(ini: Mapping[str, Mapping[str, str]] = MappingProxyType({})) -> Iterator[System]:
    """All in one process, on SQLite; `ini`: its settings besides."""
    directory = Path(tempfile.mkdtemp(prefix="gopush-embedded-"))
    node = Node("gopush", "gopush", directory, {"storage": {"store": str(KEPT_MESSAGES)}, **ini})
    try:
        node.start()
        settle([node], comets=1, messages=1)
        yield System([node.address("http")], [node.address("admin")], [node], [node])
    finally:
        node.kill()
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def clustered() -> Iterator[System]:
    """Two comet nodes and a standby, two message nodes, two web nodes, a Redis, a ZooKeeper."""
    with Cluster().running() as running:
        webs = running.webs
        settle(running.nodes.values(), comets=2, messages=2)
        yield System(
            [web.address("http") for web in webs],
            [web.address("admin") for web in webs],
            webs,
            [*running.nodes.values()],
        )


def settle(nodes: Iterable[Node], *, comets: int, messages: int) -> None:
    """Wait until each process knows all of the cluster: while a comet joins, subscribers of its keys are sent on."""
    whole = {f"gopush_view_comets {comets}.0", f"gopush_view_messages {messages}.0"}
    deadline = time.monotonic() + SETTLE_SECONDS
    for node in nodes:
        while not whole <= _metrics(node):
            assert time.monotonic() < deadline, f"{node.name} never saw the whole cluster"
            time.sleep(0.05)


def _metrics(node: Node) -> set[str]:
    with urllib.request.urlopen(f"http://{node.address('stat')}/metrics", timeout=SETTLE_SECONDS) as answer:
        return set(answer.read().decode().splitlines())
