"""How a message and a reply look on the wire to each kind of client; framed once for all who share a format. Pure."""

from __future__ import annotations

from collections.abc import Callable

from gopush import envelope
from gopush.model import Message


class Format:
    """The frames of one kind of client: `message` for a push, `reply` for a line such as `+h`."""

    __slots__ = ("message", "reply")

    def __init__(self, message: Callable[[Message], bytes], reply: Callable[[bytes], bytes]) -> None:
        self.message = message
        self.reply = reply


def _bulk_string(json: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(json), json)


def _as_is(reply: bytes) -> bytes:
    return reply


TCP_RAW = Format(lambda message: _bulk_string(envelope.raw(message)), _as_is)
TCP_OLD = Format(lambda message: _bulk_string(envelope.old(message)), _as_is)
