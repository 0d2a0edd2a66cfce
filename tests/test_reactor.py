from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import LogLevel, capturedLogs
from twisted.python.failure import Failure

from gopush.reactor import LeanReactor
from tests.chaos.cluster import PORTS, ROOT
from tests.servers import free_port

DONE = Failure(ConnectionDone())  # type: ignore[no-untyped-call]
# Run as twistd, and say on which reactor that is once a line comes.
TWISTD = """
import sys, threading
def tell():
    sys.stdin.readline()
    print("runs on", type(sys.modules["twisted.internet.reactor"]).__name__, file=sys.__stdout__, flush=True)
threading.Thread(target=tell, daemon=True).start()
from twisted.scripts.twistd import run
run()
"""


class Ill(Protocol):
    """Sends back what it gets; breaks where it is told to, and once more when its connection is lost."""

    def dataReceived(self, data: bytes) -> None:
        transport: Any = self.transport
        if data == b"break":
            raise ZeroDivisionError
        transport.write(data)

    def connectionLost(self, reason: Failure = DONE) -> None:
        if reason is not DONE:
            raise OverflowError


@pytest.fixture
def reactor() -> Iterator[Any]:
    lean: Any = LeanReactor()  # type: ignore[no-untyped-call]
    yield lean
    lean.removeAll()
    lean._poller.close()


Connect = Callable[[], socket.socket]


@pytest.fixture
def connect(reactor: Any) -> Iterator[Connect]:
    port = reactor.listenTCP(0, Factory.forProtocol(Ill), interface="127.0.0.1")
    made: list[socket.socket] = []

    def make() -> socket.socket:
        before = len(reactor.getReaders())
        made.append(socket.create_connection(("127.0.0.1", port.getHost().port), 10))
        made[-1].settimeout(0)
        turn_until(reactor, lambda: len(reactor.getReaders()) > before)
        return made[-1]

    yield make
    for connection in made:
        connection.close()


def turn_until(reactor: Any, condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        reactor.iterate(0.1)


def answer(connection: socket.socket) -> bytes | None:
    """What came, b"" at the end of the connection; None for nothing yet."""
    try:
        return connection.recv(100)
    except BlockingIOError:
        return None


def test_what_a_protocol_raises_closes_its_connection_and_no_other_and_is_logged(
    reactor: Any, connect: Connect
) -> None:
    ill, well = connect(), connect()
    with capturedLogs() as logged:
        ill.send(b"break")
        well.send(b"hello")
        turn_until(reactor, lambda: answer(ill) == b"")
        turn_until(reactor, lambda: answer(well) == b"hello")
        well.send(b"hello again")
        turn_until(reactor, lambda: answer(well) == b"hello again")
    failures = [event.get("log_failure", event.get("failure")) for event in logged]
    assert [failure.type for failure in failures if failure] == [ZeroDivisionError, OverflowError]


def test_a_connection_that_another_one_closes_in_the_same_turn_is_passed_over(reactor: Any, connect: Connect) -> None:
    first, second = connect(), connect()
    connections = [reader for reader in reactor.getReaders() if hasattr(reader, "protocol")]
    for here, there in (connections, connections[::-1]):
        here.protocol.dataReceived = lambda _, there=there: there.connectionLost(DONE)
    with capturedLogs() as logged:
        first.send(b"1")
        second.send(b"2")
        turn_until(reactor, lambda: b"" in (answer(first), answer(second)))
    assert len([reader for reader in reactor.getReaders() if reader in connections]) == 1
    assert not [event for event in logged if event["log_level"] > LogLevel.info]


def test_a_signal_while_it_waits_does_no_harm(reactor: Any) -> None:
    class Interrupted:
        def poll(self, *_: object) -> None:
            raise InterruptedError

        def close(self) -> None:
            pass

    poller, reactor._poller = reactor._poller, Interrupted()
    try:
        reactor.doIteration(None)
    finally:
        reactor._poller = poller


def test_waits_no_longer_than_it_is_told(reactor: Any) -> None:
    reactor.doIteration(0)
    reactor.doIteration(0.01)
    reactor.callFromThread(lambda: None)
    reactor.doIteration(None)  # woken


@pytest.mark.parametrize(
    ("role", "options", "expected"),
    [*((role, (), "LeanReactor") for role in PORTS), ("gopush", ("--reactor=poll",), "PollReactor")],
)
def test_twistd_runs_a_role_on_it_unless_it_is_told_another_one(
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
            assert next(line for line in process.stdout if line.startswith("runs on")) == f"runs on {expected}\n"
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
