"""What scripts in lua/ answer, unpacked: with the server's clock, and a strange name if they met one. Pure."""

from __future__ import annotations

import struct
from typing import NamedTuple

import msgpack

from gopush.message.rules import NO_HEAD, REFUSED
from gopush.model import Appended, Head, Message, Page, records

_HEAD = _MESSAGE = struct.Struct(">dd")
_CLOCK = struct.Struct(">d")


class AppendsAnswer(NamedTuple):
    """Of append.lua; `trimmed` and `expired` count messages. REFUSED where a name is strange."""

    now: float
    trimmed: int
    expired: int
    strange: str
    appended: list[Appended]


class ReadsAnswer(NamedTuple):
    """Of read.lua: each page, None where a name is strange, with the mid to go on after, else 0."""

    now: float
    strange: str
    pages: list[tuple[Page | None, int]]


class HeadsAnswer(NamedTuple):
    """Of heads.lua: None where a name is strange."""

    now: float
    strange: str
    heads: list[Head | None]


def appends_answer(answer: bytes) -> AppendsAnswer:
    """Unpack it."""
    values = iter(msgpack.unpackb(answer))
    now, trimmed, expired, strange = next(values), next(values), next(values), next(values)
    appended = records(Appended, values, values, values, values)
    if strange:
        appended = [REFUSED if one.ret < 0 else one for one in appended]
    return AppendsAnswer(now, trimmed, expired, strange, appended)


def reads_answer(answer: bytes) -> ReadsAnswer:
    """Unpack it."""
    values = iter(msgpack.unpackb(answer, raw=True))
    now, strange = next(values), next(values)
    pages = [
        (None if head is False else Page(list(map(_message, members)), unpack_head(head), more), passed)
        for head, more, passed, members in zip(values, values, values, values, strict=True)
    ]
    return ReadsAnswer(now, strange.decode(), pages)


def heads_answer(answer: bytes, count: int) -> HeadsAnswer:
    """Unpack that to so many keys."""
    (now,) = _CLOCK.unpack_from(answer)
    end = _CLOCK.size + count * _HEAD.size
    found = _HEAD.iter_unpack(answer[_CLOCK.size : end])
    heads = [Head(int(last), int(trimmed)) if 0 <= last < 2**63 else None for last, trimmed in found]
    return HeadsAnswer(now, answer[end:].decode(), heads)


def unpack_head(packed: bytes) -> Head:
    """As read.lua and marks.lua give it; empty where there is none."""
    return Head(*map(int, _HEAD.unpack(packed))) if packed else NO_HEAD


def _message(member: bytes) -> Message:
    return Message(int(_MESSAGE.unpack_from(member)[0]), member[_MESSAGE.size :])
