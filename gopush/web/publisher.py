"""Pushes as web sends them to the comets: with an id, a deadline, and no more at once than the lanes can hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from math import ceil
from typing import NamedTuple

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from gopush.distribution import Distribution
from gopush.errors import RET_INTERNAL
from gopush.rpc.model import Push, Pushed
from gopush.web import params
from gopush.web.counters import Counters
from gopush.web.own_ids import OwnIds
from gopush.web.peers import Comets
from gopush.web.settings import HttpSettings

MAX_WAITING = 1000
MAX_WAITING_BYTES = 8 << 20

Answered = Callable[[int, Pushed], object]

log = Logger()


class Wish(NamedTuple):
    """What a publisher wants: `expire` in seconds; `id` None: there is none."""

    key: str
    body: bytes
    expire: int
    id: str | None


class Publisher:
    """Pushes for all admin calls.

    `deadline`: seconds that a push may take; `now`: seconds since the epoch; `later` calls in the reactor's next turn.
    """

    def __init__(
        self,
        comets: Comets,
        settings: HttpSettings,
        deadline: float,
        now: Callable[[], float],
        later: Callable[[Callable[[], None]], object],
        counters: Counters,
    ) -> None:
        self.latency = Distribution()
        self._comets = comets
        self._deadline = deadline
        self._now = now
        self._later = later
        self._gathered: list[tuple[Wish, Callable[[Pushed], object]]] = []
        self._counters = counters
        self._settings = settings
        self._second = 0
        self._in_second: Counter[str] = Counter()
        self._own_ids = OwnIds()

    def push(self, wishes: Sequence[Wish], answered: Answered) -> None:
        """Push, in order; `answered` is called once for each wish, with its place. Never fails.

        Without a publisher's id a push has one of our own, which only tells our own repeats apart.
        """
        places: Sequence[int] = range(len(wishes))
        if self._settings.key_rate:
            places = self._within_rates(wishes, answered)
            wishes = [wishes[place] for place in places]
        if wishes:
            now = self._now()
            self._comets.push(self._made(wishes, now), partial(self._answered, now, places, answered))

    def push_soon(self, wish: Wish, answered: Callable[[Pushed], object]) -> None:
        """Push at the end of this turn, together with what else comes in it."""
        if not self._gathered:
            self._later(self._push_gathered)
        self._gathered.append((wish, answered))

    def push_to(self, keys: Sequence[str], body: bytes, expire: int, push_id: str | None) -> Deferred[list[Pushed]]:
        """Push one message to many keys; the answers in the order of the keys."""
        at_once = max(1, min(MAX_WAITING, MAX_WAITING_BYTES // max(1, len(body))))
        many = _Many(self.push, [Wish(key, body, expire, push_id) for key in keys], at_once)
        many.go_on()
        return many.done

    def expire(self, text: str) -> int:
        """The seconds to keep a message, from what the caller wrote. Raises ParameterError."""
        return params.decimal(text, self._settings.max_expire)

    def count(self, ret: int) -> None:
        """Count a push that was answered `ret`."""
        self._counters.pushes[ret] += 1

    def _push_gathered(self) -> None:
        gathered, self._gathered = self._gathered, []
        self.push([wish for wish, _ in gathered], partial(_tell, [answered for _, answered in gathered]))

    def _made(self, wishes: Sequence[Wish], now: float) -> list[Push]:
        deadline, own_id = now + self._deadline, self._own_ids.take
        # Our own attempts bear the id too: a store whose clock is behind takes them for longer than the deadline.
        dedupe = ceil(max(self._settings.dedupe, 2 * self._deadline))
        return [
            Push(key, body, expire, own_id(key), 0, deadline)
            if push_id is None
            else Push(key, body, expire, push_id, dedupe, deadline)
            for key, body, expire, push_id in wishes
        ]

    def _within_rates(self, wishes: Sequence[Wish], answered: Answered) -> list[int]:
        """The places of what does not come too often; the rest is answered."""
        places = []
        for place, wish in enumerate(wishes):
            if self._within_rate(wish.key):
                places.append(place)
            else:
                self._counters.limited_pushes += 1
                self.count(RET_INTERNAL)
                answered(place, Pushed(RET_INTERNAL, 0))
        return places

    def _within_rate(self, key: str) -> bool:
        second = int(self._now())
        if second != self._second:
            self._second = second
            self._in_second.clear()
        self._in_second[key] += 1
        return self._in_second[key] <= self._settings.key_rate

    def _answered(self, since: float, places: Sequence[int], answered: Answered, place: int, pushed: Pushed) -> None:
        self.latency.observe(self._now() - since)
        self._counters.pushes[pushed.ret] += 1
        answered(places[place], pushed)


def _tell(all_answered: Sequence[Callable[[Pushed], object]], place: int, pushed: Pushed) -> None:
    """These callers have nothing to do with each other: where one fails, the others still hear."""
    try:
        all_answered[place](pushed)
    except Exception:
        log.failure("an answer was not taken")


class _Many:
    """Many pushes under way, in groups of half of `at_once`: no more than that have no answer yet."""

    def __init__(self, push: Callable[[Sequence[Wish], Answered], None], wishes: Sequence[Wish], at_once: int) -> None:
        self.done: Deferred[list[Pushed]] = Deferred()
        self._push = push
        self._wishes = wishes
        self._at_once = at_once
        self._group = max(1, at_once // 2)
        self._answers = [Pushed(RET_INTERNAL, 0)] * len(wishes)
        self._next = 0
        self._waiting = 0
        self._going = False

    def go_on(self) -> None:
        """Push another group; an answer may come at once, and must not lead here again."""
        self._going = True
        while self._next < len(self._wishes) and self._waiting + self._group <= self._at_once:
            first = self._next
            group = self._wishes[first : first + self._group]
            self._next += len(group)
            self._waiting += len(group)
            self._push(group, partial(self._answered, first))
        self._going = False
        if not self._waiting:
            self.done.callback(self._answers)

    def _answered(self, first: int, place: int, pushed: Pushed) -> None:
        self._answers[first + place] = pushed
        self._waiting -= 1
        if not self._going and (not self._waiting or self._waiting + self._group == self._at_once):
            self.go_on()
