"""`gopush sub` and `gopush bench` where comets speak TLS."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gopush.client.cli import FAILED, REFUSED, main
from tests.chaos.cluster import Node
from tests.servers.authority import Authority


@pytest.fixture(scope="module")
def authority() -> Iterator[Authority]:
    directory = Path(tempfile.mkdtemp(prefix="gopush-comet-tls-"))
    yield Authority(directory)
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def node(authority: Authority) -> Iterator[Node]:
    node = Node("gopush", "gopush", authority.path.parent, {"storage": {"type": "memory"}})
    node.set({"base": {"tcp.bind": f"ssl:{node.ports['tcp']}:interface=127.0.0.1:{authority.issue('node').endpoint}"}})
    try:
        node.start()
        yield node
    finally:
        node.kill()


def sub(node: Node, key: str, *options: str) -> int:
    return main(["sub", key, "--web", node.address("http"), "--mid", "0", "--count", "1", "--once", *options])


def test_what_is_pushed_comes_within_tls(node: Node, authority: Authority, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["push", "k", '"hidden"', "--admin", node.address("admin")]) == 0
    assert sub(node, "k", "--comet-tls", "--cacert", str(authority.path)) == 0
    assert json.loads(capfd.readouterr().out)["msg"] == "hidden"
    assert sub(node, "k", "--comet-tls", "--insecure") == 0
    assert sub(node, "k", "--comet-tls") == REFUSED
    assert "is not trusted" in capfd.readouterr().err
    assert sub(node, "k") == FAILED
    assert "(if it speaks TLS: --comet-tls)" in capfd.readouterr().err


def test_bench_counts_over_tls(node: Node, authority: Authority, capfd: pytest.CaptureFixture[str]) -> None:
    where = ("--web", node.address("http"), "--admin", node.address("admin"), "--cacert", str(authority.path))
    load = ("--keys", "1", "--subscribers", "2", "--seconds", "1", "--rate", "5", "--pushers", "1")
    assert main(["bench", *where, *load, "--comet-tls"]) == 0
    assert "deliver" in capfd.readouterr().out
