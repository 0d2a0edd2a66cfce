"""What a device sends to a comet over TCP, and what it gets (protocol.md, section 1). Pure."""

from __future__ import annotations

from gopush.model import Message, Subscribe

VERSION = "1"
"""Any version: a client that names one gets the pushed JSON as it is."""
MAX_BYTES = 64 << 20
_HEAD, _TAIL = b'{"msg":', b',"mid":'


class WrongTalkError(Exception):
    """This is no comet."""


def request(subscribe: Subscribe) -> bytes:
    """The request of a device."""
    words = ["sub", subscribe.key, str(subscribe.heartbeat), subscribe.token, subscribe.version]
    if subscribe.mid is not None:
        words.append(str(subscribe.mid))
    arguments = [word.encode() for word in words]
    return b"*%d\r\n" % len(arguments) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in arguments)


def take(buffer: bytearray) -> list[Message | bytes]:
    """Take what is complete off the buffer: messages, and replies with their line's end. Raises WrongTalkError."""
    found: list[Message | bytes] = []
    at = 0
    while (line := buffer.find(b"\n", at, at + 32) + 1) > 0:
        if buffer[at : at + 1] != b"$":
            found.append(bytes(buffer[at:line]))
            at = line
            continue
        size = bytes(buffer[at + 1 : line - 2])
        if not size.isdigit() or int(size) > MAX_BYTES:
            raise WrongTalkError
        end = line + int(size)
        if len(buffer) < end + 2:
            break
        found.append(_message(bytes(buffer[line:end])))
        at = end + 2
    if not line and len(buffer) - at >= 32:
        raise WrongTalkError
    del buffer[:at]
    return found


def _message(json: bytes) -> Message:
    body, tail, rest = json.rpartition(_TAIL)
    mid = rest.partition(b",")[0]
    if not tail or not body.startswith(_HEAD) or not mid.isdigit():
        raise WrongTalkError
    return Message(int(mid), body[len(_HEAD) :])
