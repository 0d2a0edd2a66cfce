"""The commands of docs/migration.md, as they stand there: files of gopush-cluster become a cluster of gopush."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

import pytest

from gopush.model import mid_at
from gopush_client import Publisher
from tests.chaos.cluster import Node
from tests.integration.systems import settle
from tests.integration.test_restore import kept
from tests.message.test_take_in import Old
from tests.pages import Shell, blocks, section
from tests.servers.redis import RedisServer
from tests.servers.zookeeper import ZooKeeperServer

(MIGRATE,) = blocks("docs/migration.md", "sh", "From SQLite to Redis")
(TAKE_IN,) = re.findall(
    r"^ +(gopush migrate --from 'cluster-redis:.*)", section("docs/migration.md", "What gopush-cluster keeps"), re.M
)
CONVERT, CHECK = blocks("docs/migration.md", "sh", "Your configuration")
FILES = {
    "comet.conf": "[base]\nuser\npidfile /run/comet.pid\ntcp.bind localhost:6969\n[zookeeper]\ncomet.node node7\n",
    "message.conf": "[base]\nuser\n[storage]\ntype redis\n[redis.source]\nnode1:1 tcp@localhost:6379#secret\n",
    "web.conf": "[base]\nuser\nhttp.bind localhost:8090\nadmin.bind localhost:8091\n[rpc]\nretry 3s\n",
}


def test_files_of_the_original_become_files_that_gopush_can_use(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    shell = Shell(tmp_path)
    shell.run(CONVERT)
    assert "source = node1:1 tcp@localhost:6379#secret" in (tmp_path / "message.ini").read_text()
    said = shell.run(CHECK)
    assert re.findall(r"good for (\w+)", said) == ["comet", "message", "web"]


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="wants redis-server")
@pytest.mark.slow
def test_what_one_process_kept_is_there_in_a_cluster(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    alone = Node("gopush", "gopush", tmp_path, {})
    members: list[Node] = []
    with RedisServer() as redis, ZooKeeperServer() as zookeeper:
        ini = {
            "storage": {"type": "redis"},
            "redis": {"source": f"node1:1 {redis.source}"},
            "zookeeper": {"addr": zookeeper.address, "timeout": "30s"},
        }
        for name in ("node1", "node2"):
            members.append(Node("member", f"gopush-{name}", tmp_path, {**ini, "base": {"node": name}}))
        script = re.sub(r"/(var/lib|etc)/gopush", str(tmp_path), MIGRATE)
        try:
            alone.start()
            with Publisher(f"http://{alone.address('admin')}") as publisher:
                publisher.push("k", "kept", expire=600)
            first, stop, last, start = script.splitlines()
            assert stop == "systemctl stop gopush"
            shell.run(f"status=0; {first.partition('#')[0]} || status=$?; test $status = 1")
            alone.stop()
            shell.run(last)
            assert start == "systemctl start gopush@node1 gopush@node2"
            for member in members:
                member.start()
            settle(members, comets=2, messages=2)
            assert kept(members[1], "k") == ["kept"]
        finally:
            for node in (alone, *members):
                node.kill()


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="wants redis-server")
def test_what_gopush_cluster_kept_is_there_when_devices_look_up(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    with RedisServer() as redis, Old() as old:
        assert isinstance(old, Old)
        old.keep("k", '"kept"', mid_at(time.time() - 60))
        node = Node(
            "gopush", "gopush", tmp_path, {"storage": {"type": "redis"}, "redis": {"source": f"n:1 {redis.source}"}}
        )
        try:
            node.start()
            settle([node], comets=1, messages=1)
            began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            with Publisher(f"http://{node.address('admin')}") as publisher:
                old.keep("k", '"pushed to both"', publisher.push("k", "pushed to both", expire=600))
            command = TAKE_IN.replace("tcp@localhost:6379", old.source)
            said = shell.run(re.sub("2026-11-26T12:00:00Z", began, command))
            assert "of 1 messages of 1 keys 1 moved" in said
            assert kept(node, "k") == ["kept", "pushed to both"]
        finally:
            node.kill()
