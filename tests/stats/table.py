"""Every metric of gopush as Markdown: `python -m tests.stats.table` writes docs/monitoring/metrics.md.

What stands there is declared in the code, each once; tests/stats/test_prometheus.py compares.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import Metric
from twisted.internet.testing import MemoryReactorClock

from gopush.comet.counters import CometCounters
from gopush.embedded.node import EmbeddedNode
from gopush.embedded.settings import EmbeddedSettings
from gopush.net.http.parts import HttpCounters
from gopush.web.counters import WebCounters

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "monitoring" / "metrics.md"
COMMAND = "python -m tests.stats.table"

ROOMS = {
    "gopush_comet_": "Of a comet",
    "gopush_message_": "Of a message node",
    "gopush_web_": "Of a web node",
    "gopush_http_": "Of HTTP ports",
    "gopush_lane_": "Of the calls to other processes",
    "": "Of every process",
}
FAMILIES = {"gopush_comet_": CometCounters, "gopush_web_": WebCounters, "gopush_http_": HttpCounters}
REPLACED = re.compile(r"As (\S+), its new name: this one goes with the next release\.")

HEAD = f"""# Metrics

All metrics of `GET /metrics`; gopush in one process has all of them. A histogram adds `_bucket`, `_sum` and
`_count` to its name. `{COMMAND}` writes this page from the code.
"""
OLD = """
## Old names

This release has them beside the new ones; the next one drops them.

| was | is |
|---|---|
"""


def families() -> list[Metric]:
    """Of a process that has all roles, and does nothing yet."""
    nobody = MemoryReactorClock()
    return EmbeddedNode(nobody, EmbeddedSettings(storage="memory")).statistics.metrics.collect()


def document() -> str:
    """The page."""
    shown = families()
    parts = [HEAD]
    for prefix, title in ROOMS.items():
        others = [other for other in ROOMS if other and other != prefix]
        rows = [
            _row(family)
            for family in shown
            if family.name.startswith(prefix)
            and not family.name.startswith(tuple(others))
            and not REPLACED.match(family.documentation)
        ]
        parts.append(f"\n## {title}\n\n| name | type | labels | meaning |\n|---|---|---|---|\n{''.join(rows)}")
        parts += _values(prefix)
    parts.append(OLD)
    for family in shown:
        if replaced := REPLACED.match(family.documentation):
            parts.append(f"| `{_name(family)}` | `{replaced[1]}` |\n")
    return "".join(parts)


def _name(family: Metric) -> str:
    return family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")


def _row(family: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in getattr(family, "_labelnames", ()))
    # The words of prometheus_client differ from version to version.
    meaning = "As prometheus_client counts." if family.name.startswith("python_") else family.documentation
    return f"| `{_name(family)}` | {family.type} | {labels} | {meaning} |\n"


def _values(prefix: str) -> Iterator[str]:
    """What the values of a label mean."""
    name = ""
    if prefix not in FAMILIES:
        return
    fields = [field.metadata["metric"] for field in dataclasses.fields(FAMILIES[prefix])]
    for metric in sorted((metric for metric in fields if metric.values), key=lambda metric: metric.name):
        if metric.name != name:
            name = metric.name
            yield f"\n`{prefix}{name}_total`, by `{metric.labels[0]}`:\n\n"
        yield f"- `{metric.values[0]}`: {metric.detail}\n"


if __name__ == "__main__":
    DOCUMENT.write_text(document())
