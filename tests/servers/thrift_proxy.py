"""Between a store and a Thrift server: keeps requests back, or loses answers, of the calls that a test names."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from types import TracebackType

_SIZE = struct.Struct(">I")


class ThriftProxy:
    """Passes on frames between 127.0.0.1 and `upstream` (a port), in threads of its own."""

    def __init__(self, upstream: int) -> None:
        self.held = threading.Semaphore(0)
        """One for each request that was kept back."""
        self.landed = threading.Semaphore(0)
        """One for each answer to a request that was kept back, or that was lost."""
        self._upstream = upstream
        self._hold: list[bytes] = []
        self._lose: list[bytes] = []
        self._let_go = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets: list[socket.socket] = []

    def hold(self, call: str, count: int) -> None:
        """Keep the next `count` requests of this call back, until release()."""
        self._let_go.clear()
        self._hold = [call.encode()] * count

    def release(self) -> None:
        """Pass on what was kept back, also what came over connections that are closed by now."""
        self._let_go.set()

    def lose(self, call: str) -> None:
        """Lose the answer to the next request of this call, and all that come after it on its connection."""
        self._lose = [call.encode()]

    def close_all(self, for_good: bool = False) -> None:
        """Close all connections; `for_good`: and refuse new ones, until open_again()."""
        if for_good:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)  # wakes who accepts
            self._listener.close()
        sockets, self._sockets = self._sockets, []
        for opened in sockets:
            with suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
            opened.close()

    def open_again(self) -> None:
        """Listen as before."""
        self._listener = socket.create_server(("127.0.0.1", int(self.address.rpartition(":")[2])))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def __enter__(self) -> ThriftProxy:
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, at: TracebackType | None
    ) -> None:
        self.release()
        self.close_all(for_good=True)

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", self._upstream))
                self._sockets += [client, server]
                marked = threading.Event()
                threading.Thread(target=self._requests, args=(client, server, marked), daemon=True).start()
                threading.Thread(target=self._answers, args=(server, client, marked), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket, marked: threading.Event) -> None:
        with suppress(OSError):
            while frame := _frame(client):
                if _is_one(frame, self._hold):
                    marked.set()
                    self.held.release()
                    self._let_go.wait(60)
                if _is_one(frame, self._lose):
                    marked.set()
                server.sendall(frame)
            server.shutdown(socket.SHUT_WR)  # it still answers what it was asked

    def _answers(self, server: socket.socket, client: socket.socket, marked: threading.Event) -> None:
        with suppress(OSError):
            while frame := _frame(server):
                if marked.is_set():
                    self.landed.release()
                else:
                    client.sendall(frame)
            if not marked.is_set():
                client.shutdown(socket.SHUT_RDWR)


def _is_one(frame: bytes, calls: list[bytes]) -> bool:
    """Whether it is a request of the call that comes next here; it is taken then."""
    if not calls or calls[0] not in frame[:40]:
        return False
    del calls[0]
    return True


def _frame(source: socket.socket) -> bytes:
    """The next frame with its size; empty at the end of the connection."""
    head = source.recv(_SIZE.size, socket.MSG_WAITALL)
    if len(head) < _SIZE.size:
        return b""
    (size,) = _SIZE.unpack(head)
    return head + source.recv(size, socket.MSG_WAITALL)
