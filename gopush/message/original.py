"""What gopush-cluster keeps in Redis, and where it belongs in a log of ours. Pure.

There a key is a sorted set: the score is a mid, a member {"msg": the pushed JSON, "expire": seconds since the epoch}.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha1
from typing import Any, NamedTuple

from gopush.model import MID_STEP, Head, snap

NAMED_KEYS = 3
"""Of keys whose messages have to stay behind."""

LATEST = 10**12
"""A message that would end later, in seconds since the epoch, ends then: Redis takes no time that is much later."""


class OldMessage(NamedTuple):
    """A message of gopush-cluster: its mid as it is there, when it ends (seconds since the epoch), the pushed JSON."""

    mid: int
    expires: int
    body: bytes


class OldLog(NamedTuple):
    """What gopush-cluster keeps of a key, ascending."""

    key: str
    messages: Sequence[OldMessage]


class KeyState(NamedTuple):
    """What is in the log of ours that old messages go into: its head, and mid and mark() of each message.

    The mark of a message that ends at no whole second is empty: it did not come from gopush-cluster.
    """

    head: Head
    messages: Sequence[tuple[int, bytes]]


@dataclass
class Passed:
    """What stays behind, so far: messages of later, members and keys that are none of gopush-cluster's, and messages
    that gopush, or its store, cannot have, `of` the first few keys, and perhaps of `others`.
    """

    later: int = 0
    members: int = 0
    keys: int = 0
    refused: int = 0
    of: list[bytes] = field(default_factory=list)
    others: bool = False

    def refuse(self, key: bytes, count: int) -> None:
        """Count messages of a key that gopush, or its store, cannot have."""
        self.refused += count
        if count and key not in self.of:
            self.others = len(self.of) == NAMED_KEYS
            self.of += [] if self.others else [key]


def mark(expires: float, body: bytes) -> bytes:
    """What tells a message from all others of its key: gopush-cluster keeps the same text once for each expiry."""
    return b"%d %b" % (expires, sha1(body).hexdigest().encode())


def placed(messages: Iterable[OldMessage], there: KeyState) -> list[OldMessage]:
    """Those of these messages that are not there yet, each with its mid: snapped, ascending, taken by nobody.

    They come before all that gopush was pushed itself, or after all where that has no messages. What it has trimmed
    since stays away.
    """
    old = {mark(expires, body): OldMessage(mid, expires, body) for mid, expires, body in messages}
    present = {known for _, known in there.messages}
    own = [mid for mid, known in there.messages if not known]
    taken = {mid for mid, _ in there.messages}
    found, mids, last = [], [], 0
    for known, message in old.items():
        if known not in present:
            last = _free(max(snap(message.mid), last + MID_STEP), MID_STEP, taken)
            found.append(message)
            mids.append(last)
    if own:
        ceiling = min(own)
        for index in reversed(range(len(mids))):
            if mids[index] < ceiling:
                break
            mids[index] = ceiling = _free(ceiling - MID_STEP, -MID_STEP, taken)
    placed_ones = (message._replace(mid=mid) for message, mid in zip(found, mids, strict=True))
    return [message for message in placed_ones if message.mid > there.head.trimmed]


def _free(mid: int, step: int, taken: set[int]) -> int:
    while mid in taken:
        mid += step
    return mid


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


_DECODER: Any = json.JSONDecoder(parse_int=len, parse_float=len, parse_constant=_refuse)
_SPACE = re.compile(r"[ \t\n\r]*")
_EXPIRE = re.compile(r"[0-9]{1,18}")
_WRITTEN = re.compile(rb'\{"msg":.+,"expire":([0-9]{1,18})\}', re.DOTALL)
"""As gopush-cluster writes every member."""


def old_message(score: bytes, member: bytes) -> OldMessage | None:
    """A member of a sorted set, its message byte for byte; None where it is none of gopush-cluster's."""
    try:
        found = _properties(member.decode())
        if not _EXPIRE.fullmatch(found["expire"]):
            return None
        return OldMessage(int(float(score)), min(int(found["expire"]), LATEST), found["msg"].encode())
    except (ValueError, KeyError, RecursionError, OverflowError):
        return None


def expiry(member: bytes) -> int | None:
    """When a member ends that only gopush-cluster can have written, whatever its text is (old_message() may refuse
    it); else None.
    """
    match = _WRITTEN.fullmatch(member)
    return int(match[1]) if match else None


def _properties(text: str) -> dict[str, str]:
    """The properties of the one object in `text`, as they are written. Raises ValueError."""

    def skip(at: int) -> int:
        space = _SPACE.match(text, at)
        assert space
        return space.end()

    def expect(character: str, at: int) -> int:
        if text[at : at + 1] != character:
            raise ValueError(f"no {character!r} at {at}")
        return skip(at + 1)

    found = {}
    at = expect("{", skip(0))
    while True:
        name, at = _DECODER.raw_decode(text, at)
        if not isinstance(name, str):
            raise ValueError("a name is not a string")
        begin = expect(":", skip(at))
        _, end = _DECODER.raw_decode(text, begin)
        found[name] = text[begin:end]
        at = skip(end)
        if text[at : at + 1] == "}":
            break
        at = expect(",", at)
    if skip(at + 1) != len(text):
        raise ValueError("more follows")
    return found
