"""A way to a server on which a test lets things happen: connections cut, refused, or forgotten without a word."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType

from tests.servers import free_port


class Proxy:
    """Forwards 127.0.0.1:`port` to another port there. `refuses`: new connections are cut at once.

    `blocks`: whoever sends these bytes is cut, too, and so is who has sent them already, when block() is called.
    """

    def __init__(self, to: int) -> None:
        self.port = free_port()
        self.blocks = b""
        self._senders: dict[bytes, set[socket.socket]] = {}
        self.to = to
        self.refuses = False
        self.made = 0
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._forgotten: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", self.port))

    def cut(self) -> None:
        """Reset all connections."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for one in pair:
                _reset(one)

    def block(self, sent: bytes) -> None:
        """Cut the connections on which this was sent, and from now on those on which it is sent."""
        self.blocks = sent
        for one, other in self._pairs:
            if one in self._senders.get(sent, ()):
                _reset(one)
                _reset(other)

    def watch(self, sent: bytes) -> None:
        """Remember who sends this, for block()."""
        self._senders[sent] = set()

    def forget(self) -> None:
        """What connections there are stay, and carry nothing any more: a firewall has dropped them."""
        for pair in self._pairs:
            self._forgotten.update(pair)

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, at: TracebackType | None
    ) -> None:
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                if self.refuses:
                    raise OSError
                server = socket.create_connection(("127.0.0.1", self.to))
            except OSError:
                _reset(client)
                continue
            self.made += 1
            self._pairs.append((client, server))
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self._forward, args=(one, other), daemon=True).start()

    def _forward(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                for sent, senders in self._senders.items():
                    if sent in data:
                        senders.add(one)
                if self.blocks and self.blocks in data:
                    _reset(one)
                    raise OSError
                if one not in self._forgotten:
                    other.sendall(data)
        if one not in self._forgotten:
            _reset(other)


def _reset(one: socket.socket) -> None:
    with suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        one.shutdown(socket.SHUT_RD)
        one.close()
