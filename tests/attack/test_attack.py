"""The attacks in a short form; `make attack` is the full one. The machine may be busy: only what is grave fails."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.attack.attacks import ATTACKS
from tests.attack.run import attack
from tests.attack.victim import Victim

GRAVE_MS = 2000
GROWTH_KIB = 40_000


@pytest.fixture(scope="module")
def victim() -> Iterator[Victim]:
    with Victim() as started:
        yield started


@pytest.fixture(scope="module")
def on_disk() -> Iterator[Victim]:
    with Victim(storage="sqlite") as started:
        yield started


@pytest.mark.parametrize("name", ATTACKS)
def test_the_honest_are_served_and_memory_comes_back(victim: Victim, on_disk: Victim, name: str) -> None:
    found = attack(on_disk if name == "sqlite_tokens" else victim, name, 0.02, 1.5, honest=20)
    assert found.done
    assert found.lost == 0
    assert found.received
    assert found.p99 < GRAVE_MS
    before, _, after = found.memory
    assert after - before < GROWTH_KIB
    assert "Traceback" not in found.log
    assert "wrongwrong" not in found.log
