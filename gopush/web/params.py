"""What callers hand in, checked: all of it raises ParameterError where it is wrong (`ret` 65534). Pure.

What is raised says why to the caller (`why` in its answer): which parameter, what was found, what would be right.

Parameters first; then bodies: whether a text is JSON, and where its values lie, without ever changing it (protocol.md,
section 3). The standard library's scanner is fast but stops at some depth; a walk goes on from there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from json.decoder import JSONDecodeError, JSONDecoder, scanstring  # type: ignore[attr-defined]
from typing import Any, NamedTuple

from gopush.errors import ParameterError
from gopush.model import MAX_ID_BYTES, MAX_INT64, MAX_KEY_BYTES, is_key, is_plain
from gopush.net.http.request import Form
from gopush.web.envelopes import MAX_CONTAINERS, MAX_PROPERTIES, Property, is_strings


class PublishRequest(NamedTuple):
    """What a publisher wants: `body` is the message's JSON, byte for byte; `expire` in seconds; `id` None: there is
    none.
    """

    key: str
    body: bytes
    expire: int
    id: str | None


_DIGITS = len(str(MAX_INT64))
HALF_PAIR = "holds half of a surrogate pair, which is no text"
_SHOWN = 40
"""How many characters of a wrong value its sender gets back."""


def key(form: Form, name: str) -> str:
    """A key."""
    return valid_key(form.text(name), name)


def valid_key(value: object, name: str = "key") -> str:
    """`value`, if it may name a channel."""
    if not isinstance(value, str) or not is_key(value):
        raise ParameterError(f"{name} {why_no_key(value)}")
    return value


def prefix(form: Form, name: str) -> str:
    """What keys begin with: empty, or itself a key."""
    value = form.text(name)
    return valid_key(value, name) if value else ""


def why_no_key(value: object) -> str:
    """What is wrong with what is no key."""
    if value is None or value == "":
        return "is missing: it names the key"
    if not isinstance(value, str):
        return "is not a string, as a key is"
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return HALF_PAIR
    if size > MAX_KEY_BYTES:
        return f"has {size} bytes, and a key at most {MAX_KEY_BYTES}"
    return "holds a control character, which no key does"


def decimal(value: str, most: int, name: str, least: int = 0) -> int:
    """A plain decimal from `least` to `most`: ASCII digits alone."""
    digits = value.lstrip("0") or value[-1:]  # int() takes no number of zeros
    if value.isdecimal() and value.isascii() and len(digits) <= _DIGITS and least <= (number := int(digits)) <= most:
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


def _refuse(constant: str) -> None:
    raise _NotJsonError(f"is not JSON (it holds {constant})")


# Numbers are only scanned: len() takes them, of any length, and is faster than int() and float().
_decoder: Any = JSONDecoder(parse_int=len, parse_float=len, parse_constant=_refuse)
_scan: Callable[[str, int], tuple[Any, int]] = _decoder.scan_once

_space = re.compile(r"[ \t\n\r]*")
_opening = re.compile(r"[ \t\n\r]*\{[ \t\n\r]*")
_after_value = re.compile(r"[ \t\n\r]*([,}])[ \t\n\r]*")
_plain_name = re.compile(r'"([^"\\\x00-\x1f]*)"[ \t\n\r]*:[ \t\n\r]*')
_next_plain_name = re.compile(r"[ \t\n\r]*,[ \t\n\r]*" + _plain_name.pattern)
_CLOSERS = {"[": "]", "{": "}"}
MAX_WALKED = 100_000  # values; takes 0.2 s, in which nobody else is served
_LEVELS_BY_HAND = 500  # before the scanner is tried again on what lies within them


class _NotJsonError(Exception):
    """What a text is, or is not; the caller knows which text."""


def check_json(body: bytes, name: str = "the message") -> None:
    """Raise ParameterError unless `body` is one JSON text in UTF-8 (RFC 8259); `name` says there what it is."""
    text = decode(body, name)
    try:
        end = _value(text, _space.match(text).end(), [MAX_WALKED])[1]  # type: ignore[union-attr]
        if end < len(text):
            _expect_end(text, end)
    except _NotJsonError as wrong:
        raise ParameterError(f"{name} {wrong if text else 'is empty, and must be JSON'}") from None


def decode(body: bytes, name: str = "the body") -> str:
    """`body` as text. Raises ParameterError where it is not UTF-8."""
    try:
        return body.decode()
    except UnicodeDecodeError as wrong:
        raise ParameterError(f"{name} is not UTF-8 (at byte {wrong.start})") from None


def properties(text: str, name: str = "the body", message: str = "", strings: int = 0) -> dict[str, Property]:
    """The members of the object that `text` holds, of a repeated name the last one. Raises ParameterError.

    Only the member `message`, and lists of at most so many `strings`, may be large containers (envelopes.py).
    """
    try:
        return _properties(text, message, strings)
    except _NotJsonError as wrong:
        raise ParameterError(f"{name} {wrong}") from None


def end_of_value(text: str, at: int) -> int:
    """Where the JSON value that begins at `at` ends; 0 where there is none, or one that is nested deeply."""
    try:
        return _scan(text, at)[1]
    except (RecursionError, ValueError, StopIteration, _NotJsonError):
        return 0


def _properties(text: str, message: str, strings: int) -> dict[str, Property]:
    found: dict[str, Property] = {}
    budget, count = [MAX_WALKED, MAX_CONTAINERS], 0
    opening = _opening.match(text)
    if opening is None:
        raise _NotJsonError("is not a JSON object")
    at = opening.end()
    if text[at : at + 1] == "}":
        _expect_end(text, at + 1)
        return found
    name, start = _name(text, at)
    while True:
        count += 1
        if count > MAX_PROPERTIES:
            raise _NotJsonError(f"has more than {MAX_PROPERTIES} members")
        value, end = _value(text, start, budget) if name == message else _bounded_value(text, start, budget, strings)
        found[name] = Property(value, start, end)
        if plain := _next_plain_name.match(text, end):
            name, start = plain[1], plain.end()
            continue
        after = _after_value.match(text, end)
        if after is None:
            raise _wrong(_skip(text, end))
        at = after.end()
        if after[1] == "}":
            break
        name, start = _name(text, at)
    _expect_end(text, at)
    return found


def _name(text: str, at: int) -> tuple[str, int]:
    """The name of the member that begins at `at`, and where its value begins."""
    if plain := _plain_name.match(text, at):
        return plain[1], plain.end()
    if text[at : at + 1] != '"':
        raise _wrong(at)
    try:
        name, at = scanstring(text, at + 1, True)
    except JSONDecodeError as wrong:
        raise _wrong(wrong.pos) from None
    at = _skip(text, at)
    if text[at : at + 1] != ":":
        raise _wrong(at)
    return name, _skip(text, at + 1)


def _bounded_value(text: str, at: int, budget: list[int], strings: int) -> tuple[Any, int]:
    """As _value(), of a member whose size is bounded."""
    if not text.startswith(("[", "{"), at) or (strings and is_strings(text, at, strings + 1)):
        return _value(text, at, budget)
    if at + budget[1] >= len(text):
        value, end = _value(text, at, budget)
    else:
        try:
            value, size = _value(text[at : at + budget[1]], 0, budget)
        except _NotJsonError:
            may = f"a list of at most {strings} strings" if strings else "m"
            what = f"only {may} may take more than {MAX_CONTAINERS} characters"
            raise _NotJsonError(f"is not JSON (at character {at}), or holds too much there: {what}") from None
        end = at + size
    budget[1] -= end - at
    return value, end


def _value(text: str, at: int, budget: list[int]) -> tuple[Any, int]:
    """The value that begins at `at` (None for one that is nested deeply), and where it ends."""
    try:
        return _scan(text, at)
    except RecursionError:
        return None, _walk(text, at, budget)
    except (JSONDecodeError, StopIteration) as wrong:
        raise _wrong(wrong.pos if isinstance(wrong, JSONDecodeError) else wrong.value) from None


def _walk(text: str, at: int, budget: list[int]) -> int:
    """Where the value that begins at `at` ends, however deeply it is nested.

    Containers down to some level are opened here, one by one; what lies below the scanner may be able to take. Where it
    is not, more levels are: so the scanner sees nothing more than a few times in vain.
    """
    closers: list[str] = []
    levels = _LEVELS_BY_HAND
    while True:
        budget[0] -= 1
        if budget[0] < 0:
            raise _NotJsonError("is nested too deeply")
        closer = _CLOSERS.get(text[at : at + 1])
        if closer and len(closers) < levels:
            at = _skip(text, at + 1)
            if text[at : at + 1] != closer:
                closers.append(closer)
                at = at if closer == "]" else _name(text, at)[1]
                continue
            at += 1
        else:
            try:
                at = _scan(text, at)[1]
            except RecursionError:
                levels = len(closers) + _LEVELS_BY_HAND
                continue
            except (JSONDecodeError, StopIteration) as wrong:
                raise _wrong(wrong.pos if isinstance(wrong, JSONDecodeError) else wrong.value) from None
        at = _close(text, at, closers)
        if not closers:
            return at
        at = _next(text, at, closers[-1])


def _close(text: str, at: int, closers: list[str]) -> int:
    """Pass what closes behind a value, at most all that is open."""
    while closers:
        at = _skip(text, at)
        if text[at : at + 1] != closers[-1]:
            return at
        closers.pop()
        at += 1
    return at


def _next(text: str, at: int, closer: str) -> int:
    """Where the next value of a container begins, behind the comma."""
    if text[at : at + 1] != ",":
        raise _wrong(at)
    at = _skip(text, at + 1)
    return at if closer == "]" else _name(text, at)[1]


def _skip(text: str, at: int) -> int:
    if text[at : at + 1] in " \t\n\r":  # or nothing at all
        return _space.match(text, at).end()  # type: ignore[union-attr]
    return at


def _expect_end(text: str, at: int) -> None:
    if at < len(text) and (at := _skip(text, at)) < len(text):
        raise _wrong(at)


def _wrong(at: int) -> _NotJsonError:
    return _NotJsonError(f"is not JSON (at character {at})")
