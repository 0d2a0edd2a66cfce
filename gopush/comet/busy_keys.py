"""The busiest keys of a comet: which get most pushes now, and which have most connections."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from heapq import nlargest
from itertools import chain, islice

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from gopush.comet.channel import Channel
from gopush.comet.counters import CometCounters
from gopush.errors import UnavailableError
from gopush.net.clock import Clock, pause
from gopush.reports import BusyKey

MOST = 1000
MOST_PREFIXES = 16
"""How many prefixes callers may ask for at a time; a call for one more fails."""
SLICE_KEYS = 250
"""How many keys are looked at in one turn of the reactor: a millisecond, on the average."""
WALK_SECONDS = 0.4
"""For all prefixes that wait together. Who asks meanwhile has an answer in twice that; callers wait for a second."""


@dataclass(eq=False, repr=False)
class BusyKeys:
    """Walks over all keys, a slice in each turn; one walk at a time, for all who ask for keys that begin so. `rates`:
    pushes a second of keys that get pushes, with or without subscribers.
    """

    _clock: Clock
    _counters: CometCounters
    _channels: Mapping[str, Channel]
    _rates: Callable[[], Mapping[str, float]]
    _asking: dict[str, list[Deferred[list[BusyKey]]]] = field(default_factory=dict, init=False)
    _walking: bool = field(default=False, init=False)

    def find(self, prefix: str, most: int) -> Deferred[list[BusyKey]]:
        """Keys that begin so, as many as can be looked at in time: those with most pushes first, then those with most
        connections; at most MOST."""
        if prefix not in self._asking and len(self._asking) >= MOST_PREFIXES:
            return fail(UnavailableError("too many calls ask for the busiest keys at once"))
        asked: Deferred[list[BusyKey]] = Deferred()
        self._asking.setdefault(prefix, []).append(asked)
        if not self._walking:
            Deferred.fromCoroutine(self._answer_all())
        return asked.addCallback(lambda found: found[: max(0, most)])

    async def _answer_all(self) -> None:
        self._walking = True
        while together := list(self._asking):
            for prefix in together:
                outcome: list[BusyKey] | Failure
                try:
                    outcome = await self._walk(prefix, WALK_SECONDS / len(together))
                except Exception:
                    outcome = Failure()
                for asked in self._asking.pop(prefix):
                    asked.callback(outcome)  # a Failure counts as one; who asked may ask again
        self._walking = False

    async def _walk(self, prefix: str, seconds: float) -> list[BusyKey]:
        until = self._clock.seconds() + seconds
        rates = self._rates()
        keys = chain(rates, (key for key in list(self._channels) if key not in rates))
        found: list[BusyKey] = []
        while some := list(islice(keys, SLICE_KEYS)):
            if self._clock.seconds() >= until:
                self._counters.busy_keys_cut_short += 1
                break
            found = self._busiest(found, self._look(some, prefix, rates))
            await pause(0, self._clock)
        return found

    def _busiest(self, found: list[BusyKey], others: Iterable[BusyKey]) -> list[BusyKey]:
        if len(found) == MOST:
            least = _business(found[-1])
            others = [busy for busy in others if _business(busy) > least]
            if not others:
                return found  # as of nearly all slices, and to choose costs more than to look
        return nlargest(MOST, chain(found, others), key=_business)

    def _look(self, keys: Iterable[str], prefix: str, rates: Mapping[str, float]) -> Iterable[BusyKey]:
        for key in keys:
            if key.startswith(prefix):
                channel = self._channels.get(key)
                yield BusyKey(key, 0 if channel is None else channel.subscribers, round(rates.get(key, 0.0), 3))


def _business(busy: BusyKey) -> tuple[float, int]:
    return busy.rate, busy.connections
