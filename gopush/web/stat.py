"""A web node's numbers for Prometheus."""

from __future__ import annotations

from gopush.metrics import Metrics
from gopush.web.counters import Counters


def show(counters: Counters, metrics: Metrics) -> None:
    """Have a web node's numbers in the metrics of its process."""
    metrics.counters("web", counters)
