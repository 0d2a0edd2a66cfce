"""The rules of a key's log that every store follows: sequence, repeats, pages (docs/delivery.md). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gopush.errors import RET_INTERNAL, RET_OK
from gopush.model import Append, Appended, Head, Push, Read, Token, mid_at, next_mid

PAGE_BYTES = 1 << 20
"""Bodies of one page at most, where it holds more than one message."""

ANSWER_BYTES = 4 << 20
"""What one answer of a server behind the store holds at most, where it holds more than one message."""

BATCH_BYTES = 16 << 20
"""Bodies of all pages of a batch at most, not counting the first message of each, where the caller names no room."""

MOST_TOKENS = 1000
"""Tokens of one key at most: beyond that the store drops those that end first."""

REFUSED = Appended(RET_INTERNAL, 0, 0, False)
"""The answer to an append that the store failed."""

TOO_LATE = Appended(RET_INTERNAL, 0, 0, False)
"""The answer of a store that works to an append past its deadline. Redis scripts answer new objects: every refusal that
is neither the object REFUSED nor UNAVAILABLE counts as this one.
"""

UNAVAILABLE = Appended(RET_INTERNAL, 0, 0, False)
"""The answer where the store cannot be reached from here: another node may reach it. These three are equal, so compare
with `is`.
"""

MOST_OWN_SECONDS = 3600.0
"""How long web's own id is remembered at most: a web node whose clock is ahead gives a deadline that is far away."""

NO_HEAD = Head(0, 0)
"""The head of a log that was never written, or is long forgotten."""


class KeptLog(NamedTuple):
    """All that a store keeps of a key, on its way into another store: what has expired is no part of it.

    `ends`: when its head may be forgotten where it has no messages. `messages`: mid, expiry, body, ascending. `ids`:
    the id, its mid, the one before, until when it is remembered. Times are seconds since the epoch.
    """

    key: str
    last: int
    trimmed: int
    ends: float
    messages: Sequence[tuple[int, float, bytes]]
    ids: Sequence[tuple[str, int, int, float]]
    tokens: Sequence[Token]


def remembered(log: KeptLog) -> KeptLog:
    """What goes into a store that has the log itself already: ids and tokens."""
    return log._replace(last=0, trimmed=0, messages=())


def pushed_here(mids: Iterable[int], log: KeptLog) -> set[int]:
    """Which `mids` of the target's log stay when the source's `log` takes its place: they were pushed to the target.

    They are newer than the oldest message of `log`, and not in it: the source cannot have lost them, because msg/del
    deletes all of a log. An older mid that is not in `log` was moved earlier, and has gone from the source since.
    """
    moved = {mid for mid, _, _ in log.messages}
    oldest = min(moved, default=log.last)
    return {mid for mid in mids if mid > oldest and mid not in moved}


class First(NamedTuple):
    """What is remembered of an id, `until` seconds since the epoch: the answer to its first append."""

    mid: int
    previous: int
    until: float


class Kept(NamedTuple):
    """A stored message; from `expires` on (seconds since the epoch) nobody sees it any more."""

    mid: int
    expires: float
    body: bytes


def sequence(append: Append, last: int, first: First | None, now: float) -> Appended:
    """The answer to an append at the end of a log whose last mid is `last`, 0 where it was never written."""
    if first is not None and now < first.until:
        return Appended(RET_OK, first.mid, first.previous, True)
    if now > append.push.deadline:
        return TOO_LATE
    return Appended(RET_OK, next_mid(last, append.floor, mid_at(now)), last, False)


def remembered_until(push: Push, now: float) -> float:
    """When the id of a push that is appended now may be forgotten: web's own once no repeat can be stored any more."""
    return now + push.dedupe if push.dedupe else min(push.deadline, now + MOST_OWN_SECONDS) + 1


def page_bytes(reads: int) -> int:
    """The bodies of one page at most where a batch asks for this many, so that a batch stays small enough too."""
    return min(PAGE_BYTES, BATCH_BYTES // max(reads, 1))


class Room:
    """What is left for bodies in the answer to a batch of reads. Sizes are known before any body is fetched."""

    def __init__(self, reads: Sequence[Read]) -> None:
        self._left = min((read.room for read in reads if read.room), default=0)
        self._each = page_bytes(len(reads))
        self._empty = True

    def take(self, read: Read, sizes: Iterable[int]) -> tuple[int, bool]:
        """How many of the messages of these sizes the read's page gets, and whether there are more.

        The batch gets one message at least, and so does each read of a caller that names no room.
        """
        least = self._empty or not read.room
        most_bytes = min(PAGE_BYTES, self._left) if read.room else self._each
        count = size = 0
        more = False
        for one in sizes:
            if (count or not least) and (count >= read.limit or size + one > most_bytes):
                more = True
                break
            count += 1
            size += one
        self._left -= size
        self._empty = self._empty and not count
        return count, more
