"""Pushes as web sends them to the comets: with an id, a deadline, and no more at once than the lanes can hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from math import ceil
from secrets import token_urlsafe

from twisted.internet.defer import Deferred

from gopush.distribution import Distribution
from gopush.errors import RET_INTERNAL
from gopush.rpc.model import Push, Pushed
from gopush.web import params
from gopush.web.counters import Counters
from gopush.web.peers import Comets
from gopush.web.settings import HttpSettings

MAX_WAITING = 1000
MAX_WAITING_BYTES = 8 << 20

Answered = Callable[[Pushed], object]


class Publisher:
    """Pushes for all admin calls. `deadline`: seconds that a push may take; `now`: seconds since the epoch."""

    def __init__(
        self, comets: Comets, settings: HttpSettings, deadline: float, now: Callable[[], float], counters: Counters
    ) -> None:
        self.latency = Distribution()
        self._comets = comets
        self._deadline = deadline
        self._dedupe_own = ceil(2 * deadline)
        self._now = now
        self._counters = counters
        self._settings = settings
        self._second = 0
        self._in_second: Counter[str] = Counter()
        self._prefix = token_urlsafe(9)
        self._serial = count()

    def push(self, key: str, body: bytes, expire: int, push_id: str | None, answered: Answered) -> None:
        """Push; without a publisher's id under one of our own, which only tells our own repeats apart. Never fails."""
        if self._settings.key_rate and not self._within_rate(key):
            self._counters.limited_pushes += 1
            self.count(RET_INTERNAL)
            answered(Pushed(RET_INTERNAL, 0))
            return
        dedupe = ceil(self._settings.dedupe)
        if push_id is None:
            push_id, dedupe = f"{self._prefix}{next(self._serial)}", self._dedupe_own
        now = self._now()
        push = Push(key, body, expire, push_id, dedupe, now + self._deadline)
        self._comets.push(push, partial(self._answered, now, answered))

    def push_to(self, keys: Sequence[str], body: bytes, expire: int, push_id: str | None) -> Deferred[list[Pushed]]:
        """Push one message to many keys; the answers in the order of the keys."""
        at_once = max(1, min(MAX_WAITING, MAX_WAITING_BYTES // max(1, len(body))))
        many = _Many(keys, at_once, lambda key, answered: self.push(key, body, expire, push_id, answered))
        many.go_on()
        return many.done

    def expire(self, text: str) -> int:
        """The seconds to keep a message, from what the caller wrote. Raises ParameterError."""
        return params.decimal(text, self._settings.max_expire)

    def count(self, ret: int) -> None:
        """Count a push that was answered `ret`."""
        self._counters.pushes[ret] += 1

    def _within_rate(self, key: str) -> bool:
        second = int(self._now())
        if second != self._second:
            self._second = second
            self._in_second.clear()
        self._in_second[key] += 1
        return self._in_second[key] <= self._settings.key_rate

    def _answered(self, since: float, answered: Answered, pushed: Pushed) -> None:
        self.latency.observe(self._now() - since)
        self._counters.pushes[pushed.ret] += 1
        answered(pushed)


class _Many:
    """A push to many keys under way: no more than `at_once` of them have no answer yet."""

    def __init__(self, keys: Sequence[str], at_once: int, push: Callable[[str, Answered], None]) -> None:
        self.done: Deferred[list[Pushed]] = Deferred()
        self._keys = keys
        self._at_once = at_once
        self._push = push
        self._answers = [Pushed(RET_INTERNAL, 0)] * len(keys)
        self._next = 0
        self._waiting = 0
        self._going = False

    def go_on(self) -> None:
        """Push to more keys; an answer may come at once, and must not lead here again."""
        self._going = True
        while self._next < len(self._keys) and self._waiting < self._at_once:
            place = self._next
            self._next += 1
            self._waiting += 1
            self._push(self._keys[place], partial(self._answered, place))
        self._going = False
        if not self._waiting:
            self.done.callback(self._answers)

    def _answered(self, place: int, pushed: Pushed) -> None:
        self._answers[place] = pushed
        self._waiting -= 1
        if not self._going:
            self.go_on()
