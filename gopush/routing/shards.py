"""Which of the servers behind a store a key's log is on: callers' batchers and the store choose it alike. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from gopush.hashing import HashRing


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
        """The places in `keys` of those on each server, ascending."""
        if self.ring is None:
            return {"": range(len(keys))}
        indexes: dict[str, list[int]] = {}
        for index, key in enumerate(keys):
            indexes.setdefault(self.of(key), []).append(index)
        return indexes
