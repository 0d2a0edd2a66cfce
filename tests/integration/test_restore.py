"""The commands of docs/backup.md, as they stand there: a store is saved while it serves, and comes back."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from gopush_client import Publisher, Subscriber
from tests.chaos.cluster import Node
from tests.integration.systems import settle
from tests.pages import Shell, blocks
from tests.servers.redis import RedisServer
from tests.servers.zookeeper import ZooKeeperServer

PATIENCE_SECONDS = 29
BACKUP, RESTORE = blocks("docs/backup.md", "sh", "SQLite")
REDIS_BACKUP, REDIS_RESTORE = blocks("docs/backup.md", "sh", "Redis")


class Service(Protocol):
    """What systemctl starts and stops."""

    def start(self) -> object: ...

    def stop(self) -> object: ...


class RedisService:
    """A redis-server with a file of configuration that it keeps."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """As it starts a machine's: again by the file that is there."""
        if not (self.server.directory / "redis.conf").exists():
            self.server.start()
            self._process = self.server.process
            return
        command = ["redis-server", "redis.conf"]
        self._process = self.server.process = subprocess.Popen(
            command, cwd=self.server.directory, stdout=subprocess.DEVNULL
        )
        Shell(self.server.directory).run(
            f"until redis-cli -p {self.server.port} ping 2>&1 | grep -q PONG; do sleep 0.1; done"
        )

    def stop(self) -> None:
        """SIGTERM."""
        assert self._process
        self._process.terminate()
        self._process.wait(60)


def run(shell: Shell, script: str, services: dict[str, Service]) -> None:
    """Run it, with these in the place of systemd's."""
    for part in re.split(r"^(systemctl .*\n)", script, flags=re.MULTILINE):
        if part.startswith("systemctl "):
            _, verb, name = part.split()
            getattr(services[name], verb)()
        elif part:
            shell.run(part)


def here(script: str, **directories: Path | str) -> str:
    """With directories of this test; files belong to who runs it."""
    script = re.sub(r"-o \w+ -g \w+ ", "", script)
    for name, directory in directories.items():
        script = script.replace(
            {"gopush": "/var/lib/gopush", "redis": "/var/lib/redis", "copy": "/path/of"}[name], str(directory)
        )
    return script


def kept(web: Node, key: str) -> list[object]:
    """The messages of a key."""
    found = []
    with Publisher(f"http://{web.address('admin')}", deadline=PATIENCE_SECONDS) as publisher:
        publisher.push(key, "end", expire=60)
    subscriber = Subscriber(f"http://{web.address('http')}", key, since=0)
    for message in subscriber:
        if message.data == "end":
            break
        found.append(message.data)
    subscriber.close()
    return found


def push(web: Node, *bodies: str, key: str = "k") -> int:
    """The last one's mid."""
    with Publisher(f"http://{web.address('admin')}", deadline=PATIENCE_SECONDS) as publisher:
        return [publisher.push(key, body, expire=600) for body in bodies][-1]


def test_a_process_with_its_database(tmp_path: Path) -> None:
    node = Node("gopush", "gopush", tmp_path, {})
    shell = Shell(tmp_path, {"GOPUSH_ADMIN": node.address("admin")})
    try:
        node.start()
        _save_and_restore(shell, node, BACKUP, RESTORE, {"gopush": node}, tmp_path)
    finally:
        node.kill()


def _save_and_restore(
    shell: Shell, web: Node, backup: str, restore: str, services: dict[str, Service], data: Path
) -> None:
    push(web, "saved", "saved, too")
    shell.run(here(backup, gopush=data, copy=data))
    (copy,) = data.glob("copy.*")
    away = data / "away"
    away.mkdir()
    copy.rename(away / copy.name)
    last = push(web, "gone")
    run(shell, here(restore, gopush=data, copy=away), services)
    assert push(web, "new") > last
    assert kept(web, "k") == ["saved", "saved, too", "new"]


@pytest.fixture(scope="module")
def zookeeper() -> Iterator[ZooKeeperServer]:
    with ZooKeeperServer() as server:
        yield server


@pytest.fixture
def cluster(zookeeper: ZooKeeperServer, tmp_path: Path) -> Iterator[Callable[..., dict[str, Node]]]:
    nodes: dict[str, Node] = {}

    def start(**message: dict[str, str]) -> dict[str, Node]:
        paths = {"comet.path": f"/comet{tmp_path.name}", "message.path": f"/message{tmp_path.name}"}
        ini = {"zookeeper": {"addr": zookeeper.address, "timeout": "30s", **paths}}
        for role in ("message", "comet", "gopush-web"):
            nodes[role] = Node(role, role, tmp_path, {**ini, **(message if role == "message" else {})})
            nodes[role].start()
        settle(nodes.values(), comets=1, messages=1)
        return nodes

    yield start
    for node in nodes.values():
        node.kill()


@pytest.mark.slow
def test_a_message_node_with_a_database(cluster: Callable[..., dict[str, Node]], tmp_path: Path) -> None:
    nodes = cluster(storage={"type": "sqlite"})
    shell = Shell(tmp_path, {"GOPUSH_ADMIN": nodes["gopush-web"].address("admin")})
    restore = re.sub(r"^(systemctl \w+) gopush$", r"\1 gopush-message", RESTORE, flags=re.MULTILINE)
    services: dict[str, Service] = {"gopush-message": nodes["message"]}
    _save_and_restore(shell, nodes["gopush-web"], BACKUP, restore, services, tmp_path)


@pytest.mark.skipif(shutil.which("redis-cli") is None, reason="wants redis-server")
def test_a_cluster_with_redis(cluster: Callable[..., dict[str, Node]], tmp_path: Path) -> None:
    server = RedisServer("appendonly yes", "appendfsync always")
    redis = RedisService(server)
    try:
        redis.start()
        nodes = cluster(storage={"type": "redis"}, redis={"source": f"node1:1 {server.source}"})
        restore = here(REDIS_RESTORE, redis=server.directory).replace("/etc/redis", str(server.directory))
        backup, restore = (
            re.sub(r"redis-cli", f"redis-cli -p {server.port}", text) for text in (REDIS_BACKUP, restore)
        )
        services: dict[str, Service] = {"gopush-message": nodes["message"], "redis-server": redis}
        _save_and_restore(Shell(tmp_path), nodes["gopush-web"], backup, restore, services, tmp_path)
        assert "\nappendonly yes\n" in (server.directory / "redis.conf").read_text()
        redis.stop()
        redis.start()
        assert server.call("DBSIZE") > 0
    finally:
        server.stop()
