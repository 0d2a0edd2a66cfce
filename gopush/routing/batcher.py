"""A batcher carries calls to one peer in batches: while one is under way, what arrives gathers into the next.

Alone a call goes at the end of the reactor's turn; under load batches grow by themselves, and order is kept. Calls that
come together travel together, as one PendingCalls: what is done for it need not be done for each message. Whoever has
gathered them has waited for the end of the turn, so they go at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from gopush.errors import PeerRefusedError
from gopush.net.clock import MOST_WAITS, Clock
from gopush.routing.pending import PendingCalls, Refusal, Waiting, break_off, part_refused, pass_on, singles_of
from gopush.routing.stat import BatcherStats
from gopush.rpc.settings import RpcSettings

LEAST_ROOM_BYTES = 64 << 10
"""What a batch may hold after one that was not answered in time; the next ones twice as much while they are quick."""
SLACK_SECONDS = 0.01
"""How long after its deadline a call may be answered: so one that goes at once needs no timer of its own."""

SendBatch = Callable[[list[Any]], "Deferred[list[Any]]"]


class Batcher:
    """One unanswered batch at a time. When one fails, all that has no answer yet is handed to `gave_up`, in order, with
    what the peer said, "" where that is nothing.

    `moved` takes what waits when the batcher has to hand it over. `sent_back` takes the calls that the peer refused,
    each with its answer, and what waits behind them; `refused` tells such an answer. A batch has at most `most` calls,
    if no PendingCalls has more, besides what the settings say. Batchers may share `numbers`, and `at_peer`: this bounds
    them together, and each has room for a batch all the same, whatever waits in the others. What has no answer after
    `timeout` seconds is given up, once all that has come meanwhile was read; where `going_on` says that the answer is
    on its way, it gets as long again, MOST_WAITS times at most, whatever its callers' time is.
    """

    __slots__ = (
        *("_answers", "_at_peer", "_bytes", "_call", "_calls", "_clock", "_filled", "_gave_up", "_going_on"),
        *("_handing_over", "_handling", "_most", "_moved", "_numbers", "_overdue", "_refused", "_room", "_scheduled"),
        *("_send", "_sending", "_sent", "_sent_back", "_settings", "_timeout", "_took", "_waiting", "_waits", "_watch"),
    )

    def __init__(
        self,
        clock: Clock,
        send: SendBatch,
        timeout: float,
        settings: RpcSettings,
        gave_up: Callable[[list[PendingCalls], str], None],
        moved: Callable[[list[PendingCalls]], None],
        most: int | None = None,
        numbers: BatcherStats | None = None,
        refused: Callable[[Any], bool] | None = None,
        sent_back: Callable[[list[Refusal], list[PendingCalls]], None] | None = None,
        going_on: Callable[[], bool] | None = None,
        at_peer: Waiting | None = None,
    ) -> None:
        self._clock = clock
        self._send = send
        self._timeout = timeout
        self._settings = settings
        self._gave_up = gave_up
        self._moved = moved
        self._most = settings.batch_messages if most is None else min(most, settings.batch_messages)
        self._numbers = numbers or BatcherStats()
        self._refused = refused
        self._sent_back = sent_back
        self._going_on = going_on
        self._handing_over = False
        self._room = settings.batch_bytes
        self._filled = False
        self._took = 0.0
        self._waiting: deque[PendingCalls] = deque()
        self._calls = 0  # that wait, and their bytes
        self._bytes = 0
        self._at_peer = at_peer or Waiting()
        self._sent: list[PendingCalls] = []
        self._scheduled = False
        self._sending = False
        self._handling = False
        self._call: Deferred[list[Any]] | None = None
        self._overdue = 0.0
        self._waits = 0
        self._watch: Any = None
        self._answers: deque[tuple[list[PendingCalls], list[Any]]] = deque()

    @property
    def busy(self) -> bool:
        """Whether something has no answer yet."""
        return bool(self._sent or self._waiting)

    @property
    def waiting(self) -> tuple[int, int]:
        """How many calls wait for their turn, and their bytes."""
        return self._calls, self._bytes

    @property
    def unanswered(self) -> list[PendingCalls]:
        """What has no answer yet, in order."""
        return [pending for pending in (*self._sent, *self._waiting) if not pending.ended]

    def put(self, pending: PendingCalls, gathered: bool = False) -> None:
        """Queue calls; they fail where the batcher has no room for them."""
        calls, at_peer, settings = len(pending.items), self._at_peer, self._settings
        full = at_peer.calls + calls > settings.lane_messages or at_peer.bytes > settings.lane_bytes
        if full and not self._has_room(calls):
            self._numbers.counters.refused += calls
            pending.refuse("too many calls wait for this peer")
            return
        self._waiting.append(pending)
        self._calls += calls
        self._bytes += pending.size
        at_peer.calls += calls
        at_peer.bytes += pending.size
        if self._sent or self._scheduled:
            return
        if gathered and not self._handling and not self._sending:
            self._send_batches()
        else:
            self._scheduled = True
            self._clock.callLater(0, self._send_batches)

    def _has_room(self, calls: int) -> bool:
        """For a batch: a store that hangs, or takes less than comes, must not shut out the others."""
        settings = self._settings
        most, most_bytes = min(self._most, settings.lane_messages), min(settings.batch_bytes, settings.lane_bytes)
        return self._calls + calls <= most and self._bytes <= most_bytes

    def give_up(self, said: str = "") -> None:
        """Hand over all that has no answer; an answer that comes late is ignored."""
        sent, self._sent = self._sent, []
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if sent or self._waiting:
            left = [*singles_of(sent), *self._take_waiting()]
            pass_on(left, self._gave_up, left, said)

    def hand_over(self) -> None:
        """Hand over what waits, once the batch under way is answered: until then its keys stay here."""
        self._handing_over = bool(self._sent)
        if not self._sent and self._waiting:
            self._move()

    def _move(self) -> None:
        waiting = self._take_waiting()
        pass_on(waiting, self._moved, waiting)

    def _take_waiting(self) -> list[PendingCalls]:
        singles = singles_of(self._waiting)
        self._waiting.clear()
        self._at_peer.calls -= self._calls
        self._at_peer.bytes -= self._bytes
        self._calls = self._bytes = 0
        self._handing_over = False
        return singles

    def _send_batches(self) -> None:
        """A peer in this process may answer at once: then the next batch goes from here, not from within its answer:
        there may be thousands. What is put meanwhile goes at the end of the turn.
        """
        self._scheduled, self._sending = False, True
        while self._waiting and not self._sent and not self._scheduled:
            if not (batch := self._gather()):
                break
            self._sent = batch
            items = [item for pending in batch for item in pending.items]
            self._numbers.sizes.observe(len(items))
            self._waits = 0
            self._overdue = self._clock.seconds() + self._timeout
            call = self._call = maybeDeferred(self._send, items)
            call.addCallbacks(self._answered, self._failed, callbackArgs=(batch, len(items)), errbackArgs=(batch,))
            call.addErrback(self._broken_off, batch)
            if self._watch is None and self._sent:
                self._watch = self._clock.callLater(self._timeout, self._look)
        self._sending = False
        if not self._handling:
            self._handle_answers()

    def _handle_answers(self) -> None:
        self._handling = True
        while self._answers:
            batch, answers = self._answers.popleft()
            at = 0
            for pending in batch:
                end = at + len(pending.items)
                try:
                    pending.answer(answers[at:end])
                except Exception:
                    break_off((pending,))
                at = end
        self._handling = False

    def _look(self, last: bool = False) -> None:
        """One timer for all batches: whether the one under way is overdue, after a last look (clock.LastLook)."""
        self._watch = None
        if not self._sent:
            return
        left = self._overdue - self._clock.seconds()
        if left > 0:
            self._watch = self._clock.callLater(left, self._look)
        elif not last:
            self._watch = self._clock.callLater(0, self._look, True)
        elif self._going_on is not None and self._waits < MOST_WAITS and self._going_on():
            self._waits += 1
            for pending in self._waiting:
                pending.limit(self._clock)
            self._overdue = self._clock.seconds() + self._timeout
            self._watch = self._clock.callLater(self._timeout, self._look)
        elif self._call is not None:
            self._room = min(self._room, LEAST_ROOM_BYTES)
            self._call.cancel()

    def _gather(self) -> list[PendingCalls]:
        batch: list[PendingCalls] = []
        room, calls_left = self._room, self._most
        now = self._clock.seconds()
        at_peer = self._at_peer
        took, self._took = self._took, 0.0
        while self._waiting:
            pending = self._waiting[0]
            calls = len(pending.items)
            big = pending.size > room
            if batch and (calls > calls_left or big):
                break
            self._waiting.popleft()
            if big and calls > 1:
                self._waiting.extendleft(reversed(pending.singles()))
                continue
            self._calls -= calls
            self._bytes -= pending.size
            at_peer.calls -= calls
            at_peer.bytes -= pending.size
            if pending.until <= now + took:
                self._numbers.counters.late += calls
                pending.fail("it waited too long for its turn")
                continue
            if pending.until < now + self._timeout - SLACK_SECONDS:
                pending.limit(self._clock)
            calls_left -= calls
            room -= pending.size
            batch.append(pending)
        self._filled = bool(self._waiting)
        return batch

    def _answered(self, answers: list[Any], batch: list[PendingCalls], calls: int) -> None:
        if batch is not self._sent:
            return
        self._sent = []
        took = self._clock.seconds() + self._timeout - self._overdue
        most_bytes = self._settings.batch_bytes
        if self._room < most_bytes and took < self._timeout / 4 and sum(sent.size for sent in batch) > self._room // 2:
            self._room = min(self._room * 2, most_bytes)
        if len(answers) != calls:
            self._sent = batch
            self.give_up()
            return
        if self._refused is not None and any(map(self._refused, answers)):
            self._scheduled = True  # a caller that hears of it may call again, and waits
            batch, answers = self._send_back(batch, answers, self._refused)
            self._scheduled = False
        self._answers.append((batch, answers))
        if self._handing_over:
            self._move()
        if self._filled and self._waiting:
            # Where more comes than the peer takes, what waits is old: what it answers too late keeps it from the rest.
            self._took = min(took, self._timeout - SLACK_SECONDS)  # more is a freeze; whoever has all its time goes
        if not self._sending:
            # The next batch goes out first, so that the peer works while the answers are handled here, in order.
            self._send_batches()

    def _send_back(
        self, batch: list[PendingCalls], answers: list[Any], refused: Callable[[Any], bool]
    ) -> tuple[list[PendingCalls], list[Any]]:
        """Hand over the calls that were refused; the others with their answers."""
        kept, back = part_refused(batch, answers, refused)
        if back and self._sent_back is not None:
            behind = self._take_waiting()
            pass_on([*(single for single, _ in back), *behind], self._sent_back, back, behind)
        return [single for single, _ in kept], [answer for _, answer in kept]

    def _failed(self, failure: Failure, batch: list[PendingCalls]) -> None:
        if batch is self._sent:
            self.give_up(failure.getErrorMessage() if failure.check(PeerRefusedError) else "")

    def _broken_off(self, failure: Failure, batch: list[PendingCalls]) -> None:
        """An error in gopush is the outcome of this batch; what waits goes on, whatever that error left half done."""
        if batch is self._sent:
            self._sent = []
        self._scheduled = True
        self._clock.callLater(0, self._send_batches)
        break_off(batch, failure)
