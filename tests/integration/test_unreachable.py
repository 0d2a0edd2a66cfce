"""A comet whose RPC port nobody can reach: its subscribers get what does not last long, and it says what is wrong."""

from __future__ import annotations

import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from itertools import count

from gopush.hashing import HashRing
from tests.chaos.cluster import Cluster
from tests.clients import request
from tests.servers import free_port

PUSHES = 10
EXPIRE_SECONDS = 6
PATIENCE = 60.0
SAID = "nobody answers at the address that this process advertises"


def ask(address: str, path: str, body: bytes | None = None) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", data=body, timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def test_a_comet_that_nobody_can_call_serves_its_subscribers_and_says_so() -> None:
    cluster = Cluster()
    for name in ("comet-1-standby", "message-2", "web-2"):
        del cluster.nodes[name]
    deaf, web = cluster["comet-1"], cluster["web-1"]
    deaf.set({"base": {"rpc.advertise": f"127.0.0.1:{free_port()}"}})
    ring = HashRing({"node1": 1, "node2": 1})
    key = next(key for number in count() if ring.node_of(key := f"key-{number}") == "node1")
    with cluster.running():
        metrics = "gopush_view_comets 2.0"
        eventually(lambda: metrics in ask(web.address("stat"), "/metrics")[1], "web does not see both comets")
        eventually(lambda: metrics in ask(deaf.address("stat"), "/metrics")[1], "the comet does not see both")
        with socket.create_connection(("127.0.0.1", deaf.ports["tcp"]), timeout=PATIENCE) as subscriber:
            subscriber.sendall(request("sub", key, "60"))
            received = b""
            while b"+h\r\n" not in received:
                received += subscriber.recv(4096)
            eventually(lambda: ask(deaf.address("stat"), "/health")[0] == 503, "the comet takes itself for ready")
            for number in range(PUSHES):
                path = f"/1/admin/push/private?key={key}&expire={EXPIRE_SECONDS}"
                assert ask(web.address("admin"), path, b'"message-%d"' % number) == (200, '{"ret":0}')
                time.sleep(0.3)
            deadline = time.monotonic() + EXPIRE_SECONDS + 4
            subscriber.settimeout(0.5)
            while received.count(b"message-") < PUSHES and time.monotonic() < deadline:
                try:
                    received += subscriber.recv(4096)
                except TimeoutError:
                    continue
        assert [received.count(b"message-%d" % number) for number in range(PUSHES)] == [1] * PUSHES
        status, reason = ask(deaf.address("stat"), "/health")
        assert (status, SAID in reason) == (503, True)
        assert deaf.log.read_text().count(SAID) == 1
        assert ask(cluster["comet-2"].address("stat"), "/health")[0] == 200
        other = cluster["comet-2"].address("rpc")
        log = cluster[
            "message-1"
        ].log  # it tries one of them every two seconds, and the comet that is deaf may be first
        eventually(lambda: f"<RemoteNode {other}> reached" in log.read_text(), "a comet is no message node")
