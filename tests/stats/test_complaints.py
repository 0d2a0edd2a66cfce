"""What strangers do at the port of the calls does not fill the log."""

from __future__ import annotations

from gopush.stats.summary import LINES, SECONDS, Complaints
from tests.comet.harness import Clock
from tests.fixtures import Logged


def test_the_first_lines_are_written_and_the_others_counted(logged: Logged) -> None:
    clock = Clock()
    complaints = Complaints(clock)
    for number in range(3 * LINES):
        complaints.warn("number {number}", number=number)
    assert logged.lines() == [f"number {number}" for number in range(LINES)]
    clock.advance(SECONDS)
    assert logged.lines()[LINES:] == ["20 more calls or connections between nodes were refused in 10 s"]
    clock.advance(10 * SECONDS)
    complaints.warn("again")
    assert logged.lines()[LINES + 1 :] == ["again"]
    clock.advance(SECONDS)
    assert logged.lines()[-1] == "again"
    assert complaints.total == 3 * LINES + 1
