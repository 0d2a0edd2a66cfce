"""A message as clients read it, in the form of today and in the form before 1.0 (protocol.md, section 3), and how it
looks on the wire to each kind of client: framed once for all who share a format. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from json.encoder import encode_basestring

from gopush.model import Message


def raw(message: Message) -> bytes:
    """The pushed JSON as it is, on one line: line breaks can only stand between tokens, so they just go."""
    return b'{"msg":%b,"mid":%d,"gid":0}' % (message.body.translate(None, b"\r\n"), message.mid)


def old(message: Message) -> bytes:
    """The pushed text as a JSON string, byte for byte: what a client that names no version expects."""
    return b'{"msg":%b,"mid":%d,"gid":0}' % (json_string(message.body.decode()), message.mid)


def json_string(text: str) -> bytes:
    """`text` as a JSON string in UTF-8, only escaped where it must be."""
    return encode_basestring(text).encode()


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


TCP_RAW = Format(lambda message: _bulk_string(raw(message)), _as_is)
TCP_OLD = Format(lambda message: _bulk_string(old(message)), _as_is)
