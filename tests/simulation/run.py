"""One run: a seed's script, then peace, then the checks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from random import Random
from traceback import format_exc
from typing import cast
from unittest.mock import patch

from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogPublisher

from tests.simulation import checks, plan
from tests.simulation.world import World

BOUNDS_SECONDS = 0.5
HEAL_STEP_SECONDS = 1.0
HEAL_SECONDS = 60.0
FAREWELL_SECONDS = 8.0


@dataclass
class Outcome:
    """What came of a seed: the rules that were broken, each with a sentence, and how to look into it."""

    seed: int
    violations: list[tuple[float, int, str, str]]
    trace: str
    digest: int
    pushes: int
    received: int


def run(seed: int, equals: str = "") -> Outcome:
    """Run a seed's schedule, with equal nodes (plan.py) or none. Exactly the same every time."""
    random = Random(seed)
    world = World(plan.draw(random, equals), random)
    steps = plan.script(random, world.plan)
    with ExitStack() as stack:
        stack.enter_context(patch("gopush.comet.rounds.SLICE_SUBSCRIBERS", world.plan.slice))
        stack.enter_context(patch("gopush.comet.session.REPLAY_MESSAGES", world.plan.replay))
        stack.enter_context(_errors_are_violations(world))
        try:
            _play(world, steps)
        except Exception:
            world.violated(0, "", "something raised: " + format_exc(limit=-12))
    return Outcome(
        seed=seed,
        violations=world.violations,
        trace=_trace(world) if world.violations else "",
        digest=hash(tuple(time for time, _ in world.events)),
        pushes=len(world.publishers.attempts),
        received=sum(len(subscriber.got) for subscriber in world.subscribers),
    )


def _play(world: World, steps: list[tuple[float, plan.Action]]) -> None:
    clock = world.clock
    for time, action in steps:
        clock.at(time, action, world, world.random)
    bounds = clock.now
    while bounds < world.plan.chaos:
        bounds += BOUNDS_SECONDS
        clock.run_until(min(bounds, world.plan.chaos))
        checks.check_bounds(world)
        checks.check_cut_off(world)
    world.heal()
    _settle(world)
    for key in world.plan.keys:
        for expire in (600, 0, 600):
            world.publishers.push(key, expire)
    clock.run_until(clock.now + 2.0)
    _settle(world)
    world.publishers.check()
    checks.check_subscribers(world)
    checks.check_store(world)
    checks.check_untold(world)
    _say_farewell(world)


def _settle(world: World) -> None:
    end = world.clock.now + HEAL_SECONDS
    while True:
        world.clock.run_until(world.clock.now + HEAL_STEP_SECONDS)
        if checks.settled(world) or world.clock.now >= end:
            break


def _say_farewell(world: World) -> None:
    """All leave; in the end nothing may be left of them."""
    vanished = [one.ended for sub in world.subscribers for one in sub.connections if one.ended and not one.closed]
    for subscriber in world.subscribers:
        subscriber.leave()
    longest = max([world.clock.now - checks.LONGEST_SILENCE_SECONDS, *vanished]) + checks.LONGEST_SILENCE_SECONDS
    world.clock.run_until(longest + FAREWELL_SECONDS)
    checks.check_silent(world)
    checks.check_leftovers(world)


@contextmanager
def _errors_are_violations(world: World) -> Iterator[None]:
    def observe(event: LogEvent) -> None:
        if event.get("log_level") in (LogLevel.error, LogLevel.critical):
            failure = event.get("log_failure") or event.get("failure")
            world.violated(0, "", f"an error was logged: {failure or event.get('log_format')}")

    observer = cast(ILogObserver, observe)
    globalLogPublisher.addObserver(observer)
    try:
        yield
    finally:
        globalLogPublisher.removeObserver(observer)


def _trace(world: World) -> str:
    """What happened until the first violation, as far as it concerns its key; then the violations."""
    violations = sorted(world.violations)
    end, _, wanted, _ = violations[0]
    others = set(world.plan.keys) - {wanted}
    lines = [
        f"{time:8.4f}  {' '.join(map(str, event))}"
        for time, event in world.events
        if time <= end and (not wanted or not any(other in event for other in others))
    ]
    lines += [f"{time:8.4f}  RULE {rule} {key}: {what}" for time, rule, key, what in violations]
    return "\n".join(lines)
