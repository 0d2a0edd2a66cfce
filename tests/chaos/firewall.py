"""A way to a port that can be cut for one process and not for the others, as a firewall would."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from pathlib import Path


class Firewall:
    """Listens on `port` and passes on what comes to another one, but for a process that is cut off."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._cut_off: int | None = None
        self._silent: set[socket.socket] = set()
        self._pairs: dict[int, tuple[socket.socket, socket.socket]] = {}  # by the port of the client's end
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, pid: int) -> None:
        """From now on nothing passes between this process and the port, and nothing tells either."""
        self._cut_off = pid
        for port in self._ports_of(pid):
            self._silent.update(self._pairs.get(port, ()))

    def mend(self) -> None:
        """What hangs breaks; who connects anew gets through."""
        self._cut_off = None
        for end in self._silent:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """No more."""
        self._listening.close()
        for pair in self._pairs.values():
            for end in pair:
                end.close()

    def _accept(self) -> None:
        while True:
            try:
                client, address = self._listening.accept()
            except OSError:
                return
            server = socket.socket()
            self._pairs[address[1]] = client, server
            pid = self._cut_off
            if pid is not None and address[1] in self._ports_of(pid):
                self._silent |= {client, server}
            else:
                threading.Thread(target=self._connect, args=(client, server), daemon=True).start()

    def _connect(self, client: socket.socket, server: socket.socket) -> None:
        try:
            server.connect(("127.0.0.1", self._target))
        except OSError:
            client.close()
            return
        threading.Thread(target=self._pass_on, args=(server, client), daemon=True).start()
        self._pass_on(client, server)

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            for end in (source, target):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := source.recv(1 << 16):
                if source in self._silent:
                    return  # the ends stay open: whoever waits hears nothing
                target.sendall(data)
            for end in (source, target):
                end.shutdown(socket.SHUT_RDWR)

    def _ports_of(self, pid: int) -> set[int]:
        """The ports of this process's ends of its connections to here."""
        inodes = set()
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                inodes.add(os.readlink(file).removeprefix("socket:[").removesuffix("]"))
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        here = f":{self.port:04X}"
        return {int(row[1].rpartition(":")[2], 16) for row in rows if row[9] in inodes and row[2].endswith(here)}
