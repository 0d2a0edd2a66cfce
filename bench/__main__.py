"""`make bench`: every measurement several times, as a table. NAME: only those whose names hold it. RUNS: how often."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from bench.load import Figures, compiled, directory
from bench.measurements import MEASUREMENTS, Measurement
from bench.runner import Systems, measure, measure_raw

HEAD = (
    f"{'':50} {'median':>9} {'least':>9} {'most':>9} {'raw':>9} {'ratio':>6} "
    f"{'CPU us':>7} {'B/conn':>7} {'p50 ms':>8} {'p99 ms':>8} {'p999 ms':>8}"
)


def main(arguments: Sequence[str]) -> int:
    """Measure and print; 1 where something was lost, refused or out of order."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--name", default="", help="only measurements whose names hold this")
    parser.add_argument("--runs", type=int, default=5, choices=range(1, 21), metavar="N", help="1 to 20 (5)")
    parser.add_argument("--json", type=Path, help="where to write all figures of all runs")
    options = parser.parse_args(arguments)
    chosen = [measurement for measurement in MEASUREMENTS if options.name in measurement.name]
    program = compiled(directory())
    print(
        f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores; CPU us: all processes, a message or handshake"
    )
    print(HEAD)
    taken: dict[str, dict[str, list[Figures]]] = {}
    wrong = False
    with Systems() as systems:
        for measurement in chosen:
            runs, raws = [], []
            for _ in range(options.runs):
                with systems.running(measurement.system, measurement.fresh) as system:
                    runs.append(measure(program, system, measurement))
                if measurement.raw:
                    raws.append(measure_raw(program, measurement.load))
            taken[measurement.name] = {"runs": runs, "raw": raws}
            print(line(measurement, runs, raws), flush=True)
            for complaint in complaints(runs):
                wrong = True
                print(f"    {complaint}", flush=True)
    print(f"load average {os.getloadavg()[0]:.1f}")
    if options.json:
        options.json.write_text(json.dumps(taken, indent=1))
    return int(wrong)


def line(measurement: Measurement, runs: Sequence[Figures], raws: Sequence[Figures]) -> str:
    """The measurement's line of the table."""
    values = [run[measurement.figure] for run in runs]
    cells = [f"{measurement.name:50}", *(f"{_short(value):>9}" for value in (median(values), min(values), max(values)))]
    if raws:
        raw = median(run[measurement.figure] for run in raws)
        cells += [f"{_short(raw):>9}", f"{median(values) / raw:6.2f}"]
    else:
        cells += [f"{'':>9}", f"{'':>6}"]
    for name, width in (("cpu_us", 7), ("bytes_per_connection", 7)):
        cells.append(f"{_middle(runs, name):>{width}}")
    kinds = ("beside_delivery", "delivery", "request", "handshake")
    prefix = next(kind for kind in kinds if f"{kind}_p50" in runs[0])
    cells += [f"{_middle(runs, f'{prefix}_{part}', 2):>8}" for part in ("p50", "p99", "p999")]
    return " ".join(cells)


def complaints(runs: Sequence[Figures]) -> list[str]:
    """What no run may have."""
    wrong = []
    for name in ("lost", "failed", "closed", "refused", "disordered"):
        total = sum(run.get(name, 0) for run in runs)
        if total:
            wrong.append(f"{name}: {total:.0f}")
    return wrong


def _middle(runs: Sequence[Figures], name: str, digits: int = 1) -> str:
    values = [run[name] for run in runs if name in run]
    return f"{median(values):.{digits}f}" if values else ""


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
