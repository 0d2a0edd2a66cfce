"""Subscriptions without a connection of one's own to a comet: web makes them, for event streams and long polling.

A comet of this process gives a feed (comet/feed.py), and so does another one, which web calls (web/feed_client.py,
comet/feed_server.py). Pure.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from gopush.model import Format, Message, NodeInfo, Subscribe
from gopush.reports import Lag

Write = Callable[[bytes], int]

VERSION = "1"
"""Of a subscription: any has it get the pushed JSON as it is (protocol.md, section 2)."""

ENDED, READ_ALL = b"", b"?"
"""What an item may hold beside messages and replies, framed as for a TCP client: the subscriptions are over; their
process is to say when their clients have read all that came before."""


class FeedRequest(NamedTuple):
    """A subscription that another process wants; `number`: what it calls it."""

    number: int
    key: str
    token: str
    mid: int | None


class FeedItem(NamedTuple):
    """What comes for the subscriptions with these numbers."""

    numbers: tuple[int, ...]
    data: bytes


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

    def waiting(self) -> Lag | None:
        """What waits for its client; None: nothing."""

    def until_drained(self) -> Awaitable[None]:
        """Fires when little waits for its client, or that is gone."""

    @property
    def peer(self) -> str:
        """Its client's address."""


class Subscription(Protocol):
    """One way of a reader to its key."""

    def start(self) -> None:
        """Begin; the reader may be called before this returns."""

    def close(self) -> None:
        """End: the reader is not called any more."""


class Feed(Protocol):
    """Where subscriptions come from."""

    def open(self, owner: NodeInfo, request: Subscribe, format: Format, reader: Reader) -> Subscription | None:
        """A subscription at the key's comet, which is not begun; None where this feed does not reach it."""

    def watch(self, reached: Callable[[], object]) -> None:
        """Have `reached` called whenever it has reached a comet, for the first time or again."""


def last_mid(messages: bytes) -> int:
    """The mid of the last of these messages, in any format that is one of section 3's raw form and white space; 0 where
    there is none."""
    found = _MID.search(messages, max(0, len(messages) - _TAIL_BYTES))
    return int(found[1]) if found else 0


_HEAD, _TAIL = b'{"msg":', b',"mid":'


def unframed(data: bytes) -> list[Message | bytes]:
    """What an item holds: messages, and replies with their line's end. Raises ValueError for anything else."""
    found: list[Message | bytes] = []
    at = 0
    while at < len(data):
        line = data.index(b"\n", at) + 1
        if data[at : at + 1] != b"$":
            found.append(data[at:line])
            at = line
            continue
        at = line + int(data[at + 1 : line - 2]) + 2
        body, tail, mid = data[line : at - 2].rpartition(_TAIL)
        if not tail or not body.startswith(_HEAD) or data[at - 2 : at] != b"\r\n":
            raise ValueError("no message")
        found.append(Message(int(mid.partition(b",")[0]), body[len(_HEAD) :]))
    return found
