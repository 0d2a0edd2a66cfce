"""Three ZooKeeper servers that agree by majority."""

from __future__ import annotations

import socket
import time
from types import TracebackType

from tests.servers import free_port
from tests.servers.zookeeper import START_SECONDS, ZooKeeperServer

SIZE = 3


class ZooKeeperQuorum:
    """Servers on 127.0.0.1; not started yet."""

    def __init__(self) -> None:
        servers = {f"server.{number}": f"127.0.0.1:{free_port()}:{free_port()}" for number in range(1, SIZE + 1)}
        self.servers = [ZooKeeperServer({"initLimit": "40", "syncLimit": "10", **servers}) for _ in range(SIZE)]

    @property
    def address(self) -> str:
        """Where they are, as [zookeeper] addr names them."""
        return ",".join(server.address for server in self.servers)

    @property
    def leader(self) -> ZooKeeperServer | None:
        """The one that leads now."""
        return next((server for server in self.servers if b"Mode: leader" in _state(server)), None)

    def __enter__(self) -> ZooKeeperQuorum:
        for number, server in enumerate(self.servers, 1):
            data = server.directory / "data"
            data.mkdir()
            (data / "myid").write_text(f"{number}\n")
            server.start()
        deadline = time.monotonic() + START_SECONDS
        while not all(b"Mode: " in _state(server) for server in self.servers):
            if time.monotonic() > deadline:
                raise RuntimeError("the servers do not agree on a leader")
            time.sleep(0.1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, at: TracebackType | None
    ) -> None:
        for server in self.servers:
            server.stop()


def _state(server: ZooKeeperServer) -> bytes:
    """What the server says of itself; nothing while it is dead."""
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
            connection.sendall(b"srvr")
            return b"".join(iter(lambda: connection.recv(4096), b""))
    except OSError:
        return b""
