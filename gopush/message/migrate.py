"""`gopush migrate`: moves what one store keeps into another one, as it is; or takes in what gopush-cluster keeps.

What is there already is not moved again, so that a move that was interrupted goes on where it was.
"""

from __future__ import annotations

import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from gopush.message.original import OldLog, Passed
from gopush.message.rules import KeptLog
from gopush.message.sqlite.export import logs, opened
from gopush.model import MIDS_PER_SECOND

TELL_SECONDS = 5.0
CALL_LOGS = 500
CALL_BYTES = 8 << 20
"""What is read before it is handed on."""

Tell = Callable[[str], None]
L = TypeVar("L", KeptLog, OldLog)


class Target(Protocol):
    """A store that takes over (redis/take_over.py, hbase/take_over.py). Calls raise UnavailableError. It is given no
    message of more than `most_body` bytes.
    """

    most_body: int

    async def start(self) -> None:
        """Connect. Raises StartError where it will never do, UnavailableError where it does not answer."""

    def stop(self) -> Deferred[Any]:
        """Let go of it."""

    async def take(self, logs: Sequence[KeptLog], now: float) -> list[KeptLog]:
        """Take these over, but for those that are there already, of which only remembered() is; gives what it took."""

    async def insert(self, logs: Sequence[OldLog]) -> int:
        """Put messages of gopush-cluster where they belong (see placed()); gives how many were not there yet."""


class Original(Protocol):
    """Where gopush-cluster keeps its messages (redis/original.py). Calls raise as those of a target."""

    passed: Passed

    async def start(self) -> None:
        """Connect."""

    async def stop(self) -> None:
        """Let go of it."""

    def logs(self, before: int, now: float) -> AsyncIterator[list[OldLog]]:
        """What has a mid below `before` and has not ended by `now`. A key may come again."""


def migrate(reactor: Any, path: Path, target: Target, passed: Passed, tell: Tell) -> tuple[str, bool]:
    """Make a pass from a SQLite file, and `tell` how it goes; gives what came of it, in words, and whether it was the
    last one: the source was at rest. What stays behind is in `passed`.

    Raises what opened() and the target raise, and KeyboardInterrupt at SIGINT and SIGTERM. `reactor`: one of its own,
    which runs as long as this. `tell` raises nothing.
    """
    moved: tuple[str, bool] = _run(reactor, _pass(path, target, passed, tell), target)
    return moved


def take_in(reactor: Any, source: Original, before: int, target: Target, tell: Tell) -> str:
    """Take in what gopush-cluster has stored before a mid; gives what came of it, in words. What stays behind is in
    the source's `passed`. Raises what source and target raise; see migrate().
    """
    return str(_run(reactor, _take_in(source, before, target, tell), target))


def when(mid: int) -> str:
    """The time of a mid, for people, down to the second."""
    return f"{datetime.fromtimestamp(mid // MIDS_PER_SECOND, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _run(reactor: Any, work: Coroutine[Any, Any, Any], target: Target) -> Any:
    outcome: list[Any] = []
    running: list[Deferred[Any]] = []

    async def whole() -> Any:
        try:
            await target.start()
            return await work
        finally:
            work.close()
            await target.stop()

    def begin() -> None:
        running.append(Deferred.fromCoroutine(whole()))
        running[0].addBoth(outcome.append).addBoth(lambda _: reactor.stop())

    reactor.callWhenRunning(begin)
    with _signals(lambda: reactor.callFromThread(lambda: running[0].cancel())):
        reactor.run(installSignalHandlers=False)
    (found,) = outcome
    if isinstance(found, Failure):
        if found.check(CancelledError):
            raise KeyboardInterrupt
        found.raiseException()
    return found


@contextmanager
def _signals(stop: Callable[[], object]) -> Iterator[None]:
    """SIGINT and SIGTERM call `stop`: the copy of the source must not stay behind."""
    before = {number: signal.signal(number, lambda *_: stop()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def _pass(path: Path, target: Target, passed: Passed, tell: Tell) -> tuple[str, bool]:
    began = time.monotonic()
    with opened(path) as (connection, at_rest):
        now = time.time()
        moved = await _move(target, logs(connection, now, at_rest), now, passed, tell)
    state = "at rest: this was the last pass" if at_rest else "in use: stop it, and make a last pass"
    return f"{moved} moved in {time.monotonic() - began:.1f} s; {path} is {state}", at_rest


async def _move(target: Target, source: Iterator[KeptLog], now: float, passed: Passed, tell: Tell) -> str:
    keys = moved = messages = ids = tokens = 0
    progress = _Progress(tell)
    for some in _batches(source):
        keys += len(some)
        for log in await target.take([_fitting(log, target.most_body, passed) for log in some], now):
            moved += bool(log.last)
            messages += len(log.messages)
            ids += len(log.ids)
            tokens += len(log.tokens)
        progress.tell(f"{keys} keys looked at, {messages} messages moved")
    return f"of {keys} keys {moved}, {messages} messages, {ids} ids, {tokens} tokens"


def _batches(source: Iterator[KeptLog]) -> Iterator[list[KeptLog]]:
    batch: list[KeptLog] = []
    size = 0
    for log in source:
        batch.append(log)
        size += sum(len(body) for _, _, body in log.messages)
        if len(batch) == CALL_LOGS or size > CALL_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


async def _take_in(source: Original, before: int, target: Target, tell: Tell) -> str:
    began, now = time.monotonic(), time.time()
    keys = messages = moved = 0
    progress = _Progress(tell)
    try:
        await source.start()
        async for some in source.logs(before, now):
            keys += len(some)
            messages += sum(len(log.messages) for log in some)
            moved += await target.insert([_fitting(log, target.most_body, source.passed) for log in some])
            progress.tell(f"{keys} keys looked at, {moved} messages moved")
    finally:
        await source.stop()
    passed, seconds = source.passed, time.monotonic() - began
    outcome = (
        f"of {messages} messages of {keys} keys {moved} moved in {seconds:.1f} s; {passed.later} are of later, "
        f"not before {when(before)}"
    )
    if passed.members or passed.keys:
        others = f"{passed.keys} keys that are no sorted sets, {passed.members} members of others"
        outcome += f"\nnot gopush-cluster's: {others}"
    return outcome


def _fitting(log: L, most_body: int, passed: Passed) -> L:
    """What of the log the target can have."""
    fitting = [message for message in log.messages if len(message[2]) <= most_body]
    passed.refuse(log.key.encode(), len(log.messages) - len(fitting))
    return log._replace(messages=fitting)


class _Progress:
    """Tells of it now and then."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._due = time.monotonic() + TELL_SECONDS

    def tell(self, said: str) -> None:
        if time.monotonic() > self._due:
            self._due = time.monotonic() + TELL_SECONDS
            self._tell(said)
