"""What publishers and devices say on the wire: just enough HTTP, RESP and WebSocket, over asyncio."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator, Awaitable
from typing import Any, Protocol, TypeVar
from urllib.parse import urlencode

from tests.clients import request

CONNECT_SECONDS = 3.0
HEARTBEAT = b"h"

T = TypeVar("T")

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class UnreachableError(Exception):
    """There was no connection: nothing was sent."""


class BrokenError(Exception):
    """The connection broke, or nothing came in time."""


async def within(call: Awaitable[T], seconds: float) -> T:
    """As asyncio.wait_for(), which in Python 3.11 may swallow the cancellation of a task. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        return await call


async def connect(address: str) -> Streams:
    """Connect to "host:port"."""
    host, _, port = address.rpartition(":")
    try:
        return await within(asyncio.open_connection(host, int(port)), CONNECT_SECONDS)
    except (OSError, TimeoutError) as wrong:
        raise UnreachableError(f"{address}: {wrong!r}") from None


class Http:
    """One keep-alive connection to a web node; calls one after the other."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._streams: Streams | None = None

    async def call(self, method: str, path: str, query: dict[str, Any], body: bytes, patience: float) -> Any:
        """The answer, parsed. Raises UnreachableError or BrokenError; the next call connects anew then."""
        if self._streams is not None and self._streams[0].at_eof():
            self.close()
        if self._streams is None:
            self._streams = await connect(self.address)
        reader, writer = self._streams
        try:
            head = f"{method} {path}?{urlencode(query)} HTTP/1.1\r\nHost: chaos\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            return await within(self._answer(reader), patience)
        except (OSError, EOFError, TimeoutError, ValueError) as wrong:
            self.close()
            raise BrokenError(f"{self.address}: {wrong!r}") from None
        except asyncio.CancelledError:
            self.close()  # the answer is still to come
            raise

    async def _answer(self, reader: asyncio.StreamReader) -> Any:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith(b"http/1.1 200"):
            raise ValueError(head[:60])
        if b"transfer-encoding: chunked" in head:  # more messages than one page
            body = b"".join([chunk async for chunk in _chunks(reader)])
        else:
            body = await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
        answer = json.loads(body)
        if b"connection: close" in head:
            self.close()
        return answer

    def close(self) -> None:
        """Forget the connection."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    size = -1
    while size:
        size = int(await reader.readuntil(b"\r\n"), 16)
        yield await reader.readexactly(size)
        await reader.readexactly(2)


class Device(Protocol):
    """A subscriber's connection."""

    async def receive(self) -> bytes:
        """The next reply ("+h") or message (JSON). Raises BrokenError where the connection ends."""

    def beat(self) -> None:
        """Send a heartbeat."""

    def close(self) -> None:
        """Close it."""


class TcpDevice:
    """protocol.md, section 1."""

    def __init__(self, streams: Streams) -> None:
        self._reader, self._writer = streams

    @classmethod
    async def open(cls, address: str, key: str, mid: int | None, token: str = "") -> TcpDevice:
        """Connect and ask to be subscribed; `mid` None: the plain way."""
        device = cls(await connect(address))
        words = ["sub", key, "30", token, "1.0.5", *([] if mid is None else [str(mid)])]
        device._writer.write(request(*words))
        return device

    async def receive(self) -> bytes:
        """See Device."""
        try:
            line = (await self._reader.readuntil(b"\r\n"))[:-2]
            return line if line[:1] != b"$" else (await self._reader.readexactly(int(line[1:]) + 2))[:-2]
        except (OSError, EOFError) as wrong:
            raise BrokenError(repr(wrong)) from None

    def beat(self) -> None:
        """See Device."""
        self._writer.write(HEARTBEAT)

    def close(self) -> None:
        """See Device."""
        self._writer.transport.abort()


class WebSocketDevice:
    """protocol.md, section 2."""

    def __init__(self, streams: Streams) -> None:
        self._reader, self._writer = streams

    @classmethod
    async def open(cls, address: str, key: str, mid: int | None) -> WebSocketDevice:
        """As TcpDevice.open()."""
        device = cls(await connect(address))
        query = {"key": key, "heartbeat": "30", "ver": "1.0.5"} | ({} if mid is None else {"mid": str(mid)})
        nonce = base64.b64encode(os.urandom(16)).decode()
        device._writer.write(
            f"GET /sub?{urlencode(query)} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {nonce}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        try:
            head = await within(device._reader.readuntil(b"\r\n\r\n"), 2 * CONNECT_SECONDS)
        except (OSError, EOFError, TimeoutError) as wrong:
            device.close()
            raise BrokenError(repr(wrong)) from None
        if not head.startswith(b"HTTP/1.1 101"):
            raise BrokenError(repr(head[:60]))
        return device

    async def receive(self) -> bytes:
        """See Device."""
        try:
            first, length = await self._reader.readexactly(2)
            if length == 126:
                length = int.from_bytes(await self._reader.readexactly(2), "big")
            elif length == 127:
                length = int.from_bytes(await self._reader.readexactly(8), "big")
            data = await self._reader.readexactly(length)
        except (OSError, EOFError) as wrong:
            raise BrokenError(repr(wrong)) from None
        if first != 0x81:
            raise BrokenError(f"frame {first:x} {data[:60]!r}")
        return data.removesuffix(b"\r\n")

    def beat(self) -> None:
        """See Device."""
        mask = os.urandom(4)
        self._writer.write(b"\x81\x81" + mask + bytes([HEARTBEAT[0] ^ mask[0]]))

    def close(self) -> None:
        """See Device."""
        self._writer.transport.abort()
