"""What truly happened in the store: each append as it was answered, and until when its message could be read."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from gopush.errors import RET_OK
from gopush.model import MID_STEP, Append, Appended, Push, mid_at
from tests.simulation.process import EPOCH

if TYPE_CHECKING:
    from tests.simulation.world import World


class Record:
    """A message that the store took. Times are the world's seconds; `expires` is the store's own time."""

    __slots__ = (
        "dropped",
        "expires",
        "gone",
        "kept",
        "lost",
        "mid",
        "previous",
        "push",
        "reused",
        "time",
        "trimmed",
        "trimmed_ever",
    )

    def __init__(self, answer: Appended, push: Push, time: float, store_now: float) -> None:
        self.mid = answer.mid
        self.previous = answer.previous
        self.push = push
        self.time = time
        self.expires = store_now + push.expire
        self.kept = push.expire > 0  # the store has it, but for its expiry
        self.dropped = inf  # when it was trimmed or deleted last
        self.gone = inf  # when it first could not be read any more, but for its expiry
        self.trimmed = inf  # when it was trimmed
        self.trimmed_ever = inf  # the same, though the store forgot it
        self.lost = inf  # when the store lost it
        self.reused = False  # its mid is not above all that the store has lost: the clock is behind, the floor was too

    def expired(self, time: StoreTime) -> float:
        """The world's time when it first has expired: from then on it may be gone, whatever the clock does."""
        return time.reaches(self.expires, self.time)


class First:
    """The first append under an id."""

    __slots__ = ("record", "until")

    def __init__(self, record: Record, until: float) -> None:
        self.record = record
        self.until = until


class KeyHistory:
    """All that happened to a key."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.records: list[Record] = []
        self.by_mid: dict[int, list[Record]] = {}
        self.firsts: dict[str, First] = {}
        self.last = 0
        self.trimmed = 0
        self.highest_lost = 0


class History:
    """The keys' histories; each append is held against delivery rules 2 and 6 as it is answered."""

    def __init__(self, world: World, store_messages: int) -> None:
        self.keys: dict[str, KeyHistory] = {}
        self._world = world
        self._store_messages = store_messages
        self._saved: dict[str, tuple[int, int, int, dict[str, tuple[Record, float]]]] = {}
        self._saved_at = 0.0

    def of(self, key: str) -> KeyHistory:
        """The key's history."""
        history = self.keys.get(key)
        if history is None:
            history = self.keys[key] = KeyHistory(key)
        return history

    def appended(self, append: Append, answer: Appended, store_now: float) -> None:
        """The store has answered an append."""
        push = append.push
        history = self.of(push.key)
        first = history.firsts.get(push.id)
        if first is not None and store_now < first.until:
            self._check_repeat(answer, push, first, store_now)
        elif answer.ret != RET_OK:
            if store_now <= push.deadline:
                self._violated(6, push, "was refused before its deadline")
        elif not answer.repeat:
            if store_now > push.deadline:
                self._violated(6, push, f"was stored {store_now - push.deadline:.3f} s after its deadline")
            self._check_sequence(history, append, answer, store_now)
            self._add(history, push, answer, store_now)

    def _check_repeat(self, answer: Appended, push: Push, first: First, store_now: float) -> None:
        record = first.record
        if not answer.repeat or (answer.mid, answer.previous) != (record.mid, record.previous):
            self._violated(6, push, f"is a repeat of {record.mid} and was answered {answer}")
        first.until = max(first.until, _remembered_until(push, store_now))

    def _check_sequence(self, history: KeyHistory, append: Append, answer: Appended, store_now: float) -> None:
        mid, clock_mid = answer.mid, mid_at(store_now)
        if answer.previous != history.last:
            self._violated(2, append.push, f"follows {history.last}, but previous is {answer.previous}")
        if mid % MID_STEP or mid <= history.last or mid <= append.floor or mid < clock_mid:
            facts = f"last {history.last}, floor {append.floor}, clock {clock_mid}"
            self._violated(2, append.push, f"has the mid {mid}: {facts}")

    def _add(self, history: KeyHistory, push: Push, answer: Appended, store_now: float) -> None:
        now = self._world.clock.now
        record = Record(answer, push, now, store_now)
        record.reused = record.mid <= history.highest_lost
        history.records.append(record)
        history.by_mid.setdefault(record.mid, []).append(record)
        history.firsts[push.id] = First(record, _remembered_until(push, store_now))
        history.last = record.mid
        self._world.note("append", push.key, push.body[:24].decode(), record.mid - self._world.first_mid, push.expire)

    def trimmed(self, key: str, trimmed: int) -> None:
        """The store says that the key is trimmed up to here."""
        history, now = self.of(key), self._world.clock.now
        if trimmed <= history.trimmed:
            return
        history.trimmed = trimmed
        left = [record for record in history.records if record.kept and record.mid > trimmed]
        if len(left) < self._store_messages:
            self._world.violated(10, history.key, f"was trimmed up to {trimmed}, only {len(left)} newer ones are kept")
        for record in history.records:
            if record.kept and record.mid <= trimmed:
                record.kept = False
                record.dropped = now
                record.trimmed = now
                record.trimmed_ever = min(record.trimmed_ever, now)
                record.gone = min(record.gone, now)

    def deleted(self, key: str) -> None:
        """The store has deleted the key's messages."""
        now = self._world.clock.now
        for record in self.of(key).records:
            if record.kept:
                record.kept = False
                record.dropped = now
                record.gone = min(record.gone, now)

    def save(self) -> None:
        """What comes from now on may be lost."""
        self._saved_at = self._world.clock.now
        self._saved = {
            key: (
                len(history.records),
                history.last,
                history.trimmed,
                {id: (first.record, first.until) for id, first in history.firsts.items()},
            )
            for key, history in self.keys.items()
        }

    def lose(self) -> None:
        """What came since save() is lost."""
        now = self._world.clock.now
        for key, history in self.keys.items():
            count, history.last, history.trimmed, firsts = self._saved.get(key, (0, 0, 0, {}))
            history.firsts = {id: First(record, until) for id, (record, until) in firsts.items()}
            for record in history.records[:count]:
                if self._saved_at <= record.dropped < inf:
                    record.kept = True
                    record.trimmed = inf
            for record in history.records[count:]:
                record.kept = False
                record.lost = min(record.lost, now)
                history.highest_lost = max(history.highest_lost, record.mid)
                record.gone = min(record.gone, now)

    def _violated(self, rule: int, push: Push, what: str) -> None:
        self._world.violated(rule, push.key, f"the push {push.body[:24]!r} {what}")


def _remembered_until(push: Push, store_now: float) -> float:
    return store_now + push.dedupe if push.dedupe else push.deadline


class StoreTime:
    """The store's clock: runs with the world's, and steps."""

    def __init__(self) -> None:
        self._steps: list[tuple[float, float]] = [(0.0, EPOCH)]

    def at(self, time: float) -> float:
        """The store's seconds since the epoch at the latest steps."""
        return time + self._steps[-1][1]

    def step(self, time: float, seconds: float) -> None:
        """Put the clock forward, or back where `seconds` is negative."""
        self._steps.append((time, self._steps[-1][1] + seconds))

    def reaches(self, moment: float, since: float = 0.0) -> float:
        """The world's time when the store's clock first shows `moment`, `since` then."""
        ends = [start for start, _ in self._steps[1:]] + [inf]
        for (start, offset), end in zip(self._steps, ends, strict=True):
            if since < end and moment - offset < end:
                return max(moment - offset, start, since)
        return inf
