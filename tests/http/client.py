"""A client that sees every byte of an HTTP connection."""

from __future__ import annotations

import socket
from typing import NamedTuple

PATIENCE = 30.0


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """One connection; all reads fail after PATIENCE seconds."""

    def __init__(self, port: int, rcvbuf: int = 0) -> None:
        self.socket = socket.socket()
        if rcvbuf:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(("127.0.0.1", port))
        self._data = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def request(self, method: str, target: str, body: bytes = b"", headers: str = "") -> Answer:
        """A request on the connection, kept alive, and its answer."""
        length = f"Content-Length: {len(body)}\r\n" if body or method == "POST" else ""
        self.send(f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n{length}{headers}\r\n".encode() + body)
        return self.answer(head_only=method == "HEAD")

    def answer(self, head_only: bool = False) -> Answer:
        """The next answer."""
        lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)}
        version, status = lines[0].split(" ")[:2]
        assert version == "HTTP/1.1"
        if head_only or status in ("100", "204"):
            body = b""
        elif headers.get("transfer-encoding") == "chunked":
            body = b"".join(iter(self._chunk, b""))
        elif "content-length" in headers:
            body = self._exactly(int(headers["content-length"]))
        else:
            body = self.rest()
        return Answer(int(status), headers, body)

    def rest(self) -> bytes:
        """All that comes until the server closes."""
        while self._receive():
            pass
        data, self._data = self._data, b""
        return data

    def closed(self) -> bool:
        """Waits for the server to close; whether it did so without another byte."""
        return self.rest() == b""

    def silent(self, seconds: float = 0.3) -> bool:
        """Whether nothing comes for some time, the end included."""
        self.socket.settimeout(seconds)
        try:
            return not self._data and self.socket.recv(1, socket.MSG_PEEK) is None
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(PATIENCE)

    def _chunk(self) -> bytes:
        size = int(self._until(b"\r\n"), 16)
        data = self._exactly(size)
        assert self._exactly(2) == b"\r\n"
        return data

    def _until(self, end: bytes) -> bytes:
        while end not in self._data:
            assert self._receive(), f"closed after {self._data!r}"
        found, _, self._data = self._data.partition(end)
        return found

    def _exactly(self, size: int) -> bytes:
        parts, missing = [self._data[:size]], size - len(self._data)
        self._data = self._data[size:]
        while missing > 0:
            part = self.socket.recv(min(missing, 1 << 20))
            assert part, "closed within a body"
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def _receive(self) -> bool:
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionResetError:
            return False
        self._data += data
        return bool(data)
