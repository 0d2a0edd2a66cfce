"""Real servers that tests start on free ports, in directories of their own."""

from __future__ import annotations

import os
import random
import socket
from contextlib import suppress

_FIRST, _MOST = 12_000, 20_000
_WORKERS = 4


def _ports() -> list[int]:
    """Ports below those that the system gives to clients, other ones in each worker of a run."""
    share = _MOST // _WORKERS
    first = _FIRST + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % _WORKERS * share
    begin = random.SystemRandom().randrange(share)
    return [first + (begin + i) % share for i in reversed(range(share))]


_left = _ports()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on, and that stays free while its process is dead.

    None is given twice.
    """
    while True:
        port = _left.pop()
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
