"""Comets behind real sockets for the tests of the client ports."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
from twisted.logger import LogLevel, formatEvent, globalLogPublisher

from gopush.comet.settings import SubscriberSettings
from gopush.message.store import StoreSettings
from tests.comet.wire import CometServer, in_reactor

_numbers = count()


@pytest.fixture
def key() -> str:
    """A key that no other test uses."""
    return f"key-{next(_numbers)}"


@pytest.fixture(scope="module")
def errors(reactor_thread: threading.Thread) -> Iterator[list[str]]:
    """What the comets of a module's tests have logged as an error, tracebacks included; nothing, it is to be."""
    logged: list[str] = []

    def observe(event: Any) -> None:
        level = event.get("log_level", LogLevel.info)
        if level >= LogLevel.warn or event.get("isError") or "log_failure" in event:
            logged.append(f"{formatEvent(event)} {event.get('log_failure', '')}")

    observer: Any = observe
    globalLogPublisher.addObserver(observer)
    yield logged
    in_reactor(gc.collect)  # errors that nobody took from a Deferred are told now
    globalLogPublisher.removeObserver(observer)
    assert logged == []


Start = Callable[..., CometServer]


@pytest.fixture
def start(reactor_thread: threading.Thread, errors: list[str]) -> Iterator[Start]:
    """Start a comet with settings of the test's own."""
    servers: list[CometServer] = []

    def start_one(store: StoreSettings | None = None, foreign: bool = False, **settings: Any) -> CometServer:
        servers.append(CometServer(SubscriberSettings(**settings), store or StoreSettings(), foreign))
        return servers[-1]

    yield start_one
    for server in servers:
        server.stop()
    assert errors == []


@pytest.fixture(scope="module")
def shared(reactor_thread: threading.Thread, errors: list[str]) -> Iterator[CometServer]:
    """One comet with the default settings for all tests of a module."""
    server = CometServer(SubscriberSettings(), StoreSettings())
    yield server
    server.stop()


@pytest.fixture
def server(shared: CometServer, errors: list[str]) -> Iterator[CometServer]:
    """The module's comet; what it logged during the test must be no error."""
    yield shared
    assert errors == []
