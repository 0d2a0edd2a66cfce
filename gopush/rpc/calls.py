"""Every call of services.py, as a batch carries it: how its arguments and its answer are read back. Pure.

A reader takes what msgpack gives (tuples and scalars) and gives the values of the model, or raises BatchError.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from gopush.rpc.batch import BatchError
from gopush.rpc.model import (
    Append,
    Appended,
    Head,
    Message,
    Notice,
    Page,
    Push,
    Pushed,
    Read,
    Slow,
    Status,
    Token,
    TokenState,
)

T = TypeVar("T")
Reader = Callable[[Any], T]


class Call(NamedTuple):
    """How one call is read: each of its arguments, and its answer."""

    arguments: tuple[Reader[Any], ...]
    answer: Reader[Any]

    def read_arguments(self, values: Any) -> list[Any]:
        """The reader of all arguments; those that a newer caller adds at the end are dropped."""
        if type(values) is not tuple or len(values) < len(self.arguments):
            raise BatchError("lacks arguments")
        return [read(value) for read, value in zip(self.arguments, values, strict=False)]


def scalar(kind: type[T]) -> Reader[T]:
    """A reader of one value of exactly this type."""

    def read(value: Any) -> T:
        if type(value) is not kind:
            raise BatchError(f"holds a {type(value).__name__} where a {kind.__name__} belongs")
        return value

    return read


def many(read: Reader[T]) -> Reader[list[T]]:
    """A reader of a list."""

    def read_all(values: Any) -> list[T]:
        if type(values) is not tuple:
            raise BatchError(f"holds a {type(values).__name__} where a list belongs")
        return [read(value) for value in values]

    return read_all


def record(kind: type[T], *fields: type | tuple[type, ...]) -> Reader[T]:
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


_none: Reader[None] = scalar(type(None))
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
_notice = record(Notice, str, int, int, (bytes, type(None)), int)
_slow = record(Slow, str, str, str, int, int, (float, int))
_token = record(Token, bytes, int)
_full_status = record(Status, str, int, *[(int, type(None))] * 3)
_token_state = record(TokenState, bool, bool)
_outer_append = record(Append, tuple, int)
_outer_page = record(Page, tuple, tuple, bool)


def _read(row: Any) -> Read:
    """An older caller wants a page with messages for each read."""
    return _full_read((*row, 0) if type(row) is tuple and len(row) == 3 else row)


def _status(row: Any) -> Status:
    """An older process does not say how much it has delivered."""
    return _full_status((*row, None) if type(row) is tuple and len(row) == 4 else row)


def _append(row: Any) -> Append:
    outer = _outer_append(row)
    return Append(_push(outer.push), outer.floor)


def _page(row: Any) -> Page:
    outer = _outer_page(row)
    return Page([_message(message) for message in outer.messages], _head(outer.head), outer.more)


NODE_CALLS: Mapping[str, Call] = {
    "status": Call((), _status),
    "identity": Call((), _text),
    "set_weight": Call((_number,), _none),
    "drain": Call((_flag,), _none),
    "ping": Call((), _none),
}

MESSAGE_CALLS: Mapping[str, Call] = {
    **NODE_CALLS,
    "append": Call((many(_append),), many(_appended)),
    "read": Call((many(_read),), many(_page)),
    "heads": Call((many(_text),), many(_head)),
    "delete": Call((_text,), _none),
    "create_token": Call((_text, _token), _none),
    "revoke_token": Call((_text, _binary), _flag),
    "tokens": Call((_text,), many(_token)),
    "check_token": Call((_text, _binary), _token_state),
}

COMET_CALLS: Mapping[str, Call] = {
    **NODE_CALLS,
    "push": Call((many(_push),), many(_pushed)),
    "notice": Call((many(_notice),), _none),
    "close": Call((many(_text),), many(_number)),
    "subscribers": Call((many(_text),), many(_number)),
    "slowest": Call((_number,), many(_slow)),
}
