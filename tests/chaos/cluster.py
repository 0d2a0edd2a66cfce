"""The processes of a cluster, on free ports and in a directory of their own, with a Redis and a ZooKeeper."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.chaos.firewall import Firewall
from tests.servers import free_port
from tests.servers.hbase import HBaseServer, ThriftServer
from tests.servers.proxy import Proxy
from tests.servers.quorum import ZooKeeperQuorum
from tests.servers.redis import RedisServer
from tests.servers.sentinel import Replicated
from tests.servers.zookeeper import ZooKeeperServer

ROOT = Path(__file__).resolve().parent.parent.parent
SESSION_SECONDS = 4
KEPT_MESSAGES = 100_000
START_SECONDS = 60
STOP_SECONDS = 30
TWISTD = "import sys; from twisted.scripts.twistd import run; sys.exit(run())"
PORTS = {
    "comet": {"tcp": "tcp.bind", "websocket": "websocket.bind", "rpc": "rpc.bind", "stat": "stat.bind"},
    "message": {"rpc": "rpc.bind", "stat": "stat.bind"},
    "gopush-web": {"http": "http.bind", "admin": "admin.bind", "stat": "stat.bind"},
    "gopush": {
        "tcp": "tcp.bind",
        "websocket": "websocket.bind",
        "stat": "stat.bind",
        "http": "http.bind",
        "admin": "admin.bind",
    },
}
PORTS["member"] = {**PORTS["gopush"], "rpc": "rpc.bind"}

ALONE, MIXED = "alone", "mixed"
"""Equal nodes in the place of all roles, or of some of them."""

STANDS: Mapping[str, Mapping[str, str]] = {
    "": {},
    ALONE: {
        "comet-1": "member-1",
        "comet-1-standby": "member-2",
        "comet-2": "member-2",
        "message-1": "member-1",
        "message-2": "member-2",
        "web-1": "member-1",
        "web-2": "member-2",
    },
    MIXED: {"comet-1": "member-1", "message-1": "member-1", "web-1": "member-1"},
}
"""Which of them stands where scenarios name a role's process."""

APPENDS = b"-- Appends a batch."
"""What a message node loads into Redis on the connection that writes, and on no other one."""

SECRET = "a secret for the whole cluster"

Ini = dict[str, dict[str, str]]


class Node:
    """One process. Times are those of time.monotonic(). `root`: where its gopush is from."""

    root = ROOT

    def __init__(self, role: str, name: str, directory: Path, ini: Mapping[str, Mapping[str, str]]) -> None:
        self.role = role
        self.name = name
        self.ports = {port: free_port() for port in PORTS[role]}
        self.dead_since: float | None = time.monotonic()
        self.environment: dict[str, str] = {}
        self.launcher: tuple[str, ...] = ("-c", TWISTD)
        self.log = directory / f"{name}.log"
        self._ini = directory / f"{name}.ini"
        bind = {option: f"127.0.0.1:{self.ports[port]}" for port, option in PORTS[role].items()}
        self._sections = {**ini, "base": {"user": "", **bind, **ini.get("base", {})}}
        self.set({})
        self._process: subprocess.Popen[bytes] | None = None
        self._starting = threading.Lock()
        self.hung_until = float("-inf")

    def address(self, port: str) -> str:
        """Where one of its ports is."""
        return f"127.0.0.1:{self.ports[port]}"

    def set(self, ini: Mapping[str, Mapping[str, str]]) -> None:
        """Settings for its next start, besides those that it has."""
        for section, lines in ini.items():
            self._sections[section] = {**self._sections.get(section, {}), **lines}
        self._ini.write_text("".join(_section(section, lines) for section, lines in self._sections.items()))

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the process, unless it runs, and wait until it listens."""
        with self._starting:
            if self._process is None:
                self._start()

    def _start(self) -> None:
        twistd = [sys.executable, *self.launcher, "--nodaemon", "--pidfile=", f"--logfile={self.log}"]
        environment = {**os.environ, "PYTHONPATH": str(self.root), **self.environment}
        out = self.log.with_suffix(".out").open("ab")
        command = [*twistd, "gopush" if self.role == "member" else self.role, "-c", str(self._ini)]
        self._process = subprocess.Popen(command, cwd=self.log.parent, env=environment, stdout=out, stderr=out)
        out.close()
        deadline = time.monotonic() + START_SECONDS
        while not all(_listens(port) for port in self.ports.values()):
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"{self.name} does not start:\n{self.log.with_suffix('.out').read_text()}")
            time.sleep(0.02)
        self.dead_since = None

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self.dead_since = time.monotonic()
            self._process.wait()
            self._process = None

    def stop(self) -> float:
        """SIGTERM, where it runs; how many seconds the process took to end."""
        if self._process is None:
            return 0.0
        asked = time.monotonic()
        self._process.terminate()
        self._process.wait(STOP_SECONDS)
        self._process = None
        self.dead_since = time.monotonic()
        return self.dead_since - asked

    def freeze(self) -> None:
        """SIGSTOP."""
        self.hung_until = float("inf")
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)
        self.hung_until = time.monotonic()

    def cpu_seconds(self) -> float:
        """What the running process has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Cluster:
    """comet-1 and comet-1-standby (node1), comet-2 (node2); two message nodes; two web nodes.

    With equal nodes a name of these is that of the one in its place (STANDS).
    """

    def __init__(
        self,
        *,
        replicated: bool = False,
        quorum: bool = False,
        parted: bool = False,
        firewalled: bool = False,
        hbase: bool = False,
        members: str = "",
    ) -> None:
        """`replicated`: two Redis servers, one of them the other's replica, and sentinels; a push needs both.

        `quorum`: three ZooKeeper servers. `parted`: message nodes reach Redis by ways of their own; it has a replica,
        which a push needs, and no sentinels. `firewalled`: the message nodes are reached through `firewalls`. `hbase`:
        messages are kept in HBase, which two Thrift servers serve. `members`: equal nodes in the place of the roles,
        three ALONE, or one for comet-1, message-1 and web-1 (MIXED).
        """
        self.members = members
        self.directory = Path(tempfile.mkdtemp(prefix="gopush-chaos-"))
        self.redis = RedisServer("appendonly yes", "appendfsync always")
        self.replicated = Replicated(sentinels=2) if replicated else None
        self.replica = RedisServer("appendonly yes", *_follows(self.redis.port)) if parted else None
        self.ways: dict[str, Proxy] = {}
        self.hbase = HBaseServer() if hbase else None
        self.thrifts = [ThriftServer(self.hbase, limit=0.25) for _ in range(2)] if self.hbase else []
        self.zookeeper = ZooKeeperServer()
        self.quorum = ZooKeeperQuorum() if quorum else None
        self.nodes: dict[str, Node] = {}
        self.firewalls: list[Firewall] = []
        self._kept = False
        self._stands = STANDS[members]
        for number in {"": (), ALONE: (1, 2, 3), MIXED: (1,)}[members]:
            self.add("member", f"member-{number}", f"node{number}")
        for name, node in (("comet-1", "node1"), ("comet-1-standby", "node1"), ("comet-2", "node2")):
            if name not in self._stands:
                self.add("comet", name, node)
        for name in ("message-1", "message-2"):
            if name not in self._stands:
                self.add("message", name)
        for name in ("web-1", "web-2"):
            if name not in self._stands:
                self.add("gopush-web", name)
        for storing in (
            [node for node in self.nodes.values() if node.role in ("message", "member")] if firewalled else ()
        ):
            if storing is not self["comet-1"]:  # it is the one that is cut off
                self.firewalls.append(Firewall(storing.ports["rpc"]))
                storing.set({"base": {"rpc.advertise": f"127.0.0.1:{self.firewalls[-1].port}"}})

    def __getitem__(self, name: str) -> Node:
        return self.nodes[self._stands.get(name, name)]

    def add(self, role: str, name: str, node: str = "") -> Node:
        """One more process, not started yet."""
        coordinator = self.quorum or self.zookeeper
        ini: Ini = {"zookeeper": {"addr": coordinator.address, "timeout": f"{SESSION_SECONDS}s"}}
        if role in ("comet", "member"):
            ini["base"] = {"node": node}
        if role in ("message", "member"):
            ini["redis"] = {"source": f"node1:1 {(self.replicated or self.redis).source}"}
            if self.replica is not None:
                way = self.ways[name] = Proxy(self.redis.port)
                way.watch(APPENDS)
                ini["redis"] = {"source": f"node1:1 tcp@127.0.0.1:{way.port}", "wait": "1"}
            if self.replicated is not None:
                ini["redis"]["wait"] = "1"
            ini["storage"] = {"type": "redis", "store": str(KEPT_MESSAGES)}
            if self.thrifts:
                ini["hbase"] = {"thrift": ", ".join(thrift.address for thrift in self.thrifts)}
                ini["storage"] = {"type": "hbase", "store": "1000"}
        self.nodes[name] = Node(role, name, self.directory, ini)
        return self.nodes[name]

    @property
    def webs(self) -> list[Node]:
        """The web nodes, dead ones included."""
        return [node for node in self.nodes.values() if "http" in node.ports]

    def hung(self, address: str, since: float) -> bool:
        """Whether the web node at this admin address stood still at a time since then."""
        return any(web.address("admin") == address and web.hung_until >= since for web in self.webs)

    def dead_at(self, address: str) -> float | None:
        """Since when nobody is at this address of a comet; None: somebody is."""
        for node in self.nodes.values():
            if "tcp" in node.ports and address in (node.address("tcp"), node.address("websocket")):
                # One that comes back may be named before start() has seen it listen.
                return node.dead_since if node.dead_since and not _listens(node.ports["tcp"]) else None
        return None

    def logs(self) -> str:
        """All that the processes had to complain about."""
        files = sorted([*self.directory.glob("*.log"), *self.directory.glob("*.out")])
        return "".join(f"--- {file.name}\n{file.read_text()}" for file in files)

    @contextmanager
    def running(self) -> Iterator[Cluster]:
        """Start all; end all, and forget what they wrote unless keep() was called."""
        with ExitStack() as stack:
            stack.callback(self._kill_all)
            stack.enter_context(self.replicated or self.redis)
            stack.enter_context(self.quorum or self.zookeeper)
            if self.replica is not None:
                stack.enter_context(self.replica)
                _wait_for_replica(self.redis)
            for way in self.ways.values():
                stack.enter_context(way)
            if self.hbase is not None:
                stack.enter_context(self.hbase)
            for thrift in self.thrifts:
                stack.enter_context(thrift)
            self["comet-1"].start()  # first, so that its standby is the standby
            with ThreadPoolExecutor() as pool:
                list(pool.map(lambda node: node.start(), [node for node in self.nodes.values() if node.dead_since]))
            yield self
        if not self._kept:
            shutil.rmtree(self.directory, ignore_errors=True)

    def keep(self) -> Path:
        """Keep the directory with the logs."""
        self._kept = True
        return self.directory

    def _kill_all(self) -> None:
        for node in self.nodes.values():
            node.kill()
        for firewall in self.firewalls:
            firewall.close()


def _follows(port: int) -> tuple[str, ...]:
    return "repl-diskless-sync-delay 0", f"replicaof 127.0.0.1 {port}"


def _wait_for_replica(master: RedisServer) -> None:
    deadline = time.monotonic() + START_SECONDS
    while b"state=online" not in master.call("INFO", "replication"):
        if time.monotonic() > deadline:
            raise RuntimeError("the replica does not follow")
        time.sleep(0.05)


def _section(name: str, lines: Mapping[str, str]) -> str:
    return f"[{name}]\n" + "".join(f"{option} = {value}\n" for option, value in lines.items())


def _listens(port: int) -> bool:
    """Whether somebody does, found without a connection: one would still be counted when the test looks."""
    sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(local.endswith(f":{port:04X}") and state == "0A" for _, local, _, state, *_ in sockets)
