"""What connections leave behind: whatever only a collection would free stays for ever once it is frozen."""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from resource import getpagesize
from typing import Any

from twisted.internet import threads

from tests.conftest import reactor

CONNECTIONS = 60


def assert_nothing_is_left(
    connection: Callable[[], None], gone: Callable[[], bool], connections: int = CONNECTIONS, rss: int = 8 << 20
) -> str:
    """Have `connection` open and close one so often, with the collector off. `gone`: whether the server knows of none.

    `rss`: bytes by which the process may grow. Gives the figures.
    """
    for _ in range(3):
        connection()
    _wait(gone)
    gc.collect()
    gc.freeze()  # what tests before this one left to a timer may end meanwhile, and is none of these connections'
    gc.disable()
    try:
        before = _rss()
        for _ in range(connections):
            connection()
        _wait(gone)
        grown = _rss() - before
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = Counter(type(each).__name__ for each in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    # What each connection leaves comes as often as there were connections. What zope makes for a class of them lives as
    # long as one.
    assert max(left.values(), default=0) < connections, left
    figures = f"{connections} connections: RSS {grown / 1024:+.0f} KiB, only a collection frees {dict(left)}"
    assert grown < rss, figures
    return figures


def _wait(gone: Callable[[], bool]) -> None:
    """Till the server has dealt with the ends of all connections, and what it called later is over."""
    deadline, calm = time.monotonic() + 30, 0
    while calm < 3:
        assert time.monotonic() < deadline
        calm = calm + 1 if gone() and not _pending() else 0
        time.sleep(0.02)


def _pending() -> list[Any]:
    now = reactor.seconds()
    return [call for call in threads.blockingCallFromThread(reactor, reactor.getDelayedCalls) if call.getTime() <= now]


def _rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * getpagesize()
