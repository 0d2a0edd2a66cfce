"""`gopush bench` against a real process."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue

import pytest

from gopush.client import load
from gopush.client.address import Server
from gopush.errors import UnavailableError
from gopush.web.keys import make
from tests.chaos.cluster import ROOT, Node
from tests.client.test_subscriber import FakeComet


@pytest.fixture
def directory() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="gopush-bench-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def node(directory: Path) -> Iterator[Node]:
    """Which wants an API key, and tokens of subscribers."""
    key, line = make("bench")
    (directory / "keys").write_text(line)
    (directory / "key").write_text(key)
    settings = {"admin": {"keys": str(directory / "keys")}, "channel": {"auth": "yes"}, "storage": {"type": "memory"}}
    started = Node("gopush", "gopush", directory, settings)
    try:
        started.start()
        yield started
    finally:
        started.kill()


def bench(node: Node, *options: str, key: str = "key") -> subprocess.Popen[str]:
    where = ("--web", node.address("http"), "--admin", node.address("admin"))
    keys = ("--api-key-file", str(node.log.parent / key)) if key else ()
    command = [sys.executable, "-m", "gopush", "bench", *where, *keys, "--keys", "3", "--subscribers", "2", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True, preexec_fn=interruptible)


def interruptible() -> None:
    """Tests that run in a shell's background ignore interrupts, and so would their children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def counts(report: str) -> dict[str, int]:
    return {name: int(count) for name, count in re.findall(r"^([a-z]+) +([0-9]+)", report, re.MULTILINE)}


def wait_for(process: subprocess.Popen[str], words: str) -> None:
    assert process.stderr is not None
    assert any(words in line for line in process.stderr), "it ended first"


def test_it_pushes_at_the_rate_and_finds_all_delivered(node: Node) -> None:
    status, report, progress = ended(bench(node, "--auth", "--seconds", "1", "--rate", "200", "--size", "64"))
    assert (status, counts(report)) == (0, {"pushes": 200, "deliveries": 400, "lost": 0, "errors": 0}), progress
    assert len(re.findall(r"p50 [0-9.]+ ms  p99 [0-9.]+ ms  p999 [0-9.]+ ms", report)) == 2


def test_without_a_rate_it_pushes_as_fast_as_it_is_answered(node: Node) -> None:
    status, report, progress = ended(bench(node, "--auth", "--seconds", "1", "--rate", "0", "--pushers", "2"))
    found = counts(report)
    assert status == 0, progress
    assert found["pushes"] > 20
    assert found["deliveries"] == 2 * found["pushes"]


@pytest.mark.parametrize(
    ("options", "key", "words"),
    [((), "key", "nobody created this key (-c)"), (("--auth",), "", "answered 401")],
    ids=["no tokens", "no API key"],
)
def test_a_refusal_is_one_line_and_status_3(node: Node, options: tuple[str, ...], key: str, words: str) -> None:
    status, report, said = ended(bench(node, *options, key=key))
    assert (status, report) == (3, "")
    assert said.count("\n") == 1
    assert words in said


def test_interrupted_it_tells_what_it_has_measured(node: Node) -> None:
    process = bench(node, "--auth", "--seconds", "3600")
    wait_for(process, "pushes/s")
    process.send_signal(signal.SIGINT)
    status, report, said = ended(process)
    assert (status, said.count("Traceback")) == (130, 0)
    assert counts(report)["pushes"] > 0


def test_what_fails_on_the_way_is_counted(node: Node) -> None:
    process = bench(node, "--auth", "--seconds", "2")
    wait_for(process, "pushes/s")
    node.kill()
    status, report, said = ended(process)
    assert status == 1
    assert counts(report)["errors"] > 6  # at least the subscribers' connections
    assert "a subscriber's connection was closed" in report
    assert "Traceback" not in said


def bench_of(admin: Server, seconds: float, rate: int) -> load.Runner:
    return load.Runner(
        Server(""), admin, 1, 1, seconds, 64, rate, pushers=1, auth=False, comet_tls=False, progress=print
    )


def test_a_comet_that_does_not_answer_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        monkeypatch.setattr(load, "TIMEOUT_SECONDS", 0.2)
        monkeypatch.setattr(load, "push", lambda *_, **__: None)
        monkeypatch.setattr(load, "look_up", lambda *_: address)
        runner = bench_of(Server(""), seconds=1, rate=1)
        with pytest.raises(UnavailableError, match=f"^{address}: no answer in time$"):
            runner.run()


@pytest.mark.parametrize(
    ("last", "errors"), [(b"-n\r\n", {}), (b"", {"a subscriber's connection was closed": 1})], ids=["moved", "closed"]
)
def test_a_subscriber_that_is_closed_resumes_and_loses_nothing(
    last: bytes, errors: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies: SimpleQueue[bytes] = SimpleQueue()
    over = threading.Event()
    comet = FakeComet()

    class Admin(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            bodies.put(self.rfile.read(int(self.headers["Content-Length"])))
            self.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"ret":0}')

        def log_message(self, *_: object) -> None:
            pass

    def deliver(connection: socket.socket, mid: int) -> None:
        message = b'{"msg":%b,"mid":%d,"gid":0}' % (bodies.get(timeout=10), mid)
        connection.sendall(b"$%d\r\n%b\r\n" % (len(message), message))

    def first(connection: socket.socket) -> None:
        connection.sendall(b"+h\r\n")
        deliver(connection, 16)
        connection.sendall(last)

    def second(connection: socket.socket) -> None:
        connection.sendall(b"+h\r\n")
        deliver(connection, 32)
        over.wait(10)

    monkeypatch.setattr(load, "push", lambda *_, **__: None)
    monkeypatch.setattr(load, "look_up", lambda *_: comet.address)
    monkeypatch.setattr(load, "FIRST_PAUSE_SECONDS", 0.01)
    comet.serve(first, second)
    with ThreadingHTTPServer(("127.0.0.1", 0), Admin) as admin:
        threading.Thread(target=admin.serve_forever, args=(0.01,), daemon=True).start()
        where = Server(f"127.0.0.1:{admin.server_port}")
        runner = bench_of(where, seconds=0.2, rate=10)
        runner.run()
        admin.shutdown()
    over.set()
    comet.close()
    figures = runner.figures
    assert (figures.pushes.count, figures.deliveries.count, figures.lost) == (2, 2, 0)
    assert dict(figures.errors) == errors
    assert [said.endswith(b"$2\r\n16\r\n") for said in comet.said] == [False, True]


@pytest.mark.parametrize("options", [("--keys", "0"), ("--rate", "-1"), ("--size", "63"), ("--seconds", "3601")])
def test_what_is_out_of_bounds_is_wrong_usage(options: tuple[str, str], capfd: pytest.CaptureFixture[str]) -> None:
    from gopush.client import cli

    with pytest.raises(SystemExit) as refused:
        cli.main(["bench", *options])
    assert refused.value.code == 2
    assert f"{options[1]!r} is no number from " in capfd.readouterr().err
