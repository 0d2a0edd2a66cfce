"""What every process reports of the cluster: how it sees it, and how its calls to the others go."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gopush.membership.view import Coordination, View
from gopush.stats.counting import counter
from gopush.stats.histogram import SIZES, Histogram
from gopush.stats.resource import Statistics


def show(coordination: Coordination, reactor: Any, statistics: Statistics) -> None:
    """Add the view to the statistics: which processes it knows, since when, and whether it would hear of a change."""
    adopted = reactor.seconds()
    metrics = statistics.metrics

    def note(_: View) -> None:
        nonlocal adopted
        adopted = reactor.seconds()

    coordination.watch(note)
    metrics.gauge("view_comets", "comets on the ring of this process", lambda: len(coordination.view.active))
    metrics.gauge("view_messages", "message nodes that this process knows", lambda: len(coordination.view.messages))
    metrics.gauge(
        "view_age_seconds", "time since this process saw the cluster change", lambda: reactor.seconds() - adopted
    )
    metrics.gauge(
        "coordinator_connected",
        "1 while this process would hear of a change of the cluster",
        lambda: coordination.connected,
    )


def show_batchers(statistics: Statistics, **batchers: BatcherStats) -> None:
    """Add the batchers to other processes to the statistics, by what these are: comets, messages."""
    metrics = statistics.metrics
    statistics.add({"lane": lambda _: {to: _batcher(numbers) for to, numbers in batchers.items()}})
    metrics.counters("lane", {to: numbers.counters for to, numbers in batchers.items()}, "to")
    metrics.histograms(
        "lane_batch_calls",
        "calls in one batch",
        ("to",),
        {(to,): numbers.sizes for to, numbers in batchers.items()},
        was="lane_batch",
    )
    metrics.gauges(
        "lane_waiting",
        "calls that wait for their turn, or for a peer that answers",
        "to",
        lambda: _waiting(batchers, 0),
    )
    metrics.gauges(
        "lane_waiting_bytes",
        "the bytes of calls that wait for their turn, or for a peer that answers",
        "to",
        lambda: _waiting(batchers, 1),
    )


def _waiting(batchers: Mapping[str, BatcherStats], index: int) -> dict[str, float]:
    return {to: numbers.waiting()[index] for to, numbers in batchers.items()}


def _batcher(numbers: BatcherStats) -> dict[str, Any]:
    calls, size = numbers.waiting()
    waiting = {"waiting": calls, "waiting_bytes": size}
    return waiting | dataclasses.asdict(numbers.counters) | {"batch": numbers.sizes.shown()}


@dataclass(slots=True)
class BatcherCounters:
    """Calls, each message one. All only grow."""

    refused: int = counter("calls that failed at once because too many waited")
    late: int = counter("calls that waited too long for their turn")
    given_up: int = counter("calls that a peer did not answer in time, or whose connection was lost")
    retried: int = counter("calls that went to another peer, or to the same one again")


class BatcherStats:
    """All numbers of the batchers to one kind of peers. `waiting`: the calls that wait for their turn, their bytes."""

    __slots__ = ("counters", "sizes", "waiting")

    def __init__(self, waiting: Callable[[], tuple[int, int]] = lambda: (0, 0)) -> None:
        self.counters = BatcherCounters()
        self.sizes = Histogram(SIZES)
        self.waiting = waiting
