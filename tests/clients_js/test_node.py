"""gopush.js in Node, which has no WebSocket before its version 22: all arrives over server-sent events."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from gopush_client import Publisher
from tests.chaos.cluster import Node
from tests.clients import eventually
from tests.integration.systems import embedded

HERE = Path(__file__).resolve().parent
NODE = shutil.which("node")

pytestmark = pytest.mark.skipif(NODE is None, reason="wants node")


@pytest.fixture(scope="module")
def server() -> Iterator[Node]:
    with embedded() as system:
        yield system.webs[0]


class Receiver:
    """A program that has subscribed, and what it was given."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.messages: list[Any] = []
        self.states: list[str] = []
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            said = json.loads(line)
            (self.states if isinstance(said, str) else self.messages).append(said)

    def close(self) -> None:
        """Have it close its subscription; nothing else holds the program then."""
        assert self.process.stdin is not None
        self.process.stdin.write("close\n")
        self.process.stdin.close()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._thread.join(20)


@contextmanager
def receiving(server: Node, key: str, **options: object) -> Iterator[Receiver]:
    assert NODE is not None
    command = [NODE, str(HERE / "receive.mjs"), f"http://{server.address('http')}", key, json.dumps(options)]
    receiver = Receiver(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    try:
        eventually(lambda: "live" in receiver.states)
        yield receiver
    finally:
        receiver.kill()


def test_all_arrives_once_and_in_order_through_a_killed_process(server: Node) -> None:
    def kill() -> None:
        server.kill()
        server.start()

    with (
        Publisher(f"http://{server.address('admin')}", deadline=60) as publisher,
        receiving(server, "killed") as receiver,
    ):
        mids = [publisher.push("killed", {"n": number}) for number in range(5)]
        killing = threading.Thread(target=kill)
        killing.start()
        mids += [publisher.push("killed", {"n": number}) for number in range(5, 30)]
        killing.join(60)
        eventually(lambda: len(receiver.messages) >= 30)
        assert receiver.messages == [[number, str(mid)] for number, mid in enumerate(mids)]
        assert receiver.states.count("live") > 1


def test_one_cut_before_its_first_message_misses_nothing(server: Node) -> None:
    with Publisher(f"http://{server.address('admin')}") as publisher:
        publisher.push("cut", {"n": 0})
        with receiving(server, "cut", transport="sse") as receiver:
            close = f"http://{server.address('admin')}/1/admin/key/close?key=cut"
            with urlopen(close, b"", timeout=30) as answer:
                assert b'"ret":0' in answer.read()
            mid = publisher.push("cut", {"n": 1})
            eventually(lambda: receiver.messages == [[1, str(mid)]])


def test_since_and_the_end(server: Node) -> None:
    with Publisher(f"http://{server.address('admin')}") as publisher:
        first, second = (publisher.push("since", {"n": number}) for number in range(2))
        with receiving(server, "since", since=str(first)) as receiver:
            eventually(lambda: receiver.messages == [[1, str(second)]])
            receiver.close()
            assert receiver.process.wait(20) == 0
            eventually(lambda: receiver.states[-1] == "closed")
