"""A message as clients read it, in the form of today and in the form before 1.0 (protocol.md, section 3). Pure."""

from __future__ import annotations

from json.encoder import encode_basestring

from gopush.model import Message


def raw(message: Message) -> bytes:
    """The pushed JSON as it is, on one line: line breaks can only stand between tokens, so they just go."""
    return _wrap(message.body.translate(None, b"\r\n"), message.mid)


def old(message: Message) -> bytes:
    """The pushed text as a JSON string, byte for byte: what a client that names no version expects."""
    return _wrap(json_string(message.body.decode()), message.mid)


def json_string(text: str) -> bytes:
    """`text` as a JSON string in UTF-8, only escaped where it must be."""
    return encode_basestring(text).encode()


def _wrap(msg: bytes, mid: int) -> bytes:
    return b'{"msg":%b,"mid":%d,"gid":0}' % (msg, mid)
