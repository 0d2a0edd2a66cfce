"""A gopush process of its own that is attacked, and the honest who use it meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.clients import request
from tests.servers import free_port
from tests.servers.redis import RedisServer
from tests.servers.zookeeper import ZooKeeperServer

START_SECONDS = 30
PUSHES_PER_SECOND = 50
LEAST_PUSHES = 20
PATIENCE_SECONDS = 20
TWISTD = "import sys; from twisted.scripts.twistd import run; sys.exit(run())"


class Victim:
    """`twistd gopush` with `auth` on."""

    def __init__(self, rcvbuf: int = 256, storage: str = "memory", files: int = 0) -> None:
        """`rcvbuf`: that of its clients' connections, which alone holds a flood down to some KB a second; 0: large.

        `storage`: where that is redis, it is a member of a cluster, with a port for calls. `files`: that it may have.
        """
        self.tcp, self.websocket, self.web, self.admin, self.stat, self.rpc = (free_port() for _ in range(6))
        self._files = files
        self._stack = ExitStack()
        cluster = ""
        if storage == "redis":
            redis = self._stack.enter_context(RedisServer())
            zookeeper = self._stack.enter_context(ZooKeeperServer())
            cluster = (
                f"[redis]\nsource = node1:1 {redis.source}\n[zookeeper]\naddr = {zookeeper.address}\n"
                f"[rpc]\nsecret = {'attacked' * 4}\n"
            )
        self.directory = Path(tempfile.mkdtemp(prefix="gopush-attack-"))
        (self.directory / "gopush.ini").write_text(
            f"[base]\ntcp.bind = localhost:{self.tcp}\nwebsocket.bind = localhost:{self.websocket}\n"
            f"http.bind = localhost:{self.web}\nadmin.bind = localhost:{self.admin}\n"
            f"stat.bind = localhost:{self.stat}\nrpc.bind = localhost:{self.rpc}\n"
            f"[tcp]\nrcvbuf.size = {rcvbuf}\n[channel]\nauth = yes\nmaxsubscriber = 500\n"
            f"[storage]\ntype = {storage}\n[sqlite]\npath = {self.directory / 'gopush.sqlite'}\n{cluster}"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Victim:
        limit = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({self._files},) * 2)\n"
        command = [sys.executable, "-c", limit * bool(self._files) + TWISTD]
        with (self.directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "--nodaemon", "--pidfile=", "gopush", "--config", str(self.directory / "gopush.ini")],
                stdout=log,
                stderr=log,
                env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.call("POST", "/1/admin/push/private?key=first&expire=0", b"1")
                return self
            except (OSError, AssertionError):
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise RuntimeError(self.log) from None
                time.sleep(0.05)

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._stack.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def log(self) -> str:
        """What it has logged."""
        return (self.directory / "log").read_text()

    @property
    def memory(self) -> int:
        """Its resident memory in KiB."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))

    @property
    def processor_seconds(self) -> float:
        """What it has used of the processor."""
        assert self._process is not None
        words = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    def call(self, method: str, target: str, body: bytes = b"") -> Any:
        """Call the admin port; the data of the answer."""
        connection = HTTPConnection("127.0.0.1", self.admin, timeout=30)
        try:
            connection.request(method, target, body)
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        assert answer["ret"] == 0
        return answer.get("data")

    def token(self, key: str) -> str:
        """A token for a key."""
        return str(self.call("POST", f"/1/admin/token?key={key}")["token"])


class Honest:
    """Subscribers, each with a key of its own, and who pushes to them, one after the other."""

    def __init__(self, victim: Victim, count: int) -> None:
        self._victim = victim
        self._keys = [(f"honest{number}", victim.token(f"honest{number}")) for number in range(count)]
        self._sent: dict[int, float] = {}
        self.delays: list[float] = []
        self.lost = 0

    async def run(self, until: Callable[[], bool]) -> None:
        """Subscribe, and push until that is true; then wait for what is under way."""
        streams = [await self._subscribe(key, token) for key, token in self._keys]
        readers = [asyncio.create_task(self._read(reader)) for reader, _ in streams]
        reader, writer = await asyncio.open_connection("127.0.0.1", self._victim.admin)
        number = 0
        while number < LEAST_PUSHES or not until():
            key, _ = self._keys[number % len(self._keys)]
            body = b"%d" % number
            self._sent[number] = time.monotonic()
            writer.write(
                b"POST /1/admin/push/private?key=%b&expire=60 HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b"
                % (key.encode(), len(body), body)
            )
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            assert await reader.readexactly(length) == b'{"ret":0}'
            number += 1
            await asyncio.sleep(1 / PUSHES_PER_SECOND)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self._sent and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        self.lost = len(self._sent)
        for task in readers:
            task.cancel()
        for _, each in [*streams, (reader, writer)]:
            each.close()

    async def _subscribe(self, key: str, token: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._victim.tcp)
        writer.write(request("sub", key, "600", token, "1"))
        assert await reader.readexactly(4) == b"+h\r\n"
        return reader, writer

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while True:
            line = await reader.readuntil(b"\r\n")
            body = (await reader.readexactly(int(line[1:]) + 2))[:-2]
            self.delays.append(time.monotonic() - self._sent.pop(int(json.loads(body)["msg"])))

    def percentile(self, part: float) -> float:
        """In milliseconds."""
        ordered = sorted(self.delays)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))] * 1000
