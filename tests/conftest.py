"""The reactor runs in a thread of its own, so that tests may block: on sockets, processes, or what a Deferred gives."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from inspect import iscoroutine
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from twisted.internet import reactor as global_reactor
from twisted.internet import threads
from twisted.internet.defer import Deferred

from tests.fixtures import logged, zookeeper

__all__ = ["logged", "zookeeper"]

reactor: Any = global_reactor

# Neither a busy machine nor the first example, which fills caches, makes a test fail.
hypothesis.settings.register_profile("gopush", deadline=None)
hypothesis.settings.load_profile("gopush")


def pytest_collection() -> None:
    gc.disable()  # next to nothing of what is imported and listed is garbage


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files beside this one are short, and come last: while a long one ends the run, other workers are idle."""
    items.sort(key=lambda item: item.path.parent == Path(__file__).parent)


def pytest_collection_finish() -> None:
    """What all files of tests have imported stays: no collection need look at it again, and each would for long."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def reactor_thread() -> Iterator[threading.Thread]:
    started = threading.Event()
    reactor.callWhenRunning(started.set)
    thread = threading.Thread(target=reactor.run, kwargs={"installSignalHandlers": False}, daemon=True)
    thread.start()
    assert started.wait(10)
    yield thread
    reactor.callFromThread(reactor.stop)
    thread.join(10)


InReactor = Callable[..., Any]


@pytest.fixture
def in_reactor(reactor_thread: threading.Thread) -> InReactor:
    """Call a function in the reactor's thread and wait for its result, a Deferred's (or coroutine's) included."""

    def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)  # Debian 12's Twisted waits for no coroutine
        return Deferred.fromCoroutine(result) if iscoroutine(result) else result

    def run(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return threads.blockingCallFromThread(reactor, call, function, *args, **kwargs)

    return run
