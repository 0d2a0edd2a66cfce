"""The log of real processes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from socket import gethostname
from typing import Any

import pytest

from gopush.message.sqlite.file import open_file
from tests.chaos.cluster import ROOT, TWISTD, Node

JSON = {"log": {"format": "json"}}


@pytest.fixture
def directory() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="gopush-role-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


def lines(log: Path) -> list[dict[str, Any]]:
    """The complete lines, each of which is a JSON object."""
    return [json.loads(line) for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_every_line_of_every_role_names_role_and_node(directory: Path) -> None:
    away = {"zookeeper": {"addr": "127.0.0.1:1"}}
    warned = "ZooKeeper at 127.0.0.1:1 cannot be reached"  # where a process has the time to find out
    nodes = [
        Node("comet", "comet", directory, {**JSON, **away, "base": {"node": "n-1"}}),
        Node("message", "message", directory, {**JSON, **away, "storage": {"type": "memory"}}),
        Node("gopush-web", "web", directory, {**JSON, **away}),
        Node("gopush", "gopush", directory, JSON),
    ]
    names = ["n-1", nodes[1].address("rpc"), gethostname(), "embedded"]
    try:
        with ThreadPoolExecutor() as pool:
            list(pool.map(Node.start, nodes))
            list(pool.map(Node.stop, nodes))
    finally:
        for node in nodes:
            node.kill()
    for node, name in zip(nodes, names, strict=True):
        found = lines(node.log)
        assert {(line["role"], line["node"]) for line in found} == {(node.role, name)}
        messages = [line["message"] for line in found]
        levels = {line["message"]: line["level"] for line in found}
        assert all(level == ("warn" if said.startswith(warned) else "info") for said, level in levels.items()), levels
        assert messages[0].startswith("gopush ")
        assert messages.index("stopping") < messages.index("stopped") == len(messages) - 1
        listening = {line["address"] for line in found if "listening on" in line["message"]}
        assert listening == {node.address(port) for port in node.ports}


def test_a_start_warns_of_what_hardly_anybody_means(directory: Path) -> None:
    node = Node("gopush", "gopush", directory, {**JSON, "token": {"signed.key": "/no/such/file"}})
    try:
        node.start()
        node.stop()
    finally:
        node.kill()
    warned = [line["message"] for line in lines(node.log) if line["level"] == "warn"]
    (ini,) = directory.glob("*.ini")
    said = "[token] signed.key is set, and not used: [token] signed.alg would use it"
    assert warned == [f"{ini}: {said}"]


def test_level_and_format_change_with_sighup_unless_the_file_is_wrong(directory: Path) -> None:
    node = Node("gopush", "gopush", directory, JSON)
    ini = directory / "gopush.ini"

    def reload(log: str, said: str) -> str:
        """What was logged after `said`, once it was."""
        ini.write_text(before.replace("format = json", log))
        heard = len(node.log.read_text())
        os.kill(node.pid, signal.SIGHUP)
        eventually(lambda: said in node.log.read_text()[heard:])
        return node.log.read_text()[heard:]

    try:
        node.start()
        before = ini.read_text()
        assert reload("format = text", "settings read anew; changed: [log] format").startswith("20")
        reload("format = json\nlevel = debug", "settings read anew; changed: [log] format, [log] level")
        wrong = json.loads(
            reload("format = text\nlevel = loud", "'loud' is none of debug, info, warn, error, critical")
        )
        assert wrong["level"] == "error"
        node.stop()
        found = [json.loads(line) for line in node.log.read_text().split(wrong["message"])[1].splitlines()[1:]]
        assert {line["level"] for line in found} == {"debug", "info"}
    finally:
        node.kill()


def test_a_start_that_fails_is_one_line_on_stderr_beside_a_log_on_stdout(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (directory / "gopush.ini").write_text(f"[base]\ntcp.bind = localhost:{port}\n[log]\nformat = json\n")
        command = [sys.executable, "-c", TWISTD, "--nodaemon", "--pidfile=", "gopush", "-c", "gopush.ini"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        ended = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("[base] tcp.bind: ")
    assert json.loads(ended.stdout.splitlines()[0])["message"].startswith("gopush ")
    assert all(json.loads(line)["node"] == "embedded" for line in ended.stdout.splitlines())


@pytest.mark.parametrize("how", [("--nodaemon", "--pidfile="), ("--pidfile=gopush.pid",)])
def test_a_log_file_that_cannot_be_opened_is_one_line(how: tuple[str, ...], directory: Path) -> None:
    """It was a long traceback."""
    Node("gopush", "gopush", directory, {})
    path = directory / "missing" / "gopush.log"
    command = [sys.executable, "-c", TWISTD, *how, f"--logfile={path}", "gopush", "-c", "gopush.ini"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == f"--logfile: {path}: cannot be opened: No such file or directory\n"
    assert not (directory / "gopush.pid").exists()


def test_a_daemon_whose_port_is_in_use_says_so_in_one_whole_line(directory: Path) -> None:
    """And one that starts lets go of the terminal."""
    node = Node("gopush", "gopush", directory, {})
    ini = directory / "gopush.ini"
    command = [sys.executable, "-c", TWISTD, "--pidfile=gopush.pid", "--logfile=daemon.log", "gopush", "-c", str(ini)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def start() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=60)

    with socket.create_server(("127.0.0.1", node.ports["tcp"])):
        ended = start()
    assert ended.returncode == 1
    line = rf"^\[base\] tcp\.bind: tcp:{node.ports['tcp']}:.*: address already in use$"
    assert re.search(line, ended.stderr, re.MULTILINE), ended.stderr
    assert (start().returncode, (directory / "gopush.pid").exists()) == (0, True)
    os.kill(int((directory / "gopush.pid").read_text()), signal.SIGTERM)


@pytest.mark.parametrize("role", ["message", "gopush"])
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("missing/store.sqlite", "cannot be opened: there is no such directory, or none that this user can reach"),
        ("text", "cannot be opened: file is not a database"),
        ("used.sqlite", "is in use by another process"),
    ],
)
def test_a_daemon_that_cannot_open_its_store_says_so_in_one_whole_line(
    role: str, name: str, why: str, directory: Path
) -> None:
    (directory / "text").write_text("no database")
    used = open_file(str(directory / "used.sqlite"))
    path = directory / name
    Node(role, role, directory, {"storage": {"type": "sqlite"}, "sqlite": {"path": str(path)}})
    command = [sys.executable, "-c", TWISTD, "--pidfile=role.pid", "--logfile=daemon.log", role, "-c", f"{role}.ini"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=60)
    used.close()
    assert ended.returncode == 1
    line = f"[sqlite] path: {path}: {why}\n"
    assert line in ended.stderr
    eventually(lambda: not (directory / "role.pid").exists())
    assert (directory / "daemon.log").read_text().count(line) == 1
