"""`GET /metrics`: a process's numbers for Prometheus (protocol.md, section 10). What counts stays plain integers.

Names begin with `gopush_`, then the role. Families are read when somebody asks, so counting costs no more than before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from gopush.net.http.request import Request, Response
from gopush.net.http.routes import Route, Routes
from gopush.stats.histogram import Histogram

TEXT = "text/plain; version=0.0.4; charset=utf-8"

Labelled = Mapping[tuple[str, ...], Histogram]


class Metrics:
    """The numbers of one process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(namespace="gopush", registry=self._registry)
        GCCollector(registry=self._registry)

    def counters(self, role: str, counters: Any, label: str | None = None) -> None:
        """Show a dataclass of integers that only grow; with a `label`, a mapping from its values to such dataclasses.

        A field that is a dict is one family, labelled by its keys. A field's metadata may say its `meaning`, and the
        `label` of a dict.
        """
        if label is None:
            self._registry.register(_Counters(role, {(): counters}, ()))
        else:
            self._registry.register(_Counters(role, {(value,): part for value, part in counters.items()}, (label,)))

    def gauge(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        """Show what `read` gives at the moment as gopush_<name>."""
        self._registry.register(_Gauge(f"gopush_{name}", meaning, (), lambda: {(): read()}))

    def gauges(self, name: str, meaning: str, label: str, read: Callable[[], Mapping[str, float]]) -> None:
        """Show what `read` gives, by the values of a label."""
        labelled = _Gauge(
            f"gopush_{name}", meaning, (label,), lambda: {(value,): number for value, number in read().items()}
        )
        self._registry.register(labelled)

    def histogram(self, name: str, meaning: str, counted: Histogram) -> None:
        """Show a distribution as gopush_<name>."""
        self.histograms(name, meaning, (), {(): counted})

    def histograms(self, name: str, meaning: str, labels: tuple[str, ...], counted: Labelled) -> None:
        """Show distributions as gopush_<name>, by the values of their labels."""
        self._registry.register(_Histograms(f"gopush_{name}", meaning, labels, counted))

    def routes(self) -> Routes:
        """What a statistics port serves."""
        return {"/metrics": {"GET": Route(self._metrics)}}

    def _metrics(self, _: Request) -> Response:
        return Response(200, TEXT, generate_latest(self._registry))


class _Counters:
    def __init__(self, role: str, parts: Mapping[tuple[str, ...], Any], labels: tuple[str, ...]) -> None:
        self._role = role
        self._parts = parts
        self._labels = labels

    def collect(self) -> Iterator[CounterMetricFamily]:
        """See prometheus_client.registry.Collector."""
        for field in dataclasses.fields(next(iter(self._parts.values()))):
            meaning = field.metadata.get("meaning", field.name.replace("_", " "))
            label = field.metadata.get("label")
            family = CounterMetricFamily(
                f"gopush_{self._role}_{field.name}",
                f"{meaning} since the start",
                labels=self._labels if label is None else (*self._labels, label),
            )
            for values, part in self._parts.items():
                counted = getattr(part, field.name)
                for more, number in [((), counted)] if label is None else _by_label(counted):
                    family.add_metric((*values, *more), number)
            yield family


def _by_label(counted: Mapping[Any, int]) -> list[tuple[tuple[str, ...], int]]:
    return [((str(value),), number) for value, number in counted.items()]


class _Gauge:
    def __init__(
        self, name: str, meaning: str, labels: tuple[str, ...], read: Callable[[], Mapping[tuple[str, ...], float]]
    ) -> None:
        self._name = name
        self._meaning = meaning
        self._labels = labels
        self._read = read

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """See prometheus_client.registry.Collector."""
        family = GaugeMetricFamily(self._name, self._meaning, labels=self._labels)
        for values, number in self._read().items():
            family.add_metric(values, number)
        yield family


class _Histograms:
    def __init__(self, name: str, meaning: str, labels: tuple[str, ...], counted: Labelled) -> None:
        self._name = name
        self._meaning = meaning
        self._labels = labels
        self._counted = counted

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """See prometheus_client.registry.Collector."""
        family = HistogramMetricFamily(self._name, self._meaning, labels=self._labels)
        for values, counted in self._counted.items():
            buckets = list(zip([*map(str, counted.bounds), "+Inf"], accumulate(counted.counts), strict=True))
            family.add_metric(values, buckets, counted.total)
        yield family
