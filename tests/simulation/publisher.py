"""Those who push: each waits for its answer; some repeat a push that was not answered 0, elsewhere, under its id."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import TYPE_CHECKING

from gopush.errors import RET_INTERNAL, RET_OK
from gopush.model import Pushed
from gopush.web.params import PublishRequest
from tests.simulation.history import Record
from tests.simulation.process import RPC, WebProcess

if TYPE_CHECKING:
    from tests.simulation.world import World

EPSILON_SECONDS = 0.05
LATE_SECONDS = 10.0
STEADY_SECONDS = 2.5
PATIENCE_SECONDS = RPC.push_deadline + 2.0


class Attempt:
    """One call of a publisher."""

    __slots__ = ("answered", "body", "expire", "id", "key", "mid", "ret", "sent", "tries", "ways", "web")

    def __init__(self, key: str, body: bytes, expire: int, push_id: str | None, tries: int) -> None:
        self.key = key
        self.body = body
        self.expire = expire
        self.id = push_id
        self.tries = tries
        self.web: WebProcess | None = None
        self.sent = 0.0
        self.ways: set[tuple[str, str]] = set()
        self.answered: float | None = None
        self.ret = -1
        self.mid = 0


class Bulk:
    """A bulk call: lines of one key, which come in groups, as a stream does."""

    def __init__(self, world: World, web: WebProcess, lines: list[Attempt]) -> None:
        self._world = world
        self._web = web
        self._lines = lines
        self._answers: dict[int, Pushed] = {}

    def send(self, first: int, end: int, answered: Callable[[Pushed, Attempt], object]) -> None:
        """A group has come in."""
        group = self._lines[first:end]
        for line in group:
            line.sent = self._world.clock.now
        requests = [PublishRequest(line.key, line.body, line.expire, line.id) for line in group]
        self._web.publisher.push(requests, partial(self._answered, first, answered))

    def _answered(
        self,
        first: int,
        answered: Callable[[Pushed, Attempt], object],
        indexes: Sequence[int],
        answers: Sequence[Pushed],
    ) -> None:
        for index, pushed in zip(indexes, answers, strict=True):
            self._answers[first + index] = pushed
            answered(pushed, self._lines[first + index])
        if len(self._answers) == len(self._lines):
            self._check()

    def _check(self) -> None:
        """Those that were stored keep the order of the lines (docs/delivery.md), unless the store forgot some."""
        key = self._lines[0].key
        history = self._world.history.of(key)
        indexes = [index for index in range(len(self._lines)) if self._answers[index].ret == RET_OK]
        mids = [self._answers[index].mid for index in indexes]
        if mids != sorted(mids) and history.highest_lost < min(mids):
            self._world.violated(8, key, f"lines {indexes} of a bulk call got the mids {mids}")


class Publishers:
    """All who push in a run."""

    def __init__(self, world: World) -> None:
        self.attempts: list[Attempt] = []
        self._world = world
        self._count = 0

    def push(self, key: str, expire: int, padding: int = 0, tries: int = 1) -> None:
        """Push a message that no other one equals; with an id of its own where it may be tried again."""
        self._count += 1
        body = b'"%s-%d%s"' % (key.encode(), self._count, b"." * padding)
        push_id = f"id-{self._count}" if tries > 1 else None
        self._send(Attempt(key, body, expire, push_id, tries))

    def bulk(self, key: str, groups: list[int], pause: float) -> None:
        """A bulk call with so many lines in each group."""
        web = self._world.some_web()
        if web is None:
            return
        lines = []
        for _ in range(sum(groups)):
            self._count += 1
            line = Attempt(key, b'"%s-%d"' % (key.encode(), self._count), 600, None, 1)
            line.web = web
            lines.append(line)
        self._world.note("bulk", key, groups, web.address)
        bulk = Bulk(self._world, web, lines)
        first = 0
        for number, size in enumerate(groups):
            self._world.clock.after(number * pause, bulk.send, first, first + size, self._answered, owner=web)
            first += size

    def check(self) -> None:
        """At the end: what was stored after its refusal, until its deadline, came soon to who was there."""
        world = self._world
        for attempt in self.attempts:
            if attempt.ret != RET_INTERNAL or attempt.answered is None or len(world.comet_addresses) > 1:
                continue  # of several comets the one that was asked may not have the subscribers
            for record in world.history.of(attempt.key).records:
                if record.push.body == attempt.body and record.kept and record.time > attempt.answered:
                    self._check_late(attempt, record)

    def _check_late(self, attempt: Attempt, record: Record) -> None:
        world = self._world
        due = max(record.time, world.healed_at) + LATE_SECONDS
        if due > world.clock.now or record.gone <= due:
            return
        for subscriber in world.subscribers:
            was_there = any((one.accepted or inf) < record.time for one in subscriber.connections)
            owed = was_there and not subscriber.gone and subscriber.key == attempt.key
            if owed and subscriber.got.get(record.mid, inf) > due:
                self._violated(5, attempt, f"was refused, stored at {record.time:.3f}, and comes late")

    def _send(self, attempt: Attempt) -> None:
        web = self._world.some_web()
        if web is None:
            return
        attempt.web = web
        attempt.sent = self._world.clock.now
        self.attempts.append(attempt)
        self._world.note("push", attempt.key, attempt.body[:24].decode(), attempt.expire, attempt.id, web.address)
        self._world.clock.after(0.0005, self._call, attempt, web, owner=web)
        self._world.clock.after(PATIENCE_SECONDS, self._unanswered, attempt)

    def _call(self, attempt: Attempt, web: WebProcess) -> None:
        attempt.ways = self._world.ways_to_store(web, attempt.sent - STEADY_SECONDS)
        answer = web.push(attempt.key, attempt.body, attempt.expire, attempt.id)
        answer.addCallback(self._answered, attempt)

    def _answered(self, pushed: Pushed, attempt: Attempt) -> None:
        world, now = self._world, self._world.clock.now
        attempt.answered, attempt.ret, attempt.mid = now, pushed.ret, pushed.mid
        world.note("answer", attempt.key, attempt.body[:24].decode(), pushed.ret, pushed.mid - world.first_mid)
        web = attempt.web
        assert web is not None
        late = now - attempt.sent - RPC.push_deadline
        if late > EPSILON_SECONDS and web.steady_since(attempt.sent):
            self._violated(6, attempt, f"was answered {late:.3f} s after its deadline")
        if pushed.ret == RET_OK:
            self._check_stored(attempt)
            return
        if ways := attempt.ways & world.ways_to_store(web, attempt.sent - STEADY_SECONDS):
            self._violated(8, attempt, f"was answered {pushed.ret} while {min(ways)} live")
        self._try_again(attempt)

    def _check_stored(self, attempt: Attempt) -> None:
        records = self._world.history.of(attempt.key).by_mid.get(attempt.mid, [])
        if not any(record.push.body == attempt.body for record in records):
            self._violated(1, attempt, f"was answered {attempt.mid}, but is not stored under it")

    def _unanswered(self, attempt: Attempt) -> None:
        web = attempt.web
        if attempt.answered is not None or web is None:
            return
        if web.steady_since(attempt.sent):
            self._violated(8, attempt, "was never answered")
        self._try_again(attempt)

    def _try_again(self, attempt: Attempt) -> None:
        if attempt.tries > 1:
            again = Attempt(attempt.key, attempt.body, attempt.expire, attempt.id, attempt.tries - 1)
            self._world.clock.after(self._world.random.random(), self._send, again)

    def _violated(self, rule: int, attempt: Attempt, what: str) -> None:
        self._world.violated(rule, attempt.key, f"the push {attempt.body[:24]!r} {what}")
