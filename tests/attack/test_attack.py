"""The attacks in a short form; `make attack` is the full one. The machine may be busy: only what is grave fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.attack.__main__ import main
from tests.attack.attacks import ATTACKS
from tests.attack.run import attack, victim_of
from tests.attack.victim import Victim

GRAVE_MS = 2000
GROWTH_KIB = 40_000


SCALES = {"files": 1.0, "strangers": 0.1}
MOST_LINES = 30
"""That an attack may leave in the log."""


@pytest.mark.parametrize(
    ("asked", "status", "said"), [("--help", 0, "usage: "), ("nobody", 2, "no such attack: nobody")]
)
def test_nobody_is_attacked_where_it_is_not_said_how(
    asked: str, status: int, said: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["attack", asked])
    monkeypatch.delattr("tests.attack.__main__.victim_of")
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == status
    assert said in "".join(capfd.readouterr())


@pytest.fixture(scope="module")
def victims() -> Iterator[Callable[[str], Victim]]:
    """One of each kind, started when it is wanted."""
    with ExitStack() as stack:
        started: dict[str, Victim] = {}

        def find(name: str) -> Victim:
            kind = name if name in ("sqlite_tokens", "files") else "files" if name == "strangers" else ""
            if kind not in started:
                started[kind] = stack.enter_context(victim_of(kind))
            return started[kind]

        yield find


@pytest.mark.parametrize("name", ATTACKS)
def test_the_honest_are_served_and_memory_comes_back(victims: Callable[[str], Victim], name: str) -> None:
    victim = victims(name)
    lines = victim.log.count("\n")
    found = attack(victim, name, SCALES.get(name, 0.02), 3.0 if name == "files" else 0.8, honest=20)
    assert found.done
    assert found.lost == 0
    assert found.received
    assert found.p99 < GRAVE_MS
    before, _, after = found.memory
    assert after - before < GROWTH_KIB
    assert "Traceback" not in found.log
    assert found.log.count("\n") - lines < MOST_LINES
    assert "wrongwrong" not in found.log
