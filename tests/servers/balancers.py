"""Real balancers: HAProxy and nginx with the configuration that a test gives them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

START_SECONDS = 20


class Balancer:
    """A process that runs in the foreground, on its file of configuration in a directory of its own."""

    def __init__(self, command: Sequence[str], configuration: str, ports: Sequence[int]) -> None:
        self._command = command
        self._ports = ports
        self._directory = Path(tempfile.mkdtemp(prefix="gopush-balancer-"))
        (self._directory / "conf").write_text(configuration)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, cwd=self._directory, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while not all(map(_listens, self._ports)):
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.__exit__(None, None, None)
                raise RuntimeError(f"{self._command[0]} does not start:\n{self._said}")
            time.sleep(0.02)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._said = (self._directory / "log").read_text()
        shutil.rmtree(self._directory, ignore_errors=True)


def haproxy(sections: str, *ports: int) -> Balancer:
    """HAProxy; `ports`: those that the sections listen on. It keeps little of what a slow client does not read."""
    most = "global\n    tune.rcvbuf.server 4096\n    tune.sndbuf.client 4096\n"
    times = "defaults\n    mode tcp\n    timeout connect 20s\n    timeout client 60s\n    timeout server 60s\n"
    return Balancer(["haproxy", "-db", "-f", "conf"], most + times + sections, ports)


def nginx(http: str, beside: str, *ports: int) -> Balancer:
    """nginx: what its block `http` holds, and what stands beside that. It keeps as little as HAProxy does."""
    paths = " ".join(f"{part}_temp_path {part};" for part in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    lines = [
        f"load_module {STREAM};",
        "daemon off; master_process off; pid pid; error_log stderr; events {}",
        f"http {{ access_log off; {paths} {http} }}",
        beside,
    ]
    directory = os.path.join(os.curdir, "")
    configuration = re.sub(r"(\blisten [^;]+);", r"\1 sndbuf=4096;", "\n".join(lines) + "\n")
    return Balancer(["nginx", "-e", "stderr", "-p", directory, "-c", "conf"], configuration, ports)


STREAM = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
"""What nginx itself does not have on Debian."""


def _listens(port: int) -> bool:
    """Whether somebody does, found without a connection: it would be led on to who is behind the balancer."""
    tables = [Path(f"/proc/net/{table}").read_text().splitlines()[1:] for table in ("tcp", "tcp6")]
    sockets = [line.split() for table in tables for line in table]
    return any(local.endswith(f":{port:04X}") and state == "0A" for _, local, _, state, *_ in sockets)
