"""A device on TCP (protocol.md, section 1): subscribes, sends heartbeats, resumes after the last message it saw."""

from __future__ import annotations

import random
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle

import gopush
from gopush.client.address import Server
from gopush.client.http import TIMEOUT_SECONDS, history, look_up, untrusted
from gopush.config.values import host_port
from gopush.errors import NoNodeError, ParameterError, UnavailableError
from gopush.model import MID_STEP

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 10
FULL_PAUSE_SECONDS = 25
"""Where the key has all the connections that it may have: a dead one, this device's last, may be among them."""

LONGEST_WAIT_SECONDS = 3600.0
LEAST_CURSOR = MID_STEP - 1
"""Below every mid, and a comet rounds it to 16: who comes back with 0 asks for what is kept, and hears of no gap."""
LONGEST_LINE_BYTES = 32
LARGEST_MESSAGE_BYTES = 64 << 20
REFUSALS = {
    b"-a": "the token is missing or not good (-a)",
    b"-c": "nobody created this key (-c)",
    b"-l": "the key has as many connections as it may have (-l)",
    b"-p": "the key, the heartbeat or the mid is not good (-p)",
}
_MID = re.compile(rb'"mid":([0-9]+),"gid":[01]\}$')


def frames(buffer: bytearray) -> Iterator[bytes]:
    """Take what is complete off the buffer: replies (`+h`) and messages (`{...}`), without their framing."""
    while (line := buffer.find(b"\r\n", 0, LONGEST_LINE_BYTES)) >= 0:
        start, end = 0, line
        if buffer.startswith(b"$"):
            if not buffer[1:line].isdigit() or int(buffer[1:line]) > LARGEST_MESSAGE_BYTES:
                raise UnavailableError("received something that is not a message")
            start, end = line + 2, line + 2 + int(buffer[1:line])
            if len(buffer) < end + 2:
                return
        yield bytes(buffer[start:end])
        del buffer[: end + 2]
    if len(buffer) >= LONGEST_LINE_BYTES:
        raise UnavailableError("received something that is not a message")


def subscribe(key: str, heartbeat: int, token: str, cursor: int | None = None) -> bytes:
    """The request of a device; without a cursor it gets what is new."""
    words = ["sub", key, str(heartbeat), token, gopush.__version__]
    if cursor is not None:
        words.append(str(cursor))
    arguments = [word.encode() for word in words]
    return b"*%d\r\n" % len(arguments) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in arguments)


def mid_of(message: bytes) -> int:
    """The mid of a message as comet and web write it."""
    match = _MID.search(message)
    if match is None:
        raise UnavailableError("received something that is not a message")
    return int(match[1])


class _FullError(UnavailableError):
    """The key has no room."""


@dataclass
class Subscriber:
    """One device. `web`: where it looks up, or several addresses by commas: after a failure it goes to the next one,
    and waits longer only where it has been at all of them.

    `cursor` is the mid of the last message seen; None: what is new from now on.

    `tell` hears, in words, of what happens to the connection. `comet_tls`: whether comets are reached over TLS;
    `context`: whom TLS trusts, there and where `web` is a URL.
    """

    web: str
    key: str
    token: str = ""
    heartbeat: int = 30
    cursor: int | None = None
    tell: Callable[[str], object] = lambda _: None
    comet_tls: bool = False
    context: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        webs = [Server(address, context=self.context) for address in self.web.split(",")]
        self._others = len(webs) - 1
        self._webs = cycle(webs)
        self._web = next(self._webs)

    def messages(self, follow: bool = True) -> Iterator[bytes]:
        """Every message after the cursor, each once, as JSON; without `follow` until the connection ends.

        Raises ParameterError where the server refuses for good, without `follow` also any other error.
        """
        pause, untried = FIRST_PAUSE_SECONDS, self._others
        while True:
            address = None
            try:
                address = self._look_up()
                for frame in self._connection(address):
                    if frame.startswith(b"{"):
                        yield from self._new(frame)
                    elif frame == b"+h":
                        pause = FIRST_PAUSE_SECONDS
            except (UnavailableError, NoNodeError) as wrong:
                if not follow:
                    raise
                self.tell(f"{wrong}; trying again")
                self._web = next(self._webs)
                if address is None and untried:
                    untried -= 1
                    time.sleep(FIRST_PAUSE_SECONDS * random.uniform(0.5, 1))
                    continue
                pause = FULL_PAUSE_SECONDS if isinstance(wrong, _FullError) else pause
            untried = self._others
            time.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _new(self, message: bytes) -> Iterator[bytes]:
        mid = mid_of(message)
        if self.cursor is None or mid > self.cursor:
            self.cursor = mid
            yield message

    def _look_up(self) -> str:
        """The address of the key's comet."""
        if self.cursor is None:
            kept = history(self._web, self.key, 0, self.token)
            self.cursor = mid_of(kept[-1]) if kept else 0
        return look_up(self._web, self.key)

    def _connection(self, address: str) -> Iterator[bytes]:
        """The frames of one connection to its end, which is an UnavailableError."""
        try:
            with self._connect(*host_port(address)) as connection:
                connection.sendall(subscribe(self.key, self.heartbeat, self.token, self.cursor))
                subscribed = False
                for frame in self._receive(connection):
                    self._judge(frame, address)
                    if frame == b"+h" and not subscribed:
                        subscribed = True
                        self.cursor = self.cursor or LEAST_CURSOR
                        self.tell(f"subscribed to {self.key} at {address}")
                    yield frame
        except ssl.SSLCertVerificationError as wrong:
            raise ParameterError(untrusted(address, wrong)) from None
        except OSError as wrong:
            raise UnavailableError(f"{address}: {wrong.strerror or wrong}") from None
        hint = "" if subscribed or self.comet_tls else " without an answer (if it speaks TLS: --comet-tls)"
        raise UnavailableError(f"{address} closed the connection{hint}")

    def _connect(self, host: str, port: int) -> socket.socket:
        connection = socket.create_connection((host, port), TIMEOUT_SECONDS)
        if not self.comet_tls:
            return connection
        context = self.context or ssl.create_default_context()
        try:
            return context.wrap_socket(connection, server_hostname=host)
        except BaseException:
            connection.close()
            raise

    def _receive(self, connection: socket.socket) -> Iterator[bytes]:
        """The frames that come, with a heartbeat sent whenever one is due, until the other side ends."""
        buffer = bytearray()
        heard = time.monotonic()
        due = heard + self.heartbeat
        while True:
            connection.settimeout(min(max(due - time.monotonic(), 0.001), LONGEST_WAIT_SECONDS))
            try:
                data = connection.recv(1 << 16)
            except TimeoutError:
                data = None
            now = time.monotonic()
            if data == b"":
                return
            if data:
                heard = now
                buffer += data
                yield from frames(buffer)
            elif now > heard + 2 * self.heartbeat:
                raise TimeoutError("the comet does not answer heartbeats")
            if time.monotonic() >= due:
                connection.settimeout(TIMEOUT_SECONDS)
                connection.sendall(b"h")
                due += self.heartbeat

    def _judge(self, frame: bytes, address: str) -> None:
        """Raise what a reply that ends the connection means; tell of a gap."""
        if frame in REFUSALS:
            refused = _FullError if frame == b"-l" else ParameterError
            raise refused(f"{address} refused: {REFUSALS[frame]}")
        if frame == b"-n":
            raise UnavailableError(f"{address} does not have the key any more (-n)")
        if frame == b"+g":
            self.tell("the store trimmed messages away before this subscriber read them (+g)")
