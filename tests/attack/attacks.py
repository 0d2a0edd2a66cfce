"""The attacks, each in a process of its own.

`python -m tests.attack.attacks NAME TCP WEBSOCKET WEB ADMIN RPC TOKEN SCALE SECONDS`, the ports as numbers.

SCALE is the part of the full size (1: 5,000 silent connections, 1 GB into one `sub`, 100,000 wrong tokens).
"""

from __future__ import annotations

import asyncio
import resource
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NamedTuple

from tests.clients import opening, request

BUSY_KEY = "busy"
BIG_KEY = "big"
BIG_MESSAGES = 20
FILES = 1024


class Aim(NamedTuple):
    """Where and how much. `token` is the one of the key that is meant; `end` is on the monotonic clock."""

    tcp: int
    websocket: int
    web: int
    admin: int
    rpc: int
    token: str
    scale: float
    end: float

    @property
    def over(self) -> bool:
        """Whether time is up."""
        return time.monotonic() > self.end


async def _connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port)


async def _closed(reader: asyncio.StreamReader, end: float) -> None:
    with suppress(asyncio.TimeoutError, ConnectionError):  # a reset is an end, too
        while await asyncio.wait_for(reader.read(65536), max(0.01, end - time.monotonic())):
            pass


async def _many(count: int, work: Callable[[], Awaitable[int]]) -> int:
    async def guarded() -> int:
        with suppress(OSError, asyncio.IncompleteReadError):
            return await work()
        return 0

    return sum(await asyncio.gather(*(guarded() for _ in range(count))))


async def silent(aim: Aim) -> int:
    """5,000 connections that send nothing, and come again when they are closed."""

    async def one() -> int:
        made = 0
        while not aim.over:
            reader, writer = await _connect(aim.tcp)
            made += 1
            await _closed(reader, aim.end)
            writer.close()
        return made

    return await _many(int(5000 * aim.scale), one)


async def slow(aim: Aim) -> int:
    """1,000 connections that send a byte a second."""

    async def one() -> int:
        sent = 0
        while not aim.over:
            _, writer = await _connect(aim.tcp)
            for byte in request("sub", "slow", "30"):
                if aim.over or writer.transport.is_closing():
                    break
                writer.write(bytes([byte]))
                sent += 1
                await asyncio.sleep(1)
            writer.close()
        return sent

    return await _many(int(1000 * aim.scale), one)


async def flood(aim: Aim) -> int:
    """1 GB into `sub`s: as much into each as it takes."""
    left, block = int(aim.scale * (1 << 30)), b"x" * (1 << 20)
    total = 0
    while total < left and not aim.over:
        with suppress(OSError), socket.create_connection(("127.0.0.1", aim.tcp), timeout=10) as connection:
            connection.sendall(b"*5\r\n$3\r\nsub\r\n$255\r\n")
            while total < left and not aim.over:
                total += connection.send(block)
    return total


async def frames(aim: Aim) -> int:
    """Frames that are larger than allowed, again and again, each with as much of them as is taken."""

    async def one() -> int:
        made = 0
        while not aim.over:
            reader, writer = await _connect(aim.websocket)
            writer.write(opening(f"/sub?key={BUSY_KEY}&heartbeat=30&ver=1&token={aim.token}"))
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"\x81\xff" + (1 << 62).to_bytes(8, "big") + b"mask" + b"x" * 65536)
            made += 1
            await _closed(reader, min(aim.end, time.monotonic() + 1))
            writer.close()
        return made

    return await _many(int(50 * aim.scale) or 1, one)


async def deaf(aim: Aim) -> int:
    """Readers that never read, on a busy key, and come again when they are closed."""
    made = 0
    while not aim.over:
        readers = []
        for _ in range(10):
            with suppress(OSError):
                raw = socket.socket()
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
                raw.settimeout(10)
                raw.connect(("127.0.0.1", aim.tcp))
                raw.sendall(request("sub", BUSY_KEY, "30", aim.token, "1"))
                readers.append(raw)
                made += 1
        await asyncio.sleep(min(5, max(0.1, aim.end - time.monotonic())))
        for raw in readers:
            raw.close()
    return made


async def deaf_resumers(aim: Aim) -> int:
    """192 connections that resume on a key with large messages, send heartbeats, never read, and come again."""

    async def one() -> int:
        made = 0
        while not aim.over:
            raw = socket.socket()
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            raw.settimeout(10)
            raw.connect(("127.0.0.1", aim.tcp))
            raw.sendall(_resume(aim))
            raw.setblocking(False)
            made += 1
            with suppress(OSError):
                while not aim.over:
                    await asyncio.sleep(1)
                    raw.send(b"h")
            raw.close()
        return made

    return await _many(int(192 * aim.scale) or 2, one)


async def big_resumes(aim: Aim) -> int:
    """16 devices that resume on a key with large messages, read all of them, and come again."""

    async def one() -> int:
        made = 0
        while not aim.over:
            reader, writer = await asyncio.open_connection("127.0.0.1", aim.tcp, limit=1 << 21)
            writer.write(_resume(aim))
            assert await reader.readexactly(4) == b"+h\r\n"
            for _ in range(BIG_MESSAGES):
                await reader.readexactly(int((await reader.readuntil(b"\r\n"))[1:]) + 2)
            made += 1
            writer.close()
        return made

    return await _many(int(16 * aim.scale) or 2, one)


def _resume(aim: Aim) -> bytes:
    return request("sub", BIG_KEY, "86400", aim.token, "1", "0")


async def tokens(aim: Aim) -> int:
    """100,000 wrong tokens, as fast as they are answered."""
    left = int(100_000 * aim.scale)

    async def one() -> int:
        nonlocal left
        refused = 0
        while left > 0 and not aim.over:
            left -= 1
            reader, writer = await _connect(aim.tcp)
            writer.write(request("sub", BUSY_KEY, "30", "wrong" * 8, "1"))
            refused += await reader.readexactly(4) == b"-a\r\n"
            writer.close()
        return refused

    return await _many(50, one)


async def sqlite_tokens(aim: Aim) -> int:
    """The same at a store on a disk, for a key that has many tokens."""
    return await tokens(aim)


async def pipelined(aim: Aim) -> int:
    """50 connections, each with 64 requests for a large log in one segment, of which nothing is read."""
    sent = f"GET /1/msg/get?k={BIG_KEY}&m=0&t={aim.token} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() * 64

    async def one() -> int:
        made = 0
        while not aim.over:
            _, writer = await _connect(aim.web)
            writer.write(sent)
            made += 64
            await asyncio.sleep(max(0.1, aim.end - time.monotonic()))
            writer.transport.abort()
        return made

    return await _many(max(1, int(50 * aim.scale)), one)


async def drips(aim: Aim) -> int:
    """5,000 connections that send a byte of a head or a body each second, and come again when they are closed."""

    async def one() -> int:
        made = 0
        while not aim.over:
            reader, writer = await _connect(aim.admin if made % 2 else aim.web)
            made += 1
            writer.write(b"POST /admin/push?key=k&expire=0 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n")
            if made % 4 < 2:
                writer.write(b"\r\n")
            while not (aim.over or reader.at_eof()):
                writer.write(b"x")
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(reader.read(1024), 1)
            writer.close()
        return made

    return await _many(max(1, int(5000 * aim.scale)), one)


async def bodies(aim: Aim) -> int:
    """20,000 connections that are closed with, or within, a body of 60 KB."""
    left, body = int(20_000 * aim.scale), b'"' + b"x" * 60_000 + b'"'
    head = b"POST /admin/push?key=bodies&expire=0 HTTP/1.1\r\nHost: localhost\r\n"
    request = head + b"Content-Length: %d\r\n\r\n" % len(body) + body

    async def one() -> int:
        nonlocal left
        made = 0
        while left > 0 and not aim.over:
            left -= 1
            reader, writer = await _connect(aim.admin)
            if made % 2:
                writer.write(request)
                await reader.readuntil(b"}")
            else:
                writer.write(request[:-1])
                await writer.drain()
            writer.transport.abort()
            made += 1
        return made

    return await _many(20, one)


async def heads(aim: Aim) -> int:
    """50 connections a tenth of a second, each with a head that is the worst for whoever reads it."""
    blanks = b"X: a%bb\r\n\r\n" % (b" " * 7900)
    worst = [
        (aim.websocket, b"GET /sub?key=k&heartbeat=30 HTTP/1.1\r\n" + blanks),
        (aim.websocket, b"GET /sub?%b HTTP/1.1\r\n\r\n" % (b"a=%25&" * 1200)),
        (aim.websocket, b"GET /sub HTTP/1.1\r\n%b\r\n" % (b"Connection: a, b\r\n" * 400)),
        (aim.web, b"GET /1/time/get HTTP/1.1\r\n" + blanks),
        (aim.web, b"GET /1/msg/get?%b HTTP/1.1\r\n\r\n" % (b"k=%2525&" * 1900)),
        (aim.web, b"GET /1/time/get HTTP/1.1\r\n%b\r\n" % (b"Connection: a, b\r\n" * 490)),
        (aim.web, b"GET http://a/%b HTTP/1.1\r\n\r\n" % (b"://" * 5000)),
    ]

    async def one() -> int:
        made = 0
        while not aim.over:
            port, head = worst[made % len(worst)]
            reader, writer = await _connect(port)
            writer.write(head)
            with suppress(asyncio.TimeoutError):
                made += bool(await asyncio.wait_for(reader.read(100), 5))
            writer.close()
            await asyncio.sleep(0.1)
        return made

    return await _many(int(50 * aim.scale) or 1, one)


async def files(aim: Aim) -> int:
    """As many connections as the files of the victim allow, and as many again that wait; they are held."""
    await asyncio.sleep(1)  # the honest are there already: who comes later waits as all others
    held: list[socket.socket] = []
    with suppress(OSError):
        while len(held) < 2 * FILES and not aim.over:
            made = socket.socket()
            held.append(made)
            made.setblocking(False)
            made.connect_ex(("127.0.0.1", (aim.tcp, aim.websocket, aim.web)[len(held) % 3]))
            await asyncio.sleep(0.0005)
    await asyncio.sleep(max(0.1, aim.end - time.monotonic()))
    for made in held:
        made.close()
    return len(held)


async def strangers(aim: Aim) -> int:
    """3,000 connections to the port for calls: silent, with what is no call, with a wrong login, and far too much."""
    login = b"\x04\x82pb"
    says = (b"", b"GET / HTTP/1.1\r\n\r\n", login, login + b"\x01\x80" * 100, b"\x7f" * 100, b"x" * (1 << 16))
    left = int(3000 * aim.scale)

    async def one() -> int:
        nonlocal left
        made = 0
        while left > 0 and not aim.over:
            left -= 1
            reader, writer = await _connect(aim.rpc)
            writer.write(says[left % len(says)])
            made += 1
            await _closed(reader, min(aim.end, time.monotonic() + (1 if left % 2 else 8)))
            writer.close()
        return made

    return await _many(int(300 * aim.scale) or 2, one)


_HTTP = (pipelined, drips, bodies, heads)
_ALL = (silent, slow, flood, frames, deaf, deaf_resumers, big_resumes, tokens, sqlite_tokens, *_HTTP, files, strangers)
ATTACKS: dict[str, Callable[[Aim], Awaitable[int]]] = {attack.__name__: attack for attack in _ALL}


def main() -> None:
    """See the module; prints how much it did."""
    name, *ports, token, scale, seconds = sys.argv[1:]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    tcp, websocket, web, admin, rpc = map(int, ports)
    aim = Aim(tcp, websocket, web, admin, rpc, token, float(scale), time.monotonic() + float(seconds))

    async def run() -> None:
        print(await ATTACKS[name](aim))

    asyncio.run(run())


if __name__ == "__main__":
    main()
