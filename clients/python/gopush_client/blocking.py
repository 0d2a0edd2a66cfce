"""Takes steps with blocking sockets, for threads."""

from __future__ import annotations

import inspect
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from http.client import HTTPException, HTTPResponse
from io import BufferedReader, RawIOBase
from typing import Any

from gopush_client.steps import Ask, Call, Close, Give, Open, Pause, Receive, Send, Step, Steps, given, share
from gopush_client.wire import Answer, is_plain

IDLE_SECONDS = 5.0
"""After so long gopush may be about to close a connection that nobody uses (10 s)."""


def no_name(host: str, wrong: UnicodeError) -> OSError:
    """What to raise where no resolver can know a name, as one with two dots in a row."""
    return ConnectionError(f"{host!r} is no name of a host: {wrong}")


@cache
def default_context() -> ssl.SSLContext:
    """With the system's authorities. To read them takes 20 ms and a MiB: not for each connection."""
    return ssl.create_default_context()


Hold = Callable[[socket.socket], None]
"""Is told which socket a step uses, as soon as there is one: who stops it shuts that down. Told again once that is
connected: what is shut down before seems to connect. Raises OSError where it is stopped already."""


class _Incoming(RawIOBase):
    """What a socket receives until the end of a call, however many pieces it comes in; in the place of a socket for
    HTTPResponse.
    """

    def __init__(self, connected: socket.socket, call: Call, end: float) -> None:
        self._connected = connected
        self._call = call
        self._end = end

    def makefile(self, _mode: str) -> BufferedReader:
        """See socket."""
        return BufferedReader(self)

    def readable(self) -> bool:
        """See RawIOBase."""
        return True

    def readinto(self, buffer: Any) -> int:
        """See RawIOBase. Raises OSError."""
        self._connected.settimeout(_left(self._end))
        size = self._connected.recv_into(buffer)
        self._end += self._call.more(size)
        return size


class Connections:
    """Connections of HTTP that wait for the next call; any thread may take one. `context`: of TLS."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context
        self._idle: list[tuple[socket.socket, float]] = []
        self._process = os.getpid()

    def call(self, call: Call, hold: Hold) -> Answer:
        """Raises OSError."""
        begun = time.monotonic()
        end = begun + call.seconds
        connected = self._take(call, hold)
        try:
            for piece, seconds in call.pieces():
                connected.settimeout(_left(end))
                connected.sendall(piece)
                end = begun + seconds
            with HTTPResponse(_Incoming(connected, call, end), method=call.method) as response:  # type: ignore[arg-type]
                response.begin()
                while response.status < 200:  # an interim one (RFC 9110, 15.2): begin() itself skips 100 alone
                    response.headers = None  # type: ignore[assignment]
                    response.begin()
                answer = Answer(response.status, response.read(), is_plain(response.getheader("Content-Type")))
        except (HTTPException, ValueError) as wrong:
            connected.close()
            raise ConnectionError(f"{type(wrong).__name__}: {wrong}") from None
        except BaseException:
            connected.close()
            raise
        if call.keep and not response.will_close:
            self._idle.append((connected, time.monotonic()))
        else:
            connected.close()
        return answer

    def close(self) -> None:
        """Close those that wait."""
        while self._idle:
            self._idle.pop()[0].close()

    def _take(self, call: Call, hold: Hold) -> socket.socket:
        if self._process != os.getpid():  # it was forked: its parent goes on with what it had
            self._process = os.getpid()
            self.close()
        old = time.monotonic() - IDLE_SECONDS
        with suppress(IndexError):  # other threads take them, too
            while self._idle[0][1] <= old:  # also those below the newest, which alone is used after a burst
                self._idle.pop(0)[0].close()
            if call.keep:
                connected, _ = self._idle.pop()
                hold(connected)
                return connected
        tls = (self._context or default_context()) if call.url.tls else None
        return _connect(call.url.host, call.url.port, tls, call.seconds, hold)


def _connect(host: str, port: int, tls: ssl.SSLContext | None, seconds: float, hold: Hold) -> socket.socket:
    """To the first of the name's addresses that answers: each has its share of the time. Raises OSError."""
    end = time.monotonic() + seconds
    found = _addresses(host, port)
    while True:
        *kind, _, address = found.pop(0)
        try:
            made = _reach(kind, address, share(_left(end), len(found)), hold)
            break
        except OSError:
            if not found:
                raise
    try:
        hold(made)
        if tls is not None:
            made.settimeout(_left(end))
            made = tls.wrap_socket(made, server_hostname=host, do_handshake_on_connect=False)
            hold(made)
            made.do_handshake()
    except BaseException:
        made.close()
        raise
    return made


def _addresses(host: str, port: int) -> list[Any]:
    """Raises OSError."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as wrong:
        raise no_name(host, wrong) from None


def _reach(kind: list[Any], address: Any, seconds: float, hold: Hold) -> socket.socket:
    """Raises OSError."""
    made = socket.socket(*kind)
    try:
        hold(made)
        made.settimeout(seconds)
        made.connect(address)
    except BaseException:
        made.close()
        raise
    return made


def _left(end: float) -> float:
    """How many seconds there are. Raises TimeoutError where there are none, also for who need not wait."""
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


class Driver:
    """Takes the steps of one generator. stop() may be called from any thread: then it takes no more."""

    def __init__(self, connections: Connections, context: ssl.SSLContext | None = None) -> None:
        self._connections = connections
        self._context = context
        self._socket: socket.socket | None = None
        self._held: socket.socket | None = None
        """That of the step which is being taken."""
        self._stopped = threading.Event()

    def run(self, steps: Steps[Any]) -> Any:
        """What the generator returns, in the end."""
        (result,) = self.drive(given(steps))
        return result

    def drive(self, steps: Steps[None]) -> Iterator[Any]:
        """What the generator gives."""
        result: Any = None
        wrong: OSError | None = None
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
                    result = self._take(step)
                except OSError as failed:
                    wrong = failed
                finally:
                    self._held = None
        finally:
            steps.close()
            self._close()

    def stop(self) -> None:
        """End it, also what it is waiting for."""
        self._stopped.set()
        for connected in (self._socket, self._held):
            if connected is not None:
                with suppress(OSError):  # of the socket below TLS: nobody waits for anything any more
                    socket.socket.shutdown(connected, socket.SHUT_RDWR)

    def _take(self, step: Step) -> Any:
        if isinstance(step, Receive):
            return self._receive(step.seconds)
        if isinstance(step, Call):
            return self._connections.call(step, self._hold)
        if isinstance(step, Pause):
            self._stopped.wait(step.seconds)
        elif isinstance(step, Open):
            tls = (self._context or default_context()) if step.tls else None
            self._socket = _connect(step.host, step.port, tls, step.seconds, self._hold)
        elif isinstance(step, Send):
            connected = self._connected()
            connected.settimeout(step.seconds)
            connected.sendall(step.data)
        elif isinstance(step, Close):
            self._close()
        elif isinstance(step, Ask):
            found = step.function()
            if inspect.isawaitable(found):
                raise TypeError("a token function that gives an awaitable needs asyncio")
            return found
        return None

    def _hold(self, connected: socket.socket) -> None:
        self._held = connected
        if self._stopped.is_set():
            raise ConnectionAbortedError("stopped meanwhile")

    def _receive(self, seconds: float) -> bytes | None:
        connected = self._connected()
        connected.settimeout(seconds)
        try:
            return connected.recv(1 << 16)
        except TimeoutError:
            return None

    def _connected(self) -> socket.socket:
        if self._socket is None:
            raise ConnectionError("there is no connection")
        return self._socket

    def _close(self) -> None:
        closing, self._socket = self._socket, None
        if closing is not None:
            closing.close()
