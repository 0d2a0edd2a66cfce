"""What a bench measures."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from gopush.client.figures import Figures, Latencies


def test_quantiles_are_right_to_1_percent() -> None:
    generator = random.Random(7)
    seconds = [generator.expovariate(200) for _ in range(10_000)]
    found = Latencies()
    for one in seconds:
        found.add(one)
    seconds.sort()
    for share in (0.01, 0.5, 0.99, 0.999, 1):
        exact = seconds[round(share * len(seconds)) - 1]
        assert found.quantile(share) == pytest.approx(exact, rel=0.01)
    assert found.count == 10_000


def test_where_nothing_was_measured_nothing_is_said() -> None:
    assert Latencies().quantile(0.5) == 0
    assert Latencies().words() == ""
    assert Figures().report(1)[0] == "pushes              0        0.0/s"


@pytest.mark.parametrize("order", ["pushed first", "delivered first"])
def test_what_was_acknowledged_and_has_not_come_is_lost(order: str) -> None:
    """A delivery may be seen before the answer to its push."""
    figures = Figures()
    steps: list[Callable[[], None]] = [
        lambda: figures.pushed(1, 0.001, 3),
        lambda: figures.delivered(1, 0.002),
        lambda: figures.delivered(1, 0.1),
    ]
    for step in steps if order == "pushed first" else reversed(steps):
        step()
    assert figures.lost == 1
    figures.delivered(1, 0.1)
    assert figures.lost == 0
    assert not figures._due


def test_what_was_refused_is_not_lost() -> None:
    figures = Figures()
    figures.failed("ret 65535")
    figures.delivered(1, 0.1)  # it was stored all the same
    assert figures.lost == 0
    figures.pushed(2, 0.001, 1)
    assert figures.lost == 1


def test_what_went_wrong_is_named() -> None:
    """42 closed connections were "42 deliveries lost or pushes failed", though neither was."""
    figures = Figures()
    assert figures.wrong() == ""
    for reason in (*["a subscriber's connection was closed"] * 42, "ret 65535"):
        figures.failed(reason)
    assert figures.wrong() == "42 x a subscriber's connection was closed; 1 x ret 65535"
    figures.pushed(1, 0.001, 2)
    assert figures.wrong() == "2 x a delivery was lost; 42 x a subscriber's connection was closed; 1 x ret 65535"


def test_the_report_shows_rates_percentiles_losses_and_errors() -> None:
    figures = Figures()
    for number in range(10):
        figures.pushed(number, 0.001, 2)
        figures.delivered(number, 0.002)
        figures.delivered(number, 0.002)
    figures.pushed(10, 0.001, 2)
    for reason in ("ret 65535", "HTTP 429", "ret 65535"):
        figures.failed(reason)
    assert figures.report(2) == [
        "pushes             11        5.5/s  p50 1.00 ms  p99 1.00 ms  p999 1.00 ms",
        "deliveries         20       10.0/s  p50 2.01 ms  p99 2.01 ms  p999 2.01 ms",
        "lost                2",
        "errors              3",
        "                    2  ret 65535",
        "                    1  HTTP 429",
    ]
    assert figures.progress(2) == "2 s: 6 pushes/s, 10 deliveries/s, 3 errors"
