"""A real redis-server: killed, restarted and questioned by tests."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from tests.servers import free_port

START_SECONDS = 20
AT_ONCE = "repl-diskless-sync-delay 0"
"""Else a replica that comes waits 5 seconds for others."""


class RedisServer:
    """A redis-server on 127.0.0.1 with these lines of configuration ("appendonly yes"); not started yet.

    Its data stay in `directory` through kill() and start(), until stop().
    """

    def __init__(self, *config: str, password: str | None = None) -> None:
        self.port = free_port()
        self.password = password
        self.directory = Path(tempfile.mkdtemp(prefix="gopush-redis-"))
        self._config = [*config, *([f"requirepass {password}"] if password else [])]
        self.where = f"tcp@127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def source(self) -> str:
        """Where it is, as [redis] source names it, with `password`."""
        return self.where + (f"#{self.password}" if self.password else "")

    def start(self) -> RedisServer:
        """Start the process, and wait until it answers."""
        lines = [f"port {self.port}", "bind 127.0.0.1", 'save ""', f"dir {self.directory}", AT_ONCE, *self._config]
        (self.directory / "redis.conf").write_text("\n".join(lines) + "\n")
        log = (self.directory / "log").open("ab")
        self.process = subprocess.Popen(["redis-server", "redis.conf"], cwd=self.directory, stdout=log, stderr=log)
        log.close()
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                if self.call("PING") == b"PONG":
                    return self
            except (OSError, RedisReplyError):
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise RuntimeError((self.directory / "log").read_text()) from None
            time.sleep(0.01)

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """Kill it and forget its data."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> RedisServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, at: TracebackType | None
    ) -> None:
        self.stop()

    def call(self, *words: str | bytes | int) -> Any:
        """Send one command and wait for its reply: bytes, int, None or a list of them. Raises RedisReplyError."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            stream = connection.makefile("rwb")
            if self.password and words[0] != "AUTH":
                _send(stream, ("AUTH", self.password))
                with suppress(RedisReplyError):
                    _receive(stream)
            _send(stream, words)
            return _receive(stream)


class RedisReplyError(Exception):
    """Redis answered with an error."""


def _send(stream: Any, words: tuple[str | bytes | int, ...]) -> None:
    parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    stream.write(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts))
    stream.flush()


def _receive(stream: BinaryIO | Any) -> Any:
    line = stream.readline()
    if not line.endswith(b"\r\n"):
        raise OSError("the connection was closed")
    kind, rest = line[:1], line[1:-2]
    if kind == b"-":
        raise RedisReplyError(rest.decode())
    if kind == b"+":
        return rest
    if kind == b":":
        return int(rest)
    length = int(rest)
    if kind == b"*":
        return [_receive(stream) for _ in range(length)]
    return None if length < 0 else stream.read(length + 2)[:-2]
