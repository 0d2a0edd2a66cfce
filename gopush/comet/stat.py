"""A comet's own part of the statistics (protocol.md, section 6)."""

from __future__ import annotations

from typing import Any

from gopush.comet.service import Comet
from gopush.net.http.request import Request
from gopush.stats.resource import Statistics


def show(comet: Comet, statistics: Statistics) -> None:
    """Have a comet's numbers in the statistics of its process."""
    statistics.add(
        {
            "channel": lambda request: _channel(comet, request),
            "message": lambda _: _message(comet),
            "connection": lambda _: _connection(comet),
        }
    )
    counters, metrics = comet.counters, statistics.metrics
    metrics.counters("comet", counters)
    metrics.gauge(
        "comet_connections", "connections now", lambda: counters.connections_added - counters.connections_removed
    )
    metrics.gauge("comet_channels", "keys that have subscribers now", lambda: len(comet.channels))
    metrics.gauge(
        "comet_waiting_messages",
        "messages that wait for a read of the log or for a round of delivery now",
        lambda: sum(channel.waiting_messages for channel in comet.channels.values()),
    )


def _channel(comet: Comet, request: Request) -> dict[str, Any]:
    key = request.query.get("key")
    if key is not None:
        channel = comet.channels.get(key)
        return {"channel": {"conn": channel.subscribers if channel is not None else 0}}
    counters = comet.counters
    return {
        "access": counters.channels_accessed,
        "create": counters.channels_created,
        "delete": counters.channels_deleted,
        "current": len(comet.channels),
    }


def _message(comet: Comet) -> dict[str, Any]:
    counters = comet.counters
    succeed, failed = counters.messages_succeeded, counters.messages_failed
    return {"succeed": succeed, "failed": failed, "total": succeed + failed}


def _connection(comet: Comet) -> dict[str, Any]:
    counters = comet.counters
    added, removed = counters.connections_added, counters.connections_removed
    return {"add": added, "remove": removed, "current": added - removed}
