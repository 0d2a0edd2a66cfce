"""The rules of a key's log that every store follows: sequence, repeats, pages (docs/delivery.md). Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from gopush.errors import RET_INTERNAL, RET_OK
from gopush.rpc.model import Append, Appended, Head, Message, Page, Push, mid_at, next_mid

PAGE_BYTES = 1 << 20
"""Bodies of one page at most, where it holds more than one message."""

BATCH_BYTES = 16 << 20
"""Bodies of all pages of a batch at most, not counting the first message of each."""

REFUSED = Appended(RET_INTERNAL, 0, 0, False)
"""The answer to an append that stored nothing."""

NO_HEAD = Head(0, 0)
"""The head of a log that was never written, or is long forgotten."""


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
        return REFUSED
    return Appended(RET_OK, next_mid(last, append.floor, mid_at(now)), last, False)


def remembered_until(push: Push, now: float) -> float:
    """When the id of a push that is appended now may be forgotten: web's own once no repeat can be stored any more."""
    return now + push.dedupe if push.dedupe else push.deadline + 1


def page_bytes(reads: int) -> int:
    """The bodies of one page at most where a batch asks for this many, so that a batch stays small enough too."""
    return min(PAGE_BYTES, BATCH_BYTES // max(reads, 1))


def page(messages: Iterable[Kept], head: Head, limit: int, most_bytes: int) -> Page:
    """The first of these unexpired messages: at most `limit`, and `most_bytes` of bodies, but at least one."""
    taken: list[Message] = []
    size = 0
    for message in messages:
        size += len(message.body)
        if taken and (len(taken) >= limit or size > most_bytes):
            return Page(taken, head, True)
        taken.append(Message(message.mid, message.body))
    return Page(taken, head, False)
