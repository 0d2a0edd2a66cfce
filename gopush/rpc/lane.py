"""A lane carries calls to one peer in batches: while one is under way, what arrives gathers into the next.

Alone a call goes at the end of the reactor's turn; under load batches grow by themselves, and order is kept. There is
one Deferred for a batch and a plain function for a call: a Deferred for each message costs more than all else here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from gopush.clock import Clock, within
from gopush.errors import UnavailableError
from gopush.rpc.counters import LaneNumbers
from gopush.rpc.settings import RpcSettings

Send = Callable[[list[Any]], "Deferred[list[Any]]"]
Answered = Callable[[Any], object]
"""Takes the answer to a call, or the UnavailableError that stands in its place."""

log = Logger()


class Entry:
    """One call in a lane. It is worth nothing after `until` (reactor seconds); `tried` are the peers that failed it.

    `answered` is called once. Once the call is limited it fails at `until`, whatever it waits for. `peer` has it, or
    will have it. `last` holds the last unanswered call of each key, where that matters.
    """

    __slots__ = ("_answered", "_limit", "ended", "item", "key", "last", "peer", "size", "tried", "until")

    def __init__(self, key: str, item: Any, size: int, until: float, answered: Answered) -> None:
        self.key = key
        self.item = item
        self.size = size
        self.until = until
        self.tried: tuple[str, ...] = ()
        self.peer: Any = None
        self.last: dict[str, Entry] | None = None
        self.ended = False
        self._answered = answered
        self._limit: Any = None

    def limit(self, clock: Clock) -> None:
        """From now on the call ends with its time."""
        if self._limit is None:
            self._limit = clock.callLater(max(self.until - clock.seconds(), 0), self.fail, "no peer answered in time")

    def answer(self, result: Any) -> None:
        """The call has a result, unless it has ended."""
        if self.ended:
            return
        self.ended = True
        if self.last is not None and self.last.get(self.key) is self:
            del self.last[self.key]
        if self._limit is not None and self._limit.active():
            self._limit.cancel()
        try:
            self._answered(result)
        except Exception:
            log.failure("an answer was not taken")

    def fail(self, reason: str) -> None:
        """The call has no result."""
        self.answer(UnavailableError(reason))


class Lane:
    """One unanswered batch at a time. When one fails, all that has no answer yet is handed to `gave_up`, in order.

    `moved` takes what waits when the lane is told to hand it over. A batch has at most `most` calls, besides what the
    settings say. `numbers` may be shared with other lanes.
    """

    __slots__ = (
        "_answers",
        "_bytes",
        "_clock",
        "_gave_up",
        "_handing_over",
        "_most",
        "_moved",
        "_numbers",
        "_scheduled",
        "_send",
        "_sent",
        "_settings",
        "_timeout",
        "_waiting",
    )

    def __init__(
        self,
        clock: Clock,
        send: Send,
        timeout: float,
        settings: RpcSettings,
        gave_up: Callable[[list[Entry]], None],
        moved: Callable[[list[Entry]], None],
        most: int | None = None,
        numbers: LaneNumbers | None = None,
    ) -> None:
        self._clock = clock
        self._send = send
        self._timeout = timeout
        self._settings = settings
        self._gave_up = gave_up
        self._moved = moved
        self._most = settings.batch_messages if most is None else min(most, settings.batch_messages)
        self._numbers = numbers or LaneNumbers()
        self._handing_over = False
        self._waiting: deque[Entry] = deque()
        self._bytes = 0
        self._sent: list[Entry] = []
        self._scheduled = False
        self._answers: deque[tuple[list[Entry], list[Any]]] = deque()

    @property
    def busy(self) -> bool:
        """Whether something has no answer yet."""
        return bool(self._sent or self._waiting)

    @property
    def waiting(self) -> tuple[int, int]:
        """How many calls wait for their turn, and their bytes."""
        return len(self._waiting), self._bytes

    def put(self, entry: Entry) -> None:
        """Queue a call; it fails where the lane is full."""
        if len(self._waiting) >= self._settings.lane_messages or self._bytes > self._settings.lane_bytes:
            self._numbers.counters.refused += 1
            entry.fail("too much waits for this peer")
            return
        self._waiting.append(entry)
        self._bytes += entry.size
        if not self._sent and not self._scheduled:
            self._scheduled = True
            self._clock.callLater(0, self._turn_ended)

    def give_up(self) -> None:
        """Hand over all that has no answer; an answer that comes late is ignored."""
        sent, self._sent = self._sent, []
        if entries := [*sent, *self._take_waiting()]:
            self._gave_up(entries)

    def hand_over(self) -> None:
        """Hand over what waits, once the batch under way is answered: until then its keys stay here."""
        self._handing_over = bool(self._sent)
        if not self._sent and self._waiting:
            self._moved(self._take_waiting())

    def _take_waiting(self) -> list[Entry]:
        entries = list(self._waiting)
        self._waiting.clear()
        self._bytes = 0
        self._handing_over = False
        return entries

    def _turn_ended(self) -> None:
        self._scheduled = False
        if not self._sent:
            self._send_batch()

    def _send_batch(self) -> None:
        batch = self._gather()
        if not batch:
            return
        self._sent = batch
        self._numbers.sizes.observe(len(batch))
        call = within(self._timeout, self._send([entry.item for entry in batch]), self._clock)
        call.addCallbacks(self._answered, self._failed, callbackArgs=(batch,), errbackArgs=(batch,))

    def _gather(self) -> list[Entry]:
        batch: list[Entry] = []
        room = self._settings.batch_bytes
        now = self._clock.seconds()
        while self._waiting and len(batch) < self._most:
            entry = self._waiting[0]
            if batch and entry.size > room:
                break
            self._waiting.popleft()
            self._bytes -= entry.size
            if entry.until <= now:
                self._numbers.counters.late += 1
                entry.fail("it waited too long for its turn")
                continue
            room -= entry.size
            batch.append(entry)
        return batch

    def _answered(self, answers: list[Any], batch: list[Entry]) -> None:
        if batch is not self._sent:
            return
        self._sent = []
        if len(answers) != len(batch):
            self._sent = batch
            self.give_up()
            return
        # The next batch goes out first, so that the peer works while the answers are handled here, in order.
        self._answers.append((batch, answers))
        if self._handing_over:
            self._moved(self._take_waiting())
        else:
            self._send_batch()
        while self._answers:
            done, results = self._answers.popleft()
            for entry, result in zip(done, results, strict=True):
                entry.answer(result)

    def _failed(self, _: Failure, batch: list[Entry]) -> None:
        if batch is self._sent:
            self.give_up()
