"""What the tests of the calls between processes share: the log, and ZooKeeper."""

from __future__ import annotations

import gc
import socket
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from twisted.logger import formatEvent, globalLogPublisher

from tests.servers.zookeeper import ZooKeeperServer


class Logged:
    """What was logged during a test."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def lines(self, part: str = "") -> list[str]:
        """The lines from warn on that hold `part`."""
        levels = ("warn", "error", "critical")
        found = [formatEvent(event) for event in self.events if event["log_level"].name in levels]
        return [line for line in found if part in line]

    def tracebacks(self) -> list[Any]:
        return [event for event in list(self.events) if event.get("log_failure") or event.get("isError")]


@pytest.fixture
def logged() -> Iterator[Logged]:
    log = Logged()
    observer: Any = log.events.append
    globalLogPublisher.addObserver(observer)
    yield log
    globalLogPublisher.removeObserver(observer)


@contextmanager
def lines_logged(wanted: Callable[[str], bool]) -> Iterator[list[str]]:
    """The wanted lines that are logged meanwhile, and all with a traceback."""
    lines: list[str] = []

    def observe(event: Any) -> None:
        line = formatEvent(event)
        if wanted(line) or event.get("log_failure"):
            lines.append(line)

    observer: Any = observe
    globalLogPublisher.addObserver(observer)
    try:
        yield lines
    finally:
        globalLogPublisher.removeObserver(observer)


def eventually(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait until `condition` gives something true, and give that."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)
    return found


def closed_by_peer(connection: socket.socket) -> bool:
    """Read until the other side closes (True), or the time-out of the connection passes."""
    try:
        while connection.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


@pytest.fixture(scope="session")
def zookeeper() -> Iterator[ZooKeeperServer]:
    """A ZooKeeper for all tests that leave it alone."""
    with ZooKeeperServer() as server:
        yield server


def left_to_the_collector(kinds: Collection[str]) -> list[str]:
    """Which unreachable objects of these classes only the collector frees: those that it has frozen stay for ever."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    gc.set_debug(0)
    found = [kind for item in gc.garbage if (kind := type(item).__name__) in kinds]
    gc.garbage.clear()
    return found
