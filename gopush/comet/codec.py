"""The TCP protocol's bytes: the lines of the one request, and what its arguments mean (protocol.md, section 1).

Pure. WebSocket clients give the same arguments in their query (section 2).
"""

from __future__ import annotations

import re
from operator import le
from typing import NamedTuple

from gopush.errors import ParameterError
from gopush.model import MAX_INT64, is_key, is_plain, snap

HEARTBEAT = b"+h\r\n"
GAP = b"+g\r\n"
REFUSE_PARAMETER = b"-p\r\n"
REFUSE_TOKEN = b"-a\r\n"
REFUSE_KEY = b"-c\r\n"
REFUSE_NODE = b"-n\r\n"
REFUSE_LIMIT = b"-l\r\n"

LEAST_HEARTBEAT_SECONDS = 30
MAX_TOKEN_BYTES = 4096
# command, key, heartbeat, token, version, mid: what an argument may have in bytes
ARGUMENT_BYTES = (8, 255, 32, MAX_TOKEN_BYTES, 64, 32)
_LEAST_ARGUMENTS = 3
MAX_LINE_BYTES = MAX_TOKEN_BYTES + 1
_LENGTH = re.compile(rb"(?:\$(?:([0-9]{1,5})\r?)?)?")  # or its beginning
_COUNTS = {b"*%d\r\n" % count: count for count in range(_LEAST_ARGUMENTS, len(ARGUMENT_BYTES) + 1)}
_HEARTBEAT = re.compile(r"\+?[0-9]+")
_MID = re.compile(r"[+-]?[0-9]+")


class Subscribe(NamedTuple):
    """A request to subscribe. `heartbeat` in seconds; `version` "": from before 1.0; `mid` None: the plain way."""

    key: str
    heartbeat: int
    token: str
    version: str
    mid: int | None


class SubRequest:
    """A `sub` request that comes line by line; a line comes without its LF."""

    __slots__ = ("_arguments", "_count", "_length")

    def __init__(self) -> None:
        self._count = 0
        self._length: int | None = None  # of the argument that comes next, once it is known
        self._arguments: list[bytes] = []

    def take(self, line: bytes) -> list[bytes] | None:
        """Take the next line; the arguments once they are complete. Raises ParameterError for what cannot be it."""
        if not line.endswith(b"\r") or not self.begins(line):
            raise ParameterError("a line cannot belong to a request")
        if not self._count:
            self._count = int(line[1:])
        elif self._length is None:
            self._length = int(line[1:])
        elif len(line) <= self._length:
            raise ParameterError("an argument is not as long as it says")
        else:
            self._arguments.append(line[:-1])
            self._length = None
        return self._arguments if len(self._arguments) == self._count else None

    def begins(self, line: bytes) -> bool:
        """Whether this may be the beginning of the next line."""
        if not self._count:
            return any(count.startswith(line) for count in _COUNTS)
        if self._length is not None:
            return line[self._length :] in (b"", b"\r")
        found = _LENGTH.fullmatch(line)
        return found is not None and int(found[1] or 0) <= ARGUMENT_BYTES[len(self._arguments)]


def whole(data: bytes) -> tuple[list[bytes], bytes] | None:
    """The arguments of a request that came in one piece, as nearly all do, and what follows; None: see SubRequest."""
    count = _COUNTS.get(data[:4])
    if count is None:
        return None
    *parts, rest = data[4:].split(b"\r\n", 2 * count)
    arguments = parts[1::2]
    if parts[::2] != [b"$%d" % len(argument) for argument in arguments] or len(arguments) != count:
        return None
    if data.count(b"\n", 0, len(data) - len(rest)) != 2 * count + 1:
        return None
    return (arguments, rest) if all(map(le, map(len, arguments), ARGUMENT_BYTES)) else None


def parse_subscribe(arguments: list[bytes]) -> Subscribe:
    """What the arguments of a TCP request ask for. Raises ParameterError."""
    try:
        texts = [argument.decode() for argument in arguments]
    except UnicodeDecodeError:
        raise ParameterError("an argument is not UTF-8") from None
    command, key, heartbeat, token, version, mid = texts + [""] * (len(ARGUMENT_BYTES) - len(texts))
    if command != "sub":
        raise ParameterError("the command is not known")
    return subscribe(key, heartbeat, token, version, mid if len(texts) == len(ARGUMENT_BYTES) else None)


def subscribe(key: str, heartbeat: str, token: str, version: str, mid: str | None) -> Subscribe:
    """Check what a client gave, over TCP or WebSocket alike. Raises ParameterError."""
    if not is_key(key):
        raise ParameterError("the key is empty, too long or has control characters")
    if not _HEARTBEAT.fullmatch(heartbeat) or len(heartbeat) > ARGUMENT_BYTES[2]:
        raise ParameterError("the heartbeat is not a number of seconds")
    seconds = int(heartbeat)
    if not LEAST_HEARTBEAT_SECONDS <= seconds <= MAX_INT64:
        raise ParameterError("the heartbeat is out of range")
    if len(token.encode("utf-8", "replace")) > MAX_TOKEN_BYTES or not is_plain(token):
        raise ParameterError("the token is too long or has control characters")
    return Subscribe(key, seconds, token, version, None if mid is None else _cursor(mid))


def _cursor(mid: str) -> int:
    if not _MID.fullmatch(mid) or len(mid) > ARGUMENT_BYTES[5] or not -MAX_INT64 - 1 <= int(mid) <= MAX_INT64:
        raise ParameterError("the mid is not a decimal int64")
    return snap(int(mid))
