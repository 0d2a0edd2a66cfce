"""What a process gets at its start: sockets of systemd, and a directory that may be gone later."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gopush.web.keys import make
from tests.chaos.cluster import TWISTD, Node
from tests.http.client import Client

ACTIVATES = f"""
import os, socket, sys
listener = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv({sys.executable!r}, [{sys.executable!r}, "-c", {TWISTD!r}, *sys.argv[1:]])
"""
"""Does as systemd-socket-activate: the process that is started stays the same one, so that who waits sees its end."""


@pytest.fixture
def directory() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="gopush-handed-over-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def node(directory: Path) -> Iterator[Node]:
    made = Node("gopush", "gopush", directory, {})
    yield made
    made.kill()


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def looked_up(node: Node) -> bytes:
    with Client(node.ports["http"]) as client:
        return client.request("GET", "/1/time/get", b"").body


def starts(node: Node) -> None:
    try:
        node.start()
    except RuntimeError as wrong:
        pytest.fail(str(wrong))


@pytest.mark.parametrize(
    ("endpoint", "more"),
    [
        ("systemd:domain=INET:index=0", {}),
        ("systemd:INET:0", {}),
        ("systemd:INET:name=web", {"LISTEN_FDNAMES": "web"}),
        ("systemd:INET:0", {"LISTEN_FDNAMES": "web"}),
    ],
)
def test_sockets_of_systemd_need_no_names(node: Node, endpoint: str, more: dict[str, str]) -> None:
    """systemd-socket-activate gives them none, unless it is told to."""
    node.launcher = ("-c", ACTIVATES)
    node.environment = {"PORT": str(node.ports["http"])} | more
    node.set({"base": {"http.bind": endpoint}})
    starts(node)
    eventually(lambda: "[base] stat.bind: listening" in node.log.read_text())
    assert looked_up(node).startswith(b'{"ret":0')


@pytest.mark.parametrize("which", ["index=1", "index=-1", "name=web"])
def test_a_socket_that_was_not_handed_over_is_named_in_one_line(node: Node, which: str) -> None:
    node.launcher = ("-c", ACTIVATES)
    node.environment = {"PORT": str(node.ports["http"])}
    node.set({"base": {"http.bind": f"systemd:domain=INET:{which}"}})
    with pytest.raises(RuntimeError) as wrong:
        node.start()
    (line,) = str(wrong.value).splitlines()[1:]
    assert line.startswith(
        f"[base] http.bind: systemd:domain=INET:{which}: gopush cannot listen there: systemd handed over no such socket"
    )


def test_what_is_read_anew_is_found_where_the_working_directory_is_gone(directory: Path, node: Node) -> None:
    """Relative to a directory that is not there any more nothing can be found, `..` included."""
    (started_in := directory / "started-in").mkdir()
    (old, old_line), (new, new_line) = make("old"), make("new")
    (directory / "keys").write_text(f"{old_line}\n")
    node.launcher = (
        "-c",
        f"import os, sys\nos.chdir({str(started_in)!r})\n"
        f"sys.argv[1:] = [word.replace({str(directory)!r}, '..') for word in sys.argv[1:]]\n{TWISTD}",
    )
    node.set({"admin": {"keys": "../keys"}, "sqlite": {"path": "../kept.sqlite"}})
    starts(node)
    assert push(node, old) == (200, b'{"ret":0}')
    started_in.rmdir()

    (directory / "keys").write_text(f"{new_line}\n")
    node.set({"push": {"expire.max": "59"}})
    os.kill(node.pid, signal.SIGHUP)
    eventually(lambda: "settings read anew; changed: [push] expire.max\n" in node.log.read_text())
    eventually(lambda: push(node, old)[0] == 401)
    assert push(node, new) == (200, b'{"ret":65534}')

    moved = node.log.rename(node.log.with_suffix(".moved"))
    os.kill(node.pid, signal.SIGUSR1)
    eventually(lambda: node.log.exists() and "the log goes on" in node.log.read_text())
    assert "the log stays where it was" not in moved.read_text()


def push(node: Node, api_key: str) -> tuple[int, bytes]:
    with Client(node.ports["admin"]) as client:
        field = f"Authorization: Bearer {api_key}\r\n"
        answer = client.request("POST", "/1/admin/push/private?key=k&expire=60", b"1", field)
        return answer.status, answer.body
