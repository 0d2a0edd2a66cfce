"""An EventSource in Python: the HTML standard's section on server-sent events, word for word, over a socket."""

from __future__ import annotations

import codecs
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple, Self

PATIENCE = 30.0
DIGITS = frozenset("0123456789")


class Event(NamedTuple):
    type: str
    data: str
    id: str


class Parser:
    """Bytes in, events out. `last_id` and `retry_ms` are what the stream has set; `comments` counts those."""

    def __init__(self) -> None:
        self.last_id = ""
        self.retry_ms: int | None = None
        self.comments = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._begun = False
        self._text = ""
        self._type = self._data = ""
        self._has_data = False
        self._id = ""

    def feed(self, data: bytes) -> Iterator[Event]:
        self._text += self._decoder.decode(data)
        if not self._begun and self._text:
            self._begun = True
            self._text = self._text.removeprefix("\ufeff")
        while (line := self._line()) is not None:
            yield from self._take(line)

    def _line(self) -> str | None:
        """A line ends with CR LF, LF or CR; a CR that is the last character may have its LF yet to come."""
        ends = [at for at in (self._text.find("\n"), self._text.find("\r")) if at >= 0]
        if not ends:
            return None
        at = min(ends)
        size = 1
        if self._text[at] == "\r":
            if at + 1 == len(self._text):
                return None
            size += self._text[at + 1] == "\n"
        line, self._text = self._text[:at], self._text[at + size :]
        return line

    def _take(self, line: str) -> Iterator[Event]:
        if not line:
            yield from self._dispatch()
        elif line.startswith(":"):
            self.comments += 1
        else:
            name, _, value = line.partition(":")
            self._field(name, value.removeprefix(" "))

    def _field(self, name: str, value: str) -> None:
        if name == "event":
            self._type = value
        elif name == "data":
            self._data += value + "\n"
            self._has_data = True
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value and set(value) <= DIGITS:
            self.retry_ms = int(value)

    def _dispatch(self) -> Iterator[Event]:
        self.last_id = self._id
        kind, data = self._type or "message", self._data.removesuffix("\n")
        self._type = self._data = ""
        if self._has_data:
            self._has_data = False
            yield Event(kind, data, self.last_id)


class Stream:
    """One connection: the answer's status and headers, and then its events."""

    def __init__(self, host: str, target: str, fields: str = "", version: str = "1.1", rcvbuf: int = 0) -> None:
        self.parser = Parser()
        self.raw = b""
        """The body as it came, without the framing of HTTP."""
        address, _, port = host.rpartition(":")
        self.socket = socket.socket()
        if rcvbuf:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.socket.settimeout(PATIENCE)
        self.socket.connect((address, int(port)))
        request = f"GET {target} HTTP/{version}\r\nHost: {host}\r\nAccept: text/event-stream\r\n{fields}\r\n"
        self.socket.sendall(request.encode())
        self._buffer = b""
        self._ended = False
        lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        self.status = int(lines[0].split(" ")[1])
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)}
        self._left = int(self.headers["content-length"]) if "content-length" in self.headers else None
        self._found: list[Event] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def event(self) -> Event:
        """The next one."""
        return next(self.events())

    def events(self) -> Iterator[Event]:
        """All, until the stream ends."""
        while True:
            while self._found:
                yield self._found.pop(0)
            piece = self.piece()
            if not piece:
                return
            self._found += self.parser.feed(piece)

    def until(self, condition: Callable[[], object]) -> None:
        """Read until it holds; events that come meanwhile are kept."""
        while not condition():
            piece = self.piece()
            assert piece, f"the stream ended after {self.raw!r}"
            self._found += self.parser.feed(piece)

    def began(self) -> Self:
        """Wait for its beginning: when to come back, and from where."""
        self.until(lambda: self.parser.last_id and self.parser.retry_ms)
        return self

    def piece(self) -> bytes:
        """The next piece of the body, b"" at its end."""
        data = b"" if self._ended else self._piece()
        self._ended = self._ended or not data
        self.raw += data
        return data

    def rest(self) -> bytes:
        """All of the body that comes until its end."""
        return b"".join(iter(self.piece, b""))

    def _piece(self) -> bytes:
        if self.headers.get("transfer-encoding") == "chunked":
            size = int(self._until(b"\r\n"), 16)
            data = self._exactly(size)
            assert self._exactly(2) == b"\r\n"
            return data
        if self._left is not None:
            data = self._exactly(self._left)
            self._left = 0
            return data
        data, self._buffer = self._buffer, b""
        return data or self.socket.recv(1 << 16)

    def _until(self, end: bytes) -> bytes:
        while end not in self._buffer:
            self._receive()
        found, _, self._buffer = self._buffer.partition(end)
        return found

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._receive()
        found, self._buffer = self._buffer[:size], self._buffer[size:]
        return found

    def _receive(self) -> None:
        data = self.socket.recv(1 << 16)
        if not data:
            raise ConnectionResetError("cut")
        self._buffer += data


class EventSource:
    """What `new EventSource(url)` does, in a thread: it comes back after the time it was told, with the last id.

    It stops for good at any status but 200, and at another content type: `failed` says which.
    """

    def __init__(self, hosts: Callable[[], str], target: str) -> None:
        self.events: list[Event] = []
        self.connections = 0
        self.failed = ""
        self.last_id = ""
        self._retry_ms = 1000
        self._hosts = hosts
        self._target = target
        self._closed = threading.Event()
        self._stream: Stream | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._closed.set()
        if self._stream is not None:
            self._stream.socket.shutdown(socket.SHUT_RDWR) if self._stream.socket.fileno() >= 0 else None
        self._thread.join(PATIENCE)

    def messages(self) -> list[str]:
        """The data of its messages."""
        return [event.data for event in list(self.events) if event.type == "message"]

    def _run(self) -> None:
        while not self._closed.is_set() and not self.failed:
            with suppress(OSError):
                self._connect()
            self._closed.wait(self._retry_ms / 1000)

    def _connect(self) -> None:
        fields = f"Last-Event-ID: {self.last_id}\r\n" if self.last_id else ""
        with Stream(self._hosts(), self._target, fields) as stream:
            if stream.status != 200 or stream.headers["content-type"].partition(";")[0] != "text/event-stream":
                self.failed = f"{stream.status} {stream.headers['content-type']}"
                return
            self.connections += 1
            stream.parser._id = stream.parser.last_id = self.last_id
            self._stream = stream
            stream.socket.settimeout(1.0)
            try:
                self._read(stream)
            finally:
                self._stream = None

    def _read(self, stream: Stream) -> None:
        while not self._closed.is_set():
            try:
                piece = stream.piece()
            except TimeoutError:
                continue
            if not piece:
                return
            self.events += stream.parser.feed(piece)
            self.last_id = stream.parser.last_id
            self._retry_ms = stream.parser.retry_ms or self._retry_ms


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)
