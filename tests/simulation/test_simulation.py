"""The ten delivery rules hold in random schedules; where one is broken on purpose, that is noticed."""

from __future__ import annotations

import pytest

from tests.fixtures import Logged
from tests.simulation.broken import BREAKS
from tests.simulation.history import StoreTime
from tests.simulation.many import run_many, run_one
from tests.simulation.plan import ALONE, MIXED
from tests.simulation.process import EPOCH
from tests.simulation.run import run

SCHEDULES = 400
EQUALS_SCHEDULES = 60
MANY_SCHEDULES = 10_000
SEEDS_TO_CATCH = 1000
RARE = {"8-way": 300, "8-lines": 110}
"""Breaks that few schedules show: from which seed on they are looked for."""


@pytest.mark.parametrize(
    ("schedules", "equals"),
    [
        (SCHEDULES, ""),
        (EQUALS_SCHEDULES, ALONE),
        (EQUALS_SCHEDULES, MIXED),
        *(pytest.param(MANY_SCHEDULES, equals, marks=pytest.mark.slow) for equals in ("", ALONE, MIXED)),
    ],
)
def test_the_delivery_rules_hold_in_random_schedules(schedules: int, equals: str) -> None:
    """docs/delivery.md, under deaths, freezes, lost and late calls, a store that forgets, and views that differ; with
    equal nodes also under owners that change while batches are under way at message services of both."""
    failed = [outcome for outcome in run_many(range(schedules), equals=equals) if outcome.violations]
    if failed:
        last = "\n".join(failed[0].trace.splitlines()[-50:])
        pytest.fail(
            f"{last}\nfailed: {[outcome.seed for outcome in failed]}; replay: make simulate SEED={failed[0].seed}"
        )


@pytest.mark.parametrize("rule", sorted(BREAKS))
def test_a_broken_rule_is_noticed(rule: str, logged: Logged) -> None:
    # What is missed while somebody joins is missed on the live stream, and the other way round.
    expected = {3, 4} if rule in ("3", "4") else {int(rule[0])}
    seeds = range(RARE.get(rule, 0), SEEDS_TO_CATCH)
    found = ({rule for _, rule, _, _ in run_one((seed, rule, "")).violations} for seed in seeds)
    assert any(rules & expected for rules in found), f"none of {seeds} notices it"
    assert logged.tracebacks() == [], "not the rule is broken, but what breaks it"


def test_a_seed_replays_exactly_also_in_another_process() -> None:
    elsewhere = [(outcome.digest, outcome.received) for outcome in run_many(range(40))]
    assert elsewhere == [((outcome := run(seed)).digest, outcome.received) for seed in range(40)]


def test_what_has_expired_may_be_gone_though_the_clock_is_put_back() -> None:
    """In the middle of this seed the store drops what has expired; then its clock steps back before that."""
    assert run(162179, MIXED).violations == []
    time = StoreTime()
    time.step(10.0, -3.0)
    assert time.reaches(EPOCH + 9.0) == 9.0
    assert time.reaches(EPOCH + 9.0, 9.5) == 9.5
    assert time.reaches(EPOCH + 9.0, 10.0) == 12.0
    assert time.reaches(EPOCH + 8.0, 10.5) == 11.0
    assert time.reaches(EPOCH + 8.0, 11.5) == 11.5
