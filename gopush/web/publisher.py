"""Pushes as web sends them to the comets: with an id, a deadline, and no more at once than the batchers can hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count, repeat
from math import ceil
from secrets import token_urlsafe

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from gopush.errors import RET_INTERNAL, RET_NO_NODE, RET_PARAMETER
from gopush.model import LATE, OnPushed, Push, Pushed, are_keys, is_key, records
from gopush.net.clock import Clock
from gopush.routing.comets import Comets
from gopush.stats.histogram import Histogram
from gopush.web.counters import WebCounters
from gopush.web.lateness import Lateness
from gopush.web.params import PublishRequest
from gopush.web.settings import HttpSettings

MAX_WAITING = 1000
MAX_WAITING_BYTES = 8 << 20


class OwnAnswer(Pushed):
    """One that no comet gave, and `why`."""

    why = ""


def _own(ret: int, why: str) -> OwnAnswer:
    answer = OwnAnswer(ret, 0)
    answer.why = why
    return answer


KEY_RATE = _own(RET_INTERNAL, "the key has used up its pushes for this second ([push] key.rate): try again")
CALLER_LIMIT = _own(RET_INTERNAL, "this API key has no pushes left for now: try again")
NO_KEY = _own(RET_PARAMETER, "k has an item that is no key: a key has 1 to 255 bytes, and no control characters")
_WHY = {
    RET_NO_NODE: "no comet is known (/health of this port says why)",
    RET_PARAMETER: "a comet refused it",
    RET_INTERNAL: "it was not stored in time (a comet's /health says if the store is away): try again with the same id",
}


def why_not(pushed: Pushed) -> str:
    """Why something was not pushed; nothing for what was."""
    return pushed.why if isinstance(pushed, OwnAnswer) else _WHY.get(pushed.ret, "")


log = Logger()


class Publisher:
    """Pushes for all admin calls.

    `deadline`: seconds that a push may take; `now`: seconds since the epoch.
    """

    def __init__(
        self,
        comets: Comets,
        settings: HttpSettings,
        deadline: float,
        now: Callable[[], float],
        clock: Clock,
        counters: WebCounters,
    ) -> None:
        self.latency = Histogram()
        self._comets = comets
        self._deadline = deadline
        self._now = now
        self._clock = clock
        self._gathered: list[tuple[PublishRequest, Callable[[Pushed], object]]] = []
        self._counters = counters
        self._settings = settings
        self._second = 0
        self._in_second: Counter[str] = Counter()
        self._own_ids = OwnIds()
        self._lateness = Lateness(deadline)

    def push(self, requests: Sequence[PublishRequest], answered: OnPushed) -> None:
        """Push, in order; `answered` hears of each request once, perhaps of all together. Never fails.

        Without a publisher's id a push has one of our own, which only tells our own repeats apart.
        """
        if self._gathered:  # these came before
            self._push_gathered()
        if self._settings.key_rate:
            indexes = self._within_rates(requests, answered)
            requests = [requests[index] for index in indexes]
            answered = partial(_led_back, indexes, answered)
        if requests:
            self._comets.push(self._made(requests), partial(self._answered, self._clock.seconds(), answered))

    def push_soon(self, request: PublishRequest, answered: Callable[[Pushed], object]) -> None:
        """Push at the end of this turn, together with what else comes in it."""
        if not self._gathered:
            self.soon(self._push_gathered)
        self._gathered.append((request, answered))

    def push_to(
        self, names: Sequence[str], body: bytes, expire: int, push_id: str | None, take: Callable[[int], bool]
    ) -> Deferred[list[Pushed]]:
        """Push one message to many keys; the answers in the order of the names.

        `take` is asked before each group of keys whether so many more pushes are allowed.
        """
        many = _Many(self, names, body, expire, push_id, take)
        many.go_on()
        return many.done

    def soon(self, call: Callable[[], None]) -> None:
        """Call in the reactor's next turn."""
        self._clock.callLater(0, call)

    def count(self, ret: int) -> None:
        """Count a push that was answered `ret`."""
        self._counters.pushes[ret] += 1

    def count_limited(self, pushes: int) -> None:
        """Count pushes that were answered CALLER_LIMIT."""
        self._counters.limited_keys += pushes
        self._count_over_limit(pushes)

    def _count_over_limit(self, pushes: int) -> None:
        self._counters.pushes[RET_INTERNAL] += pushes
        self._counters.pushes_over_limit += pushes

    def _push_gathered(self) -> None:
        gathered, self._gathered = self._gathered, []
        if gathered:
            requests, all_answered = zip(*gathered, strict=True)
            self.push(requests, partial(_tell, all_answered))

    def _made(self, requests: Sequence[PublishRequest]) -> list[Push]:
        keys, bodies, expires, given = zip(*requests, strict=True)
        # Our own attempts bear the id too: a store whose clock is behind takes them for longer than the deadline.
        dedupe = ceil(max(self._settings.dedupe, 2 * self._deadline))
        own_id = self._own_ids.take
        ids = [own_id(key) if push_id is None else push_id for key, push_id in zip(keys, given, strict=True)]
        dedupes = [0 if push_id is None else dedupe for push_id in given]
        return records(Push, keys, bodies, expires, ids, dedupes, repeat(self._now() + self._deadline))

    def _within_rates(self, requests: Sequence[PublishRequest], answered: OnPushed) -> list[int]:
        """The indexes of the requests within their key's rate; answers the others."""
        indexes = []
        for index, request in enumerate(requests):
            if self._within_rate(request.key):
                indexes.append(index)
            else:
                self._counters.limited_pushes += 1
                self._count_over_limit(1)
                answered((index,), (KEY_RATE,))
        return indexes

    def _within_rate(self, key: str) -> bool:
        second = int(self._now())
        if second != self._second:
            self._second = second
            self._in_second.clear()
        self._in_second[key] += 1
        return self._in_second[key] <= self._settings.key_rate

    def _answered(self, since: float, answered: OnPushed, indexes: Sequence[int], answers: Sequence[Pushed]) -> None:
        now = self._clock.seconds()
        self.latency.observe(now - since, len(answers))
        pushes = self._counters.pushes
        for answer in answers:
            pushes[answer.ret] += 1
        if answers[-1].mid == LATE or self._lateness.logged:
            self._lateness.answered(answers[-1], since, now)
        answered(indexes, answers)


def _led_back(requested: Sequence[int], answered: OnPushed, indexes: Sequence[int], answers: Sequence[Pushed]) -> None:
    """The requests were some of the caller's, at the indexes `requested`."""
    answered([requested[index] for index in indexes], answers)


def _tell(
    all_answered: Sequence[Callable[[Pushed], object]], indexes: Sequence[int], answers: Sequence[Pushed]
) -> None:
    """These callers have nothing to do with each other: where one fails, the others still get their answers."""
    for index, pushed in zip(indexes, answers, strict=True):
        try:
            all_answered[index](pushed)
        except Exception:
            log.failure("callback failed")


class _Many:
    """Many pushes under way: no more than `_at_once` have no answer yet, or go in a turn; a group is half of that."""

    def __init__(
        self,
        publisher: Publisher,
        names: Sequence[str],
        body: bytes,
        expire: int,
        push_id: str | None,
        take: Callable[[int], bool],
    ) -> None:
        self.done: Deferred[list[Pushed]] = Deferred()
        self._publisher = publisher
        self._names = names
        self._body = body
        self._expire = expire
        self._push_id = push_id
        self._take = take
        self._at_once = max(1, min(MAX_WAITING, MAX_WAITING_BYTES // max(1, len(body))))
        self._group = max(1, self._at_once // 2)
        self._answers: list[Pushed] = [CALLER_LIMIT] * len(names)
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
        """Push to the keys of a group; answers here what is no key, or beyond the caller's limit."""
        self._next = group.stop
        keys: Sequence[str] = self._names[group.start : group.stop]
        indexes: Sequence[int] = group
        if not are_keys(keys):
            indexes = [index for index in group if is_key(self._names[index])]
            keys = [self._names[index] for index in indexes]
            for index in set(group).difference(indexes):
                self._answers[index] = NO_KEY
                self._publisher.count(NO_KEY.ret)
        if not keys:
            return
        if self._take(len(keys)):
            self._waiting += len(keys)
            requests = records(PublishRequest, keys, repeat(self._body), repeat(self._expire), repeat(self._push_id))
            self._publisher.push(requests, partial(self._answered, indexes))
        else:
            self._publisher.count_limited(len(keys))

    def _answered(self, group: Sequence[int], indexes: Sequence[int], answers: Sequence[Pushed]) -> None:
        for index, answer in zip(indexes, answers, strict=True):
            self._answers[group[index]] = answer
        self._waiting -= len(answers)
        if not self._going and (not self._waiting or self._waiting + self._group <= self._at_once):
            self.go_on()


MOST_KEYS = 50
"""Pushes under one id at most: the store reads all of them at once, to see whether one is a repeat."""


class OwnIds:
    """Ids that no other process gives. A push is known by its key and its id, so pushes to different keys share one."""

    __slots__ = ("_id", "_keys", "_prefix", "_serials")

    def __init__(self) -> None:
        self._prefix = token_urlsafe(9)
        self._serials = count()
        self._id = ""
        self._keys: set[str] = set()

    def take(self, key: str) -> str:
        """An id that was not given for this key before."""
        taken = self._keys
        if not 0 < len(taken) < MOST_KEYS or key in taken:
            self._id = f"{self._prefix}{next(self._serials)}"
            taken.clear()
        taken.add(key)
        return self._id
