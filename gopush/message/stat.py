"""A message node's numbers for Prometheus."""

from __future__ import annotations

from gopush.message.service import Message
from gopush.metrics import Metrics


def show(message: Message, metrics: Metrics) -> None:
    """Have a message node's numbers in the metrics of its process."""
    metrics.counters("message", message.counters)
    metrics.gauge("message_calls", "calls that have no answer yet", lambda: message.under_way)
    metrics.distribution("message_append_batch", "messages in one batch", message.sizes)
    metrics.counters("message_store", {name: store.counters for name, store in message.stores.items()}, "store")
    metrics.distributions(
        "message_store_seconds",
        "how long the store takes for a call",
        ("store", "call"),
        {(name, call): seconds for name, store in message.stores.items() for call, seconds in store.seconds.items()},
    )
