"""The ketama ring that spreads keys over weighted nodes (protocol.md, section 8). Pure and immutable."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from hashlib import sha1

POINTS_PER_WEIGHT = 255


def position(name: str) -> int:
    """Where `name` lies on the ring: the last four bytes of its SHA-1, big-endian."""
    return int.from_bytes(sha1(name.encode()).digest()[-4:], "big")


class HashRing:
    """A ring over nodes, given as name -> weight. Equal weights give an equal ring in every process."""

    __slots__ = ("_nodes", "_points", "weights")

    def __init__(self, weights: Mapping[str, int]) -> None:
        points = sorted(
            (position(f"{name}:{i}"), name)
            for name, weight in weights.items()
            for i in range(1, POINTS_PER_WEIGHT * weight + 1)
        )
        self.weights = dict(weights)
        self._points = [point for point, _ in points]
        self._nodes = [name for _, name in points]

    def node_of(self, key: str) -> str | None:
        """The node that `key` belongs to; None where the ring is empty."""
        if not self._nodes:
            return None
        index = bisect_left(self._points, position(key))
        return self._nodes[index if index < len(self._nodes) else 0]
