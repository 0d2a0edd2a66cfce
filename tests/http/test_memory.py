"""What connections leave behind, and what they can make a process hold: nothing, and little."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.attack.victim import Victim

MIB = 1024  # in KiB, as the kernel tells a process's memory
PATIENCE = 60.0


@pytest.fixture
def victim() -> Iterator[Victim]:
    with Victim() as started:
        yield started


async def _call_and_close(port: int, count: int, request: bytes) -> None:
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.transport.abort()


async def _cut_within_a_body(port: int, count: int, request: bytes) -> None:
    for _ in range(count):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request[:-1])
        await writer.drain()
        writer.transport.abort()


def test_twenty_thousand_connections_with_bodies_leave_nothing(victim: Victim) -> None:
    body = b'"' + b"x" * 20_000 + b'"'
    head = b"POST /1/admin/push/private?key=k&expire=0 HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
    request = head % len(body) + body

    async def storm(count: int) -> None:
        whole = (_call_and_close(victim.admin, count // 40, request) for _ in range(20))
        await asyncio.gather(*whole, *(_cut_within_a_body(victim.admin, count // 40, request) for _ in range(20)))

    asyncio.run(storm(2000))
    before = victim.memory
    asyncio.run(storm(20_000))
    assert victim.memory - before < 40 * MIB


@pytest.fixture
def log(victim: Victim) -> bytes:
    """The request for a log of 20 messages, 1 MiB each."""
    for _ in range(20):
        victim.call("POST", "/1/admin/push/private?key=big&expire=600", b'"' + b"x" * (1 << 20) + b'"')
    return b"GET /1/msg/get?k=big&m=0&t=%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % victim.token("big").encode()


def settled(victim: Victim) -> int:
    """The process's memory once it grows no more."""
    until = time.monotonic() + PATIENCE
    calm, most = 0, 0
    while calm < 10 and time.monotonic() < until:
        time.sleep(0.1)
        now = victim.memory
        calm = calm + 1 if now <= most else 0
        most = max(most, now)
    return most


def test_pipelined_reads_that_nobody_reads_are_not_made(victim: Victim, log: bytes) -> None:
    before = victim.memory
    with ExitStack() as stack:
        for _ in range(5):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", victim.web)))
            client.sendall(log * 64)
        assert settled(victim) - before < 100 * MIB


@pytest.mark.parametrize("call", ["key?key=big", "key/message?key=big&mid={}"])
def test_pipelined_looks_at_a_large_log_are_made_one_by_one(victim: Victim, log: bytes, call: str) -> None:
    shown = victim.call("GET", "/1/admin/key?key=big")
    path = call.format(shown["messages"][0]["mid"])
    before = victim.memory
    with ExitStack() as stack:
        for _ in range(8):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", victim.admin)))
            client.sendall(f"GET /1/admin/{path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() * 64)
        assert settled(victim) - before < 100 * MIB


def test_slow_readers_of_large_logs_hold_a_page_each(victim: Victim, log: bytes) -> None:
    before = victim.memory
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", victim.web))) for _ in range(30)]
        for client in clients:
            client.sendall(log)
        assert settled(victim) - before < 200 * MIB
        clients[0].settimeout(PATIENCE)
        received = 0
        while received < 20 << 20:
            data = clients[0].recv(1 << 20)
            assert data
            received += len(data)
