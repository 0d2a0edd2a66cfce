"""A key's row: the bytes of its cells, and what appends make of it. Pure.

| cell           | value                                                                                          |
|----------------|------------------------------------------------------------------------------------------------|
| `m:h`          | the head: a stamp that each write draws anew, last mid, highest trimmed mid, when the log ends, |
|                | until when this cell must stay, and mid, expiry, size and slot of each kept message             |
| `m:s<slot>`    | a kept message: its mid, its body. Slots are used again, and nothing is ever deleted            |
| `i:<id>`       | mid and previous mid of the first append under an id, and until when the id is remembered       |
| `t:<digest>`   | when a token ends, and until when this cell must stay                                           |

HBase lets go of cells after a time of its own: later than the times in the values, which alone count. Where it does,
an older value of the cell may come to light; so heads and tokens never stay shorter than those before them, and a
slot counts only where its mid is the head's.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Container, Iterable, Mapping, Sequence
from hashlib import sha1
from itertools import count
from operator import itemgetter
from typing import NamedTuple

from gopush.errors import RET_OK, UnavailableError
from gopush.message.rules import NO_HEAD, First, KeptLog, remembered_until, sequence
from gopush.model import Append, Appended, Head

VERSION = 1
STAMP_BYTES = 8
SLACK_SECONDS = 3600
"""How much longer than needed HBase keeps a cell: clocks may differ by less."""

HEAD = ("m", b"h")

_HEAD = struct.Struct(">B8sqqdd")
_RECORD = struct.Struct(">qdIH")
_SLOT = struct.Struct(">q")
_FIRST = struct.Struct(">qqd")
_TOKEN = struct.Struct(">dd")

Cells = Mapping[tuple[str, bytes], bytes]
"""The cells of a row: family and qualifier, value."""

Wanted = Sequence[tuple[str, bytes | None]]
"""Which cells of a row to read: family and qualifier, None for the whole family."""

Slots = dict[tuple[str, bytes], bytes]
"""Cells of slots, with what is to be written there."""


class Record(NamedTuple):
    """What the head says of a kept message; `expires` in seconds since the epoch, `size` in bytes."""

    mid: int
    expires: float
    size: int
    slot: int


class RowHead(NamedTuple):
    """A decoded `m:h`. Times in seconds since the epoch; from `ends` on the log is as if it had never been."""

    stamp: bytes
    last: int
    trimmed: int
    ends: float
    stays: float
    records: tuple[Record, ...]


class Put(NamedTuple):
    """Cells to be written together; HBase lets go of them after `seconds`."""

    cells: dict[tuple[str, bytes], bytes]
    seconds: float


class Decision(NamedTuple):
    """What a batch of appends comes to: the answers, and what is to be written where the head is as it was."""

    answers: list[Appended]
    puts: list[Put]
    trimmed: int
    expired: int


def row_key(prefix: str, key: str) -> bytes:
    """Where a key's row is: spread evenly over the table by the hash that it begins with."""
    name = f"{prefix}{key}".encode()
    return sha1(name).digest()[:4] + name


def own_row(prefix: str) -> bytes:
    """Where what is said of all keys is: no key holds a control character."""
    return row_key(prefix, "\0store")


def slot_cell(slot: int) -> tuple[str, bytes]:
    """The cell of a slot."""
    return ("m", b"s%d" % slot)


def id_cell(id: str) -> tuple[str, bytes]:
    """The cell of an id."""
    return ("i", id.encode())


def token_cell(digest: bytes) -> tuple[str, bytes]:
    """The cell of a token."""
    return ("t", digest)


def row_head(value: bytes | None) -> RowHead | None:
    """The head in `m:h`. Raises UnavailableError where a later gopush has written it."""
    if not value:
        return None
    version, stamp, last, trimmed, ends, stays = _HEAD.unpack_from(value)
    if version != VERSION:
        raise UnavailableError(f"a row's version is {version}, not {VERSION}: a later gopush has written it")
    return RowHead(
        stamp, last, trimmed, ends, stays, tuple(map(Record._make, _RECORD.iter_unpack(value[_HEAD.size :])))
    )


def head_of(head: RowHead | None, now: float) -> Head:
    """What others see of it."""
    return Head(head.last, head.trimmed) if head and now < head.ends else NO_HEAD


def head_in(value: bytes | None, now: float) -> Head:
    """What others see of the head in `m:h`, whose records, a thousand perhaps, nobody unpacks."""
    return head_of(row_head(value and value[: _HEAD.size]), now)


def firsts_of(cells: Cells) -> dict[str, First]:
    """The ids among these cells."""
    return {name.decode(): First(*_FIRST.unpack(value)) for (family, name), value in cells.items() if family == "i"}


def decide(
    head: RowHead | None,
    firsts: Mapping[str, First],
    appends: Sequence[Append],
    most: int,
    head_life: float,
    now: float,
    stamp: bytes,
) -> Decision:
    """Append to a key's log, `most` messages of which are kept. Nothing is to be written where there are no `puts`."""
    alive = head is not None and now < head.ends
    last, trimmed, ends, records = (head.last, head.trimmed, head.ends, head.records) if head and alive else _NOTHING
    known, remembered = dict(firsts), {}
    answers, kept = [], []
    for append in appends:
        push = append.push
        first = known.get(push.id) if push.id else None
        answer = sequence(append, last, first, now)
        answers.append(answer)
        if answer.ret != RET_OK:
            continue
        until = remembered_until(push, now)
        if push.id and not (answer.repeat and first and until <= first.until):
            known[push.id] = remembered[push.id] = First(answer.mid, answer.previous, until)
        if not answer.repeat:
            last, ends = answer.mid, max(ends, now + push.expire + head_life)
            if push.expire:
                kept.append((answer.mid, now + push.expire, push.body))
    if not remembered and not any(answer.ret == RET_OK and not answer.repeat for answer in answers):
        return Decision(answers, [], 0, 0)
    survivors, cut, dropped, expired = _trim(records, kept, most, now)
    written, slots = _index(survivors)
    new = RowHead(stamp, last, cut or trimmed, ends, max(ends, head.stays if head else 0), tuple(written))
    puts = [head_put(new, now), *slot_puts(new, slots, now), *first_puts(remembered, now)]
    return Decision(answers, puts, dropped, expired)


def merged(
    head: RowHead | None, log: KeptLog, stays: Container[int], most: int, now: float, stamp: bytes
) -> tuple[RowHead, Slots]:
    """A log with what another store keeps of it, in the place of all whose mids are not in `stays`; and the slots to
    write, none of which the old head names. No head goes back.
    """
    old = head if head and now < head.ends else RowHead(stamp, *_NOTHING[:3], 0.0, ())
    trimmed = max(log.trimmed, old.trimmed)
    stay = [record for record in old.records if record.mid in stays]
    new = [message for message in log.messages if message[0] > trimmed]
    both: list[Record | _New] = [*stay, *new]
    survivors, cut, _, _ = _trim(sorted(both, key=itemgetter(0)), (), most, now)
    written, slots = _index(survivors, head.records if head else ())
    ends = max(log.ends, old.ends)
    until = max(ends, head.stays if head else 0)
    return RowHead(stamp, max(log.last, old.last), max(trimmed, cut), ends, until, tuple(written)), slots


def slot_puts(head: RowHead, slots: Slots, now: float) -> list[Put]:
    """Writes the bodies of some of a head's messages."""
    longest = max((record.expires for record in head.records), default=now)
    return [Put(dict(slots), longest - now + SLACK_SECONDS)] if slots else []


def first_puts(firsts: Mapping[str, First], now: float) -> list[Put]:
    """Writes ids."""
    longest = max((first.until for first in firsts.values()), default=now)
    cells = {id_cell(id): _FIRST.pack(*first) for id, first in firsts.items()}
    return [Put(cells, longest - now + SLACK_SECONDS)] if cells else []


_NOTHING: tuple[int, int, float, tuple[Record, ...]] = (0, 0, 0.0, ())
_New = tuple[int, float, bytes]


def _trim(
    records: Sequence[Record | _New], kept: Sequence[_New], most: int, now: float
) -> tuple[list[Record | _New], int, int, int]:
    """The newest `most` of both, the highest mid that was trimmed (0: none), how many were, how many had expired.

    The expired ones make room first, and only where room is needed; that is no trimming.
    """
    all_of_them: list[Record | _New] = [*records, *kept]
    if len(all_of_them) <= most:
        return all_of_them, 0, 0, 0
    live = [message for message in all_of_them if message[1] > now]
    excess = max(len(live) - most, 0)
    return live[excess:], live[excess - 1][0] if excess else 0, excess, len(all_of_them) - len(live)


def _index(messages: Sequence[Record | _New], more: Iterable[Record] = ()) -> tuple[list[Record], Slots]:
    """Give new messages free slots, which `more` have not either: all records, and the slots to write."""
    taken = {message.slot for message in (*messages, *more) if isinstance(message, Record)}
    free = (slot for slot in count() if slot not in taken)
    records, slots = [], {}
    for message in messages:
        if isinstance(message, Record):
            records.append(message)
        else:
            mid, expires, body = message
            records.append(Record(mid, expires, len(body), next(free)))
            slots[slot_cell(records[-1].slot)] = _SLOT.pack(mid) + body
    return records, slots


def head_put(head: RowHead, now: float) -> Put:
    """Writes a head."""
    packed = _HEAD.pack(VERSION, *head[:5]) + b"".join([_RECORD.pack(*record) for record in head.records])
    return Put({HEAD: packed}, head.stays - now + SLACK_SECONDS)


def fenced(head: RowHead | None, now: float, stamp: bytes) -> list[Put]:
    """The same head under another stamp: what is checked against the old one will never be written."""
    return [head_put((head or RowHead(b"", 0, 0, 0, now, ()))._replace(stamp=stamp), now)]


def emptied(head: RowHead, head_life: float, now: float, stamp: bytes) -> list[Put]:
    """The log without its messages; their bodies are overwritten."""
    ends = now + head_life
    new = head._replace(stamp=stamp, ends=ends, stays=max(head.stays, ends), records=())
    puts = [head_put(new, now)]
    if head.records:
        longest = max(record.expires for record in head.records)
        slots = {slot_cell(record.slot): _SLOT.pack(0) for record in head.records}
        puts.append(Put(slots, max(longest - now, 0) + SLACK_SECONDS))
    return puts


def body_in(record: Record, slot: bytes | None) -> bytes | None:
    """The record's body in its slot; None where the slot holds another message by now."""
    if slot is None or _SLOT.unpack_from(slot)[0] != record.mid:
        return None
    return slot[_SLOT.size :]


def after(head: RowHead | None, cursor: int, now: float) -> list[Record]:
    """The records of the unexpired messages after a cursor."""
    if head is None:
        return []
    begin = bisect_right(head.records, cursor, key=itemgetter(0))
    return [record for record in head.records[begin:] if record.expires > now]


def has_message(head: RowHead | None, now: float) -> bool:
    """Whether a message is kept."""
    return head is not None and any(record.expires > now for record in head.records)


def token_ends(value: bytes | None) -> float:
    """When a token ends, seconds since the epoch; 0 where there is none."""
    ends: float = _TOKEN.unpack(value)[0] if value else 0.0
    return ends


def token_put(digest: bytes, ends: float, old: bytes | None, now: float) -> Put:
    """Writes a token over its `old` cell; `ends` 0 revokes it."""
    stays = max(ends, now, _TOKEN.unpack(old)[1] if old else 0.0)
    return Put({token_cell(digest): _TOKEN.pack(ends, stays)}, stays - now + SLACK_SECONDS)
