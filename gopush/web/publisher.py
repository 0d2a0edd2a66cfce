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
from gopush.errors import RET_INTERNAL, RET_PARAMETER
from gopush.rpc.model import Push, Pushed, is_key
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

    def push_to(
        self, names: Sequence[str], body: bytes, expire: int, push_id: str | None, spend: Callable[[int], bool]
    ) -> Deferred[list[Pushed]]:
        """Push one message to many keys; the answers in the order of the names.

        `spend` is asked before each group of keys whether so many more pushes are allowed.
        """
        at_once = max(1, min(MAX_WAITING, MAX_WAITING_BYTES // max(1, len(body))))
        many = _Many(self, names, partial(Wish, body=body, expire=expire, id=push_id), spend, at_once)
        many.go_on()
        return many.done

    def soon(self, call: Callable[[], None]) -> None:
        """Call in the reactor's next turn."""
        self._later(call)

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
    """Many pushes under way, in groups of half of `at_once`: no more than that have no answer yet, or go in a turn."""

    def __init__(
        self,
        publisher: Publisher,
        names: Sequence[str],
        wish: Callable[[str], Wish],
        spend: Callable[[int], bool],
        at_once: int,
    ) -> None:
        self.done: Deferred[list[Pushed]] = Deferred()
        self._publisher = publisher
        self._names = names
        self._wish = wish
        self._spend = spend
        self._at_once = at_once
        self._group = max(1, at_once // 2)
        self._answers = [Pushed(RET_INTERNAL, 0)] * len(names)
        self._next = 0
        self._waiting = 0
        self._going = False

    def go_on(self) -> None:
        """Push as many groups as may wait; an answer may come at once, and must not lead here again."""
        self._going = True
        until = self._next + self._at_once
        while self._next < min(until, len(self._names)) and self._waiting + self._group <= self._at_once:
            self._push(range(self._next, min(self._next + self._group, len(self._names))))
        self._going = False
        if self._waiting:
            return
        if self._next < len(self._names):
            self._publisher.soon(self.go_on)  # all was answered at once: others have their turn
        else:
            self.done.callback(self._answers)

    def _push(self, group: range) -> None:
        """Push to the keys of a group; what is no key, or beyond the caller's limit, is answered here."""
        self._next = group.stop
        places = []
        for place in group:
            if is_key(self._names[place]):
                places.append(place)
            else:
                self._answers[place] = Pushed(RET_PARAMETER, 0)
        if places and self._spend(len(places)):
            self._waiting += len(places)
            self._publisher.push([self._wish(self._names[place]) for place in places], partial(self._answered, places))

    def _answered(self, places: Sequence[int], place: int, pushed: Pushed) -> None:
        self._answers[places[place]] = pushed
        self._waiting -= 1
        if not self._going and (not self._waiting or self._waiting + self._group == self._at_once):
            self.go_on()
