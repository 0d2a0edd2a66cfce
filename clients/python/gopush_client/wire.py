"""What is said to gopush and what it says (docs/protocol.md of gopush). Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

from gopush_client.errors import RefusedError, UnavailableError
from gopush_client.version import __version__

RET_OK = 0
RET_PARAMETER = 65534
LARGEST_KEY_BYTES = 255
LEAST_CURSOR = 15
"""Of a subscriber that has seen no message yet: below every mid, and gopush rounds it to 16. Who comes back with 0 asks
for what is kept, and hears of no gap."""

LARGEST_MESSAGE_BYTES = 64 << 20
LONGEST_REASON = 300
TRANSIENT = (302, 303, 307, 408, 425, 429)
"""Statuses below 500 that may be others the next time. gopush redirects nobody: something in between does, as the
network of a hotel does until its guest has logged in.
"""

_MID = re.compile(r"[0-9]{1,19}")
_MESSAGE = re.compile(rb'\{"msg":(.*),"mid":([0-9]{1,19}),"gid":([01])\}', re.DOTALL)
_LAST_MID = re.compile(rb'"mid":([0-9]{1,19}),"gid":[01]\}\]\}\}\Z')
_REFUSAL = re.compile(r"[A-Z][A-Za-z-]*(?: [A-Z][A-Za-z-]*)*(?:: .*)?\r?")
"""The status in words, and why: what gopush says. Proxies have pages of HTML, or "404 page not found"."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Message:
    """A message. `text`: the JSON that was pushed, digit for digit; `mid` ascends within a key."""

    mid: int
    text: str

    @property
    def data(self) -> Any:
        """What the JSON means in Python. Raises ValueError where Python cannot hold it: a number of 5000 digits, a list
        in a thousand others.
        """
        try:
            return json.loads(self.text)
        except RecursionError:
            raise ValueError("nested more deeply than Python decodes") from None


class Url(NamedTuple):
    """Where a web node is. `base` stands before each path, for proxies."""

    tls: bool
    host: str
    port: int
    base: str

    def __str__(self) -> str:
        return f"{'https' if self.tls else 'http'}://{host_port(self.host, self.port)}{self.base}"


class Answer(NamedTuple):
    """An answer of HTTP. `plain`: its body is plain text, as that of all refusals of gopush's."""

    status: int
    body: bytes
    plain: bool = True


def is_plain(content_type: str | None) -> bool:
    """Whether a body of this type is plain text."""
    return (content_type or "").lower().startswith("text/plain")


def url(text: str) -> Url:
    """Read "https://push.example.org:8091", or "host:port". Raises ValueError."""
    parts = urlsplit(text if "://" in text else f"http://{text}")
    wrong = parts.scheme not in ("http", "https") or parts.query or parts.fragment or "@" in parts.netloc
    if wrong or not parts.hostname or _CONTROL.search(text) or " " in text:
        raise ValueError("the address of gopush is http://HOST:PORT or https://HOST:PORT")
    tls = parts.scheme == "https"
    return Url(tls, parts.hostname, parts.port or (443 if tls else 80), parts.path.rstrip("/"))


def host_port(host: str, port: int) -> str:
    """ "host:port"."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_key(key: str) -> str:
    """The key, if it can be one. Raises ValueError or TypeError."""
    if not isinstance(key, str):
        raise TypeError("a key is a string")
    if not 0 < len(key.encode()) <= LARGEST_KEY_BYTES or _CONTROL.search(key):
        raise ValueError(f"a key has 1 to {LARGEST_KEY_BYTES} bytes and no control characters")
    return key


def mid(since: int | str) -> int:
    """A mid, or its digits, as a number. Raises ValueError."""
    if not _MID.fullmatch(str(since)):
        raise ValueError(f"since is no mid: {since!r}")
    return int(since)


def path(name: str, query: Mapping[str, object]) -> str:
    """The path of a call, with its query."""
    return f"{name}?{urlencode({key: str(value) for key, value in query.items()})}"


def data(answer: Answer) -> dict[str, Any]:
    """The data of an answer whose `ret` is 0; else raises RefusedError or UnavailableError."""
    if answer.status != 200:
        if not answer.plain:
            raise UnavailableError(f"HTTP {answer.status}, from something in gopush's place")
        words = answer.body.decode(errors="replace").partition("\n")[0]
        again = answer.status >= 500 or answer.status in TRANSIENT or not _REFUSAL.fullmatch(words)
        raise (UnavailableError if again else RefusedError)(f"HTTP {answer.status}: {_readable(words)}")
    try:
        said = json.loads(answer.body)
        ret, found, why = int(said["ret"]), said.get("data", {}), str(said.get("why", ""))
        if not isinstance(found, dict):
            raise TypeError
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        raise UnavailableError("what answers is not gopush") from None
    if ret != RET_OK:
        raise (RefusedError if ret == RET_PARAMETER else UnavailableError)(f"{_readable(why) or 'refused'} ({ret})")
    return found


def stored(mid: object) -> int:
    """The mid of an answer. Raises UnavailableError."""
    if type(mid) is not int:
        raise UnavailableError("what answers is not gopush")
    return mid


def last_kept(answer: Answer) -> int:
    """The mid of the last message of an answer to /1/msg/get; 0 where there is none. Raises as data() does."""
    if answer.status == 200 and (found := _LAST_MID.search(answer.body)):
        return int(found[1])
    if data(answer):
        raise UnavailableError("what answers is not gopush")
    return 0


def subscribe(key: str, heartbeat: int, token: str, cursor: int) -> bytes:
    """The request of a subscriber over TCP."""
    words = [word.encode() for word in ("sub", key, str(heartbeat), token, __version__, str(cursor))]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def frames(buffer: bytearray) -> Iterator[bytes]:
    """Take what is complete off the buffer: replies (`+h`) and messages (`{...}`), without their framing."""
    while (line := buffer.find(b"\r\n", 0, 32)) >= 0:
        start, end = 0, line
        if buffer.startswith(b"$"):
            if not buffer[1:line].isdigit() or int(buffer[1:line]) > LARGEST_MESSAGE_BYTES:
                raise UnavailableError("received something that is not a message")
            start, end = line + 2, line + 2 + int(buffer[1:line])
            if len(buffer) < end + 2:
                return
        yield bytes(buffer[start:end])
        del buffer[: end + 2]
    if len(buffer) >= 32:
        raise UnavailableError("received something that is not a message")


def message(frame: bytes) -> Message:
    """Read a message. Raises UnavailableError."""
    found = _MESSAGE.fullmatch(frame)
    if found is None:
        raise UnavailableError("received something that is not a message")
    return Message(int(found[2]), found[1].decode(errors="replace"))


def _readable(words: str) -> str:
    """What somebody else wrote, for a terminal or a log."""
    return "".join(char if char.isprintable() else "?" for char in words[:LONGEST_REASON]).strip()
