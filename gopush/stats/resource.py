"""What a process tells at its statistics port: `/stat?type=T` (protocol.md, sections 6 and 10) and `/metrics`.

Each role adds its own types and families to what all processes have.
"""

from __future__ import annotations

import dataclasses
import gc
import grp
import json
import os
import platform
import pwd
import resource
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gopush.config.schema import SECRETS
from gopush.daemon.gc import collector
from gopush.daemon.listeners import Listeners
from gopush.net.eager import EagerReactor
from gopush.net.http.request import Request
from gopush.net.http.response import Response, plain
from gopush.net.http.routes import Route, Routes
from gopush.net.http.site import Site
from gopush.stats.health import Health
from gopush.stats.prometheus import Metrics

JSON = "application/json;charset=utf-8"
HIDDEN = "(hidden)"
IDLE_SECONDS = 10

Types = Mapping[str, Callable[[Request], dict[str, Any]]]


class Statistics:
    """Of one process that started just now; `settings` as they are in force."""

    def __init__(self, settings: Any) -> None:
        self.metrics = Metrics()
        self._started = time.monotonic()
        self._types: dict[str, Callable[[Request], dict[str, Any]]] = {
            "memory": lambda _: _memory(),
            "server": lambda _: self._server(),
            "python": lambda _: _python(),
            "config": lambda _: _shown(settings),
        }
        self.metrics.histograms(
            "gc_pause_seconds",
            "how long collections of the garbage collector took",
            ("generation",),
            {(str(generation),): pauses for generation, pauses in enumerate(collector.pauses)},
        )

    def add(self, types: Types) -> None:
        """Tell these at /stat, too."""
        self._types |= types

    def routes(self) -> Routes:
        """What the statistics port serves."""
        return {"/stat": {"GET": Route(self._stat)}, **self.metrics.routes()}

    def port(self, reactor: Any, bind: tuple[str, ...], health: Health, **http: Site) -> Listeners:
        """The port itself, told to include the HTTP interfaces `http`. Raises SettingsError."""
        factory = Site({**self.routes(), **health.routes()}, reactor, IDLE_SECONDS)
        counters = {name: interface.counters for name, interface in (http | {"stat": factory}).items()}
        self.metrics.counters("http", counters, "port")
        self.add({"http": lambda _: {name: dataclasses.asdict(counted) for name, counted in counters.items()}})
        return Listeners(EagerReactor(reactor), "[base] stat.bind", bind, factory)

    def _stat(self, request: Request) -> Response:
        of_type = self._types.get(request.query.text("type"))
        if of_type is None:
            return plain(404)
        return Response(200, JSON, json.dumps(of_type(request), indent=4, ensure_ascii=False).encode())

    def _server(self) -> dict[str, Any]:
        return {
            "uptime": int(time.monotonic() - self._started),
            "hostname": socket.gethostname(),
            "wd": os.readlink("/proc/self/cwd"),  # also where it was removed
            "ppid": os.getppid(),
            "pid": os.getpid(),
            "pagesize": resource.getpagesize(),
            "group": _name(lambda: grp.getgrgid(os.getegid()).gr_name, os.getegid()),
            "user": _name(lambda: pwd.getpwuid(os.geteuid()).pw_name, os.geteuid()),
        }


def _memory() -> dict[str, Any]:
    """Bytes, as the kernel counts them."""
    pages = [int(number) for number in Path("/proc/self/statm").read_text("ascii").split()]
    size = resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"virtual": pages[0] * size, "resident": pages[1] * size, "shared": pages[2] * size, "peak": peak}


def _python() -> dict[str, Any]:
    return {
        "version": platform.python_version(),
        "implementation": platform.python_implementation(),
        "threads": threading.active_count(),
        "gc": {"counts": gc.get_count(), "thresholds": gc.get_threshold(), "generations": gc.get_stats()},
        "modules": len(sys.modules),
    }


def _shown(settings: Any) -> dict[str, Any]:
    """The settings as JSON, without what is secret."""
    shown: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            shown[field.name] = _shown(value)
        elif isinstance(value, (str, int, float, tuple)):
            shown[field.name] = HIDDEN if value and field.metadata["option"].name in SECRETS else value
    return shown


def _name(look_up: Callable[[], str], number: int) -> str:
    try:
        return look_up()
    except KeyError:
        return str(number)
