"""`GET /stat?type=T`: a comet's numbers for people and scripts (protocol.md, section 6)."""

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
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gopush.comet.service import Comet
from gopush.http.request import Request
from gopush.http.response import Response, plain
from gopush.http.routing import Route, Routes
from gopush.metrics import Metrics

JSON = "application/json;charset=utf-8"
HIDDEN = "(hidden)"


class Statistics:
    """Answers for one comet; `started` in seconds since the epoch, `settings` as they are in force."""

    def __init__(self, comet: Comet, settings: Any, started: float) -> None:
        self._comet = comet
        self._settings = settings
        self._started = started
        self._types: dict[str, Callable[[Request], dict[str, Any]]] = {
            "memory": lambda _: _memory(),
            "server": lambda _: self._server(),
            "python": lambda _: _python(),
            "config": lambda _: _shown(self._settings),
            "channel": self._channel,
            "message": lambda _: self._message(),
            "connection": lambda _: self._connection(),
        }

    def routes(self) -> Routes:
        """What the statistics port serves."""
        return {"/stat": {"GET": Route(self._stat)}}

    def _stat(self, request: Request) -> Response:
        of_type = self._types.get(request.query.text("type"))
        if of_type is None:
            return plain(404)
        return Response(200, JSON, json.dumps(of_type(request), indent=4, ensure_ascii=False).encode())

    def _server(self) -> dict[str, Any]:
        return {
            "uptime": int(time.time() - self._started),
            "hostname": socket.gethostname(),
            "wd": str(Path.cwd()),
            "ppid": os.getppid(),
            "pid": os.getpid(),
            "pagesize": resource.getpagesize(),
            "group": _name(lambda: grp.getgrgid(os.getegid()).gr_name, os.getegid()),
            "user": _name(lambda: pwd.getpwuid(os.geteuid()).pw_name, os.geteuid()),
        }

    def _channel(self, request: Request) -> dict[str, Any]:
        key = request.query.get("key")
        if key is not None:
            channel = self._comet.channels.get(key)
            return {"channel": {"conn": channel.subscribers if channel is not None else 0}}
        counters = self._comet.counters
        return {
            "access": counters.channels_accessed,
            "create": counters.channels_created,
            "delete": counters.channels_deleted,
            "current": len(self._comet.channels),
        }

    def _message(self) -> dict[str, Any]:
        counters = self._comet.counters
        succeed, failed = counters.messages_succeeded, counters.messages_failed
        return {"succeed": succeed, "failed": failed, "total": succeed + failed}

    def _connection(self) -> dict[str, Any]:
        counters = self._comet.counters
        added, removed = counters.connections_added, counters.connections_removed
        return {"add": added, "remove": removed, "current": added - removed}


def show(comet: Comet, metrics: Metrics) -> None:
    """Have a comet's numbers in the metrics of its process."""
    counters = comet.counters
    metrics.counters("comet", counters)
    metrics.gauge(
        "comet_connections", "connections now", lambda: counters.connections_added - counters.connections_removed
    )
    metrics.gauge("comet_channels", "keys that have subscribers now", lambda: len(comet.channels))
    metrics.gauge(
        "comet_waiting_messages",
        "messages that wait for a read of the log or for a round of delivery now",
        lambda: sum(channel.waiting_messages for channel in comet.channels.values()),
    )


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
            shown[field.name] = HIDDEN if field.name == "secret" and value else value
    return shown


def _name(look_up: Callable[[], str], number: int) -> str:
    try:
        return look_up()
    except KeyError:
        return str(number)
