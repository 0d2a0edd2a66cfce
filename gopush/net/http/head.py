"""The head of a request, looked at line by line before twisted.web sees it. Pure.

Versions of twisted.web differ in what they let pass; whatever could make two readers disagree about where a request
ends is refused here.
"""

from __future__ import annotations

import re
from urllib.parse import quote_from_bytes

HEAD_LIMIT = 16 << 10
MAX_FIELDS = 500

_ASCII = bytes(range(128)).decode()
# Possessive: whatever a stranger sends is looked at once.
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_LINE = re.compile(rb"(%b) ([!-~]++) HTTP/([0-9]\.[0-9])" % _TOKEN)
_FIELD = re.compile(rb"(%b):[ \t]*+([\t -~\x80-\xff]*+)" % _TOKEN)
_LENGTH = re.compile(rb"[0-9]{1,18}[ \t]*")


class WrongHeadError(Exception):
    """A head that ends the connection, answered with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class HeadScanner:
    """One after the other; `begun`: the request line was there. `method`, `target` (origin form) and `version`."""

    __slots__ = ("_bytes", "_fields", "begun", "method", "target", "version")

    def __init__(self) -> None:
        self.method = self.target = self.version = b""
        self.reset()

    def reset(self) -> None:
        """The next line is that of a request."""
        self._bytes = self._fields = 0
        self.begun = False

    def take(self, line: bytes) -> bytes:
        """A line without its end, as it is handed on. Raises WrongHeadError."""
        self._bytes += len(line) + 2
        if self._bytes > HEAD_LIMIT:
            raise WrongHeadError(431 if self.begun else 414)
        if not line:
            return line
        if self.begun:
            self._check_field(line)
            return line
        self.begun = True
        return self._request_line(line)

    def _request_line(self, line: bytes) -> bytes:
        if not line.isascii():  # old clients leave letters as they are, which twisted.web takes in some versions only
            line = quote_from_bytes(line, _ASCII).encode()
        match = _LINE.fullmatch(line)
        if match is None:
            raise WrongHeadError(400)
        if match[3] not in (b"1.0", b"1.1"):
            raise WrongHeadError(505)
        self.method, self.target, self.version = match[1], _origin_form(match[2]), b"HTTP/" + match[3]
        return b"%b %b %b" % (self.method, self.target, self.version)

    def _check_field(self, line: bytes) -> None:
        self._fields += 1
        if self._fields > MAX_FIELDS:
            raise WrongHeadError(431)
        match = _FIELD.fullmatch(line)
        if match is None:
            raise WrongHeadError(400)
        name, value = match[1].lower(), match[2]
        if name == b"content-length" and not _LENGTH.fullmatch(value):
            raise WrongHeadError(400)
        if name == b"transfer-encoding" and value.strip(b" \t").lower() != b"chunked":
            raise WrongHeadError(400)


def _origin_form(target: bytes) -> bytes:
    """The path and query of a request target, which may be absolute. Raises WrongHeadError."""
    if target[:1] == b"/" or target == b"*":
        return target
    _, scheme, rest = target.partition(b"://")
    if not scheme:
        raise WrongHeadError(400)
    return b"/" + rest.partition(b"/")[2]
