"""The way of a push in a comet: stored, and delivered to subscribers here or forwarded to the comet that has them."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from twisted.internet.defer import Deferred, succeed

from gopush.comet.channel import Channel, Unanswered
from gopush.comet.counters import CometCounters, Guard
from gopush.comet.delivery import Delivery
from gopush.comet.moves import EarlierOwners
from gopush.comet.session import Limits
from gopush.errors import RET_INTERNAL, RET_OK, NotTriedError, UnavailableError
from gopush.membership.view import Coordination
from gopush.model import (
    MAX_FORWARD_HOPS,
    MIDS_PER_SECOND,
    NOT_REACHED,
    Append,
    Appended,
    Forward,
    Push,
    Pushed,
    mid_at,
    records,
)
from gopush.net.clock import Clock
from gopush.routing.comets import Comets
from gopush.routing.messages import Messages

DOUBT_SECONDS = 4.5
"""The store may still keep a refused push until its deadline: then the comet compares its log once more."""

REMEMBERED = 16
"""So many of the store's last mids: those of some keys run ahead of its clock, so the earliest counts."""


WINDOW_SECONDS = 30.0
MOST_COUNTED = 16_384
"""Keys whose pushes are counted. Where there are more, the rarer half is forgotten, and the others count less."""


class PushRates:
    """How many pushes keys get through this comet: counted in a window of time, and the one before it."""

    __slots__ = ("_before", "_began", "_clock", "_counts", "_seconds_before")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = clock.seconds()
        self._counts = defaultdict[str, int](int)  # a Counter takes twice as long to count one
        self._before: Mapping[str, int] = {}
        self._seconds_before = 0.0

    def count(self, keys: Iterable[str]) -> None:
        """Each of these was pushed to once."""
        if self._clock.seconds() - self._began >= WINDOW_SECONDS:
            self._turn()
        counts = self._counts
        for key in keys:
            counts[key] += 1
        if len(counts) > MOST_COUNTED:
            self._forget_rarest()

    def rates(self) -> dict[str, float]:
        """Pushes a second of the keys that are counted."""
        elapsed = self._clock.seconds() - self._began
        if elapsed >= WINDOW_SECONDS:
            self._turn()
            elapsed = 0.0
        seconds = max(1.0, elapsed + self._seconds_before)
        return {key: count / seconds for key, count in (Counter(self._before) + Counter(self._counts)).items()}

    def _turn(self) -> None:
        elapsed = self._clock.seconds() - self._began
        self._before, self._counts = self._counts, defaultdict(int)
        self._seconds_before = elapsed
        self._began += elapsed

    def _forget_rarest(self) -> None:
        """What it takes away here it has counted before: in the long run a push costs a few steps."""
        counts = self._counts
        least = sorted(counts.values(), reverse=True)[MOST_COUNTED // 2]
        self._counts = defaultdict(int, {key: count - least for key, count in counts.items() if count > least})


class StoreTime:
    """The time of day of the store, as its mids tell it: the clock of this machine may be slow, ahead, or step.

    Kept on a steady clock. `now`: this machine's own time of day, for as long as the store has given no mid.
    """

    __slots__ = ("_clock", "_now", "_offsets")

    def __init__(self, clock: Clock, now: Callable[[], float]) -> None:
        self._clock = clock
        self._now = now
        self._offsets: deque[float] = deque(maxlen=REMEMBERED)

    def gave(self, mid: int) -> None:
        """The store has given this mid just now."""
        self._offsets.append(mid / MIDS_PER_SECOND - self._clock.seconds())

    def mid_before(self, seconds: float) -> int:
        """The mid of so many seconds ago; the store's mids since then are above it."""
        steady = self._clock.seconds()
        time_of_day = steady + min(self._offsets) if self._offsets else self._now()
        return mid_at(time_of_day - seconds)


class Pushes:
    """The part of a comet that takes pushes and has them delivered. `id`: its NodeInfo.id."""

    def __init__(
        self,
        clock: Clock,
        coordination: Coordination,
        messages: Messages,
        comets: Comets,
        limits: Limits,
        id: str,
        now: Callable[[], float],
    ) -> None:
        self.channels: dict[str, Channel] = {}
        self.counters = CometCounters()
        self.id = id
        self.clock = clock
        self._coordination = coordination
        self._messages = messages
        self._comets = comets
        self._unanswered = Unanswered()
        self._store_time = StoreTime(clock, now)
        self._rates = PushRates(clock)
        self._earlier_owners = EarlierOwners(clock, coordination, id)
        self._doubts = False
        self._doubtful: dict[str, None] = {}
        self.guard = Guard(clock, self.counters)
        self.delivery = Delivery(clock, messages, limits, self.counters, self._unanswered, self.guard)

    def push(self, pushes: Sequence[Push]) -> Deferred[list[Pushed]]:
        """See CometService. A push is answered as soon as it is stored; delivery follows in the same turn."""
        if not pushes:
            return succeed([])
        channels = list(map(self.channels.get, [push.key for push in pushes]))
        batch = _PushBatch(pushes, channels)
        self._unanswered.sent(batch, pushes)
        floors = [0 if channel is None else channel.floor for channel in channels]
        self._messages.append(records(Append, pushes, floors), partial(self._appended, batch))
        return batch.done

    def forward(self, forwards: Sequence[Forward]) -> Deferred[None]:
        """See CometService."""
        self.counters.notices_received += len(forwards)
        for forward in forwards:
            self._offer(self.channels.get(forward.key), *forward)
        return succeed(None)

    def _appended(
        self, batch: _PushBatch, indexes: Sequence[int], results: Sequence[Appended] | UnavailableError
    ) -> None:
        if isinstance(results, UnavailableError):
            self._not_appended(batch, indexes, 0 if isinstance(results, NotTriedError) else NOT_REACHED)
        else:
            self._offer_all(batch, indexes, results)
        if batch.answered:
            self._unanswered.answered(batch)

    def _offer_all(self, batch: _PushBatch, indexes: Sequence[int], results: Sequence[Appended]) -> None:
        rets, mids, _, _ = zip(*results, strict=True)
        batch.answer(indexes, records(Pushed, rets, mids))
        stored: list[str] = []
        alone = self._coordination.view.alone(self.id) and not self._earlier_owners.views
        offer, hops = self._offer, 0 if alone else MAX_FORWARD_HOPS
        pushes, channels = batch.pushes, batch.channels
        for index, (ret, mid, previous, repeat) in zip(indexes, results, strict=True):
            if ret == RET_OK:
                push, channel = pushes[index], channels[index]
                key = push.key
                stored.append(key)
                if channel is None or not channel.live:  # else it still is the key's channel
                    channel = self.channels.get(key)
                # A repeat may carry another body than the first push: what was stored then is read, if it was kept.
                offer(channel, key, mid, previous, None if repeat and push.expire else push.body, hops)
        if ret == RET_OK and not repeat:  # of the last one: more would tell nothing new
            self._store_time.gave(mid)
        self._rates.count(stored)
        self.counters.messages_succeeded += len(stored)
        self.counters.messages_failed += len(results) - len(stored)

    def _not_appended(self, batch: _PushBatch, indexes: Sequence[int], why: int) -> None:
        self.counters.messages_failed += len(indexes)
        batch.answer(indexes, [Pushed(RET_INTERNAL, why)] * len(indexes))
        # They may have been stored all the same, or will be until their deadline: the logs are compared.
        keys = {key: None for index in indexes if (key := batch.pushes[index].key) in self.channels}
        self._sweep(keys)
        if keys and not self._doubts:
            self._doubts = True
            self.clock.callLater(DOUBT_SECONDS, self._look_again, {})
        self._doubtful.update(keys)

    def _look_again(self, keys: dict[str, None]) -> None:
        """Compare these logs once more: none of their pushes can be stored any later. Then those that came since."""
        self._sweep(keys)
        doubtful, self._doubtful = self._doubtful, {}
        self._doubts = bool(doubtful)
        if doubtful:
            self.clock.callLater(DOUBT_SECONDS, self._look_again, doubtful)

    def _sweep(self, keys: Iterable[str]) -> None:
        channels = map(self.channels.get, keys)
        self.delivery.sweep([channel for channel in channels if channel is not None])

    def _offer(self, channel: Channel | None, key: str, mid: int, previous: int, body: bytes | None, hops: int) -> None:
        """Deliver to subscribers here; forward to the owner where that is another comet, or may be (the fields of a
        Forward), and to those that had the key a moment ago.
        """
        try:
            if channel is not None:
                channel.offer(mid, previous, body)
                self.delivery.touch(channel)
            if hops:
                owner = self._coordination.view.owner(key)
                if owner is not None and owner.id == self.id and not self._coordination.connected:
                    owner = self._comets.beside(self.id, key)  # it may know of a new owner
                if owner is not None and owner.id != self.id:
                    self.counters.notices_sent += 1
                    self._comets.forward(owner.id, Forward(key, mid, previous, body, hops - 1), self.id)
                if self._earlier_owners.views and hops == MAX_FORWARD_HOPS:  # the first comet alone tells them
                    for id in self._earlier_owners.of(key):
                        self.counters.notices_sent += 1
                        self._comets.forward(id, Forward(key, mid, previous, body, 0))
        except Exception:
            self.guard.caught("offering a message to a channel")
            self.delivery.sweep(() if channel is None else (channel,))


class _PushBatch:
    """Gathers the answers to a call's pushes, in their order; `channels`: those that their keys had when they came."""

    __slots__ = ("_answers", "_left", "channels", "done", "pushes")

    def __init__(self, pushes: Sequence[Push], channels: Sequence[Channel | None]) -> None:
        self.channels = channels
        self.done: Deferred[list[Pushed]] = Deferred()
        self.pushes = pushes
        self._answers = [Pushed(RET_INTERNAL, 0)] * len(pushes)
        self._left = len(pushes)

    @property
    def answered(self) -> bool:
        return not self._left

    def answer(self, indexes: Sequence[int], answers: Sequence[Pushed]) -> None:
        if indexes == range(len(self.pushes)):  # all of them, in their order
            self._answers = list(answers)
        else:
            for index, answer in zip(indexes, answers, strict=True):
                self._answers[index] = answer
        self._left -= len(indexes)
        if not self._left:
            self.done.callback(self._answers)
