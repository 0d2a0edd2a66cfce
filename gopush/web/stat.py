"""A web node's numbers for Prometheus."""

from __future__ import annotations

from gopush.metrics import Metrics
from gopush.web.service import Web


def show(web: Web, metrics: Metrics) -> None:
    """Have a web node's numbers in the metrics of its process."""
    metrics.counters("web", web.counters)
    metrics.distribution("web_push_seconds", "how long pushes took until their answer", web.latency)
