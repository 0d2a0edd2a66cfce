"""Takes measurements: the system on core 0, its load on core 1."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

from bench.load import Figures, Load, cpu_seconds, raw_limit, resident_bytes
from bench.measurements import (
    CLUSTER,
    EMBEDDED,
    EMBEDDED_TWO_CORES,
    EQUAL,
    EQUAL_TWO_CORES,
    EQUALS,
    TWO_CORES,
    Measurement,
)
from bench.system import Cluster, Embedded, Equals, System

SERVER_CORE, LOAD_CORE = 0, 1
SYSTEMS: Mapping[str, Callable[[], System]] = {
    CLUSTER: lambda: Cluster(SERVER_CORE),
    EMBEDDED: lambda: Embedded(SERVER_CORE),
    TWO_CORES: lambda: Cluster(SERVER_CORE, LOAD_CORE),
    EMBEDDED_TWO_CORES: lambda: Embedded(SERVER_CORE, LOAD_CORE),
    EQUAL: lambda: Equals(SERVER_CORE),
    EQUALS: lambda: Equals(SERVER_CORE, nodes=2),
    EQUAL_TWO_CORES: lambda: Equals(SERVER_CORE, LOAD_CORE),
}
ADDRESS = {"tcp": "tcp", "websocket": "websocket", "stream": "public", "poll": "public"}
"""Where clients of a kind go: an attribute of System."""
_prefixes = (f"r{number}k" for number in count())


class Systems:
    """The systems that run; those that measurements can share stay. Use it in a `with`."""

    def __init__(self) -> None:
        self._running: dict[str, System] = {}
        self._ends = ExitStack()

    def __enter__(self) -> Systems:
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    @contextmanager
    def running(self, name: str, fresh: bool) -> Iterator[System]:
        """A system by its name; only one at a time, the others would be in its way."""
        if fresh or name not in self._running:
            self._ends.close()
            self._running.clear()
            self._running[name] = self._ends.enter_context(SYSTEMS[name]())
        yield self._running[name]


def measure(program: Path, system: System, measurement: Measurement) -> Figures:
    """One run."""
    shared = measurement.system in (TWO_CORES, EMBEDDED_TWO_CORES, EQUAL_TWO_CORES)
    core = None if shared else LOAD_CORE
    where = {"admin": system.admin, measurement.client: getattr(system, ADDRESS[measurement.client])}
    if not measurement.beside:
        return _run(program, core, system.processes, where | dict(measurement.load))
    beside = Load(program, core, {"tcp": system.tcp, "admin": system.admin} | dict(measurement.beside))
    beside.ready()
    beside.go()
    figures = _run(program, core, system.processes, where | dict(measurement.load))
    return figures | {f"beside_{name}": value for name, value in beside.figures().items()}


def measure_raw(program: Path, load: Mapping[str, object]) -> Figures:
    """The same, of a server that does nothing but send."""
    with raw_limit(program, SERVER_CORE) as (subscribers, publishers, pid):
        return _run(program, LOAD_CORE, {"raw": pid}, {"tcp": subscribers, "admin": publishers} | dict(load))


def _run(program: Path, core: int | None, processes: Mapping[str, int], options: Mapping[str, object]) -> Figures:
    before, idle = resident_bytes(processes), cpu_seconds(processes)
    load = Load(program, core, {"prefix": next(_prefixes)} | dict(options))
    live = load.ready()
    grown = resident_bytes(processes) - before
    used = cpu_seconds(processes)
    load.go()
    figures = load.figures()
    spent = {name: seconds - used[name] for name, seconds in cpu_seconds(processes).items()}
    messages = max(figures.get("delivered", 0), figures["requests"] * int(str(options.get("batch", 1))))
    if not messages and live:
        figures["cpu_us"] = sum(used[name] - idle[name] for name in used) / live * 1e6
    if messages:
        figures["cpu_us"] = sum(spent.values()) / messages * 1e6
        figures |= {f"cpu_us_{name}": seconds / messages * 1e6 for name, seconds in spent.items()}
    if live:
        figures["bytes_per_connection"] = grown / live
    return figures
