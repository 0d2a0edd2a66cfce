"""The words that comet, message and web share: messages, cursors, subscriptions, nodes; what clients read. Pure.

A *mid* is an int64 in units of 100 ns since the epoch, a multiple of 16, strictly ascending per key
(protocol.md, section 3). A *cursor* is the mid of the last message that somebody has seen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from json.encoder import encode_basestring
from typing import Any, NamedTuple, TypeVar

from gopush.errors import ParameterError

MID_STEP = 16
MIDS_PER_SECOND = 10_000_000
MAX_INT64 = 2**63 - 1
MAX_CURSOR = MAX_INT64 & ~(MID_STEP - 1)
MAX_KEY_BYTES = 255
MAX_ID_BYTES = 255
MAX_FORWARD_HOPS = 2
MAX_WEIGHT = 1000

# What a subscriber is answered (protocol.md, section 1).
HEARTBEAT = b"+h\r\n"
GAP = b"+g\r\n"
REFUSE_PARAMETER = b"-p\r\n"
REFUSE_TOKEN = b"-a\r\n"
REFUSE_KEY = b"-c\r\n"
REFUSE_NODE = b"-n\r\n"
REFUSE_LIMIT = b"-l\r\n"

LEAST_HEARTBEAT_SECONDS = 30
MAX_TOKEN_BYTES = 4096
# Without the zeros in front: their number has no bound, that of the digits that int() gets has one.
_DECIMAL = re.compile(r"([+-]?)(?=[0-9])0*+([0-9]{0,19})")


def mid_at(seconds: float) -> int:
    """The mid that a clock showing `seconds` since the epoch gives."""
    return int(seconds * MIDS_PER_SECOND) & ~(MID_STEP - 1)


def next_mid(last: int, floor: int, clock_mid: int) -> int:
    """The store's rule for the mid of a key's next message (design rule 2)."""
    return max(last + MID_STEP, floor + MID_STEP, clock_mid)


def snap(cursor: int) -> int:
    """The mid nearest to a cursor that went through a double (protocol.md, section 3); saturates within int64."""
    nearest = (cursor + MID_STEP // 2) & ~(MID_STEP - 1)
    return max(-MAX_INT64 - 1, min(MAX_CURSOR, nearest))


def is_key(key: str) -> bool:
    """Whether `key` may name a channel: 1 to 255 bytes of UTF-8 without control characters."""
    size = len(key) if key.isascii() else len(key.encode("utf-8", "replace"))
    return 0 < size <= MAX_KEY_BYTES and is_plain(key)


def are_keys(texts: Sequence[str]) -> bool:
    """Whether all of them are keys, by a look that takes in short and printable ones together."""
    if all(texts) and max(map(len, texts), default=0) <= MAX_KEY_BYTES // 4 and "".join(texts).isprintable():
        return True
    return all(map(is_key, texts))


def is_plain(text: str) -> bool:
    """Whether `text` is free of control characters (C0, DEL, C1, line separators) and lone surrogates."""
    return text.isprintable() or not any(_breaks(char) for char in text)


def _breaks(char: str) -> bool:
    code = ord(char)
    return code < 32 or 127 <= code < 160 or code in (0x2028, 0x2029) or 0xD800 <= code < 0xE000


T = TypeVar("T", bound=tuple[Any, ...])


def records(kind: type[T], *fields: Iterable[Any]) -> list[T]:
    """list(map(kind, *fields)), until one of the fields has no more, at a third of the price: it does not call the
    function that a NamedTuple has for making each.
    """
    return list(map(partial(tuple.__new__, kind), zip(*fields, strict=False)))


class Message(NamedTuple):
    """One message of a key's log: the pushed JSON text, byte for byte, under its mid."""

    mid: int
    body: bytes


class Subscribe(NamedTuple):
    """A request to subscribe. `heartbeat` in seconds; `version` "": from before 1.0; `mid` None: the plain way."""

    key: str
    heartbeat: int
    token: str
    version: str
    mid: int | None


def subscribe(key: str, heartbeat: str, token: str, version: str, mid: str | None) -> Subscribe:
    """Check what a client gave, over TCP or WebSocket alike. Raises ParameterError."""
    if not is_key(key):
        raise ParameterError("the key is empty, too long or has control characters")
    seconds = _int64(heartbeat, "heartbeat")
    if seconds < LEAST_HEARTBEAT_SECONDS:
        raise ParameterError(f"the heartbeat is below {LEAST_HEARTBEAT_SECONDS} seconds")
    if len(token.encode("utf-8", "replace")) > MAX_TOKEN_BYTES or not is_plain(token):
        raise ParameterError("the token is too long or has control characters")
    return Subscribe(key, seconds, token, version, None if mid is None else snap(_int64(mid, "mid")))


def _int64(text: str, name: str) -> int:
    match = _DECIMAL.fullmatch(text)
    number = int(f"{match[1]}{match[2] or 0}") if match else MAX_INT64 + 1
    if not -MAX_INT64 - 1 <= number <= MAX_INT64:
        raise ParameterError(f"the {name} is not a decimal int64")
    return number


class Push(NamedTuple):
    """A publisher's request, as web sends it to a comet.

    `expire`: seconds to keep it (0: sequence only). `id`: tells repeats for the same key apart; empty: nothing does.
    `dedupe`: seconds that a publisher's id is remembered; 0: the id is web's own, and remembered until the deadline,
    which all repeats have in common. `deadline`: seconds since the epoch; the store refuses the push after it.
    """

    key: str
    body: bytes
    expire: int
    id: str
    dedupe: int
    deadline: float


class Append(NamedTuple):
    """A push on its way into the store; `floor` is the highest mid that the comet has delivered for the key."""

    push: Push
    floor: int


class Appended(NamedTuple):
    """The store's answer to an append: `ret` 0 with the message's mid and the one before it, or 65535.

    `repeat`: the id was known, nothing was stored; mid and previous are those of the first time.
    """

    ret: int
    mid: int
    previous: int
    repeat: bool


class Read(NamedTuple):
    """Asks for the unexpired messages of `key` after the cursor `after`, at most `limit` of them.

    `room`: bytes of bodies that the answer to the whole batch may hold, from a caller who takes a page that has `more`
    and no messages where they found no room in it, and asks again; 0: from one who does not (an older node).
    """

    key: str
    after: int
    limit: int
    room: int = 0


class Head(NamedTuple):
    """Where a key's log ends (`last`, 0: never written) and the highest mid trimmed away (0: none)."""

    last: int
    trimmed: int


class Page(NamedTuple):
    """A piece of a key's log, ascending. Where `more` is set there may be more, after the last message."""

    messages: list[Message]
    head: Head
    more: bool


class Forward(NamedTuple):
    """Tells a key's owner of a message that another comet has appended.

    `body` None: the log must be read. `hops`: how often it may still be passed on.
    """

    key: str
    mid: int
    previous: int
    body: bytes | None
    hops: int


class Pushed(NamedTuple):
    """A comet's answer to a push: `ret` and, where it is 0, the mid."""

    ret: int
    mid: int


NOT_REACHED, LATE = 1, 2
"""Stand in the place of the mid beside RET_INTERNAL: no message node that reaches the store was found in the time for
an attempt; the store has it past its deadline. Any other refusal has 0 there, also these of older releases.
"""

OnPushed = Callable[[Sequence[int], Sequence[Pushed]], object]
"""Hears of pushes that were answered together: their indexes, for whoever pushed, and their answers."""


class TokenState(NamedTuple):
    """What the store knows of a key and a token: whether anybody created the key, whether the token is good."""

    created: bool
    valid: bool


class Token(NamedTuple):
    """A token as the store keeps it: its SHA-256 digest (never the token) and when it ends, seconds since the epoch."""

    digest: bytes
    expires: int


class NodeInfo(NamedTuple):
    """A live process as it is advertised (protocol.md, section 7).

    `node` is the name on the ring; of the processes of one node the lowest `sequence` is active, the others are its
    standbys. Addresses are "host:port". `stores` are the names and weights of the Redis servers behind a message node,
    so that its callers can keep a batcher for each; `store` tells the data there, or in a store of its own, from all
    others, and is empty while it is not known. `draining`: it leaves soon, or rests: others take its share.
    """

    node: str
    sequence: int
    rpc: tuple[str, ...]
    tcp: tuple[str, ...] = ()
    ws: tuple[str, ...] = ()
    weight: int = 1
    stores: tuple[tuple[str, int], ...] = ()
    draining: bool = False
    store: str = ""

    @property
    def id(self) -> str:
        """What tells a process from all other live ones, also after it registered anew: where it is called."""
        return self.rpc[0]

    @property
    def place(self) -> tuple[str, str]:
        """What tells a registration from all others: a message node, which may be a comet too, is called by its id."""
        return self.node, self.id

    def with_changes(self, other: NodeInfo, changed: Iterable[str]) -> NodeInfo:
        """This one with these fields of `other`."""
        return self._replace(**{name: getattr(other, name) for name in changed})


def raw_json(message: Message) -> bytes:
    """The pushed JSON as it is, on one line: line breaks can only stand between tokens, so they just go."""
    return b'{"msg":%b,"mid":%d,"gid":0}' % (message.body.translate(None, b"\r\n"), message.mid)


def old_json(message: Message) -> bytes:
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


TCP_RAW = Format(lambda message: _bulk_string(raw_json(message)), bytes)
TCP_OLD = Format(lambda message: _bulk_string(old_json(message)), bytes)
