"""`GET /metrics`: a process's numbers for Prometheus (protocol.md, section 10). What counts stays plain integers.

Names begin with `gopush_`, then the role. Families are read when somebody asks, so counting costs no more than before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, GCCollector, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from gopush.http.request import Request
from gopush.http.response import Response
from gopush.http.routing import Route, Routes

TEXT = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class Counted(Protocol):
    """A distribution that somebody counts: `counts[i]` of at most `bounds[i]`, the last one of all that were more."""

    @property
    def bounds(self) -> Sequence[float]: ...  # noqa: D102

    @property
    def counts(self) -> Sequence[int]: ...  # noqa: D102

    @property
    def total(self) -> float: ...  # noqa: D102


class Metrics:
    """The numbers of one process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(namespace="gopush", registry=self._registry)
        GCCollector(registry=self._registry)

    def counters(self, role: str, counters: Any) -> None:
        """Show a dataclass of integers that only grow; a field that is a dict is one family, labelled by its keys."""
        self._registry.register(_Counters(role, counters))

    def gauge(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        """Show what `read` gives at the moment as gopush_<name>."""
        self._registry.register(_Gauge(f"gopush_{name}", meaning, read))

    def histogram(self, name: str, meaning: str, buckets: tuple[float, ...] = SECONDS) -> Callable[[float], None]:
        """Show a distribution as gopush_<name>; gives what takes an observation."""
        observe: Callable[[float], None] = Histogram(
            f"gopush_{name}", meaning, buckets=buckets, registry=self._registry
        ).observe
        return observe

    def distribution(self, name: str, meaning: str, counted: Counted) -> None:
        """Show what is counted elsewhere as gopush_<name>: for what comes too often for histogram()."""
        self._registry.register(_Distribution(f"gopush_{name}", meaning, counted))

    def routes(self) -> Routes:
        """What a statistics port serves."""
        return {"/metrics": {"GET": Route(self._metrics)}}

    def _metrics(self, _: Request) -> Response:
        return Response(200, TEXT, generate_latest(self._registry))


class _Counters:
    def __init__(self, role: str, counters: Any) -> None:
        self._role = role
        self._counters = counters

    def collect(self) -> Iterator[CounterMetricFamily]:
        """See prometheus_client.registry.Collector."""
        for field in dataclasses.fields(self._counters):
            value = getattr(self._counters, field.name)
            name, meaning = f"gopush_{self._role}_{field.name}", f"{field.name.replace('_', ' ')} since the start"
            if isinstance(value, dict):
                family = CounterMetricFamily(name, meaning, labels=["ret"])
                for label, number in value.items():
                    family.add_metric([str(label)], number)
                yield family
            else:
                yield CounterMetricFamily(name, meaning, value=value)


class _Gauge:
    def __init__(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        self._name = name
        self._meaning = meaning
        self._read = read

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """See prometheus_client.registry.Collector."""
        yield GaugeMetricFamily(self._name, self._meaning, value=self._read())


class _Distribution:
    def __init__(self, name: str, meaning: str, counted: Counted) -> None:
        self._name = name
        self._meaning = meaning
        self._counted = counted

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """See prometheus_client.registry.Collector."""
        bounds = [*map(str, self._counted.bounds), "+Inf"]
        buckets = list(zip(bounds, accumulate(self._counted.counts), strict=True))
        yield HistogramMetricFamily(self._name, self._meaning, buckets=buckets, sum_value=self._counted.total)
