"""A message node's own part of the statistics."""

from __future__ import annotations

import dataclasses
from typing import Any

from gopush.message.counters import StoreNumbers
from gopush.message.service import StoreService
from gopush.stats.resource import Statistics


def show(message: StoreService, statistics: Statistics) -> None:
    """Have a message node's numbers in the statistics of its process."""
    stores, metrics = message.stores, statistics.metrics
    statistics.add(
        {
            "log": lambda _: _log(message),
            "store": lambda _: {name: _store(numbers) for name, numbers in stores.items()},
        }
    )
    metrics.counters("message", message.counters)
    metrics.gauge("message_calls", "calls that have no answer yet", lambda: message.under_way)
    metrics.histogram("message_append_batch", "messages in one batch", message.sizes)
    metrics.counters("message_store", {name: numbers.counters for name, numbers in stores.items()}, "store")
    metrics.gauges(
        "message_store_skew_seconds",
        "by how much the store's clock is ahead of this process's",
        "store",
        lambda: {name: numbers.skew for name, numbers in stores.items()},
    )
    metrics.histograms(
        "message_store_seconds",
        "how long the store takes for a call",
        ("store", "call"),
        {(name, call): took for name, numbers in stores.items() for call, took in numbers.seconds.items()},
    )


def _log(message: StoreService) -> dict[str, Any]:
    return dataclasses.asdict(message.counters) | {"under_way": message.under_way, "batch": message.sizes.shown()}


def _store(numbers: StoreNumbers) -> dict[str, Any]:
    seconds = {call: took.shown() for call, took in numbers.seconds.items()}
    return dataclasses.asdict(numbers.counters) | {"seconds": seconds}
