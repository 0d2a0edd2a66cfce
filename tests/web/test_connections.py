"""A web node says why it cannot subscribe at a comet, once, and when it can again."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from gopush.model import NodeInfo, Subscribe
from gopush.net.limits import Shared
from gopush.web.feed import RemoteFeed
from gopush.web.polling import LINES
from tests.conftest import InReactor, reactor
from tests.fixtures import Logged, eventually
from tests.web.whole import Whole, whole

__all__ = ["whole"]


class Reader:
    """One that counts what becomes of it."""

    cursor = 0
    stalled = False
    peer = ""

    def __init__(self) -> None:
        self.got: list[object] = []

    def write(self, data: bytes) -> int:
        return 0

    def accepted(self) -> None:
        self.got.append("accepted")

    def refused(self, reply: bytes) -> None:
        self.got.append(reply)

    def ended(self, reached: bool) -> None:
        self.got.append(reached)

    def waiting(self) -> None:
        return None

    def until_drained(self) -> Any:
        raise AssertionError


@pytest.fixture
def closing() -> Iterator[int]:
    """The port of one who closes every connection without a word, as before a PROXY header that does not come."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        try:
            while True:
                listener.accept()[0].close()
        except OSError:
            pass

    threading.Thread(target=run, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def test_who_is_no_comet_is_named_once(whole: Whole, closing: int, in_reactor: InReactor, logged: Logged) -> None:
    feed: RemoteFeed = in_reactor(RemoteFeed, reactor, Shared())

    def subscribe(port: int, *, own: bool = False) -> list[object]:
        reader: Any = Reader()
        at = (f"127.0.0.1:{port}",)
        owner = NodeInfo("n", 1, ("h:1",), tcp=("127.0.0.1:1",) if own else at, feed=at if own else ())
        subscription: Any = in_reactor(feed.open, owner, Subscribe("key", 0, "", "1", None), LINES, reader)
        in_reactor(subscription.start)
        eventually(lambda: reader.got)
        in_reactor(subscription.close)
        found: list[object] = reader.got
        return found

    def logged_lines() -> list[str]:
        return logged.lines("cannot subscribe at the comet")

    assert [subscribe(closing) for _ in range(2)] == [[True]] * 2
    assert logged_lines() == []
    assert [subscribe(closing) for _ in range(3)] == [[True]] * 3
    (line,) = logged_lines()
    assert f"127.0.0.1:{closing}: " in line
    assert "feed.bind" in line
    assert subscribe(whole.ports["tcp"]) == ["accepted"]
    assert subscribe(whole.ports["tcp"], own=True) == ["accepted"]
    assert len(logged_lines()) == 1
    in_reactor(feed.connections.useful, f"127.0.0.1:{closing}")
    assert len([event for event in logged.events if "subscribe again" in event.get("log_format", "")]) == 1
