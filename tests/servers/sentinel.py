"""A real Redis Sentinel, and a master with its replica that it watches."""

from __future__ import annotations

import subprocess
import time
from types import TracebackType

from tests.servers.redis import RedisReplyError, RedisServer

MASTER = "mymaster"
DOWN_MILLISECONDS = 1000
PATIENCE_SECONDS = 60
# A master that comes back without its data may be made master again, and its replica drop the same.
_PLAIN = ("repl-ping-replica-period 1", "repl-timeout 5", "appendonly yes")


class Sentinel(RedisServer):
    """A redis-sentinel with these lines of configuration."""

    def start(self) -> Sentinel:
        """Start the process, and wait until it answers."""
        lines = [f"port {self.port}", "bind 127.0.0.1", f"dir {self.directory}", *self._config]
        (self.directory / "sentinel.conf").write_text("\n".join(lines) + "\n")
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["redis-server", "sentinel.conf", "--sentinel"], cwd=self.directory, stdout=log, stderr=log
            )
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                self.call("PING")
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise RuntimeError((self.directory / "log").read_text()) from None
                time.sleep(0.02)
            else:
                return self


class Replicated:
    """Redis servers `one` (the master) and `two`, watched by sentinels of which one may decide alone."""

    def __init__(self, sentinels: int = 1, password: str | None = None) -> None:
        lines = [*_PLAIN, *([f"masterauth {password}"] if password else [])]
        self.one = RedisServer(*lines, password=password)
        self.two = RedisServer(*lines, f"replicaof 127.0.0.1 {self.one.port}", password=password)
        auth = [f"sentinel auth-pass {MASTER} {password}"] if password else []
        self.sentinels = [
            Sentinel(
                f"sentinel monitor {MASTER} 127.0.0.1 {self.one.port} 1",
                f"sentinel down-after-milliseconds {MASTER} {DOWN_MILLISECONDS}",
                f"sentinel failover-timeout {MASTER} 3000",
                *auth,
            )
            for _ in range(sentinels)
        ]
        self._password = password

    @property
    def source(self) -> str:
        """Where the master is, as [redis] source names it."""
        addresses = ";".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"sentinel@{addresses}/{MASTER}" + (f"#{self._password}" if self._password else "")

    @property
    def master(self) -> RedisServer:
        """The server that the first sentinel names."""
        _, port = self.sentinels[0].call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)
        return self.one if int(port) == self.one.port else self.two

    def replicates(self) -> bool:
        """Whether the master has a replica that is up to date, and the sentinel knows it."""
        try:
            _, _, replicas = self.master.call("ROLE")
            (known,) = self.sentinels[0].call("SENTINEL", "REPLICAS", MASTER)
        except (OSError, RedisReplyError, ValueError):
            return False
        facts = dict(zip(known[::2], known[1::2], strict=True))
        return len(replicas) == 1 and facts[b"flags"] == b"slave" and facts[b"master-link-status"] == b"ok"

    def __enter__(self) -> Replicated:
        for server in (self.one, self.two, *self.sentinels):
            server.start()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.replicates():
            if time.monotonic() > deadline:
                raise RuntimeError("the replica does not follow")
            time.sleep(0.1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, at: TracebackType | None
    ) -> None:
        for server in (*self.sentinels, self.one, self.two):
            server.stop()
