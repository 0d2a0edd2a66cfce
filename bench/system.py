"""The systems that are measured: all of gopush in one process, alone or as equal nodes, and a cluster of roles.

Each is on free ports, in a directory of its own.
What is started runs on the given cores and ends with the `with` block.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.request import urlopen

from tests.servers import free_port
from tests.servers.redis import RedisServer
from tests.servers.zookeeper import ZooKeeperServer

START_SECONDS = 60
TWISTD = Path(sys.executable).with_name("twistd")
CHECKOUT = Path(__file__).parent.parent
Options = Mapping[str, Mapping[str, object]]


@contextmanager
def cores(*numbers: int) -> Iterator[None]:
    """What is started within runs on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(numbers) & before or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class System:
    """A running gopush: where it listens, and its processes by their role. Use it in a `with`."""

    def __init__(self, *numbers: int) -> None:
        """`numbers`: the cores it runs on."""
        self.tcp = self.websocket = self.admin = self.public = self.stat = ""
        self.processes: dict[str, int] = {}
        self._cores = numbers
        self._directory = Path(tempfile.mkdtemp(prefix="gopush-bench-"))
        self._ends = ExitStack()
        self._ends.callback(shutil.rmtree, self._directory, ignore_errors=True)

    def __enter__(self) -> Self:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is ended
        try:
            with cores(*self._cores):
                self._start()
            self._wait()
        except BaseException:
            self._ends.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, at: TracebackType | None
    ) -> None:
        self._ends.close()

    def _start(self) -> None:
        raise NotImplementedError

    def _role(self, role: str, name: str, options: Options) -> None:
        """Start a process of gopush."""
        ini = self._directory / f"{name}.ini"
        lines = []
        for section, values in options.items():
            lines += [f"[{section}]", *(f"{option} = {value}" for option, value in values.items())]
        ini.write_text("\n".join(lines) + "\n")
        command = [str(TWISTD), "--nodaemon", "--pidfile=", role, "-c", str(ini)]
        with (self._directory / f"{name}.log").open("wb") as log:
            environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
            process = subprocess.Popen(command, cwd=self._directory, env=environment, stdout=log, stderr=log)
        self._ends.callback(_end, process)
        self.processes[name] = process.pid

    def _servers(self) -> tuple[str, str]:
        """Start a Redis and a ZooKeeper: the one as a source, the other's address."""
        redis = self._ends.enter_context(RedisServer("appendonly yes", "appendfsync everysec"))
        assert redis.process is not None
        self.processes["redis"] = redis.process.pid
        return redis.source, self._ends.enter_context(ZooKeeperServer()).address

    def _wait(self) -> None:
        """Until a push is answered well."""
        deadline = time.monotonic() + START_SECONDS
        url = f"http://{self.admin}/1/admin/push/private?key=ready&expire=1"
        while True:
            try:
                with urlopen(url, b"{}", timeout=5) as answer:
                    if answer.read() == b'{"ret":0}':
                        return
            except OSError:
                pass
            if time.monotonic() > deadline:
                logs = [path.read_text(errors="replace")[-2000:] for path in self._directory.glob("*.log")]
                raise RuntimeError("\n".join(["gopush does not serve", *logs]))
            time.sleep(0.1)


class Embedded(System):
    """`twistd gopush`, on SQLite."""

    def _start(self) -> None:
        self.tcp, self.websocket, self.admin, self.public, stat = (_address() for _ in range(5))
        base = {
            "tcp.bind": self.tcp,
            "websocket.bind": self.websocket,
            "admin.bind": self.admin,
            "http.bind": self.public,
            "stat.bind": stat,
        }
        self._role("gopush", "gopush", {"base": base, "channel": _CHANNEL, "storage": _STORAGE})


class Equals(System):
    """`twistd gopush` as members of a cluster, with a Redis (append-only file, synced every second) and a ZooKeeper."""

    def __init__(self, *numbers: int, nodes: int = 1) -> None:
        super().__init__(*numbers)
        self.comets: list[str] = []
        """The TCP addresses of all nodes."""
        self._count = nodes

    def _start(self) -> None:
        redis, keeper = self._servers()
        for number in range(1, self._count + 1):
            base = _bound("tcp", "websocket", "rpc", "stat", "http", "admin") | {"node": f"node{number}"}
            options: Options = {
                "base": base,
                "channel": _CHANNEL,
                "storage": _STORAGE | {"type": "redis"},
                "redis": {"source": f"node1:1 {redis}"},
                "zookeeper": {"addr": keeper, "timeout": "10s"},
            }
            self._role("gopush", f"gopush{number}", options)
            self.comets.append(base["tcp.bind"])
            self.tcp, self.websocket = base["tcp.bind"], base["websocket.bind"]
            self.public, self.admin, self.stat = base["http.bind"], base["admin.bind"], base["stat.bind"]


class Cluster(System):
    """Comets, a message node and a web node, with a Redis (append-only file, synced every second) and a ZooKeeper."""

    def __init__(self, *numbers: int, comets: int = 1) -> None:
        super().__init__(*numbers)
        self.comets: list[str] = []
        """The TCP addresses of all comets."""
        self._count = comets

    def _start(self) -> None:
        redis, keeper = self._servers()
        zookeeper = {"addr": keeper, "timeout": "10s"}
        message: Options = {
            "base": _bound("rpc", "stat"),
            "storage": _STORAGE,
            "redis": {"source": f"node1:1 {redis}"},
            "zookeeper": zookeeper,
        }
        self._role("message", "message", message)
        for number in range(self._count):
            base = _bound("tcp", "websocket", "rpc", "stat") | {"node": f"node{number + 1}"}
            self._role("comet", f"comet{number + 1}", {"base": base, "channel": _CHANNEL, "zookeeper": zookeeper})
            self.comets.append(base["tcp.bind"])
            self.tcp, self.websocket = base["tcp.bind"], base["websocket.bind"]
        base = _bound("http", "admin", "stat")
        self.public, self.admin = base["http.bind"], base["admin.bind"]
        self._role("gopush-web", "web", {"base": base, "zookeeper": zookeeper})


_CHANNEL = {"maxsubscriber": 1_000_000}
_STORAGE = {"store": 1000}


def _address() -> str:
    return f"127.0.0.1:{free_port()}"


def _bound(*names: str) -> dict[str, str]:
    return {"user": ""} | {f"{name}.bind": _address() for name in names}


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
