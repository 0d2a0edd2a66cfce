"""The lines of a bulk call: cut out of what comes in, and read. Pure.

Each is an object `{"k":<key>,"m":<any JSON value>,"expire":<seconds>,"id":<optional>}`, its members in any order
(protocol.md, section 5).
"""

from __future__ import annotations

import re
from collections import deque

from gopush.errors import ParameterError
from gopush.web import params
from gopush.web.params import PublishRequest

# What is taken of a class of characters is never given back (*+): nothing that may follow is of the same class.
_BLANKS = r"[ \t\n\r]*+"
_COLON, _COMMA = (f"{_BLANKS}{mark}{_BLANKS}" for mark in ":,")
_TEXT = r'"([^"\\\x00-\x1f]*+)"'
_PROPERTY = rf'"(?:k"{_COLON}{_TEXT}|expire"{_COLON}(0|[1-9][0-9]*+)|id"{_COLON}{_TEXT})'
_before_message = re.compile(rf'{_BLANKS}\{{{_BLANKS}(?:{_PROPERTY}{_COMMA})*"m"{_COLON}')
_behind_message = re.compile(rf"(?:{_COMMA}{_PROPERTY})*{_BLANKS}\}}{_BLANKS}")


def read(line: bytes, most_expire: int) -> PublishRequest:
    """What a line wants, kept for `most_expire` seconds at most. Raises ParameterError."""
    text = params.decode(line, "the line")
    return _look(text, most_expire) or _scan(text, most_expire)


def _look(text: str, most_expire: int) -> PublishRequest | None:
    """What most lines say, which have only our members, and no escapes in key and id; None of any other."""
    before = _before_message.match(text)
    if before is None:
        return None
    start = before.end()
    end = params.end_of_value(text, start)
    behind = _behind_message.fullmatch(text, end) if end else None
    if behind is None:
        return None
    key, expire, push_id = before.groups()
    if behind.lastindex:  # of a repeated name the last one counts
        last_key, last_expire, last_id = behind.groups()
        key = key if last_key is None else last_key
        expire = expire if last_expire is None else last_expire
        push_id = push_id if last_id is None else last_id
    if key is None or expire is None:
        return None
    params.valid_key(key, "k")
    seconds = params.decimal(expire, most_expire, "expire")
    return PublishRequest(key, text[start:end].encode(), seconds, None if push_id is None else params.push_id(push_id))


def _scan(text: str, most_expire: int) -> PublishRequest:
    found = params.properties(text, "the line", message="m")
    if missing := {"k", "m", "expire"} - found.keys():
        raise ParameterError(f"the line lacks {', '.join(sorted(missing))}")
    key = params.valid_key(found["k"].value, "k")
    push_id = params.push_id(found["id"].value) if "id" in found else None
    seconds = params.decimal(found["expire"].of(text), most_expire, "expire")
    return PublishRequest(key, found["m"].of(text).encode(), seconds, push_id)


class LineSplitter:
    """Cuts what is fed into lines; of a line that is too long only the fact is kept."""

    __slots__ = ("_buffer", "_lines", "_skips", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lines: deque[bytes] = deque()
        self._buffer = bytearray()  # of the line that is not complete yet
        self._skips = False

    def feed(self, piece: bytes) -> None:
        """Add a piece."""
        first, *others = piece.split(b"\n")
        self._extend(first)
        if others:
            self._complete()
            last = others.pop()
            self._lines += [line if len(line) <= self.limit else b"" for line in others]
            self._extend(last)

    def end(self) -> None:
        """Nothing more comes: what is left is a line, too."""
        if self._buffer or self._skips:
            self._complete()

    @property
    def waiting(self) -> bool:
        """Whether a complete line waits."""
        return bool(self._lines)

    def take(self, most: int, most_bytes: int) -> list[bytes]:
        """The next lines without their ends: at most so many, and none behind so many bytes. One that is too long is
        given as b"".
        """
        taken: list[bytes] = []
        lines = self._lines
        while lines and len(taken) < most and most_bytes > 0:
            line = lines.popleft()
            most_bytes -= len(line)
            taken.append(line)
        return taken

    def _extend(self, part: bytes) -> None:
        self._skips = self._skips or len(self._buffer) + len(part) > self.limit
        if self._skips:
            self._buffer.clear()
        else:
            self._buffer += part

    def _complete(self) -> None:
        self._lines.append(bytes(self._buffer))
        self._buffer.clear()
        self._skips = False
