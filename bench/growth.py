"""How cost grows: measures series, and writes a plot (SVG) of each."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from bench.load import Figures, compiled, directory
from bench.measurements import CLUSTER, Measurement
from bench.plot import Series, chart
from bench.runner import Systems, measure, measure_raw

RUNS = 2
CONNECTIONS = (1000, 2000, 5000, 10_000, 15_000, 19_000)
KEYS = (1, 10, 100, 1000, 10_000)
SIZES = (100, 400, 1600, 6400, 16_000, 64_000)


def main(arguments: Sequence[str]) -> int:
    """Measure all series; the raw limit beside them where there is one."""
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    parser.add_argument("directory", type=Path, help="where to write the plots")
    target: Path = parser.parse_args(arguments).directory
    target.mkdir(parents=True, exist_ok=True)
    program = compiled(directory())
    with Systems() as systems, systems.running(CLUSTER, fresh=True) as system:

        def cost(load: dict[str, object]) -> Figures:
            runs = [measure(program, system, Measurement("", CLUSTER, "", load)) for _ in range(RUNS)]
            return {name: median(run.get(name, 0.0) for run in runs) for name in runs[0]}

        def raw(load: dict[str, object]) -> Figures:
            return measure_raw(program, load)

        _series(target, "connections", "subscribers of one key", CONNECTIONS, _fan_out, cost, raw)
        _series(target, "keys", "keys that a request pushes to", KEYS, _keys, cost, None)
        _series(target, "sizes", "bytes of a message, 1,000 subscribers", SIZES, _sizes, cost, raw)
    return 0


Take = Callable[[dict[str, object]], Figures]


def _series(
    target: Path,
    name: str,
    title: str,
    values: Sequence[int],
    load: Callable[[int], dict[str, object]],
    cost: Take,
    raw: Take | None,
) -> None:
    ours, limit = Series("gopush, CPU of all processes", []), Series("raw limit, CPU of the server", [])
    print(title)
    for value in values:
        figures = cost(load(value))
        ours.points.append((value, figures["cpu_us"]))
        reported = f"{value:>8,} {figures['cpu_us']:8.1f} us {figures['deliveries_per_second']:12,.0f}/s"
        if raw is not None:
            kernel = raw(load(value))
            limit.points.append((value, max(kernel["cpu_us"], 0.1)))
            reported += f"   raw {kernel['cpu_us']:8.1f} us {kernel['deliveries_per_second']:12,.0f}/s"
        print(reported, flush=True)
    shown = [ours, limit] if raw is not None else [ours]
    (target / f"growth-{name}.svg").write_text(chart(title, "CPU time of a delivery, µs", shown))


def _fan_out(subscribers: int) -> dict[str, object]:
    messages = max(5, min(500, 100_000 // subscribers))
    return {"subscribers": subscribers, "publishers": 1, "window": 8, "messages": messages, "seconds": 5}


def _keys(keys: int) -> dict[str, object]:
    requests = max(4, min(200, 20_000 // keys))
    load = {"subscribers": keys, "keys": keys, "way": "mprivate", "batch": min(keys, 1000), "expire": 600}
    return {**load, "publishers": 4, "window": 4, "messages": requests, "seconds": 5}


def _sizes(size: int) -> dict[str, object]:
    messages = max(10, min(100, 1_000_000 // size))
    return {"subscribers": 1000, "publishers": 1, "window": 2, "bytes": size, "messages": messages, "seconds": 5}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
