"""A message node's numbers for Prometheus."""

from __future__ import annotations

from gopush.message.service import Message
from gopush.metrics import SIZES, Metrics


def show(message: Message, metrics: Metrics) -> None:
    """Have a message node's numbers in the metrics of its process."""
    metrics.counters("message", message.counters)
    metrics.gauge("message_calls", "calls that have no answer yet", lambda: message.under_way)
    message.observe_seconds = metrics.histogram("message_append_seconds", "how long the store takes for a batch")
    message.observe_size = metrics.histogram("message_append_batch", "messages in one batch", SIZES)
