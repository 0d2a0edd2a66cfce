"""One wheel of time for many items, each with a deadline that is put off again and again. Pure.

A timer per connection would cost a heap entry and a closure each; here putting a deadline off is one attribute set.
"""

from __future__ import annotations

from math import ceil, floor, inf
from typing import Generic, Protocol, TypeVar


class Timed(Protocol):
    """What can be put on a wheel: hashed by identity.

    `deadline`: seconds on the wheel's clock, to be put off at will; to bring it forward, add the item again.
    `slot`: the wheel's own note of where the item is; NO_SLOT to begin with.
    """

    deadline: float
    slot: int


T = TypeVar("T", bound=Timed)

NO_SLOT = -1
_SLOTS = 64
_LATE = _SLOTS


class Wheel(Generic[T]):
    """Finds the items whose deadline has passed: never early, and within a second if advance() is called that often.
    There may be more of them than it gives at once: it is called again while there are `late` ones.

    An item is looked at when its slot comes up, and moved on if its deadline was put off meanwhile or is more than
    one turn of the wheel away.
    """

    __slots__ = ("_second", "_slots")

    def __init__(self, now: float) -> None:
        self._second = floor(now)
        self._slots: list[set[T]] = [set() for _ in range(_SLOTS + 1)]

    def add(self, item: T) -> None:
        """Watch an item from now on, or place it anew after its deadline was brought forward."""
        self.discard(item)
        ahead = min(max(item.deadline - self._second, 1), _SLOTS - 1)
        item.slot = (self._second + ceil(ahead)) % _SLOTS
        self._slots[item.slot].add(item)

    def discard(self, item: T) -> None:
        """Watch an item no longer; nothing happens where it is not watched."""
        if item.slot != NO_SLOT:
            self._slots[item.slot].discard(item)
            item.slot = NO_SLOT

    @property
    def late(self) -> bool:
        """Whether there are items whose deadline has passed that advance() has not given yet."""
        return bool(self._slots[_LATE])

    def advance(self, now: float, most: float = inf) -> list[T]:
        """The items, `most` at most, whose deadline is at or before `now`, each of them watched no longer."""
        late = self._slots[_LATE]
        previous, self._second = self._second, max(self._second, floor(now))
        for second in range(max(previous, self._second - _SLOTS) + 1, self._second + 1):
            index = second % _SLOTS
            due, self._slots[index] = self._slots[index], set()
            for item in due:
                item.slot = _LATE
                late.add(item)
        expired: list[T] = []
        while late and len(expired) < most:
            item = late.pop()
            item.slot = NO_SLOT
            if item.deadline <= now:
                expired.append(item)
            else:
                self.add(item)
        return expired
