"""The cluster as this process sees it, in its metrics."""

from __future__ import annotations

from typing import Any

from gopush.metrics import Metrics
from gopush.rpc.coordination import Coordination, View


def show(coordination: Coordination, reactor: Any, metrics: Metrics) -> None:
    """Have the view in the metrics of a process: whom it knows, since when, and whether it would hear of a change."""
    adopted = reactor.seconds()

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
