from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from gopush.errors import UnavailableError
from gopush.message.store import MOST_APPENDS, Gatherer
from gopush.model import Append, Appended, Push


class Calls:
    """Every call that was made, unanswered until the test answers it."""

    def __init__(self) -> None:
        self.made: list[tuple[list[str], Deferred[list[Appended]]]] = []

    def __call__(self, appends: Sequence[Append]) -> Deferred[list[Appended]]:
        answer: Deferred[list[Appended]] = Deferred()
        self.made.append(([append.push.key for append in appends], answer))
        return answer

    @property
    def keys(self) -> list[list[str]]:
        return [keys for keys, _ in self.made]

    def answer(self, at: int) -> None:
        keys, answer = self.made[at]
        answer.callback([Appended(0, int(key), 0, False) for key in keys])


@pytest.fixture
def calls() -> Calls:
    return Calls()


def batch(*keys: int) -> list[Append]:
    return [Append(Push(str(key), b"", 0, "", 0, 0.0), 0) for key in keys]


def mids(answer: Deferred[list[Appended]]) -> list[int]:
    result: Any = answer.result
    return [appended.mid for appended in result]


def test_what_comes_meanwhile_makes_the_next_call(calls: Calls) -> None:
    gatherer = Gatherer(calls)
    answers = [gatherer.append(batch(*keys)) for keys in ([1], [2, 3], [4], [])]
    assert calls.keys == [["1"]]
    assert answers[3].result == []
    calls.answer(0)
    assert calls.keys == [["1"], ["2", "3", "4"]]
    assert mids(answers[0]) == [1]
    assert not answers[1].called
    calls.answer(1)
    assert [mids(answer) for answer in answers[1:3]] == [[2, 3], [4]]
    calls.made.clear()
    gatherer.append(batch(5))
    assert calls.keys == [["5"]]


def test_a_call_is_bounded_but_a_batch_is_never_torn(calls: Calls) -> None:
    gatherer = Gatherer(calls)
    for size in (1, MOST_APPENDS - 1, 1, 1, MOST_APPENDS * 2, 1):
        gatherer.append(batch(*range(size)))
    for at in range(4):
        calls.answer(at)
    assert [len(keys) for keys in calls.keys] == [1, MOST_APPENDS, 1, MOST_APPENDS * 2, 1]


def test_a_failure_is_that_of_all_who_were_in_it_and_of_nobody_else(calls: Calls) -> None:
    gatherer = Gatherer(calls)
    answers = [gatherer.append(batch(n)) for n in range(3)]
    calls.answer(0)
    later = gatherer.append(batch(9))
    calls.made[1][1].errback(UnavailableError("gone"))
    calls.answer(2)
    assert mids(answers[0]) == [0]
    assert mids(later) == [9]
    for answer in answers[1:]:
        failures: list[Failure] = []
        answer.addErrback(failures.append)
        assert isinstance(failures[0].value, UnavailableError)


def test_an_error_in_gopush_is_the_outcome_of_what_it_met_and_the_queue_goes_on(calls: Calls) -> None:
    """Of the call itself, and of taking its answer."""
    broken = False

    def call(appends: Sequence[Append]) -> Deferred[list[Appended]]:
        if broken:
            raise KeyError("a mistake")
        return calls(appends)

    gatherer = Gatherer(call)
    answers = [gatherer.append(batch(n)) for n in range(2)]
    broken = True
    calls.answer(0)
    broken = False
    answers.append(gatherer.append(batch(2)))
    answers.append(gatherer.append(batch(3)))
    no_list: Any = None
    calls.made[1][1].callback(no_list)
    calls.answer(2)
    assert [mids(answers[0]), mids(answers[3])] == [[0], [3]]
    for answer, mistake in ((answers[1], KeyError), (answers[2], TypeError)):
        failures: list[Failure] = []
        answer.addErrback(failures.append)
        assert isinstance(failures[0].value, mistake)
    assert gatherer.drained().called


def test_drained(calls: Calls) -> None:
    gatherer = Gatherer(calls)
    assert gatherer.drained().called
    gatherer.append(batch(1))
    gatherer.append(batch(2))
    drained = gatherer.drained()
    calls.answer(0)
    assert not drained.called
    calls.answer(1)
    assert drained.called
