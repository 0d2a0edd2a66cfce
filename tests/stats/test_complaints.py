"""What strangers do at the port of the calls does not fill the log."""

from __future__ import annotations

from gopush.stats.summary import FORGET_SECONDS, LINES, MOST_WRITTEN, SECONDS, Complaints, complained
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


def test_a_peer_that_comes_again_is_one_line_then_summed_up_ever_more_seldom(logged: Logged) -> None:
    clock = Clock()
    complaints = Complaints(clock)
    for _ in range(200):
        for peer in ("10.0.0.1", "10.0.0.2"):
            complaints.warn("login", "{peer} is refused: {reason}", about=peer, peer=peer, reason="a secret")
        clock.advance(SECONDS / 2)
    lines = logged.lines()
    assert lines[:2] == ["10.0.0.1 is refused: a secret", "10.0.0.2 is refused: a secret"]
    assert all("more calls or connections between nodes were refused in" in line for line in lines[2:])
    assert len(lines) < 10
    complaints.warn("login", "{peer} is refused: {reason}", about="10.0.0.1", peer="10.0.0.1", reason="no secret")
    assert logged.lines()[-1] == "10.0.0.1 is refused: no secret"


def test_who_was_quiet_for_long_is_written_of_anew_and_few_are_remembered(logged: Logged) -> None:
    clock = Clock()
    complaints = Complaints(clock)
    complaints.warn("login", "{peer}", about="a", peer="a")
    clock.advance(FORGET_SECONDS)
    complaints.warn("login", "{peer}", about="a", peer="a")
    assert logged.lines() == ["a", "a"]
    for number in range(2 * MOST_WRITTEN):
        clock.advance(SECONDS / LINES)
        complaints.warn("login", "{peer}", about=str(number), peer=number)
    assert len(complaints._written) == MOST_WRITTEN
