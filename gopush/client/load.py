"""A quick load on a running system: devices on TCP and services that push, in one process with one core."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from gopush.client.address import SECURE, Server, plain
from gopush.client.figures import Figures
from gopush.client.http import TIMEOUT_SECONDS, authorization, create_token, look_up, push
from gopush.client.subscriber import FIRST_PAUSE_SECONDS, LEAST_CURSOR, REFUSALS, frames, mid_of, subscribe
from gopush.config.values import host_port
from gopush.errors import NoNodeError, ParameterError, UnavailableError
from gopush.net.limits import raise_file_limit

EXPIRE_SECONDS = 60
DRAIN_SECONDS = 5.0
"""How long a message may take to arrive before it counts as lost."""

HEARTBEAT_SECONDS = 86400
"""So long that a run sends no heartbeats."""

CONNECTING = 100
PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 1.0
"""Before a device tries again: less than a real one's, as what it reads after the last push still counts."""

_MESSAGE = re.compile(rb'\{"msg":\{"n":([0-9]+),"t":([0-9]+),')


class _Device(asyncio.Protocol):
    """One connection of a subscriber. `ready` fires once it is subscribed; closed after that, it asks `runner` for
    another one, which goes on after the last message.
    """

    def __init__(self, runner: Runner, key: str, token: str, cursor: int | None) -> None:
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.key = key
        self.token = token
        self._cursor = cursor
        self._figures = runner.figures
        self._runner = runner
        self._buffer = bytearray()
        self._last = b""  # message
        self._moved = False  # by -n, which is no fault
        self._closed = False  # by this side

    @property
    def cursor(self) -> int:
        """What it has seen: all messages up to this mid."""
        return mid_of(self._last) if self._last else self._cursor or LEAST_CURSOR

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(subscribe(self.key, HEARTBEAT_SECONDS, self.token, self._cursor))

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        self._buffer += data
        for frame in frames(self._buffer):
            if match := _MESSAGE.match(frame):
                self._last = frame
                self._figures.delivered(int(match[1]), (now - int(match[2])) / 1e9)
            elif not self.ready.done():
                self._answered(frame)
            elif frame == b"-n":
                self._moved = True
            elif frame == b"+g":
                self._figures.failed("messages were trimmed before a subscriber had read them")

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ready.done():
            self.ready.set_exception(UnavailableError("a comet closed the connection of a subscriber at once"))
        elif not self._closed and not self._runner.over:
            if not self._moved:
                self._figures.failed("a subscriber's connection was closed")
            self._runner.resume(self)

    def close(self) -> None:
        """Give this connection up."""
        self._closed = True
        self._transport.abort()

    def _answered(self, frame: bytes) -> None:
        if frame == b"+h":
            self.ready.set_result(None)
        elif frame in REFUSALS:
            self.ready.set_exception(ParameterError(f"a subscriber is refused: {REFUSALS[frame]}"))
        else:
            self.ready.set_exception(UnavailableError(f"a subscriber is refused: {frame[:40]!r}"))


@dataclass(eq=False, repr=False)
class Runner:
    """One run. `rate`: pushes per second; 0: one after the other on each of the `pushers` connections.

    `subscribers`: for each key; `size`: of a message, in bytes; `auth`: whether subscribers need a token; `comet_tls`:
    whether they connect over TLS, and trust whom `web` trusts. `progress` hears how far it is, once a second.
    """

    web: Server
    admin: Server
    keys: int
    subscribers: int
    seconds: float
    size: int
    rate: int
    pushers: int
    auth: bool
    comet_tls: bool
    progress: Callable[[str], object]

    def __post_init__(self) -> None:
        self.figures = Figures()
        self.over = False
        self.began = 0.0
        """When it began to push (monotonic clock); 0 before."""
        self.pushed_for = 0.0
        """Seconds, at the end."""
        self._subscribed = 0
        self._connecting = asyncio.Semaphore(CONNECTING)
        self._resuming: set[asyncio.Task[None]] = set()
        self._next = 0
        self._name = f"gopush-bench-{uuid.uuid4().hex[:8]}"
        self._padding = "x" * self.size
        self._tls = self.admin.context if self.admin.address.startswith(SECURE) else None

    def run(self) -> None:
        """Subscribe, push, wait for what is under way.

        Raises ParameterError or UnavailableError where it cannot begin.
        """
        asyncio.run(self._run())

    async def _run(self) -> None:
        push(self.admin, self._name, b"0", 0)  # report now what is wrong in general
        telling = asyncio.create_task(self._tell())
        try:
            await self._subscribe()
            self.began = time.monotonic()
            async with asyncio.TaskGroup() as pushers:
                for _ in range(self.pushers):
                    pushers.create_task(self._push_on())
            self.pushed_for = time.monotonic() - self.began
            for _ in range(round(DRAIN_SECONDS / PAUSE_SECONDS)):
                if self.figures.lost:
                    await asyncio.sleep(PAUSE_SECONDS)
        finally:
            self.pushed_for = self.pushed_for or time.monotonic() - self.began
            self.over = True
            telling.cancel()

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(1)
            if self.began:
                self.progress(self.figures.progress(time.monotonic() - self.began))
            else:
                self.progress(f"{self._subscribed} of {self.keys * self.subscribers} subscribed")

    # --- devices ---

    async def _subscribe(self) -> None:
        raise_file_limit()
        for number in range(self.keys):
            key = f"{self._name}-{number}"
            token = await asyncio.to_thread(create_token, self.admin, key) if self.auth else ""
            address = await asyncio.to_thread(look_up, self.web, key)
            connecting = (self._connect(address, key, token) for _ in range(self.subscribers))
            for outcome in await asyncio.gather(*connecting, return_exceptions=True):
                if isinstance(outcome, OSError):
                    raise UnavailableError(f"{address}: {str(outcome) or 'no answer in time'}")
                if outcome is not None:
                    raise outcome
            self._subscribed += self.subscribers

    async def _connect(self, address: str, key: str, token: str, cursor: int | None = None) -> None:
        host, port = host_port(address)
        tls = self.web.context if self.comet_tls else None
        async with self._connecting, asyncio.timeout(TIMEOUT_SECONDS):
            loop = asyncio.get_running_loop()
            _, device = await loop.create_connection(lambda: _Device(self, key, token, cursor), host, port, ssl=tls)
            try:
                await device.ready
            except BaseException:
                device.close()
                raise

    def resume(self, device: _Device) -> None:
        """Connect this subscriber anew, which was closed."""
        task = asyncio.ensure_future(self._resume(device.key, device.token, device.cursor))
        self._resuming.add(task)
        task.add_done_callback(self._resuming.discard)

    async def _resume(self, key: str, token: str, cursor: int) -> None:
        pause = FIRST_PAUSE_SECONDS
        while not self.over:
            await asyncio.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            try:
                await self._connect(await asyncio.to_thread(look_up, self.web, key), key, token, cursor)
                return
            except ParameterError as wrong:
                self.figures.failed(str(wrong))
            except (OSError, UnavailableError, NoNodeError):
                pass  # what it misses for good is lost

    # --- services ---

    async def _push_on(self) -> None:
        """Push over one connection, made anew when it breaks, until the time is over."""
        while self._left() > 0:
            try:
                reader, writer = await asyncio.open_connection(*host_port(plain(self.admin.address)), ssl=self._tls)
                try:
                    while await self._push(reader, writer):
                        pass
                finally:
                    writer.close()
            except (OSError, EOFError, ValueError, TimeoutError) as wrong:
                self.figures.failed(f"{type(wrong).__name__}: {str(wrong) or 'no answer in time'}"[:100])
                await asyncio.sleep(PAUSE_SECONDS)

    async def _push(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Push once, when it is due; whether there is time for another one."""
        number = self._next
        due = self.began + number / self.rate if self.rate else time.monotonic()
        if due >= self.began + self.seconds:
            return False
        self._next += 1
        if (wait := due - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        writer.write(self._request(number, due))
        async with asyncio.timeout(TIMEOUT_SECONDS):  # wait_for() of Python 3.11 may swallow an interrupt
            answer = await _answer(reader)
        if answer.get("ret") == 0:
            self.figures.pushed(number, time.monotonic() - due, self.subscribers)
        else:
            self.figures.failed(f"ret {answer.get('ret')}")
        return True

    def _request(self, number: int, due: float) -> bytes:
        start = f'{{"n":{number},"t":{int(due * 1e9)},"x":"'
        body = f'{start}{self._padding[len(start) + 2 :]}"}}'
        target = f"/1/admin/push/private?key={self._name}-{number % self.keys}&expire={EXPIRE_SECONDS}"
        headers = {"Host": plain(self.admin.address), "Content-Length": len(body)} | authorization(self.admin.api_key)
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"POST {target} HTTP/1.1\r\n{lines}\r\n{body}".encode()

    def _left(self) -> float:
        return self.began + self.seconds - time.monotonic()


async def _answer(reader: asyncio.StreamReader) -> dict[str, object]:
    """The JSON of an answer. Raises ValueError for one of another status."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    length = re.search(r"\r\ncontent-length: *([0-9]+)\r\n", head, re.IGNORECASE)
    body = await reader.readexactly(int(length[1]) if length else 0)
    if (status := head.split(" ", 2)[1]) != "200":
        raise ValueError(f"HTTP {status}")
    answer: dict[str, object] = json.loads(body)
    return answer
