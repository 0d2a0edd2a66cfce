"""`GET /metrics`: a process's numbers for Prometheus (protocol.md, section 10). What counts stays plain integers.

Names begin with `gopush_`, then the role, as Prometheus' conventions have it: units, `_total`. Families are read when
somebody asks, so counting costs no more than before. A metric with a new name has its old one, too, for a release.
"""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    Sample,
)

import gopush
import twisted
from gopush.net.http.request import Request, Response
from gopush.stats import counting
from gopush.stats.histogram import Histogram

TEXT = "text/plain; version=0.0.4; charset=utf-8"

Labelled = Mapping[tuple[str, ...], Histogram]


class Metrics:
    """The numbers of one process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_ProcessNumbers())
        self._show(_build)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def counters(self, role: str, counters: Any, label: str | None = None) -> None:
        """Show a dataclass of counters (stats/counting.py) as gopush_<role>_<name>_total; with a `label`, a mapping
        from its values to such dataclasses."""
        if label is None:
            self._registry.register(_Counters(role, {(): counters}, ()))
        else:
            self._registry.register(_Counters(role, {(value,): part for value, part in counters.items()}, (label,)))

    def gauge(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        """Show what `read` gives at the moment as gopush_<name>."""
        self._show(lambda: _gauge(name, meaning, (), {(): read()}))

    def gauges(
        self, name: str, meaning: str, label: str, read: Callable[[], Mapping[str, float]], was: str = ""
    ) -> None:
        """Show what `read` gives, by the values of a label. `was`: a name that it had, without a label."""
        self._show(lambda: _gauge(name, meaning, (label,), {(value,): number for value, number in read().items()}))
        if was:
            self.gauge(was, _replaced(f"gopush_{name}"), lambda: sum(read().values()))

    def histogram(self, name: str, meaning: str, counted: Histogram, was: str = "") -> None:
        """Show a distribution as gopush_<name>. `was`: another name that it had."""
        self.histograms(name, meaning, (), {(): counted}, was)

    def histograms(self, name: str, meaning: str, labels: tuple[str, ...], counted: Labelled, was: str = "") -> None:
        """Show distributions as gopush_<name>, by the values of their labels."""
        self._show(lambda: _histogram(name, meaning, labels, counted))
        if was:
            self._show(lambda: _histogram(was, _replaced(f"gopush_{name}"), labels, counted))

    def _show(self, read: Callable[[], Metric]) -> None:
        self._registry.register(_Family(read))

    def collect(self) -> list[Metric]:
        """All families as they are now."""
        return list(self._registry.collect())

    def response(self, _: Request) -> Response:
        """What Prometheus gets."""
        return Response(200, TEXT, generate_latest(self._registry))


def _replaced(name: str) -> str:
    return f"As {name}, its new name: this one goes with the next release."


def _sentence(meaning: str) -> str:
    return f"{meaning[0].upper()}{meaning[1:]}."


class _Counters:
    def __init__(self, role: str, parts: Mapping[tuple[str, ...], Any], labels: tuple[str, ...]) -> None:
        self._prefix = f"gopush_{role}_"
        self._parts = parts
        self._labels = labels

    def collect(self) -> Iterator[CounterMetricFamily]:
        """See prometheus_client.registry.Collector."""
        families: dict[str, CounterMetricFamily] = {}
        for field in dataclasses.fields(next(iter(self._parts.values()))):
            metric: counting.Metric = field.metadata["metric"]
            name = self._prefix + (metric.name or field.name)
            if name not in families:
                labels = (*self._labels, *metric.labels)
                families[name] = CounterMetricFamily(name, _sentence(metric.meaning), labels=labels)
            self._add(families[name], field.name, metric)
            if old := metric.old(field.name):
                was, bare = old
                labels = self._labels if bare else (*self._labels, *metric.labels)
                family = CounterMetricFamily(
                    self._prefix + was, _replaced(f"{name}_total{metric.selector}"), labels=labels
                )
                families[family.name] = self._add(family, field.name, metric, bare)
        yield from families.values()

    def _add(
        self, family: CounterMetricFamily, field: str, metric: counting.Metric, bare: bool = False
    ) -> CounterMetricFamily:
        for values, part in self._parts.items():
            samples = list(metric.samples(getattr(part, field)))
            for more, number in [((), sum(number for _, number in samples))] if bare else samples:
                family.add_metric((*values, *more), number)
        return family


class _Family:
    """One metric, as `read` gives it whenever somebody asks."""

    def __init__(self, read: Callable[[], Metric]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client.registry.Collector."""
        yield self._read()


def _gauge(name: str, meaning: str, labels: Sequence[str], numbers: Mapping[tuple[str, ...], float]) -> Metric:
    family = GaugeMetricFamily(f"gopush_{name}", _sentence(meaning), labels=labels)
    for values, number in numbers.items():
        family.add_metric(values, number)
    return family


def _histogram(name: str, meaning: str, labels: Sequence[str], counted: Labelled) -> Metric:
    family = HistogramMetricFamily(f"gopush_{name}", _sentence(meaning), labels=labels)
    for values, histogram in counted.items():
        buckets = list(zip([*map(str, histogram.bounds), "+Inf"], accumulate(histogram.counts), strict=True))
        family.add_metric(values, buckets, histogram.total)
    return family


class _ProcessNumbers:
    """prometheus_client's own metrics, by their usual names and, for a release, by gopush's old names."""

    def __init__(self) -> None:
        self._collector = ProcessCollector(registry=None)

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client.registry.Collector."""
        for family in self._collector.collect():
            yield family
            new = family.samples[0].name
            old = Metric(f"gopush_{family.name}", _replaced(new), family.type)
            old.samples = [Sample(f"gopush_{sample.name}", sample.labels, sample.value) for sample in family.samples]
            yield old


def _build() -> Metric:
    versions = {"version": gopush.__version__, "python": platform.python_version(), "twisted": twisted.__version__}
    return InfoMetricFamily("gopush_build", "The versions of gopush, Python and Twisted, which run here.", versions)
