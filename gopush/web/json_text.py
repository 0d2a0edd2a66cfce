"""Whether a text is JSON, and where its values lie, without ever changing it (protocol.md, section 3). Pure.

The standard library's scanner is fast but stops at some depth; a walk on regular expressions goes on from there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any, NamedTuple

from gopush.errors import ParameterError


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


# Numbers are only scanned: len() takes them, of any length, and is faster than int() and float().
_decoder: Any = json.JSONDecoder(parse_int=len, parse_float=len, parse_constant=_refuse)
_scan: Callable[[str, int], tuple[Any, int]] = _decoder.scan_once

_SPACE = r"[ \t\n\r]*+"
_STRING = r'"(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4}))*+"'
_NUMBER = r"-?+(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?+[0-9]++)?+"
_LEAF = rf"(?:{_STRING}|{_NUMBER}|true|false|null|\[{_SPACE}\]|\{{{_SPACE}\}}){_SPACE}"
_NAME = rf"{_STRING}{_SPACE}:{_SPACE}"

_space = re.compile(_SPACE)
_opens_arrays = re.compile(rf"(?:\[{_SPACE}(?!\]))++")
_opens_object = re.compile(rf"\{{{_SPACE}{_NAME}")
_leaf = re.compile(_LEAF)
_closes = re.compile(r"[\]} \t\n\r]*+")
_elements = re.compile(rf"(?:,{_SPACE}{_LEAF})*+")
_members = re.compile(rf"(?:,{_SPACE}{_NAME}{_LEAF})*+")
_next_element = re.compile(rf",{_SPACE}")
_next_member = re.compile(rf",{_SPACE}{_NAME}")


class Member(NamedTuple):
    """A member of an object: where its value lies in the text, and the value as scanned, its numbers not kept."""

    name: str
    value: Any
    start: int
    end: int

    def of(self, text: str) -> str:
        """The value as it is written in the text it was found in."""
        return text[self.start : self.end]


def check(body: bytes) -> None:
    """Raise ParameterError unless `body` is one JSON text in UTF-8 (RFC 8259)."""
    text = decode(body)
    _expect_end(text, _value(text, _skip(text, 0))[1])


def decode(body: bytes) -> str:
    """`body` as text. Raises ParameterError where it is not UTF-8."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise ParameterError("the body is not UTF-8") from None


def members(text: str) -> Iterator[Member]:
    """The members of the object that `text` holds, in their order. Raises ParameterError where it holds none."""
    at = _skip(text, 0)
    if text[at : at + 1] != "{":
        raise ParameterError("the JSON is not an object")
    at = _skip(text, at + 1)
    if text[at : at + 1] != "}":
        while True:
            name, start = _name(text, at)
            value, end = _value(text, start)
            yield Member(name, value, start, end)
            at = _skip(text, end)
            if text[at : at + 1] != ",":
                break
            at = _skip(text, at + 1)
    if text[at : at + 1] != "}":
        raise _wrong(at)
    _expect_end(text, at + 1)


def _name(text: str, at: int) -> tuple[str, int]:
    """The name of the member that begins at `at`, and where its value begins."""
    if text[at : at + 1] != '"':
        raise _wrong(at)
    try:
        name, at = scanstring(text, at + 1, True)
    except ValueError:
        raise _wrong(at) from None
    at = _skip(text, at)
    if text[at : at + 1] != ":":
        raise _wrong(at)
    return name, _skip(text, at + 1)


def _value(text: str, at: int) -> tuple[Any, int]:
    """The value that begins at `at` (None for one that is nested deeply), and where it ends."""
    try:
        return _scan(text, at)
    except RecursionError:
        return None, _walk(text, at)
    except (ValueError, StopIteration):
        raise _wrong(at) from None


def _walk(text: str, at: int) -> int:
    """Where the value that begins at `at` ends, however deeply it is nested."""
    closers: list[str] = []
    while True:
        at = _open(text, at, closers)
        at = _match(_leaf, text, at)
        while closers:
            at = (_elements if closers[-1] == "]" else _members).match(text, at).end()  # type: ignore[union-attr]
            closed = _close(text, at, closers)
            if closed == at:
                break
            at = closed
        if not closers:
            return at
        at = _match(_next_element if closers[-1] == "]" else _next_member, text, at)


def _open(text: str, at: int, closers: list[str]) -> int:
    """Pass all that opens at `at` and is not empty."""
    while True:
        if arrays := _opens_arrays.match(text, at):
            closers.extend("]" * text.count("[", at, arrays.end()))
            at = arrays.end()
        elif member := _opens_object.match(text, at):
            closers.append("}")
            at = member.end()
        else:
            return at


def _close(text: str, at: int, closers: list[str]) -> int:
    """Pass what closes at `at`, at most all that is open."""
    end = _closes.match(text, at).end()  # type: ignore[union-attr]
    for index in range(at, end):
        if text[index] in "]}":
            if text[index] != closers[-1]:
                raise _wrong(index)
            closers.pop()
            if not closers:
                return index + 1
    return end


def _match(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    if not found:
        raise _wrong(at)
    return found.end()


def _skip(text: str, at: int) -> int:
    return _space.match(text, at).end()  # type: ignore[union-attr]


def _expect_end(text: str, at: int) -> None:
    if _skip(text, at) != len(text):
        raise _wrong(at)


def _wrong(at: int) -> ParameterError:
    return ParameterError(f"no JSON at character {at}")
