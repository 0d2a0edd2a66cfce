"""A process whose files strangers use up: operators are answered, and the log says it once."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.chaos.cluster import Node

FILES = 400
START = Callable[[dict[str, dict[str, str]]], Node]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[START]:
    """Start `twistd gopush` with few files."""
    directory = Path(tempfile.mkdtemp(prefix="gopush-files-"))
    python = directory / "python"
    python.write_text(f'#!/bin/sh\nulimit -n {FILES}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    nodes: list[Node] = []

    def make(ini: dict[str, dict[str, str]]) -> Node:
        nodes.append(Node("gopush", "gopush", directory, ini))
        nodes[0].start()
        return nodes[0]

    yield make
    for node in nodes:
        node.kill()
    shutil.rmtree(directory)


def files_of(node: Node) -> int:
    return len(os.listdir(f"/proc/{node.pid}/fd"))


def settled(node: Node) -> int:
    """How many files the process has, once that changes no more."""
    deadline, before = time.monotonic() + 30, -1
    while files_of(node) != before:
        assert time.monotonic() < deadline
        before = files_of(node)
        time.sleep(0.5)
    return before


def answer(node: Node, port: str, request: str, body: str = "") -> bytes:
    with socket.create_connection(("127.0.0.1", node.ports[port]), 10) as connection:
        connection.settimeout(20)
        head = (
            f"{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        )
        connection.sendall(head.encode())
        return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def strangers(stack: ExitStack, address: str | tuple[str, int], count: int) -> None:
    """Connections that only stay."""
    for _ in range(count):
        stranger = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        stack.callback(stranger.close)
        stranger.settimeout(2)
        with suppress(OSError):
            stranger.connect(address)


def test_operators_are_answered_while_strangers_use_up_the_files(start: START) -> None:
    with tempfile.TemporaryDirectory(prefix="gopush-files-") as directory, ExitStack() as stack:
        path = f"{directory}/socket"
        node = start({"channel": {"handshake": "600s"}, "http": {"idle": "600s"}})
        node.kill()
        ini = node.log.with_name("gopush.ini")
        ini.write_text(ini.read_text().replace("tcp.bind = ", f"tcp.bind = unix:{path} "))
        node.start()
        for address in (path, ("127.0.0.1", node.ports["tcp"]), ("127.0.0.1", node.ports["http"])):
            strangers(stack, address, 130)
        assert settled(node) < FILES - 100
        for _ in range(20):
            assert answer(node, "admin", "POST /1/admin/push/private?key=k&expire=60", "1").endswith(b'{"ret":0}')
            for port, target in (("stat", "/health"), ("stat", "/metrics"), ("admin", "/health")):
                assert answer(node, port, f"GET {target}").startswith(b"HTTP/1.1 200 "), (port, target)


def test_files_used_up_at_a_port_without_a_limit_are_reported_in_one_line(start: START) -> None:
    node = start({"http": {"idle": "600s"}})
    with ExitStack() as stack:
        strangers(stack, ("127.0.0.1", node.ports["stat"]), FILES + 300)
        assert settled(node) > FILES - 20
        lines = node.log.read_text().splitlines()
        assert len([line for line in lines if "no open files are left" in line]) == 1
        assert len(lines) < 60, lines
    deadline = time.monotonic() + 60
    while "files are available again" not in node.log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert answer(node, "stat", "GET /health").startswith(b"HTTP/1.1 200 ")
