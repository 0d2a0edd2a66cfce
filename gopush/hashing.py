"""Which server, comet or node a key belongs to: the ketama ring (protocol.md, section 8), rendezvous hashing. Pure.

A node's points cost a SHA-1 each, and a node may have 255,000 of them: they are computed once, and shared by all rings
that the node is on. A ring is ready as soon as it has them; merging them makes it quicker. Both can be done in slices,
which a caller spreads over the turns of its reactor.
"""

from __future__ import annotations

import hashlib
import sys
from array import array
from bisect import bisect_left
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from hashlib import sha1
from math import log
from zlib import crc32

POINTS_PER_WEIGHT = 255
RING_SIZE = 1 << 32
SLICE_POINTS = 2000
"""Points that are computed, sorted or merged in one slice: 1 to 3 ms."""

_BUCKETS = 256
_NODE_BITS = 24
_NODE = (1 << _NODE_BITS) - 1

Share = tuple[str, int]
"""A node's name and its weight."""


def position(name: str) -> int:
    """Where `name` lies on the ring: the last four bytes of its SHA-1, big-endian."""
    return int.from_bytes(sha1(name.encode()).digest()[-4:], "big")


def points(name: str, weight: int) -> Generator[None, None, array[int]]:
    """The points of a node, ascending, four bytes each. Yields after each slice; returns them at the end."""
    buckets = [array("I") for _ in range(_BUCKETS)]
    begun, end = sha1(f"{name}:".encode()), POINTS_PER_WEIGHT * weight + 1
    for first in range(1, end, SLICE_POINTS):
        for point in _positions(begun, first, min(first + SLICE_POINTS, end)):
            buckets[point >> 24].append(point)
        yield
    found = array("I")
    rest = SLICE_POINTS
    for bucket in buckets:
        if (rest := rest - len(bucket)) < 0:
            yield
            rest = SLICE_POINTS
        found.extend(sorted(bucket))
    return found


def _positions(begun: hashlib._Hash, first: int, end: int) -> array[int]:
    """The positions of what `begun` has hashed, followed by each of these numbers."""
    tails = bytearray()
    for number in range(first, end):
        one = begun.copy()
        one.update(b"%d" % number)
        tails += one.digest()[-4:]
    found = array("I", bytes(tails))
    if sys.byteorder == "little":
        found.byteswap()
    return found


def needed(weights: Mapping[str, int]) -> list[Share]:
    """The nodes whose points a ring needs: none where a node is alone, because it has all keys."""
    return list(weights.items()) if len(weights) > 1 else []


class HashRing:
    """A ring over nodes, given as name -> weight. Equal weights give an equal ring in every process."""

    __slots__ = ("_each", "_names", "_points", "weights")

    def __init__(self, weights: Mapping[str, int], known: Mapping[Share, array[int]] | None = None) -> None:
        """`known`: the points of all nodes; without, they are computed and merged now, whatever that takes."""
        self.weights = dict(sorted(weights.items()))
        self._names = list(self.weights)
        # Each node's own points; and all of them, with the index of the node's name in each.
        self._each = [known[share] if known is not None else _run(points(*share)) for share in needed(self.weights)]
        self._points = array("Q")
        if known is None or sum(map(len, self._each)) <= SLICE_POINTS:
            for _ in self.merge():
                pass

    def node_of(self, key: str) -> str | None:
        """The node that `key` belongs to; None where the ring is empty."""
        if not self._each:
            return next(iter(self._names), None)
        at = position(key)
        if not self._points:
            first = min(_after(mine, at, node) for node, mine in enumerate(self._each))
            return self._names[first & _NODE]
        index = bisect_left(self._points, at << _NODE_BITS)
        return self._names[self._points[index if index < len(self._points) else 0] & _NODE]

    def without(self, names: set[str]) -> HashRing:
        """The ring over the others of its nodes."""
        known = dict(zip(needed(self.weights), self._each, strict=True))
        return HashRing({name: weight for name, weight in self.weights.items() if name not in names}, known)

    def look_ups(self, budget: int) -> int:
        """How many keys may be looked for at the cost of `budget` points looked at, about 4 us each; one at least."""
        return budget if self.merged else max(1, budget // len(self._each))

    @property
    def merged(self) -> bool:
        """Whether merge() has nothing left to do."""
        return bool(self._points) or not self._each

    def merge(self) -> Iterator[None]:
        """Make this ring quick; yields after each slice."""
        if self.merged:
            return
        total = sum(map(len, self._each))
        merged = array("Q")
        begun = [0] * len(self._each)
        slices = total // SLICE_POINTS + 1
        for number in range(1, slices + 1):
            end = RING_SIZE * number // slices
            found: list[int] = []
            for node, mine in enumerate(self._each):
                high = bisect_left(mine, end, begun[node])
                found += [point << _NODE_BITS | node for point in mine[begun[node] : high]]
                begun[node] = high
            merged.extend(sorted(found))
            yield
        self._points = merged


def _after(mine: array[int], at: int, node: int) -> int:
    """The first of a node's points at or after `at`, with the node."""
    index = bisect_left(mine, at)
    point = mine[index] if index < len(mine) else RING_SIZE + mine[0]
    return point << _NODE_BITS | node


def _run(computing: Generator[None, None, array[int]]) -> array[int]:
    while True:
        try:
            next(computing)
        except StopIteration as done:
            found: array[int] = done.value
            return found


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


class Shards:
    """Servers by name and weight, on a `ring`. None where there is but one, or none: all keys are on "" then."""

    __slots__ = ("ring", "weights")

    def __init__(self, weights: Iterable[tuple[str, int]] = (), ring: HashRing | None = None) -> None:
        """`ring`: theirs, where it is there already."""
        self.weights = tuple(weights)
        self.ring = ring or HashRing(dict(self.weights)) if len(self.weights) > 1 else None

    def of(self, key: str) -> str:
        """The name of the key's server."""
        return "" if self.ring is None else self.ring.node_of(key) or ""

    def spread(self, keys: Sequence[str]) -> Mapping[str, Sequence[int]]:
        """The indexes in `keys` of those on each server, ascending."""
        if self.ring is None:
            return {"": range(len(keys))}
        indexes: dict[str, list[int]] = {}
        for index, key in enumerate(keys):
            indexes.setdefault(self.of(key), []).append(index)
        return indexes
