"""Batches as bytes: what a call is given, and what it answers, packed with msgpack and cut into chunks. Pure.

A Perspective Broker call costs far more for each tuple in it than msgpack does, and it refuses elements over 640 KiB;
so a batch travels as a list of byte strings. Its first element is the version of the format: a node that meets one
it does not know says so. Within a version, fields are only ever added, at the end of a tuple: calls.py drops those it
does not know, so that old and new nodes mix while a cluster is upgraded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgpack

from gopush.errors import GopushError

T = TypeVar("T")

VERSION = 1
CHUNK_BYTES = 256 * 1024
MAX_BATCH_BYTES = 128 * 1024 * 1024
MAX_ITEMS = 100_000
"""Elements of one list at most; also what bounds the memory that a lying length can claim."""


class BatchError(GopushError):
    """Bytes that are no batch of a known version, or values that no batch can carry."""


def pack(value: Any) -> list[bytes]:
    """Tuples, lists and scalars as chunks of at most CHUNK_BYTES. Raises BatchError."""
    try:
        data: bytes = msgpack.packb((VERSION, value))
    except (TypeError, ValueError, OverflowError) as wrong:
        raise BatchError(f"cannot be packed: {wrong}") from None
    if len(data) > MAX_BATCH_BYTES:
        raise BatchError(f"{len(data)} bytes are too many for one batch (at most {MAX_BATCH_BYTES})")
    if len(data) <= CHUNK_BYTES:
        return [data]
    return [data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES)]


def unpack(chunks: object, read: Callable[[Any], T]) -> T:
    """What pack() was given, lists as tuples, read by a reader of calls.py. Raises BatchError, whatever the bytes."""
    try:
        version, *rest = _parse(_join(chunks))
        if version != VERSION:
            raise BatchError(f"has the format {version!r:.40}, this node reads {VERSION}")
        return read(rest[0])
    except (TypeError, ValueError, IndexError, msgpack.exceptions.UnpackException) as wrong:
        raise BatchError(f"is malformed: {wrong}"[:200]) from None


def _join(chunks: object) -> bytes:
    if not isinstance(chunks, list) or not all(type(chunk) is bytes for chunk in chunks):
        raise TypeError("not a list of byte strings")
    if sum(map(len, chunks)) > MAX_BATCH_BYTES:
        raise ValueError("too many bytes")
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _parse(data: bytes) -> Any:
    most = min(len(data), MAX_ITEMS)
    return msgpack.unpackb(data, use_list=False, max_array_len=most, max_map_len=0, max_ext_len=0)
