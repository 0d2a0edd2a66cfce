"""Which comet holds a key, and what time it is (protocol.md, section 4)."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from operator import attrgetter

from gopush.errors import NoNodeError, ParameterError
from gopush.membership.view import Coordination
from gopush.model import NodeInfo, mid_at
from gopush.net.http.request import Request
from gopush.net.http.routes import Route, Routes
from gopush.web import params
from gopush.web.counters import WebCounters
from gopush.web.responses import NEW, OLD, callback_api

TRANSPORTS: dict[str, Callable[[NodeInfo], tuple[str, ...]]] = {"1": attrgetter("ws"), "2": attrgetter("tcp")}
"""What a client names by `p` or `proto`, and where a comet takes it."""


class Lookup:
    """Look-ups in the current view of the cluster; `now` gives seconds since the epoch."""

    def __init__(self, coordination: Coordination, now: Callable[[], float], counters: WebCounters) -> None:
        self._coordination = coordination
        self._now = now
        self._counters = counters

    def routes(self) -> Routes:
        """The routes of the public port."""
        return {
            "/1/server/get": {"GET": Route(callback_api(NEW, self._server))},
            "/2/server/get": {"GET": Route(callback_api(NEW, self._servers))},
            "/server/get": {"GET": Route(callback_api(OLD, self._old_server))},
            "/1/time/get": {"GET": Route(callback_api(NEW, self._time))},
            "/time/get": {"GET": Route(callback_api(OLD, self._time))},
        }

    def _server(self, request: Request) -> bytes:
        return b'{"server":%b}' % _json(self._addresses(request, "k", "p")[0])

    def _servers(self, request: Request) -> bytes:
        return b'{"server":[%b]}' % b",".join(_json(address) for address in self._addresses(request, "k", "p"))

    def _old_server(self, request: Request) -> bytes:
        return b'{"server":%b}' % _json(self._addresses(request, "key", "proto")[0])

    def _addresses(self, request: Request, key_name: str, proto_name: str) -> tuple[str, ...]:
        """Where the key's comet takes clients of this protocol: at least one address."""
        self._counters.lookups += 1
        query = request.query
        key = params.key(query, key_name)
        proto = query.text(proto_name)
        if proto not in TRANSPORTS:
            raise ParameterError(f"{proto_name} is neither 1 (WebSocket) nor 2 (TCP) {params.found(proto)}")
        owner = self._coordination.view.owner(key)
        addresses = () if owner is None else TRANSPORTS[proto](owner)
        if not addresses:
            raise NoNodeError("no comet for this key and protocol")
        return addresses

    def _time(self, _request: Request) -> bytes:
        return b'{"timeid":%d}' % mid_at(self._now())


@lru_cache(maxsize=1024)
def _json(text: str) -> bytes:
    return json.dumps(text).encode()
