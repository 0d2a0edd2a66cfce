"""What callers hand in, checked: all of it raises ParameterError where it is wrong (`ret` 65534). Pure.

What is raised says why to the caller (`why` in its answer): which parameter, what was found, what would be right.
"""

from __future__ import annotations

from gopush.errors import ParameterError
from gopush.model import MAX_ID_BYTES, MAX_INT64, MAX_KEY_BYTES, is_key, is_plain
from gopush.net.http.request import Form

_DIGITS = len(str(MAX_INT64))
_SHOWN = 40
"""Characters of a wrong value that are repeated to who sent it."""


def key(form: Form, name: str) -> str:
    """A key."""
    return valid_key(form.text(name), name)


def valid_key(value: object, name: str = "key") -> str:
    """`value`, if it may name a channel."""
    if not isinstance(value, str) or not is_key(value):
        raise ParameterError(f"{name} {why_no_key(value)}")
    return value


def why_no_key(value: object) -> str:
    """What is wrong with what is no key."""
    if value is None or value == "":
        return "is missing: it names the key"
    if not isinstance(value, str):
        return "is not a string, as a key is"
    size = len(value.encode("utf-8", "replace"))
    if size > MAX_KEY_BYTES:
        return f"has {size} bytes, and a key at most {MAX_KEY_BYTES}"
    return "holds a control character, which no key does"


def decimal(value: str, most: int, name: str, least: int = 0) -> int:
    """A plain decimal from `least` to `most`: ASCII digits alone."""
    if value.isdecimal() and value.isascii() and len(value) <= _DIGITS and least <= (number := int(value)) <= most:
        return number
    raise ParameterError(f"{name} is not a whole number from {least} to {most} {found(value)}")


def cursor(form: Form, name: str) -> int:
    """The mid of the last message that the caller has seen."""
    return decimal(form.text(name), MAX_INT64, name)


def push_id(value: object) -> str:
    """What tells a push from others of its key: 1 to 255 bytes of UTF-8 without control characters."""
    if isinstance(value, str) and value and is_plain(value) and len(value.encode()) <= MAX_ID_BYTES:
        return value
    raise ParameterError(f"id is not a text of 1 to {MAX_ID_BYTES} bytes without control characters")


def found(value: str) -> str:
    """What was found in the place of what would be right, in parentheses; no more of it than tells it apart."""
    if not value:
        return "(it is missing)"
    return f"(found: {value[:_SHOWN]!r}{'...' if len(value) > _SHOWN else ''})"
