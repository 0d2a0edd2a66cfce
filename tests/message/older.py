"""Stores as COMMIT has written them, for test_older.py: `python -m tests.message.older` has it write them anew.

What it writes must last: messages, heads, ids and tokens end in a hundred years.
"""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from tests.chaos.cluster import Node
from tests.chaos.older import COMMIT, older_cluster, unpack
from tests.integration.systems import settle
from tests.integration.test_administration import http, until
from tests.servers.redis import RedisServer

HERE = Path(__file__).parent
SQLITE = HERE / f"of-{COMMIT}.sqlite"
REDIS = HERE / f"of-{COMMIT}-redis.json"
KNOWN = HERE / f"of-{COMMIT}.json"
"""What is in them, as devices and services see it."""

LONG = {"storage": {"store": "5", "head.life": "36000d"}, "push": {"dedupe": "36000d"}, "token": {"life": "36000d"}}


def push(node: Node, key: str, body: str, expire: str = "4294967295", **query: str) -> int:
    """Gives its mid."""
    asked = {"key": key, "expire": expire, "mid": "1", **query}
    _, answer = http(node.address("admin"), "POST", "/1/admin/push/private", body=body.encode(), **asked)
    assert answer["ret"] == 0, answer
    return int(answer["data"]["mid"])


def fill(node: Node) -> dict[str, Any]:
    """Mids and bodies of what is kept of each key, and the token."""
    kept = {"trimmed": [(push(node, "trimmed", str(number)), str(number)) for number in range(8)][3:]}
    bodies = ('{"n": 1e400, "t": "\u00e4\u2028"}', "[1,\n2]")
    kept["id"] = [(push(node, "id", body, id=f"order-{number}"), body) for number, body in enumerate(bodies)]
    last = {"deleted": push(node, "deleted", '"gone"')}
    http(node.address("admin"), "POST", "/1/admin/msg/del", body=b"key=deleted")
    last["sequenced"] = push(node, "sequenced", '"never kept"', expire="0")
    _, answer = http(node.address("admin"), "POST", "/1/admin/token", key="guarded", expire="3000000000")
    return {"kept": kept, "last": last, "token": answer["data"]["token"]}


def written(redis: RedisServer) -> list[list[str]]:
    """Commands that write all of it anew, each word in base64; so it goes into any version of Redis."""
    commands: list[list[Any]] = []
    for name in sorted(redis.call("KEYS", "gopush:[hmit]:*")):
        kind = redis.call("TYPE", name)
        if kind == b"string":
            commands.append(["SET", name, redis.call("GET", name)])
        elif kind == b"list":
            commands.append(["RPUSH", name, *redis.call("LRANGE", name, 0, -1)])
        else:
            pairs = redis.call("ZRANGE", name, 0, -1, "WITHSCORES")
            commands.append(
                ["ZADD", name, *(word for at in range(0, len(pairs), 2) for word in (pairs[at + 1], pairs[at]))]
            )
        commands.append(["EXPIREAT", name, str(redis.call("EXPIRETIME", name))])
    return [
        [base64.b64encode(word if isinstance(word, bytes) else word.encode()).decode() for word in one]
        for one in commands
    ]


def restore(redis: RedisServer) -> None:
    """Write it into a Redis."""
    for command in json.loads(REDIS.read_text()):
        redis.call(*map(base64.b64decode, command))


def main() -> None:
    """Write all of them."""
    known = {}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        root = directory / "root"
        unpack(root)
        node = Node("gopush", "gopush", directory, {**LONG, "sqlite": {"path": str(directory / "sqlite")}})
        node.root = root
        node.start()
        settle([node], comets=1, messages=1)
        known["sqlite"] = fill(node)
        node.stop()
        shutil.copyfile(directory / "sqlite", SQLITE)
    with older_cluster() as cluster:
        for node in cluster.nodes.values():
            parts = {"gopush-web": ("push", "token"), "message": ("storage",), "comet": ()}[node.role]
            node.set({part: LONG[part] for part in parts})
        with cluster.running():
            settle(cluster.webs, comets=2, messages=2)
            known["redis"] = fill(cluster["web-1"])
            until(lambda: cluster.redis.call("KEYS", "*"))
            REDIS.write_text(json.dumps(written(cluster.redis), indent=0) + "\n")
    KNOWN.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
