"""Takes steps with blocking sockets, for threads."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Generator
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any

from gopush_client.steps import Ask, Call, Close, Give, Open, Pause, Receive, Send, Step, Steps
from gopush_client.wire import Answer

IDLE_SECONDS = 5.0
"""After so long gopush may be about to close a connection that nobody uses (10 s)."""


def no_name(host: str, wrong: UnicodeError) -> OSError:
    """What to raise where no resolver can know a name, as one with two dots in a row."""
    return ConnectionError(f"{host!r} is no name of a host: {wrong}")


class Connections:
    """Connections of HTTP that wait for the next call; any thread may take one. `context`: of TLS."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context
        self._idle: list[tuple[HTTPConnection, float]] = []

    def call(self, call: Call) -> Answer:
        """Raises OSError."""
        connection = self._take(call) if call.keep else self._new(call)
        try:
            connection.request(call.method, call.url.base + call.path, call.body or None, call.headers)
            response = connection.getresponse()
            answer = Answer(response.status, response.read())
        except (HTTPException, ValueError) as wrong:
            connection.close()
            raise ConnectionError(f"{type(wrong).__name__}: {wrong}") from None
        except BaseException:
            connection.close()
            raise
        if call.keep and not response.will_close:
            self._idle.append((connection, time.monotonic()))
        else:
            connection.close()
        return answer

    def close(self) -> None:
        """Close those that wait."""
        while self._idle:
            self._idle.pop()[0].close()

    def _take(self, call: Call) -> HTTPConnection:
        with suppress(IndexError):  # other threads take them, too
            while self._idle:
                connection, since = self._idle.pop()
                if time.monotonic() - since < IDLE_SECONDS and connection.sock is not None:
                    connection.sock.settimeout(call.seconds)
                    return connection
                connection.close()
        return self._new(call)

    def _new(self, call: Call) -> HTTPConnection:
        if call.url.tls:
            return HTTPSConnection(call.url.host, call.url.port, timeout=call.seconds, context=self._context)
        return HTTPConnection(call.url.host, call.url.port, timeout=call.seconds)


class Driver:
    """Takes the steps of one generator. stop() may be called from any thread: then it takes no more."""

    def __init__(self, connections: Connections, context: ssl.SSLContext | None = None) -> None:
        self._connections = connections
        self._context = context
        self._socket: socket.socket | None = None
        self._stopped = threading.Event()

    def run(self, steps: Steps[Any]) -> Any:
        """What the generator returns, in the end."""
        driving = self.drive(steps)
        while True:
            try:
                next(driving)
            except StopIteration as end:
                return end.value

    def drive(self, steps: Generator[Step, Any, Any]) -> Generator[Any, None, Any]:
        """What the generator gives."""
        result: Any = None
        wrong: OSError | None = None
        try:
            while not self._stopped.is_set():
                try:
                    step = steps.throw(wrong) if wrong is not None else steps.send(result)
                except StopIteration as end:
                    return end.value
                result = wrong = None
                if isinstance(step, Give):
                    yield step.value
                    continue
                try:
                    result = self._take(step)
                except OSError as failed:
                    wrong = failed
        finally:
            steps.close()
            self._close()

    def stop(self) -> None:
        """End it, also what it is waiting for."""
        self._stopped.set()
        if (connected := self._socket) is not None:
            with suppress(OSError):  # of the socket below TLS: nobody waits for anything any more
                socket.socket.shutdown(connected, socket.SHUT_RDWR)

    def _take(self, step: Step) -> Any:
        if isinstance(step, Receive):
            return self._receive(step.seconds)
        if isinstance(step, Call):
            return self._connections.call(step)
        if isinstance(step, Pause):
            self._stopped.wait(step.seconds)
        elif isinstance(step, Open):
            self._open(step)
        elif isinstance(step, Send):
            connected = self._connected()
            connected.settimeout(step.seconds)
            connected.sendall(step.data)
        elif isinstance(step, Close):
            self._close()
        elif isinstance(step, Ask):
            return step.function()
        return None

    def _open(self, step: Open) -> None:
        try:
            made = socket.create_connection((step.host, step.port), step.seconds)
        except UnicodeError as wrong:
            raise no_name(step.host, wrong) from None
        if step.tls:
            try:
                made = (self._context or ssl.create_default_context()).wrap_socket(made, server_hostname=step.host)
            except BaseException:
                made.close()
                raise
        self._socket = made
        if self._stopped.is_set():
            self.stop()

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
