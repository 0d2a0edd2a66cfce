"""Batches as bytes: what a call is given, and what it answers, packed with msgpack and cut into chunks. Pure.

A Perspective Broker call costs far more for each tuple in it than msgpack does, and it refuses elements over 640 KiB;
so a batch travels as a list of byte strings. Its first element is the version of the format: a node that meets one
it does not know says so. Within a version, fields are only ever added, at the end of a tuple: a reader drops those it
does not know, so that old and new nodes mix while a cluster is upgraded.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import msgpack

from gopush.errors import GopushError
from gopush.feed import FeedItem, FeedRequest
from gopush.model import Append, Appended, Forward, Head, Message, Page, Push, Pushed, Read, Token, TokenState
from gopush.reports import Backup, BusyKey, Presence, SlowConsumer, Status

T = TypeVar("T")

VERSION = 1
CHUNK_BYTES = 256 * 1024
MAX_BATCH_BYTES = 128 * 1024 * 1024
MAX_ITEMS = 100_000
"""Elements of one list at most; also what bounds the memory that a lying length can claim."""


class BatchError(GopushError):
    """Bytes that are no batch of a known version, or values that no batch can carry."""


class Packer:
    """msgpack's, kept for the next value: each has a buffer of 256 KiB or more, which malloc has the kernel map and
    unmap. That costs more than to pack a small value. For one thread.
    """

    def __init__(self, **options: Any) -> None:
        """The options of msgpack.Packer."""
        self._options = options
        self._packer = msgpack.Packer(**options)

    def pack(self, value: Any) -> bytes:
        """See msgpack.packb."""
        data: bytes = self._packer.pack(value)
        if len(data) > CHUNK_BYTES:  # its buffer stays as large as it had to be
            self._packer = msgpack.Packer(**self._options)
        return data


_packer = Packer()


def pack(value: Any) -> list[bytes]:
    """Tuples, lists and scalars as chunks of at most CHUNK_BYTES. Raises BatchError."""
    try:
        data = _packer.pack((VERSION, value))
    except (TypeError, ValueError, OverflowError) as wrong:
        raise BatchError(f"cannot be packed: {wrong}") from None
    if len(data) > MAX_BATCH_BYTES:
        raise BatchError(f"{len(data)} bytes are too many for one batch (at most {MAX_BATCH_BYTES})")
    if len(data) <= CHUNK_BYTES:
        return [data]
    return [data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES)]


def unpack(chunks: object, read: Callable[[Any], T]) -> T:
    """What pack() was given, lists as tuples, read by `read`. Raises BatchError, whatever the bytes."""
    try:
        if not isinstance(chunks, list) or not all(type(chunk) is bytes for chunk in chunks):
            raise TypeError("not a list of byte strings")
        if sum(map(len, chunks)) > MAX_BATCH_BYTES:
            raise ValueError("too many bytes")
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        most = min(len(data), MAX_ITEMS)
        version, *rest = msgpack.unpackb(data, use_list=False, max_array_len=most, max_map_len=0, max_ext_len=0)
        if version != VERSION:
            raise BatchError(f"has the format {version!r:.40}, this node reads {VERSION}")
        return read(rest[0])
    except (TypeError, ValueError, IndexError, msgpack.exceptions.UnpackException) as wrong:
        raise BatchError(f"is malformed: {wrong}"[:200]) from None


ReadValue = Callable[[Any], T]


class CallFormat(NamedTuple):
    """How one call is read: each of its arguments, and its answer. `of_caller`: the service is told by which connection
    it comes. `long`: the answer may be so long that it takes its time.
    """

    arguments: tuple[ReadValue[Any], ...]
    answer: ReadValue[Any]
    of_caller: bool = False
    long: bool = False

    def read_arguments(self, values: Any) -> list[Any]:
        """The reader of all arguments; those that a newer caller adds at the end are dropped."""
        if type(values) is not tuple or len(values) < len(self.arguments):
            raise BatchError("lacks arguments")
        return [read(value) for read, value in zip(self.arguments, values, strict=False)]


def scalar(kind: type[T]) -> ReadValue[T]:
    """A reader of one value of exactly this type."""

    def read(value: Any) -> T:
        if type(value) is not kind:
            raise BatchError(f"holds a {type(value).__name__} where a {kind.__name__} belongs")
        return value

    return read


def many(read: ReadValue[T]) -> ReadValue[list[T]]:
    """A reader of a list."""

    def read_all(values: Any) -> list[T]:
        if type(values) is not tuple:
            raise BatchError(f"holds a {type(values).__name__} where a list belongs")
        return [read(value) for value in values]

    return read_all


def record(kind: type[T], *fields: type | tuple[type, ...]) -> ReadValue[T]:
    """A reader of a NamedTuple whose fields have these types. One look into a set checks number and types of all."""
    alternatives = [field if isinstance(field, tuple) else (field,) for field in fields]
    good = frozenset(itertools.product(*alternatives))
    new: Callable[[type[T], Any], T] = tuple.__new__  # type: ignore[assignment]

    def read(row: Any) -> T:
        if tuple(map(type, row)) not in good:
            row = without_new_fields(row)
        return new(kind, row)

    def without_new_fields(row: Any) -> Any:
        known = tuple(row)[: len(fields)]
        if tuple(map(type, known)) not in good:
            raise BatchError(f"holds something that is no {kind.__name__}")
        return known

    return read


_none: ReadValue[None] = scalar(type(None))
_text = scalar(str)
_binary = scalar(bytes)
_flag = scalar(bool)
_number = scalar(int)

_message = record(Message, int, bytes)
_push = record(Push, str, bytes, int, str, int, (float, int))
_pushed = record(Pushed, int, int)
_appended = record(Appended, int, int, int, bool)
_full_read = record(Read, str, int, int, int)
_head = record(Head, int, int)
_forward = record(Forward, str, int, int, (bytes, type(None)), int)
_busy_key = record(BusyKey, str, int, (float, int))
_slow_consumer = record(SlowConsumer, str, str, str, int, int, (float, int))
_token = record(Token, bytes, int)
_full_status = record(Status, str, int, *[(int, type(None))] * 3)
_token_state = record(TokenState, bool, bool)
_outer_presence = record(Presence, int, (int, type(None)), tuple)
_backup = record(Backup, str, int, int, str)
_kind = record(tuple, str, int)
_outer_append = record(Append, tuple, int)
_outer_page = record(Page, tuple, tuple, bool)
_feed_request = record(FeedRequest, int, str, str, (int, type(None)))
_outer_feed_item = record(FeedItem, tuple, bytes)


def _head_if_known(row: Any) -> Head | None:
    """An older caller takes an answer with None for a failure."""
    return None if row is None else _head(row)


def _read(row: Any) -> Read:
    """An older caller wants a page with messages for each read."""
    return _full_read((*row, 0) if type(row) is tuple and len(row) == 3 else row)


def _status(row: Any) -> Status:
    """An older process does not say how much it has delivered."""
    return _full_status((*row, None) if type(row) is tuple and len(row) == 4 else row)


def _append(row: Any) -> Append:
    outer = _outer_append(row)
    return Append(_push(outer.push), outer.floor)


def _presence(row: Any) -> Presence:
    outer = _outer_presence(row)
    return Presence(outer.connections, outer.seconds, tuple(map(_kind, outer.over)))


def _page_if_read(row: Any) -> Page | None:
    """As _head_if_known."""
    if row is None:
        return None
    outer = _outer_page(row)
    return Page([_message(message) for message in outer.messages], _head(outer.head), outer.more)


_INTEGERS = frozenset((int,))


def _feed_item(row: Any) -> FeedItem:
    item = _outer_feed_item(row)
    if not _INTEGERS.issuperset(map(type, item.numbers)):
        raise BatchError("holds something that is no number of a subscription")
    return item


NODE_CALLS: Mapping[str, CallFormat] = {
    "status": CallFormat((), _status),
    "identity": CallFormat((), _text),
    "set_weight": CallFormat((_number,), _none),
    "drain": CallFormat((_flag,), _none),
    "ping": CallFormat((), _none),
}

MESSAGE_CALLS: Mapping[str, CallFormat] = {
    **NODE_CALLS,
    "append": CallFormat((many(_append),), many(_appended)),
    "read": CallFormat((many(_read),), many(_page_if_read), long=True),
    "heads": CallFormat((many(_text),), many(_head_if_known)),
    "delete": CallFormat((_text,), _none),
    "create_token": CallFormat((_text, _token), _none),
    "revoke_token": CallFormat((_text, _binary), _flag),
    "tokens": CallFormat((_text,), many(_token)),
    "check_token": CallFormat((_text, _binary), _token_state),
    "backup": CallFormat((_text, _text), _backup),
}

COMET_CALLS: Mapping[str, CallFormat] = {
    **NODE_CALLS,
    "push": CallFormat((many(_push),), many(_pushed)),
    "notice": CallFormat((many(_forward),), _none),
    "close": CallFormat((many(_text),), many(_number)),
    "subscribers": CallFormat((many(_text),), many(_number)),
    "presence": CallFormat((many(_text),), many(_presence)),
    "slowest": CallFormat((_number,), many(_slow_consumer)),
    "keys": CallFormat((_text, _number), many(_busy_key)),
    "feed": CallFormat((many(_feed_request), many(_number), many(_number)), _none, of_caller=True),
    "feed_next": CallFormat((), many(_feed_item), of_caller=True, long=True),
}

METHODS: Mapping[str, str] = {"notice": "forward"}
"""The methods of a service whose calls have an older name on the wire, by that name."""
