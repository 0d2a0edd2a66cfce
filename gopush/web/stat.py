"""A web node's own part of the statistics."""

from __future__ import annotations

import dataclasses
from typing import Any

from gopush.stats.resource import Statistics
from gopush.web.service import Web


def show(web: Web, statistics: Statistics) -> None:
    """Have a web node's numbers in the statistics of its process."""
    statistics.add({"push": lambda _: _push(web), "request": lambda _: _request(web)})
    statistics.metrics.counters("web", web.counters)
    statistics.metrics.histogram("web_push_seconds", "how long pushes took until their answer", web.latency)


def _push(web: Web) -> dict[str, Any]:
    counters = web.counters
    return {
        "ret": counters.pushes,
        "limited": counters.limited_pushes,
        "seconds": web.latency.shown(),
    }


def _request(web: Web) -> dict[str, Any]:
    counted = dataclasses.asdict(web.counters)
    return {name: number for name, number in counted.items() if isinstance(number, int)}
