"""The steps that a client takes, as values: what it does is a generator of them, and a driver takes each one.

There are two drivers, for threads (blocking.py) and for asyncio (asynchronous.py). A step that fails raises OSError in
the generator. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple, TypeVar

from gopush_client.wire import Url, host_port

Made = TypeVar("Made")

LEAST_BYTES = 1 << 10
"""What a long answer has to bring in a second."""

LEAST_SENT_BYTES = 1 << 16
"""What has to be sent in a second of a large body, whose sending alone may take longer than the answer does."""

PIECE_BYTES = 1 << 14


LAST_SECONDS = 1.0
"""For the last attempt, however little of the deadline is left."""

LEAST_SECONDS = 2.0
"""What an address has for its answer, where less is its share of the time: a slow network takes more than a second."""


def share(left: float, others: int) -> float:
    """How many of these seconds an address has before others are tried; half of them at most, so that some are left."""
    return max(left / (1 + others), min(LEAST_SECONDS, left / 2))


class Call(NamedTuple):
    """A call of HTTP within so many seconds; gives an Answer. `keep`: further calls to the same place will follow.
    `long`: the answer may be long, so it has a second more for each LEAST_BYTES that have come. `sending`: how many
    seconds more the call has at most, one for each LEAST_SENT_BYTES that were sent (a dead server takes few bytes). It
    may also wait for so long before it begins, where the number of calls at once is bounded.
    """

    url: Url
    method: str
    path: str
    body: bytes
    headers: dict[str, str]
    seconds: float
    keep: bool = False
    long: bool = False
    sending: float = 0.0

    def after(self, waited: float) -> Call:
        """What it is when it begins after so many seconds."""
        left = max(self.seconds + self.sending - waited, LAST_SECONDS)
        seconds = min(self.seconds, left)
        return self._replace(seconds=seconds, sending=min(self.sending, left - seconds))

    def more(self, size: int) -> float:
        """How many seconds more there are, now that so many bytes have come."""
        return size / LEAST_BYTES if self.long else 0.0

    def pieces(self) -> Iterator[tuple[bytes, float]]:
        """What is sent, with how many seconds the call has in all once that is done. Raises ValueError."""
        data = self._request()
        for end in range(PIECE_BYTES, len(data) + PIECE_BYTES, PIECE_BYTES):
            yield data[end - PIECE_BYTES : end], self.seconds + min(end / LEAST_SENT_BYTES, self.sending)

    def _request(self) -> bytes:
        """As it is sent. Raises ValueError."""
        size = {"Content-Length": str(len(self.body))} if self.method != "GET" else {}
        end = {} if self.keep else {"Connection": "close"}
        headers = {"Host": host_port(self.url.host, self.url.port), **size, **self.headers, **end}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"{self.method} {self.url.base}{self.path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + self.body


class Open(NamedTuple):
    """Connect; later steps mean this connection."""

    host: str
    port: int
    tls: bool
    seconds: float


class Send(NamedTuple):
    """Send on the connection."""

    data: bytes
    seconds: float


class Receive(NamedTuple):
    """Give what comes next on the connection; b"": it has ended; None: nothing came within so many seconds."""

    seconds: float


class Close(NamedTuple):
    """Close the connection, if there is one."""


class Pause(NamedTuple):
    """Wait."""

    seconds: float


class Ask(NamedTuple):
    """Call a function of the user's, which may be one of coroutines, and give what it returns."""

    function: Callable[[], Any]


class Give(NamedTuple):
    """Hand this to the user."""

    value: Any


Step = Call | Open | Send | Receive | Close | Pause | Ask | Give
Steps = Generator[Step, Any, Made]


def given(steps: Steps[Made]) -> Steps[None]:
    """These steps, which give what they return as the last thing."""
    yield Give((yield from steps))


class Backoff:
    """How long to wait: a random time whose bound doubles, so that not all come back at once."""

    def __init__(self, first: float, longest: float, random: Callable[[], float]) -> None:
        self._first = self._bound = first
        self._longest = longest
        self._random = random

    def reset(self) -> None:
        """Begin anew: it has worked."""
        self._bound = self._first

    def next(self) -> float:
        """Seconds."""
        bound, self._bound = self._bound, min(2 * self._bound, self._longest)
        return bound * (0.5 + 0.5 * self._random())
