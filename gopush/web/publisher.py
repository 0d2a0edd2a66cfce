"""Pushes as web sends them to the comets: with an id, a deadline, and no more at once than the lanes can hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from math import ceil
from secrets import token_urlsafe

from twisted.internet.defer import Deferred, gatherResults, succeed

from gopush.distribution import Distribution
from gopush.errors import RET_INTERNAL
from gopush.rpc.model import Push, Pushed
from gopush.web import params
from gopush.web.counters import Counters
from gopush.web.peers import Comets
from gopush.web.settings import HttpSettings

MAX_WAITING = 1000
MAX_WAITING_BYTES = 8 << 20


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

    def push(self, key: str, body: bytes, expire: int, push_id: str | None) -> Deferred[Pushed]:
        """Push; without a publisher's id under one of our own, which only tells our own repeats apart. Never fails."""
        if self._settings.key_rate and not self._within_rate(key):
            self._counters.limited_pushes += 1
            return succeed(self._count(Pushed(RET_INTERNAL, 0)))
        dedupe = ceil(self._settings.dedupe)
        if push_id is None:
            push_id, dedupe = f"{self._prefix}{next(self._serial)}", self._dedupe_own
        now = self._now()
        push = Push(key, body, expire, push_id, dedupe, now + self._deadline)
        return self._comets.push(push).addCallback(self._answered, now)

    async def push_to(self, keys: Sequence[str], body: bytes, expire: int, push_id: str | None) -> list[Pushed]:
        """Push one message to many keys; the answers in the order of the keys."""
        pushed: list[Pushed] = []
        at_once = max(1, min(MAX_WAITING, MAX_WAITING_BYTES // max(1, len(body))))
        for start in range(0, len(keys), at_once):
            some = [self.push(key, body, expire, push_id) for key in keys[start : start + at_once]]
            pushed += await gatherResults(some)
        return pushed

    def expire(self, text: str) -> int:
        """The seconds to keep a message, from what the caller wrote. Raises ParameterError."""
        return params.decimal(text, self._settings.max_expire)

    def count(self, ret: int) -> None:
        """Count a push that was answered `ret` before it went anywhere."""
        self._counters.pushes[ret] += 1

    def _within_rate(self, key: str) -> bool:
        second = int(self._now())
        if second != self._second:
            self._second = second
            self._in_second.clear()
        self._in_second[key] += 1
        return self._in_second[key] <= self._settings.key_rate

    def _answered(self, pushed: Pushed, since: float) -> Pushed:
        self.latency.observe(self._now() - since)
        return self._count(pushed)

    def _count(self, pushed: Pushed) -> Pushed:
        self._counters.pushes[pushed.ret] += 1
        return pushed
