"""Many seeds on several processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator

from tests.simulation.broken import broken
from tests.simulation.run import Outcome, run

CHUNK = 20


def run_many(seeds: Iterable[int], rule: str | None = None, jobs: int = 2, equals: str = "") -> Iterator[Outcome]:
    """The outcomes of these seeds, in their order; `rule`: broken on purpose (broken.py); `equals`: see plan.py."""
    if jobs < 2:
        yield from map(run_one, ((seed, rule, equals) for seed in seeds))
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(run_one, ((seed, rule, equals) for seed in seeds), CHUNK)


def run_one(work: tuple[int, str | None, str]) -> Outcome:
    """One seed, with a rule broken or none, with equal nodes or none."""
    seed, rule, equals = work
    with broken(rule):
        return run(seed, equals)
