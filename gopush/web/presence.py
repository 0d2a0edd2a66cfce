"""Who is there: how many are subscribed to each of many keys, since when, over what (protocol.md, section 10)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from twisted.internet.defer import Deferred

from gopush.errors import NoNodeError
from gopush.membership.view import Coordination
from gopush.net.http.request import Request
from gopush.net.http.routes import Route, Routes
from gopush.reports import Presence
from gopush.routing.comets import Comets
from gopush.web import params
from gopush.web.envelopes import REPEATS, key_names
from gopush.web.keys import check_keys
from gopush.web.responses import api, compact

MAX_KEYS = 10_000

_UNKNOWN: dict[str, Any] = {"count": None, "since": None, "over": {}}


class PresenceApi:
    """Asks the owners of the keys. `now`: seconds since the epoch; `max_body`: bytes of a call."""

    def __init__(self, coordination: Coordination, comets: Comets, now: Callable[[], float], max_body: int) -> None:
        self._coordination = coordination
        self._comets = comets
        self._now = now
        self._max_body = max_body

    def routes(self) -> Routes:
        """The routes of the admin port."""
        return {"/1/admin/presence": {"POST": Route(api(self._presence), self._max_body, alone=True)}}

    def _presence(self, request: Request) -> Deferred[bytes]:
        found = params.properties(params.decode(request.body), strings=REPEATS * MAX_KEYS)
        names = key_names(found["k"].value if "k" in found else None, MAX_KEYS)
        keys = [params.valid_key(name, "one of k") for name in names]
        check_keys(request, keys)
        if not self._coordination.view.active:
            raise NoNodeError("no comet is known")
        return self._comets.presence(keys).addCallback(self._data)

    def _data(self, found: Mapping[str, Presence | None]) -> bytes:
        return compact({"presence": list(self._shown(found))})

    def _shown(self, found: Mapping[str, Presence | None]) -> Iterator[dict[str, Any]]:
        now = int(self._now())
        for key, there in found.items():
            if there is None:
                yield {"key": key, **_UNKNOWN}
            else:
                since = now - there.seconds if there.connections and there.seconds is not None else None
                yield {"key": key, "count": there.connections, "since": since, "over": dict(there.over)}
