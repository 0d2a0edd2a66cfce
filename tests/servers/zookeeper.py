"""A real ZooKeeper: killed, frozen, restarted with or without its data by tests."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from tests.servers import free_port

START_SECONDS = 60
JAR = Path("/usr/share/java/zookeeper.jar")
NETTY = "/usr/share/java/netty-codec.jar:/usr/share/java/netty-resolver.jar"  # for TLS; its manifest lacks them
JAVA = ["java", "-Xmx96m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dzookeeper.forceSync=no"]


class ZooKeeperServer:
    """One standalone server on 127.0.0.1; not started yet. Sessions may last from 1 s on.

    Its data stay in `directory` through kill() and start(), until forget() or stop().
    """

    def __init__(self, more: Mapping[str, str] | None = None) -> None:
        """`more`: lines for its configuration."""
        self._more = dict(more or {})
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="gopush-zookeeper-"))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Where it is, as [zookeeper] addr names it."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> ZooKeeperServer:
        """Start the process, and wait until it answers."""
        config = {
            "dataDir": self.directory / "data",
            "clientPort": self.port,
            "clientPortAddress": "127.0.0.1",
            "tickTime": 500,
            "maxClientCnxns": 0,
            "admin.enableServer": "false",
            "4lw.commands.whitelist": "*",
        } | self._more
        (self.directory / "zoo.cfg").write_text("".join(f"{name}={value}\n" for name, value in config.items()))
        command = [*JAVA, "-cp", f"{JAR}:{NETTY}", "org.apache.zookeeper.server.quorum.QuorumPeerMain", "zoo.cfg"]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self.directory, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError((self.directory / "log").read_text())
            time.sleep(0.05)
        return self

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(b"ruok")
                return connection.recv(4) == b"imok"
        except OSError:
            return False

    def freeze(self) -> None:
        """SIGSTOP: it holds its connections, and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def forget(self) -> None:
        """Lose all data, while it is down."""
        assert self._process is None
        shutil.rmtree(self.directory / "data", ignore_errors=True)

    def stop(self) -> None:
        """Kill it and forget its data."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> ZooKeeperServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, at: TracebackType | None
    ) -> None:
        self.stop()
