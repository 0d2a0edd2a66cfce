"""A long bulk push on one connection, in both modes. GOPUSH_BULK_LINES=1000000 makes it a million lines."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.cluster import Node
from tests.http.client import Client
from tests.integration.systems import clustered, embedded

LINES = int(os.environ.get("GOPUSH_BULK_LINES", "20000"))
BATCH = 500
KEYS = 1000
BAD = 997  # every so many-th line is bad
PATIENCE = 120.0
ROOM = 64 << 20  # bytes: what is under way, and what the allocator does not give back


@pytest.fixture(params=[embedded, clustered], ids=lambda mode: mode.__name__)
def web(request: pytest.FixtureRequest) -> Iterator[Node]:
    """The process with the admin port."""
    with request.param() as system:
        yield system.webs[0]


def most_memory(node: Node) -> int:
    """The most bytes that the process ever had in memory."""
    status = Path(f"/proc/{node.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) << 10


def line(number: int) -> bytes:
    return b"bad" if is_bad(number) else b'{"k":"bulk-%d","m":{"n":%d},"expire":600}' % (number % KEYS, number)


def is_bad(number: int) -> bool:
    return number % BAD == BAD - 1


def send(client: Client, count: int) -> None:
    client.send(b"POST /1/admin/push/bulk HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
    for start in range(0, count, BATCH):
        lines = b"".join(line(number) + b"\n" for number in range(start, min(start + BATCH, count)))
        client.send(b"%x\r\n%b\r\n" % (len(lines), lines))
    client.send(b"0\r\n\r\n")


def push(web: Node, count: int) -> int:
    """Push so many lines and check each answer; how many good ones were told to try again."""
    last: dict[int, int] = {}
    number = refused = 0
    rest = b""
    with Client(web.ports["admin"]) as client:
        sender = threading.Thread(target=send, args=(client, count), daemon=True)
        client.socket.settimeout(PATIENCE)
        sender.start()
        client._until(b"\r\n\r\n")
        while piece := client._chunk():
            *answers, rest = (rest + piece).split(b"\n")
            for answer in map(json.loads, answers):
                if is_bad(number):
                    assert answer == {"ret": 65534}, number
                elif answer["ret"] == 0:
                    assert answer["mid"] > last.get(number % KEYS, 0), number
                    last[number % KEYS] = answer["mid"]
                else:
                    assert answer == {"ret": 65535}, number
                    refused += 1
                number += 1
        sender.join(PATIENCE)
    assert (number, rest) == (count, b"")
    return refused


def test_every_line_is_answered_in_order_and_memory_is_bounded(web: Node) -> None:
    """protocol.md, section 10, bulk: any number of lines, a line for each in the same order; a bad line fails alone."""
    while push(web, 10):  # the cluster may still be finding itself
        pass
    push(web, 5000)
    before = most_memory(web)
    refused = push(web, LINES)
    after = most_memory(web)
    print(f"{LINES} lines, {refused} refused; at most {before >> 20} MiB before, {after >> 20} MiB after")
    assert refused <= LINES // 100  # 65535: a machine that stood still for longer than a push may take
    assert after - before < ROOM
