"""What strangers do at the port of the calls does not fill the log."""

from __future__ import annotations

from gopush.stats.summary import LINES, SECONDS, Complaints, complained
from tests.comet.harness import Clock
from tests.fixtures import Logged


def test_the_first_lines_are_written_and_the_others_counted(logged: Logged) -> None:
    clock = Clock()
    before = dict(complained.complaints)
    complaints = Complaints(clock)
    for number in range(3 * LINES):
        complaints.warn("login", "number {number}", number=number)
    assert logged.lines() == [f"number {number}" for number in range(LINES)]
    clock.advance(SECONDS)
    assert logged.lines()[LINES:] == ["20 more calls or connections between nodes were refused in 10 s"]
    clock.advance(10 * SECONDS)
    complaints.warn("call", "again")
    assert logged.lines()[LINES + 1 :] == ["again"]
    clock.advance(SECONDS)
    assert logged.lines()[-1] == "again"
    grown = {source: count - before[source] for source, count in complained.complaints.items()}
    assert grown == {"call": 1, "connection": 0, "login": 3 * LINES}
