"""Subscriptions without a connection of one's own to a comet: web makes them, for event streams and long polling.

A comet of this process gives a feed (comet/feed.py), and so does another one, which web reaches as a device does
(web/feed.py). Pure.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Protocol

from gopush.model import Format, NodeInfo, Subscribe

Write = Callable[[bytes], int]

_MID = re.compile(rb'"mid":([0-9]+),"gid":0\}\s*\Z')
_TAIL_BYTES = 64


class Reader(Protocol):
    """A subscriber. `cursor`: the mid of its last message; `write` takes messages in its format, and returns how many
    bytes then wait for its client.

    Its format's `reply` turns `+g` into what its client reads, and leaves other replies as they are: for these the feed
    calls a method.
    """

    cursor: int
    write: Write

    def accepted(self) -> None:
        """It is subscribed."""

    def refused(self, reply: bytes) -> None:
        """The comet sent this (`-n`, ...), and the subscription is over."""

    def ended(self, reached: bool) -> None:
        """The subscription is over without a reply. `reached`: the comet was there."""

    def waiting(self) -> tuple[int, float] | None:
        """How many bytes wait for its client, and for how many seconds some have; None: none do."""

    def until_drained(self) -> Awaitable[None]:
        """Fires when little waits for its client, or that is gone."""

    @property
    def stalled(self) -> bool:
        """Whether so much waits for its client that no more should be read for it; go_on() follows."""

    @property
    def peer(self) -> str:
        """Its client's address."""


class Subscription(Protocol):
    """One way of a reader to its key."""

    def start(self) -> None:
        """Begin; the reader may be called before this returns."""

    def close(self) -> None:
        """End: the reader is not called any more."""

    def go_on(self) -> None:
        """The reader's client has read what waited for it."""


class Feed(Protocol):
    """Where subscriptions come from."""

    def open(self, owner: NodeInfo, request: Subscribe, format: Format, reader: Reader) -> Subscription | None:
        """A subscription at the key's comet, which is not begun; None where this feed does not reach it."""


def last_mid(messages: bytes) -> int:
    """The mid of the last of these messages, in any format that is one of section 3's raw form and white space; 0 where
    there is none."""
    found = _MID.search(messages, max(0, len(messages) - _TAIL_BYTES))
    return int(found[1]) if found else 0
