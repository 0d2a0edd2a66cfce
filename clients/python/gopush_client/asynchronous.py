"""Takes steps with asyncio."""

from __future__ import annotations

import asyncio
import inspect
import io
import socket
import ssl
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from http.client import HTTPException, parse_headers
from typing import Any

from gopush_client.blocking import IDLE_SECONDS, default_context, no_name
from gopush_client.steps import Ask, Call, Close, Give, Open, Pause, Receive, Send, Step, Steps, given, share
from gopush_client.wire import Answer, is_plain

LARGEST_HEAD = LARGEST_PIECE = 1 << 16
MOST_OPEN = 100  # in an event loop; many systems let a process open 1024 files


class _Connection:
    """A pair of streams."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer
        self.idle_since = 0.0

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def close(self) -> None:
        self._writer.transport.abort()  # nothing is on its way that anybody waits for


async def _connect(to: Open, context: ssl.SSLContext | None) -> _Connection:
    """To the first of the name's addresses that answers: each has its share of the time. Raises OSError."""
    # open_connection() would go on to the next address in time on asyncio's own loops alone.
    loop = asyncio.get_running_loop()
    end = loop.time() + to.seconds
    tls = (context or default_context()) if to.tls else None
    try:
        found = await loop.getaddrinfo(to.host, to.port, type=socket.SOCK_STREAM)
    except UnicodeError as wrong:
        raise no_name(to.host, wrong) from None
    while True:
        *kind, _, address = found.pop(0)
        try:
            async with asyncio.timeout(share(end - loop.time(), len(found))):
                made = await _reach(kind, address)
            break
        except OSError:
            if not found:
                raise
    name = to.host if tls else None
    return _Connection(*await asyncio.open_connection(sock=made, ssl=tls, server_hostname=name, limit=LARGEST_HEAD))


async def _reach(kind: list[Any], address: Any) -> socket.socket:
    """Raises OSError."""
    made = socket.socket(*kind)
    try:
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, address)
    except BaseException:
        made.close()
        raise
    return made


class _Pool:
    """The connections of one event loop: those that wait for the next call, and places for all that are open."""

    def __init__(self) -> None:
        self.places = asyncio.Semaphore(MOST_OPEN)
        self._idle: list[_Connection] = []
        self._closing: asyncio.TimerHandle | None = None

    def take(self) -> _Connection | None:
        """The newest that waits, if there is one; a loop that was busy has not closed old ones yet."""
        old = time.monotonic() - IDLE_SECONDS
        while self._idle:
            connection = self._idle.pop()
            if connection.idle_since > old and not connection.reader.at_eof():
                return connection
            connection.close()
        return None

    def give_back(self, connection: _Connection) -> None:
        """Have it wait, but not for long."""
        connection.idle_since = time.monotonic()
        self._idle.append(connection)
        if self._closing is None:
            self._close_old()

    def close(self) -> None:
        """Close those that wait."""
        while self._idle:
            self._idle.pop().close()

    def _close_old(self) -> None:
        """Also those below the newest, which alone is used after a burst; and again when the next one is old."""
        self._closing = None
        old = time.monotonic() - IDLE_SECONDS
        while self._idle and self._idle[0].idle_since <= old:
            self._idle.pop(0).close()
        if self._idle:
            self._closing = asyncio.get_running_loop().call_later(self._idle[0].idle_since - old, self._close_old)


class Connections:
    """Connections of HTTP, each for one call after the other. `context`: of TLS."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context
        self._pools: dict[asyncio.AbstractEventLoop, _Pool] = {}

    async def call(self, call: Call) -> Answer:
        """Raises OSError."""
        now, pool = asyncio.get_running_loop().time, self._own()
        asked, begun = now(), 0.0
        try:
            async with asyncio.timeout(call.seconds + call.sending) as bound, pool.places:
                begun = now()
                call = call.after(begun - asked)
                bound.reschedule(begun + call.seconds)

                def came(size: int) -> None:
                    bound.reschedule((bound.when() or 0.0) + call.more(size))

                opening = Open(call.url.host, call.url.port, call.url.tls, call.seconds)
                connection = (pool.take() if call.keep else None) or await _connect(opening, self._context)
                keeps = False
                try:
                    for piece, seconds in call.pieces():
                        await connection.send(piece)
                        bound.reschedule(begun + seconds)
                    answer, keeps = await _read_answer(connection.reader, came)
                finally:
                    if call.keep and keeps:
                        pool.give_back(connection)
                    else:
                        connection.close()
        except TimeoutError as late:
            raise TimeoutError(
                str(late) or ("timed out" if begun else f"all {MOST_OPEN} connections were in use")
            ) from None
        except EOFError:
            raise ConnectionError("the connection was closed before the answer was complete") from None
        except (HTTPException, ValueError, asyncio.LimitOverrunError) as wrong:
            raise ConnectionError(f"{type(wrong).__name__}: {wrong}") from None
        return answer

    def close(self) -> None:
        """Close those that wait."""
        self._own().close()

    def _own(self) -> _Pool:
        """That of this event loop. Those of another one, be it in the process that forked this one, are not ours."""
        for loop in list(self._pools):
            if loop.is_closed():
                self._pools.pop(loop, None)
        return self._pools.setdefault(asyncio.get_running_loop(), _Pool())


class Driver:
    """Takes the steps of one generator. stop() may be called from any thread: then it takes no more."""

    def __init__(self, connections: Connections, context: ssl.SSLContext | None = None) -> None:
        self._connections = connections
        self._context = context
        self._connection: _Connection | None = None
        self._taking: asyncio.Timeout | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = asyncio.Event()

    async def run(self, steps: Steps[Any]) -> Any:
        """What the generator returns, in the end."""
        (result,) = [each async for each in self.drive(given(steps))]
        return result

    async def drive(self, steps: Steps[None]) -> AsyncGenerator[Any, None]:
        """What the generator gives."""
        result: Any = None
        wrong: OSError | None = None
        self._loop = asyncio.get_running_loop()
        try:
            while not self._stopped.is_set():
                try:
                    step = steps.throw(wrong) if wrong is not None else steps.send(result)
                except StopIteration:
                    return
                result = wrong = None
                if isinstance(step, Give):
                    yield step.value
                    continue
                try:
                    result = await self._take(step)
                except OSError as failed:
                    wrong = failed
        finally:
            steps.close()
            self._close()

    def stop(self) -> None:
        """End it, also what it is waiting for."""
        running = None
        with suppress(RuntimeError):  # another thread has none
            running = asyncio.get_running_loop()
        if self._loop is None or self._loop is running:
            self._stop()
        else:
            with suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        self._stopped.set()
        taking, self._taking = self._taking, None
        if taking is not None:
            taking.reschedule(0)
        self._close()

    async def _take(self, step: Step) -> Any:
        """Raises OSError, also where it is stopped meanwhile."""
        try:
            async with asyncio.timeout(None) as self._taking:
                return await self._result(step)
        finally:
            self._taking = None

    async def _result(self, step: Step) -> Any:
        if isinstance(step, Receive):
            return await self._receive(step.seconds)
        if isinstance(step, Call):
            return await self._connections.call(step)
        if isinstance(step, Pause):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), step.seconds)
        elif isinstance(step, Open):
            self._connection = await asyncio.wait_for(_connect(step, self._context), step.seconds)
        elif isinstance(step, Send):
            await asyncio.wait_for(self._connected().send(step.data), step.seconds)
        elif isinstance(step, Close):
            self._close()
        elif isinstance(step, Ask):
            found = step.function()
            return await found if inspect.isawaitable(found) else found
        return None

    async def _receive(self, seconds: float) -> bytes | None:
        try:
            async with asyncio.timeout(seconds):
                return await self._connected().reader.read(1 << 16)
        except TimeoutError:
            return None

    def _connected(self) -> _Connection:
        if self._connection is None:
            raise ConnectionError("there is no connection")
        return self._connection

    def _close(self) -> None:
        closing, self._connection = self._connection, None
        if closing is not None:
            closing.close()


async def _read_answer(reader: asyncio.StreamReader, came: Callable[[int], None]) -> tuple[Answer, bool]:
    """An answer, and whether the connection may be used again; `came` hears how much of it has come."""
    status = b"1"
    while status.startswith(b"1"):  # interim ones may come before it (RFC 9110, 15.2)
        start, _, fields = (await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n")
        version, status = start.split(b" ", 2)[:2]
    headers = parse_headers(io.BytesIO(fields))
    keeps = version == b"HTTP/1.1" and (headers.get("Connection") or "").lower() != "close"
    if (headers.get("Transfer-Encoding") or "").lower() == "chunked":
        parts = []
        while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
            parts.append(await _read(reader, size, came))
            await reader.readexactly(2)
        while await reader.readuntil(b"\r\n") != b"\r\n":
            pass
        body = b"".join(parts)
    elif (length := headers.get("Content-Length")) is not None:
        body = await _read(reader, int(length), came)
    else:
        body, keeps = await _read(reader, None, came), False
    return Answer(int(status), body, is_plain(headers.get("Content-Type"))), keeps


async def _read(reader: asyncio.StreamReader, size: int | None, came: Callable[[int], None]) -> bytes:
    """So many bytes, or all there are. Raises EOFError."""
    body = bytearray()
    while piece := await reader.read(LARGEST_PIECE if size is None else min(size - len(body), LARGEST_PIECE)):
        body += piece
        came(len(piece))
    if size is not None and len(body) != size:
        raise EOFError
    return bytes(body)
