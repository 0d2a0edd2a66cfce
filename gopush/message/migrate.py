"""`gopush migrate`: moves all that one store keeps into another one, mids, heads, expiries, ids and tokens included.

A pass while the source serves takes most of it; the last one, with the source at rest, takes what has changed since.
What is there already is not moved again, so that a move that was interrupted goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from gopush.message.redis.settings import RedisSettings
from gopush.message.redis.take_over import CALL_LOGS, TakeOver
from gopush.message.rules import KeptLog
from gopush.message.sqlite.export import logs, opened

TELL_SECONDS = 5.0


def migrate(reactor: Any, path: Path, target: RedisSettings, head_life: float, tell: Callable[[str], None]) -> bool:
    """Make a pass from a SQLite file, and `tell` how it goes; whether it was the last one: the source was at rest.

    Raises what opened() and TakeOver.start() raise. `reactor`: one of its own, which runs as long as this.
    """
    outcome: list[Any] = []

    def begin() -> None:
        done = Deferred.fromCoroutine(_pass(reactor, path, target, head_life, tell))
        done.addBoth(outcome.append).addBoth(lambda _: reactor.stop())

    reactor.callWhenRunning(begin)
    reactor.run(installSignalHandlers=False)
    (found,) = outcome
    if isinstance(found, Failure):
        found.raiseException()
    return bool(found)


async def _pass(reactor: Any, path: Path, target: RedisSettings, head_life: float, tell: Callable[[str], None]) -> bool:
    began = time.monotonic()
    take_over = TakeOver(reactor, target, head_life)
    try:
        await take_over.start()
        with opened(path) as (connection, at_rest):
            now = time.time()
            moved = await _move(take_over, logs(connection, now), now, tell)
    finally:
        await take_over.stop()
    state = "at rest: this was the last pass" if at_rest else "in use: stop it, and make a last pass"
    tell(f"{moved} moved in {time.monotonic() - began:.1f} s; {path} is {state}")
    return at_rest


async def _move(take_over: TakeOver, source: Iterator[KeptLog], now: float, tell: Callable[[str], None]) -> str:
    keys = moved = messages = ids = tokens = 0
    due = time.monotonic() + TELL_SECONDS
    while some := list(islice(source, CALL_LOGS)):
        keys += len(some)
        for log in await take_over.take(some, now):
            moved += 1
            messages += len(log.messages)
            ids += len(log.ids)
            tokens += len(log.tokens)
        if time.monotonic() > due:
            due = time.monotonic() + TELL_SECONDS
            tell(f"{keys} keys looked at, {messages} messages moved")
    return f"of {keys} keys {moved}, {messages} messages, {ids} ids, {tokens} tokens"
