"""What a publisher does: repeat a push, with one id, until it is stored. Pure."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from gopush_client import wire
from gopush_client.errors import GopushError, RefusedError, UnavailableError
from gopush_client.steps import LAST_SECONDS, Backoff, Call, Pause, Steps

ATTEMPT_SECONDS = 8.0
"""More than gopush takes at most for one push (4 s), after which it stores nothing any more."""

BULK_SECONDS = 30.0
"""At most, for many pushes."""

GROUP_BYTES = 8 << 20
GROUP_SECONDS = 4.0
"""A push to many keys is pushed in groups of so many bytes, one after the other: each has this much time of its own."""

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0
MOST_KEYS = 1000
MOST_KEYS_BYTES = 64 << 20
"""Of one message, counted for each of its keys in a call."""

MOST_LINES = 500
MOST_BYTES = 1 << 20
RET_INTERNAL = 65535

Done = TypeVar("Done")

_MARK = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[][{},]', re.DOTALL)
_ONE_LINE = bytes.maketrans(b"\r\n", b"\t\t")
"""A tab is a blank between tokens, and as wrong within a text as a line break is."""


class Push(NamedTuple):
    """A message for push_stream(): `message` as in push(); with an `id` of yours it may be repeated by another call."""

    key: str
    message: Any
    expire: int = 600
    id: str | None = None


class Pushed(NamedTuple):
    """What became of a line. `mid`: None where it is not stored for sure; `why` says why, and `ret` is 65534 where
    repeating it is pointless."""

    push: Push
    id: str
    mid: int | None
    ret: int = wire.RET_OK
    why: str = ""


class Line(NamedTuple):
    """A Push as it is sent. `why`: it cannot be, and nothing else is."""

    push: Push
    id: str
    data: bytes
    why: str = ""


def encode(message: Any) -> bytes:
    """The JSON of a message; bytes are JSON already. Raises ValueError, TypeError or RecursionError."""
    if isinstance(message, bytes):
        return message
    return json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def line(given: Push | tuple[Any, ...]) -> Line:
    """How it is sent. What is no such tuple, or list, is the message of a Push without a key, which cannot be."""
    if not isinstance(given, tuple | list) or not 2 <= len(given) <= len(Push._fields):
        return Line(Push("", given), uuid.uuid4().hex, b"", "not a tuple (key, message, expire, id)")
    push = Push(*given)
    id = _own(push.id)
    try:
        return Line(push, id, _data(push, id))
    except (ValueError, TypeError, RecursionError) as wrong:
        return Line(push, id, b"", str(wrong) or type(wrong).__name__)


def _own(id: str | None) -> str:
    """The id of a push. One that is given stays, empty too, which gopush refuses: a repeat would be another message."""
    return uuid.uuid4().hex if id is None else id


def _data(push: Push, id: str) -> bytes:
    """Raises ValueError, TypeError or RecursionError."""
    body = encode(push.message)
    if isinstance(push.message, bytes):
        _check_closed(body)
        body = body.translate(_ONE_LINE)
    head = json.dumps({"k": wire.check_key(push.key), "expire": push.expire, "id": id})
    return head[:-1].encode() + b',"m":' + body + b"}\n"


def _check_closed(body: bytes) -> None:
    """Raise ValueError where gopush could read what stands behind a value as other properties of its line. The rest it
    checks itself: it takes values nested more deeply than Python decodes.
    """
    depth = 0
    for mark in _MARK.finditer(body):
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(mark[0], 0)
        if depth < 0 or (not depth and mark[0] == b","):
            raise ValueError("the message is not JSON: more stands behind its end")


@dataclass(frozen=True)
class Publishing:
    """Where pushes go. `deadline`: for how many seconds each is attempted; the store has to remember ids for longer."""

    url: wire.Url
    headers: dict[str, str]
    deadline: float
    clock: Callable[[], float]
    random: Callable[[], float]

    def push(self, key: str, message: Any, expire: int, id: str | None) -> Steps[int]:
        """Push to a key; gives the mid."""
        id = _own(id)
        target = wire.path("/1/admin/push/private", {"key": wire.check_key(key), "expire": expire, "mid": 1, "id": id})
        body = encode(message)

        def attempt(end: float) -> Steps[int]:
            answer = wire.data((yield from self._call(target, body, ATTEMPT_SECONDS, end)))
            return wire.stored(answer.get("mid", 0))

        return (yield from self._repeat(attempt, id))

    def push_many(self, keys: Iterable[str], message: Any, expire: int, id: str | None) -> Steps[dict[str, int]]:
        """Push one message to many keys; gives their mids."""
        if isinstance(keys, str):
            raise TypeError("one string is one key: push_many() takes a list of them")
        id = _own(id)
        left = list(dict.fromkeys(map(wire.check_key, keys)))
        data = encode(message)
        text, size = data.decode(), max(len(data), 1)
        most = max(1, min(MOST_KEYS, MOST_KEYS_BYTES // size))
        target = wire.path("/1/admin/push/mprivate", {"expire": expire, "mid": 1, "id": id})
        mids: dict[str, int] = {}

        def attempt(end: float) -> Steps[None]:
            left[:] = [key for key in left if key not in mids]
            for start in range(0, len(left), most):
                if start and self.clock() >= end:
                    break
                part = left[start : start + most]
                seconds = min(ATTEMPT_SECONDS + GROUP_SECONDS * (size * len(part) // GROUP_BYTES), BULK_SECONDS)
                body = json.dumps({"m": text, "k": part}).encode()
                answer = wire.data((yield from self._call(target, body, seconds, end)))
                found = answer.get("mids", {})
                if not isinstance(found, dict):
                    raise UnavailableError("what answers is not gopush")
                mids.update((key, wire.stored(mid)) for key, mid in found.items())
            if missing := len(left) - sum(key in mids for key in left):
                raise UnavailableError(f"{missing} keys could not be served")

        try:
            yield from self._repeat(attempt, id)
        except GopushError as wrong:
            raise type(wrong)(str(wrong), id, [key for key in left if key not in mids], mids) from None
        return mids

    def push_lines(self, lines: Sequence[Line]) -> Steps[list[Pushed]]:
        """Push what has room in one call; gives what became of each. Raises RefusedError where no line is looked at."""
        results = {
            number: Pushed(each.push, each.id, None, wire.RET_PARAMETER, each.why)
            for number, each in enumerate(lines)
            if each.why
        }

        def attempt(end: float) -> Steps[None]:
            left = [number for number in range(len(lines)) if number not in results]
            body = b"".join(lines[number].data for number in left)
            answer = yield from self._call("/1/admin/push/bulk", body, BULK_SECONDS, end)
            if answer.status != 200:
                wire.data(answer)
            said = answer.body.split(b"\n")
            for number, text in zip(left, said, strict=False):
                result = _result(lines[number], text)
                if result.ret in (wire.RET_OK, wire.RET_PARAMETER):
                    results[number] = result
            if len(results) < len(lines):
                raise UnavailableError(_result(lines[left[0]], said[0]).why or "lines could not be stored")

        why = ""
        try:
            if len(results) < len(lines):
                yield from self._repeat(attempt, "")
        except UnavailableError as wrong:
            why = str(wrong)
        return [
            results.get(number) or Pushed(each.push, each.id, None, RET_INTERNAL, why)
            for number, each in enumerate(lines)
        ]

    def _call(self, target: str, body: bytes, most: float, end: float) -> Steps[wire.Answer]:
        """Within `most` seconds, not counting what the sending of a large body takes, and until `end`."""
        left = max(end - self.clock(), LAST_SECONDS)
        seconds = min(most, left)
        headers = {"Content-Type": "application/json", "Prefer": "why", **self.headers}
        answer: wire.Answer = yield Call(self.url, "POST", target, body, headers, seconds, True, sending=left - seconds)
        return answer

    def _repeat(self, attempt: Callable[[float], Steps[Done]], id: str) -> Steps[Done]:
        """Do it until it is done, or the deadline has passed: `attempt` hears when that is."""
        end = self.clock() + self.deadline
        backoff = Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, self.random)
        while True:
            try:
                return (yield from attempt(end))
            except RefusedError as wrong:
                wrong.id = id  # an earlier attempt may have been stored
                raise
            except (UnavailableError, OSError) as wrong:
                pause = backoff.next()
                if self.clock() + pause > end:
                    raise UnavailableError(f"{self.url}: {str(wrong) or type(wrong).__name__}", id) from wrong
                yield Pause(pause)


def _result(line: Line, said: bytes) -> Pushed:
    """What one line of an answer says; RET_INTERNAL where it says nothing."""
    try:
        found = json.loads(said)
        if found["ret"] == wire.RET_OK:
            return Pushed(line.push, line.id, wire.stored(found["mid"]))
        return Pushed(line.push, line.id, None, int(found["ret"]), str(found.get("why", "")))
    except (UnavailableError, ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return Pushed(line.push, line.id, None, RET_INTERNAL)
