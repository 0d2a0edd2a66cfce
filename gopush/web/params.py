"""What callers hand in, checked: all of it raises ParameterError where it is wrong (`ret` 65534). Pure."""

from __future__ import annotations

from gopush.errors import ParameterError
from gopush.model import MAX_ID_BYTES, MAX_INT64, is_key, is_plain
from gopush.net.http.request import Form

_DIGITS = len(str(MAX_INT64))


def key(form: Form, name: str) -> str:
    """A key."""
    return valid_key(form.text(name))


def valid_key(value: object) -> str:
    """`value`, if it may name a channel."""
    if not isinstance(value, str) or not is_key(value):
        raise ParameterError("no key")
    return value


def decimal(value: str, most: int) -> int:
    """A plain decimal from 0 to `most`: ASCII digits alone."""
    if value.isdecimal() and value.isascii() and len(value) <= _DIGITS and (number := int(value)) <= most:
        return number
    raise ParameterError(f"no decimal from 0 to {most}")


def cursor(form: Form, name: str) -> int:
    """The mid of the last message that the caller has seen."""
    return decimal(form.text(name), MAX_INT64)


def push_id(value: object) -> str:
    """What tells a push from others of its key: 1 to 255 bytes of UTF-8 without control characters."""
    if isinstance(value, str) and value and is_plain(value) and len(value.encode()) <= MAX_ID_BYTES:
        return value
    raise ParameterError(f"no id of at most {MAX_ID_BYTES} bytes without control characters")
