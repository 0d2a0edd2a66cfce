"""Runs load.c, and looks at the processes that it loads."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bench.system import cores
from tests.servers import free_port

SOURCE = Path(__file__).with_name("load.c")
RUN_SECONDS = 300
_TICKS = os.sysconf("SC_CLK_TCK")

Figures = dict[str, float]


def compiled(directory: Path) -> Path:
    """The program, made by the system's C compiler."""
    program = directory / "load"
    if not program.exists() or program.stat().st_mtime < SOURCE.stat().st_mtime:
        directory.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-o", program, SOURCE], check=True)
    return program


class Load:
    """One load generator, connecting from the start; it begins to push when told to."""

    def __init__(self, program: Path, core: int | None, options: Mapping[str, object]) -> None:
        command = [str(program), "run", *(f"{name}={value}" for name, value in options.items())]
        with cores(*range(64) if core is None else (core,)):
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout

    def ready(self) -> int:
        """Wait until all are connected; how many are."""
        name, _, live = self._output.readline().partition(" ")
        if name != "ready":
            raise RuntimeError("the load generator did not get ready")
        return int(live)

    def go(self) -> None:
        """Begin to push."""
        self._input.write("go\n")
        self._input.flush()

    def figures(self) -> Figures:
        """Wait until it has ended; what it tells."""
        try:
            reported, _ = self._process.communicate(timeout=RUN_SECONDS)
        finally:
            self._process.kill()
            self._process.wait()
        return {name: float(value) for name, _, value in (line.partition(" ") for line in reported.splitlines())}


@contextmanager
def raw_limit(program: Path, core: int) -> Iterator[tuple[str, str, int]]:
    """A server that only sends; gives where subscribers and where publishers connect, and its pid."""
    ports = free_port(), free_port()
    with cores(core):
        process = subprocess.Popen([program, "raw", *map(str, ports)])
    try:
        _wait_for(ports[1])
        yield f"127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}", process.pid
    finally:
        process.kill()
        process.wait()


def _wait_for(port: int) -> None:
    needle = f"0100007F:{port:04X} 00000000:0000 0A"
    while needle not in Path("/proc/net/tcp").read_text():
        pass


def cpu_seconds(processes: Mapping[str, int]) -> dict[str, float]:
    """The CPU time that each process has used, the kernel's part included."""
    used = {}
    for name, pid in processes.items():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        used[name] = (int(fields[11]) + int(fields[12])) / _TICKS
    return used


def resident_bytes(processes: Mapping[str, int]) -> int:
    """The memory (RSS) of all processes."""
    pages = (int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in processes.values())
    return sum(pages) * os.sysconf("SC_PAGE_SIZE")


def directory() -> Path:
    """Where the program is kept."""
    return Path(tempfile.gettempdir()) / f"gopush-bench-{os.getuid()}"
