"""The garbage collector's settings."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator

import pytest

from gopush.daemon.gc import PAUSE_SECONDS, THRESHOLDS, Collector


@pytest.fixture
def collector() -> Iterator[Collector]:
    thresholds = gc.get_threshold()
    gc.unfreeze()  # what tests/conftest.py froze
    collector = Collector()
    collector.freeze()
    yield collector
    gc.callbacks.remove(collector.collected)
    gc.set_threshold(*thresholds)


def test_what_is_there_at_the_start_is_left_alone(collector: Collector) -> None:
    assert gc.get_freeze_count() > 1000
    assert gc.get_threshold() == THRESHOLDS


def collect(collector: Collector, generation: int, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([1.0, 1.0 + seconds])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    collector.collected("start", {"generation": generation})
    collector.collected("stop", {"generation": generation})
    monkeypatch.undo()


def test_what_survived_a_long_full_collection_is_left_alone(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    survivors = [[n] for n in range(1000)]
    before = gc.get_freeze_count()
    collect(collector, 1, PAUSE_SECONDS * 2, monkeypatch)
    collect(collector, 2, PAUSE_SECONDS / 2, monkeypatch)
    assert gc.get_freeze_count() <= before  # what is frozen can still be freed, by other threads too
    collect(collector, 2, PAUSE_SECONDS * 2, monkeypatch)
    assert gc.get_freeze_count() > before + len(survivors) / 2
    assert [seen.total for seen in collector.pauses] == pytest.approx([0, PAUSE_SECONDS * 2, PAUSE_SECONDS * 2.5])


LARGE = """
from gopush.daemon.gc import collector

def resident() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))

collector.freeze()
before, small = resident(), []
for _ in range(3):
    large = b"x" * (4 << 20)
    del large
    large = []
    for _ in range(200):
        large.append(b"x" * 400_000)
        small.append(b"x" * 60_000)
    del large
print(resident() - before - 3 * 200 * 60)
"""


def test_the_memory_of_large_messages_is_given_back() -> None:
    """In a process of its own: what glibc has learned from others would count, too."""
    said = subprocess.run([sys.executable, "-c", LARGE], check=True, capture_output=True, text=True)
    assert int(said.stdout) < 10_000
