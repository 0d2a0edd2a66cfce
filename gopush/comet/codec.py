"""The TCP protocol's bytes: a bounded parser for the one request, and what its arguments mean (protocol.md, section 1).

Pure. WebSocket clients give the same arguments in their query (section 2).
"""

from __future__ import annotations

import re
from operator import le
from typing import NamedTuple

from gopush.errors import ParameterError
from gopush.rpc.model import MAX_INT64, is_key, is_plain, snap

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
_MOST_LENGTH_DIGITS = 5
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


class RequestParser:
    """Parses one `sub` request as it arrives; holds no more than the request may have."""

    __slots__ = ("_arguments", "_count", "_data")

    def __init__(self) -> None:
        self._data = bytearray()
        self._count = 0
        self._arguments: list[bytes] = []

    def feed(self, data: bytes) -> tuple[list[bytes], bytes] | None:
        """Take bytes; once the request is complete, its arguments and what came after it.

        Raises ParameterError at the first byte that cannot belong to a request.
        """
        if not self._data and not self._count and (whole := _whole(data)) is not None:
            return whole
        self._data += data
        while self._step():
            if self._count and len(self._arguments) == self._count:
                return self._arguments, bytes(self._data)
        return None

    def _step(self) -> bool:
        """Take the count or one argument off the data; False where it is not there yet."""
        if not self._count:
            number = self._number(b"*", _LEAST_ARGUMENTS, len(ARGUMENT_BYTES), 1)
            if number is None:
                return False
            self._count = number[0]
            del self._data[: number[1]]
            return True
        return self._argument()

    def _argument(self) -> bool:
        most = ARGUMENT_BYTES[len(self._arguments)]
        number = self._number(b"$", 0, most, _MOST_LENGTH_DIGITS)
        if number is None:
            return False
        length, start = number
        end = start + length
        ending = bytes(self._data[end : end + 2])
        if not b"\r\n".startswith(ending):
            raise ParameterError("an argument is not as long as it says")
        if len(ending) < 2:
            return False
        self._arguments.append(bytes(self._data[start:end]))
        del self._data[: end + 2]
        return True

    def _number(self, prefix: bytes, least: int, most: int, most_digits: int) -> tuple[int, int] | None:
        """The number in the line at the start of the data, and where the line ends; None where it is incomplete."""
        data = self._data
        if not data:
            return None
        if data[:1] != prefix:
            raise ParameterError(f"{prefix!r} was expected")
        at = 1
        while at < len(data) and 48 <= data[at] <= 57:
            at += 1
        digits = data[1:at]
        if len(digits) > most_digits or (digits and not least <= int(digits) <= most):
            raise ParameterError("a number is out of range")
        ending = bytes(data[at : at + 2])
        if not b"\r\n".startswith(ending) or (ending and not digits):
            raise ParameterError("a number is followed by something else than CRLF")
        return (int(digits), at + 2) if len(ending) == 2 else None


def _whole(data: bytes) -> tuple[list[bytes], bytes] | None:
    """A request that came in one piece, as nearly all do; None where it takes a closer look."""
    count = _COUNTS.get(data[:4])
    if count is None:
        return None
    *parts, rest = data[4:].split(b"\r\n", 2 * count)
    arguments = parts[1::2]
    if parts[::2] != [b"$%d" % len(argument) for argument in arguments] or len(arguments) != count:
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
