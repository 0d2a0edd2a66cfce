"""Weighted rendezvous hashing: which of the peers a key goes to. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from math import log
from zlib import crc32

_RANGE = 2**32 + 1


def best(key: str, weights: Iterable[tuple[str, int]]) -> str:
    """The name of `weights` that `key` goes to. A name that goes or comes only moves the keys that it wins or loses."""
    seed = crc32(key.encode())
    return max((-weight / log((_mix(crc32(name.encode(), seed)) + 1) / _RANGE), name) for name, weight in weights)[1]


def _mix(value: int) -> int:
    """Spread a CRC, whose bits depend on each other too regularly to compare (the finaliser of MurmurHash3)."""
    value ^= value >> 16
    value = value * 0x85EBCA6B & 0xFFFFFFFF
    value ^= value >> 13
    value = value * 0xC2B2AE35 & 0xFFFFFFFF
    return value ^ value >> 16
