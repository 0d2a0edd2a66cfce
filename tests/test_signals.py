"""Signals that must not end a process, or not twice."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.chaos.cluster import Node


@pytest.fixture
def node() -> Iterator[Node]:
    directory = Path(tempfile.mkdtemp(prefix="gopush-signals-"))
    made = Node("gopush", "gopush", directory, {})
    made.start()
    yield made
    made.kill()
    shutil.rmtree(directory)


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_log_goes_on_in_a_new_file_after_logrotate_has_moved_the_old_one(node: Node) -> None:
    moved = node.log.with_suffix(".moved")
    node.log.rename(moved)
    os.kill(node.pid, signal.SIGUSR1)
    eventually(node.log.exists)
    os.kill(node.pid, signal.SIGHUP)
    eventually(lambda: "settings read anew" in node.log.read_text())
    assert "settings read anew" not in moved.read_text()


def test_a_file_that_logrotate_has_made_anew_is_used(node: Node) -> None:
    node.log.rename(node.log.with_suffix(".moved"))
    node.log.touch()
    os.kill(node.pid, signal.SIGUSR1)
    eventually(lambda: "the log goes on" in node.log.read_text())


def test_a_file_that_nobody_moved_is_rotated_as_twistd_does(node: Node) -> None:
    os.kill(node.pid, signal.SIGUSR1)
    eventually(node.log.with_name("gopush.log.1").exists)


def test_a_new_log_has_the_mode_of_the_first_unless_logrotate_has_made_it(node: Node) -> None:
    """That of a daemon was 0600: twistd sets its umask once the first one is open."""

    def mode_of_next(prepare: Callable[[], object]) -> int:
        old = node.log.stat().st_ino

        def goes_on() -> bool:
            with suppress(FileNotFoundError):
                return node.log.stat().st_ino != old and "the log goes on" in node.log.read_text()
            return False

        prepare()
        os.kill(node.pid, signal.SIGUSR1)
        eventually(goes_on)
        return node.log.stat().st_mode & 0o777

    def move() -> None:
        node.log.rename(node.log.with_suffix(".moved"))

    def replace() -> None:
        move()
        node.log.touch()
        node.log.chmod(0o604)

    node.log.chmod(0o640)
    assert mode_of_next(move) == 0o640
    assert mode_of_next(lambda: None) == 0o640  # twistd rotates what nobody has moved
    assert mode_of_next(replace) == 0o604


def test_a_log_that_cannot_be_opened_stays_and_says_so(node: Node) -> None:
    moved = node.log.with_suffix(".moved")
    node.log.rename(moved)
    node.log.mkdir()
    os.kill(node.pid, signal.SIGUSR1)
    eventually(lambda: "the log stays where it was" in moved.read_text())


def test_signals_while_it_leaves_and_a_second_sigterm_do_no_harm(node: Node) -> None:
    process = node._process
    assert process is not None
    process.send_signal(signal.SIGSTOP)  # so that all of them come at once
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        process.send_signal(number)
    process.send_signal(signal.SIGCONT)
    for _ in range(100):
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGHUP)
        if process.poll() is not None:
            break
        time.sleep(0.01)
    process.wait(30)
    logs = "".join(path.read_text() for path in node.log.parent.glob("gopush.log*"))
    assert "stopped" in logs
    assert "Traceback" not in logs
    assert process.returncode in (0, -signal.SIGTERM)


def test_where_there_is_no_file_nothing_is_reopened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = Path(tempfile.mkdtemp(prefix="gopush-signals-"))
    monkeypatch.setattr("tests.chaos.cluster.sys.executable", str(_without_logfile(directory)))
    made = Node("gopush", "gopush", directory, {})
    try:
        made.start()
        process = made._process
        assert process is not None
        process.send_signal(signal.SIGUSR1)
        process.send_signal(signal.SIGHUP)
        out = made.log.with_suffix(".out")
        eventually(lambda: process.poll() is not None or "settings read anew" in out.read_text())
        assert process.poll() is None
    finally:
        made.kill()
        shutil.rmtree(directory)


def _without_logfile(directory: Path) -> Path:
    """A python that leaves twistd's --logfile out."""
    import sys

    script = directory / "python"
    loop = 'for one; do shift; case "$one" in --logfile=*) ;; *) set -- "$@" "$one";; esac; done'
    script.write_text(f'#!/bin/sh\n{loop}\nexec {sys.executable} "$@"\n')
    script.chmod(0o755)
    return script
