"""How counters are declared: once each, as a field of a dataclass, with what it means and what its metric is called.

Counting is adding to an integer; names, labels and meanings are looked at when somebody asks (stats/prometheus.py). A
metric with another name than its field had the name of the field before, and has it for a release, too. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Samples = Iterator[tuple[tuple[str, ...], int]]


@dataclass(frozen=True)
class Metric:
    """Of one field. `meaning`: of the metric, a phrase; `name`: where it is not the field's; `labels`: names.

    `values`: those of the labels, where the field is one number of several in the metric, and `detail` what that one
    means. A field that is a dict has its keys for values. `was`: what the metric was called when it had no labels.
    """

    meaning: str
    name: str = ""
    labels: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    detail: str = ""
    was: str = ""

    @property
    def selector(self) -> str:
        """What finds this field's number in the metric, as PromQL has it."""
        matches = (f'{label}="{value}"' for label, value in zip(self.labels, self.values, strict=False))
        return f"{{{', '.join(matches)}}}" if self.values else ""

    def old(self, field: str) -> tuple[str, bool] | None:
        """Under which other name it is shown, and whether without its labels."""
        if self.was:
            return self.was, True
        return (field, bool(self.values)) if self.name else None

    def samples(self, counted: int | Mapping[Any, int]) -> Samples:
        """Label values and numbers."""
        if isinstance(counted, int):
            yield self.values, counted
            return
        for key, number in counted.items():
            yield (tuple(map(_text, key)) if isinstance(key, tuple) else (_text(key),)), number


@dataclass(frozen=True)
class Family:
    """Fields that are one metric together, told apart by the values of a label."""

    name: str
    meaning: str
    label: str

    def of(self, value: str, detail: str) -> Any:
        """A field of it, which counts those with this value."""
        return _counter(Metric(self.meaning, self.name, (self.label,), (value,), detail))


def counter(meaning: str, name: str = "") -> Any:
    """A field that counts."""
    return _counter(Metric(meaning, name))


def labelled(meaning: str, *labels: str, keys: Iterable[Any] = (), name: str = "", was: str = "") -> Any:
    """A field that is a dict, and counts by its keys: one label each, or tuples of several. `keys`: to begin with."""
    metadata = {"metric": Metric(meaning, name, labels, was=was)}
    return field(default_factory=lambda: dict.fromkeys(keys, 0), metadata=metadata)


def _counter(metric: Metric) -> Any:
    return field(default=0, metadata={"metric": metric})


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
