"""Any sequence of calls, on every store, against a model of what a key's log is."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from gopush.errors import RET_INTERNAL, RET_OK
from gopush.message.rules import remembered_until
from gopush.model import MID_STEP, Append, Appended, Head, Message, Read, mid_at
from tests.message.conftest import OpenStore
from tests.message.subject import Subject

KEYS = st.sampled_from(["a", "b", "\N{SNOWMAN}"])
STORE = 4
SECONDS_AHEAD = 30
OWN = "own"
"""How web's own ids begin here: they are remembered until the deadline."""


@dataclass
class Log:
    """One key, as plain as can be."""

    last: int = 0
    trimmed: int = 0
    messages: list[tuple[int, float, bytes]] = field(default_factory=list)
    firsts: dict[str, tuple[Appended, float]] = field(default_factory=dict)

    def live(self, now: float) -> list[tuple[int, float, bytes]]:
        return [message for message in self.messages if message[1] > now]


@st.composite
def pushes(draw: st.DrawFn) -> dict[str, object]:
    """An append, but for what depends on the clock."""
    return {
        "key": draw(KEYS),
        "body": draw(st.binary(max_size=6)),
        "expire": draw(st.sampled_from([0, 3, 600, 600])),
        "id": draw(st.sampled_from(["", "", "x", "y", OWN, f"{OWN}2"])),
        "dedupe": draw(st.sampled_from([5, 60])),
        "ahead": draw(st.sampled_from([None, None, None, 0, SECONDS_AHEAD])),
        "late": draw(st.sampled_from([False, False, False, True])),
    }


class Machine(RuleBasedStateMachine):
    """`subject` and `run` are set by the test."""

    subject: Subject
    run = 0

    def __init__(self) -> None:
        super().__init__()
        Machine.run += 1
        self.logs: dict[str, Log] = {}

    def name(self, key: str) -> str:
        return f"{key}{Machine.run}"

    def log(self, key: str) -> Log:
        return self.logs.setdefault(key, Log())

    @rule(batch=st.lists(pushes(), min_size=1, max_size=6))
    def append(self, batch: list[dict[str, object]]) -> None:
        now = self.subject.now()
        items = [self.item(now, **request) for request in batch]  # type: ignore[arg-type]
        answers = self.subject.append(*items)
        for item, answer in zip(items, answers, strict=True):
            self.appended(now, item, answer)
        for key in {request["key"] for request in batch}:
            self.trim(self.log(str(key)), now)

    def item(
        self, now: float, key: str, body: bytes, expire: int, id: str, dedupe: int, ahead: int | None, late: bool
    ) -> Append:
        floor = 0 if ahead is None else mid_at(now + ahead)
        deadline = now - 1 if late else now + 60
        if self.subject.clock is None:  # no time to be short of: it may stand still for seconds in a busy machine
            expire, dedupe = min(expire, 1) * 600, 60
        if id.startswith(OWN):
            id, dedupe = f"{id}{Machine.run}", 0
        return self.subject.item(
            self.name(key), body, expire=expire, id=id, dedupe=dedupe, floor=floor, deadline=deadline
        )

    def appended(self, now: float, item: Append, answer: Appended) -> None:
        push = item.push
        log = self.log(push.key.removesuffix(str(Machine.run)))
        first, until = log.firsts.get(push.id, (None, 0.0))
        if first is not None and now < until:
            assert answer == first._replace(repeat=True)
            log.firsts[push.id] = (first, max(until, remembered_until(push, now)))
        elif now > push.deadline:
            assert answer == Appended(RET_INTERNAL, 0, 0, False)
        else:
            self.sequenced(log, now, item, answer)

    def sequenced(self, log: Log, now: float, item: Append, answer: Appended) -> None:
        push, floor = item
        least = max(log.last + MID_STEP, floor + MID_STEP, mid_at(now))
        assert answer == Appended(RET_OK, answer.mid, log.last, False)
        assert answer.mid % MID_STEP == 0
        assert least <= answer.mid <= max(least, mid_at(self.subject.now()))
        log.last = answer.mid
        if push.id:
            log.firsts[push.id] = (answer, remembered_until(push, now))
        if push.expire:
            log.messages.append((answer.mid, now + push.expire, push.body))

    @staticmethod
    def trim(log: Log, now: float) -> None:
        if len(log.messages) > STORE:
            log.messages = log.live(now)
        while len(log.messages) > STORE:
            log.trimmed = log.messages.pop(0)[0]

    @rule(key=KEYS, skip=st.integers(0, 6), off=st.sampled_from([-1, 0, 1]), limit=st.integers(1, 6))
    def read(self, key: str, skip: int, off: int, limit: int) -> None:
        log = self.log(key)
        live = log.live(self.subject.now())
        after = ([0, *(mid for mid, _, _ in live)] * 7)[skip] + off
        expected = [Message(mid, body) for mid, _, body in live if mid > after]
        page = self.subject.reads([Read(self.name(key), after, limit)])[0]
        assert page == (expected[:limit], Head(log.last, log.trimmed), len(expected) > limit)

    @rule()
    def heads(self) -> None:
        keys = [*self.logs, "nobody"]
        expected = [Head(log.last, log.trimmed) for log in self.logs.values()]
        assert self.subject.heads([self.name(key) for key in keys]) == [*expected, Head(0, 0)]

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        self.subject.delete(self.name(key))
        self.log(key).messages = []

    @rule(key=KEYS)
    def created(self, key: str) -> None:
        state = self.subject.check_token(self.name(key), b"none")
        assert state == (bool(self.log(key).live(self.subject.now())), False)

    @precondition(lambda self: self.subject.clock is not None)
    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0, 61.0, 700.0]))
    def wait(self, seconds: float) -> None:
        self.subject.wait(seconds)

    @rule()
    def purge(self) -> None:
        self.subject.purge()

    @precondition(lambda self: self.subject.kind == "sqlite")
    @rule()
    def reopen(self) -> None:
        self.subject.reopen()


def test_any_calls(kind: str, open_store: OpenStore) -> None:
    subject = open_store(kind, store=STORE)
    machine = type("Machine", (Machine,), {"subject": subject})
    examples = {"memory": 100, "sqlite": 40, "redis": 60, "hbase": 8}[kind]
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
