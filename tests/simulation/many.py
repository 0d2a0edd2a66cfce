"""Many seeds on several processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator

from tests.simulation.broken import broken
from tests.simulation.run import Outcome, run

CHUNK = 20


def run_many(seeds: Iterable[int], rule: str | None = None, jobs: int = 2) -> Iterator[Outcome]:
    """The outcomes of these seeds, in their order; `rule`: broken on purpose (broken.py)."""
    if jobs < 2:
        yield from map(run_one, ((seed, rule) for seed in seeds))
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(run_one, ((seed, rule) for seed in seeds), CHUNK)


def run_one(work: tuple[int, str | None]) -> Outcome:
    """One seed, with a rule broken or none."""
    seed, rule = work
    with broken(rule):
        return run(seed)
