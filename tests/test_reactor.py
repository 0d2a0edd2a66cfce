"""A role runs on Twisted's own reactor, on timers that no step of the wall clock moves."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.chaos.cluster import PORTS, ROOT
from tests.servers import free_port

# Run as twistd, and say on which reactor that is once a line comes.
TWISTD = """
import os, sys, threading, time
def tell():
    sys.stdin.readline()
    reactor = sys.modules["twisted.internet.reactor"]
    clock = "steadily" if abs(reactor.seconds() - time.monotonic()) < 60 else "by the wall clock"
    os.write(1, f"runs on {type(reactor).__module__} {clock}\\n".encode())  # whole, among the lines of the log
threading.Thread(target=tell, daemon=True).start()
from twisted.scripts.twistd import run
run()
"""


@pytest.mark.parametrize(
    ("role", "options", "expected"),
    [
        *((role, (), "twisted.internet.epollreactor") for role in PORTS if role != "member"),
        ("gopush", ("--reactor=poll",), "twisted.internet.pollreactor"),
    ],
)
def test_twistd_runs_a_role_on_twisteds_reactor_and_a_steady_clock(
    role: str, options: tuple[str, ...], expected: str, tmp_path: Path
) -> None:
    ports = {option: free_port() for option in PORTS[role].values()}
    binds = "\n".join(f"{option} = 127.0.0.1:{port}" for option, port in ports.items())
    ini = tmp_path / "role.ini"
    away = "" if role == "gopush" else "[zookeeper]\naddr = 127.0.0.1:1\n"
    memory = "[storage]\ntype = memory\n" if role == "message" else ""
    ini.write_text(f"[base]\nuser =\n{binds}\n{away}{memory}")
    command = [sys.executable, "-c", TWISTD, *options, "--nodaemon", "--pidfile=", role, "-c", str(ini)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert get(ports["stat.bind"], "/health").startswith(b"HTTP/1.1 ")
            process.stdin.write("\n")
            process.stdin.flush()
            assert (
                next(line for line in process.stdout if line.startswith("runs on")) == f"runs on {expected} steadily\n"
            )
        finally:
            process.terminate()


def get(port: int, path: str) -> bytes:
    """What a process answers, once it listens."""
    deadline = time.monotonic() + 60
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), 10) as connection:
                connection.sendall(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode())
                return connection.recv(1000)
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
