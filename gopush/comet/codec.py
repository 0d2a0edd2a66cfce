"""The TCP protocol's bytes: the lines of the one request, and what its arguments mean (protocol.md, section 1).

Pure. WebSocket clients give the same arguments in their query (section 2).
"""

from __future__ import annotations

import re

from gopush.errors import ParameterError
from gopush.model import MAX_TOKEN_BYTES, Subscribe, subscribe

MAX_NUMBER_BYTES = 32
# command, key, heartbeat, token, version, mid: what an argument may have in bytes
ARGUMENT_BYTES = (8, 255, MAX_NUMBER_BYTES, MAX_TOKEN_BYTES, 64, MAX_NUMBER_BYTES)
_LEAST_ARGUMENTS = 3
MAX_LINE_BYTES = MAX_TOKEN_BYTES + 1
_LENGTH = re.compile(rb"(?:\$(?:([0-9]{1,5})\r?)?)?")  # or its beginning
_LENGTHS = [b"$%d" % length for length in range(MAX_TOKEN_BYTES + 1)]
_COUNTS = {b"*%d\r\n" % count: count for count in range(_LEAST_ARGUMENTS, len(ARGUMENT_BYTES) + 1)}


class SubRequest:
    """A `sub` request that comes line by line; a line comes without its LF."""

    __slots__ = ("_arguments", "_count", "_length")

    def __init__(self) -> None:
        self._count = 0
        self._length: int | None = None  # of the argument that comes next, once it is known
        self._arguments: list[bytes] = []

    def take(self, line: bytes) -> list[bytes] | None:
        """Take the next line; the arguments once they are complete. Raises ParameterError for a wrong one."""
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
    if len(parts) != 2 * count or data.count(b"\n", 0, len(data) - len(rest)) != 2 * count + 1:
        return None
    arguments = parts[1::2]
    for line, argument, most in zip(parts[::2], arguments, ARGUMENT_BYTES, strict=False):
        if len(argument) > most or line != _LENGTHS[len(argument)]:
            return None
    return arguments, rest


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
