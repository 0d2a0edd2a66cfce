"""What every process has to tell of the cluster: how it sees it, and what its calls to the others are like."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from gopush.rpc.coordination import Coordination, View
from gopush.rpc.counters import LaneNumbers
from gopush.stat import Statistics


def show(coordination: Coordination, reactor: Any, statistics: Statistics) -> None:
    """Have the view in the statistics: whom the process knows, since when, and whether it would hear of a change."""
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
        "coordinator_connected", "1 while this process would hear of a change", lambda: coordination.connected
    )


def show_lanes(statistics: Statistics, **lanes: LaneNumbers) -> None:
    """Have the lanes to other processes in the statistics, by what these are: comets, messages."""
    metrics = statistics.metrics
    statistics.add({"lane": lambda _: {to: _lane(numbers) for to, numbers in lanes.items()}})
    metrics.counters("lane", {to: numbers.counters for to, numbers in lanes.items()}, "to")
    metrics.distributions(
        "lane_batch", "calls in one batch", ("to",), {(to,): numbers.sizes for to, numbers in lanes.items()}
    )
    metrics.gauges("lane_waiting", "calls that wait for their turn", "to", lambda: _waiting(lanes, 0))
    metrics.gauges(
        "lane_waiting_bytes", "the bytes of calls that wait for their turn", "to", lambda: _waiting(lanes, 1)
    )


def _waiting(lanes: Mapping[str, LaneNumbers], place: int) -> dict[str, float]:
    return {to: numbers.waiting()[place] for to, numbers in lanes.items()}


def _lane(numbers: LaneNumbers) -> dict[str, Any]:
    calls, size = numbers.waiting()
    waiting = {"waiting": calls, "waiting_bytes": size}
    return waiting | dataclasses.asdict(numbers.counters) | {"batch": numbers.sizes.shown()}
