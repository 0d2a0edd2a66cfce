"""What a process shows at its statistics port: `/stat?type=T` (protocol.md, sections 6 and 10), `/metrics`, `/health`.

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

from twisted.internet.defer import Deferred, TimeoutError, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from gopush.config.schema import SECRETS
from gopush.daemon.gc import collector
from gopush.daemon.listeners import Listeners
from gopush.errors import UnavailableError
from gopush.net.certificates import expiries
from gopush.net.clock import Clock, within
from gopush.net.eager import EagerReactor
from gopush.net.http.request import Request, Response, plain
from gopush.net.http.routes import Handler, Route, Routes
from gopush.net.http.site import Site
from gopush.stats.prometheus import Metrics
from gopush.stats.summary import complained

JSON = "application/json;charset=utf-8"
HIDDEN = "(hidden)"
IDLE_SECONDS = 10

Types = Mapping[str, Callable[[Request], dict[str, Any]]]


class Statistics:
    """Of one process that started just now; `settings` as they are in force."""

    def __init__(self, settings: Any) -> None:
        self.metrics = Metrics()
        self.metrics.counters("rpc", complained)
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
        """The route of the types."""
        return {"/stat": {"GET": Route(self._stat, alone=True)}}

    def port(self, reactor: Any, bind: tuple[str, ...], health: Health, **http: Site) -> Listeners:
        """The port itself, told to include the HTTP interfaces `http`. Raises SettingsError."""
        self.metrics.gauge("ready", "1 while this process can do its work, as /health says", lambda: health.ready)
        self.metrics.gauges(
            "certificate_expiry_timestamp_seconds",
            "when the certificate that this process uses ends, in seconds since 1970",
            "file",
            lambda: expiries,
        )
        metrics = Route(health.before(once_a_turn(self.metrics.response, reactor)), alone=True)
        factory = Site({**self.routes(), **health.routes(), "/metrics": {"GET": metrics}}, reactor, IDLE_SECONDS)
        sites = http | {"stat": factory}
        counters = {name: interface.counters for name, interface in sites.items()}
        self.metrics.counters("http", counters, "port")
        self.metrics.gauges(
            "http_open_connections",
            "connections now",
            "port",
            lambda: {name: len(interface.channels) for name, interface in sites.items()},
        )
        self.add({"http": lambda _: {name: counted.shown() for name, counted in counters.items()}})
        return Listeners(EagerReactor(reactor), "[base] stat.bind", bind, factory)

    def _stat(self, request: Request) -> Response:
        of_type = self._types.get(request.query.text("type"))
        if of_type is None:
            return plain(404)
        text = json.dumps(of_type(request), indent=4, ensure_ascii=False)
        return Response(200, JSON, text.encode(errors="replace"))  # a path may be no UTF-8

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


def once_a_turn(handler: Callable[[Request], Response], clock: Clock) -> Callable[[Request], Response]:
    """The handler, whatever the request: all who ask in one turn of the reactor share an answer that takes long."""
    shared: list[Response] = []

    def answer(request: Request) -> Response:
        if not shared:
            shared.append(handler(request))
            clock.callLater(0, shared.clear)
        return shared[0]

    return answer


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


CHECK_SECONDS = 1.0
"""How long a check may take, and how long its outcome holds."""

Check = Callable[[], "Deferred[None]"]

log = Logger()


class Health:
    """`GET /health`: answers from the outcome of `check`, a real round trip, which fails, saying why, where the process
    cannot do its work.

    However many ask, it is called once a second at most.
    """

    def __init__(self, clock: Clock, check: Check) -> None:
        self._clock = clock
        self._check = check
        self._answer: Response | None = None
        self._until = float("-inf")
        self._asking: list[Deferred[Response]] = []

    @property
    def ready(self) -> bool:
        """As the last check found."""
        return self._answer is not None and self._answer.status == 200

    def before(self, handler: Callable[[Request], Response]) -> Handler:
        """The handler, called once it is known whether the process is ready."""
        return lambda request: maybeDeferred(self._health, request).addCallback(lambda _: handler(request))

    def routes(self) -> Routes:
        """The route that every port for people and machines of the house has."""
        return {"/health": {"GET": Route(self._health)}}

    def _health(self, _request: Request) -> Response | Deferred[Response]:
        if self._answer is not None and self._clock.seconds() < self._until:
            return self._answer
        asked: Deferred[Response] = Deferred()
        self._asking.append(asked)
        if len(self._asking) == 1:
            check = within(CHECK_SECONDS, maybeDeferred(self._check), self._clock)
            check.addCallbacks(lambda _: None, _reason).addCallback(self._checked)
        return asked

    def _checked(self, reason: str | None) -> None:
        self._answer = _response(reason)
        self._until = self._clock.seconds() + CHECK_SECONDS
        asking, self._asking = self._asking, []
        for asked in asking:
            asked.callback(self._answer)


def _reason(failure: Failure) -> str:
    if isinstance(failure.value, TimeoutError):
        return f"no answer within {CHECK_SECONDS:g} s"
    if not isinstance(failure.value, UnavailableError):
        log.failure("the check of this process's health failed", failure)
    return failure.getErrorMessage()


def _response(reason: str | None) -> Response:
    said = {"alive": True, "ready": reason is None} | ({} if reason is None else {"reason": reason})
    return Response(200 if reason is None else 503, JSON, json.dumps(said, separators=(",", ":")).encode())
