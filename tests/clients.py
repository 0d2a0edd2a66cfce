"""Test clients: what subscribers say over TCP and WebSocket, and every byte of what they are told."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import random
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

PATIENCE = 30.0


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


def endless_hello(size: int) -> bytes:
    """So many bytes of a client's TLS handshake whose first message, of 131,000 bytes, goes on behind them."""
    message = b"\1" + (131_000).to_bytes(3, "big") + bytes(130_000)
    pieces = (message[at : at + 16_000] for at in range(0, len(message), 16_000))
    return b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece for piece in pieces)[:size]


class Client:
    """One connection. A reset fails the test: all that the comet says must arrive, and then the end."""

    def __init__(self, port: int, rcvbuf: int = 0) -> None:
        self.socket = socket.socket()
        if rcvbuf:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(("127.0.0.1", port))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_bytewise(self, data: bytes) -> None:
        """Send each byte in a segment of its own."""
        for at in range(len(data)):
            self.send(data[at : at + 1])
            time.sleep(0.001)

    def wait_until_taken(self) -> None:
        """Wait until all that was sent has left this end: the comet's kernel has no room for more than a few KB."""
        eventually(lambda: fcntl.ioctl(self.socket, termios.TIOCOUTQ, bytes(4)) == bytes(4))

    def read(self, size: int) -> bytes:
        """So many bytes."""
        parts: list[bytes] = []
        while size:
            part = self.socket.recv(min(size, 1 << 20))
            assert part, f"closed after {b''.join(parts)[-100:]!r}"
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def until(self, end: bytes) -> bytes:
        """All up to `end`, and `end`."""
        data = b""
        while not data.endswith(end):
            data += self.read(1)
        return data

    def rest(self) -> bytes:
        """All that comes before the comet closes."""
        return b"".join(iter(lambda: self.socket.recv(1 << 16), b""))

    def is_quiet(self, seconds: float = 0.2) -> bool:
        """Whether nothing comes for a while, the end included."""
        self.socket.settimeout(seconds)
        try:
            return self.socket.recv(1, socket.MSG_PEEK) is None
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(PATIENCE)


def request(*arguments: str | bytes) -> bytes:
    """A TCP request of these arguments."""
    encoded = [argument.encode() if isinstance(argument, str) else argument for argument in arguments]
    return b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%b\r\n" % (len(item), item) for item in encoded)


class TcpClient(Client):
    """A device that speaks TCP."""

    def subscribe(self, key: str, heartbeat: str = "30", *more: str) -> TcpClient:
        """Subscribe, and wait for the answer."""
        self.send(request("sub", key, heartbeat, *more))
        assert self.read(4) == b"+h\r\n"
        return self

    def message(self) -> bytes:
        """The JSON of the next message."""
        assert self.read(1) == b"$"
        json = self.read(int(self.until(b"\r\n")))
        assert self.read(2) == b"\r\n"
        return json

    def is_served(self) -> bool:
        """Whether a heartbeat is answered, and nothing else came."""
        self.send(b"h")
        return self.read(4) == b"+h\r\n"


KEY = base64.b64encode(bytes(range(16))).decode()
ACCEPT = base64.b64encode(hashlib.sha1((KEY + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()
FIELDS = {
    "Host": "push.example:6968",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


class Frame(NamedTuple):
    """A frame as the comet sent it."""

    fin: bool
    opcode: int
    payload: bytes


def opening(target: str | bytes, method: str = "GET", version: str = "HTTP/1.1", **fields: Any) -> bytes:
    """An opening handshake; header fields (with _ for -) may be changed, repeated, or left out (None)."""
    changed = {name.replace("_", "-"): value for name, value in fields.items()}
    lines = [f"{method} ".encode() + (target.encode() if isinstance(target, str) else target) + f" {version}".encode()]
    for name, value in (FIELDS | changed).items():
        for one in value if isinstance(value, list) else [value]:
            if one is not None:
                lines.append(f"{name}: {one}".encode())
    return b"\r\n".join([*lines, b"\r\n"])


_masks = random.Random(6455)
"""As by chance, and the same in every run: frames are names of tests, too."""


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True, length: int = -1
) -> bytes:
    """A client's frame. `length` lies about the payload's."""
    size = len(payload) if length < 0 else length
    first = (fin << 7) | (rsv << 4) | opcode
    mask_bit = masked << 7
    if size < 126:
        head = struct.pack("!BB", first, mask_bit | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, mask_bit | 126, size)
    else:
        head = struct.pack("!BBQ", first, mask_bit | 127, size)
    if not masked:
        return head + payload
    mask = _masks.randbytes(4)
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


class WebSocketClient(Client):
    """A device that speaks WebSocket."""

    def open(self, query: str) -> WebSocketClient:
        """Shake hands; what the comet says about the query is a message."""
        self.send(opening(f"/sub?{query}"))
        assert self.until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
        return self

    def subscribe(self, key: str, more: str = "&ver=1") -> WebSocketClient:
        """Subscribe, and wait for the answer."""
        self.open(f"key={key}&heartbeat=30{more}")
        assert self.message() == b"+h\r\n"
        return self

    def frame(self) -> Frame:
        """The next frame; a server's are never masked, and all reserved bits are 0."""
        first, second = self.read(2)
        assert not first & 0x70
        assert not second & 0x80
        size = second
        if second == 126:
            (size,) = struct.unpack("!H", self.read(2))
            assert size > 125
        elif second == 127:
            (size,) = struct.unpack("!Q", self.read(8))
            assert size > 65535
        return Frame(bool(first & 0x80), first & 15, self.read(size))

    def message(self) -> bytes:
        """The payload of the next frame, which is a whole text message."""
        received = self.frame()
        assert (received.fin, received.opcode) == (True, TEXT), received
        return received.payload

    def closing(self) -> tuple[int | None, bytes]:
        """The code and reason of the close frame that comes next, after which the comet ends the connection."""
        received = self.frame()
        assert (received.fin, received.opcode) == (True, CLOSE), received
        assert self.rest() == b""
        payload = received.payload
        return (struct.unpack("!H", payload[:2])[0] if payload else None), payload[2:]

    def is_served(self) -> bool:
        """Whether a heartbeat is answered, and nothing else came."""
        self.send(frame(TEXT, b"h"))
        return self.message() == b"+h\r\n"


@contextmanager
def sending(client: Client, data: bytes, times: int) -> Iterator[None]:
    """Meanwhile the client sends `data` so many times, or until the comet will have no more."""

    def send() -> None:
        try:
            for _ in range(times):
                client.socket.sendall(data)
        except OSError:
            pass

    thread = threading.Thread(target=send)
    thread.start()
    yield
    client.socket.close()
    thread.join(PATIENCE)
