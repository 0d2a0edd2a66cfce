"""Clocks that step, in real processes under libfaketime: what gopush gave stays good (delivery rule 2)."""

from __future__ import annotations

import json
import socket
import time
import urllib.request
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from gopush.model import MID_STEP, MIDS_PER_SECOND
from tests.chaos.cluster import Node
from tests.clients import TcpClient, WebSocketClient, request
from tests.integration.systems import settle

PATIENCE = 30.0
HOUR = 3600 * MIDS_PER_SECOND


class SteppingClock:
    """The time of day of a process; its steady clock stays as it is."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "time"
        (library,) = Path("/usr").glob("lib*/*/faketime/libfaketime.so.1")
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        self.step(0)

    def step(self, hours: int) -> None:
        """Show another time from now on, in a file that is never half written."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"+{hours}h\n")
        fresh.rename(self._file)


@pytest.fixture
def clock(tmp_path: Path) -> SteppingClock:
    return SteppingClock(tmp_path)


@pytest.fixture
def node(tmp_path: Path, clock: SteppingClock) -> Iterator[Node]:
    """All of gopush in one process, on SQLite, by that clock."""
    node = Node("gopush", "gopush", tmp_path, {})
    node.environment = clock.environment
    try:
        node.start()
        settle([node], comets=1, messages=1)
        yield node
    finally:
        node.kill()


def step(node: Node, clock: SteppingClock, hours: int) -> None:
    """Step the clock, and wait until the node shows that time: another thread may see the old one for a moment."""
    clock.step(hours)
    deadline = time.monotonic() + PATIENCE
    while abs(shown(node) - time.time() - hours * 3600) > 60:
        assert time.monotonic() < deadline


def shown(node: Node) -> float:
    """The time that a node writes into its answers."""
    with urllib.request.urlopen(f"http://{node.address('http')}/1/server/get?k=k&p=2", timeout=PATIENCE) as answer:
        return parsedate_to_datetime(answer.headers["Date"]).timestamp()


def push(node: Node, body: bytes) -> None:
    """Push once, however often it takes: what waits in a thread may stand still for a moment when a clock steps."""
    url = f"http://{node.address('admin')}/1/admin/push/private?key=k&expire=86400&id=id-{body.decode()}"
    deadline = time.monotonic() + PATIENCE
    answered = {"ret": 65535}
    while answered == {"ret": 65535} and time.monotonic() < deadline:
        with urllib.request.urlopen(url, body, PATIENCE) as answer:
            answered = json.load(answer)
    assert answered == {"ret": 0}


def first_reply(client: TcpClient, mid: int) -> bytes:
    """What a subscriber that resumes is told first; b"": nothing, it is to come again."""
    client.send(request("sub", "k", "30", "", "1", str(mid)))
    return client.socket.recv(4, socket.MSG_WAITALL)


def resumed(node: Node, mid: int) -> TcpClient:
    """A subscriber that was let in; it comes again where it was closed without a word."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        client = TcpClient(node.ports["tcp"])
        reply = first_reply(client, mid)
        if reply:
            assert reply == b"+h\r\n"
            return client
        client.close()
    raise AssertionError("it was never let in")


def fetched(node: Node, mid: int) -> list[tuple[int, int]]:
    """What `/1/msg/get` gives after `mid`: mids and messages."""
    with urllib.request.urlopen(f"http://{node.address('http')}/1/msg/get?k=k&m={mid}", timeout=PATIENCE) as answer:
        answered = json.load(answer)
    assert answered["ret"] == 0
    return [(one["mid"], one["msg"]) for one in answered.get("data", {}).get("msgs", [])]


def test_mids_that_were_given_stay_good_while_the_clock_steps_back(node: Node, clock: SteppingClock) -> None:
    """protocol.md, section 1: -p is for parameters that are wrong, never for a clock of ours."""
    step(node, clock, 2)
    push(node, b"0")
    ((first, _),) = fetched(node, 0)
    step(node, clock, 0)
    push(node, b"1")
    assert fetched(node, first) == [(first + MID_STEP, 1)]
    for mid, behind in ((first, 1), (first + MID_STEP, 0)):
        with resumed(node, mid) as tcp, WebSocketClient(node.ports["websocket"]) as websocket:
            websocket.open(f"key=k&heartbeat=30&ver=1&mid={mid}")
            assert websocket.message() == b"+h\r\n"
            for _ in range(behind):
                assert json.loads(tcp.message()) == json.loads(websocket.message()) == {
                    "msg": 1, "mid": first + MID_STEP, "gid": 0
                }  # fmt: skip
    push(node, b"2")
    assert fetched(node, first) == [(first + MID_STEP, 1), (first + 2 * MID_STEP, 2)]
    with TcpClient(node.ports["tcp"]) as tcp:
        tcp.send(request("sub", "k", "30", "", "1", str(first + HOUR)))
        assert tcp.rest() == b"-p\r\n"
