"""What administrators see besides the nodes: this web node's numbers, keys, slow connections (protocol.md, 10)."""

from __future__ import annotations

import json
from heapq import nlargest
from typing import Any

from twisted.internet.defer import Deferred

from gopush.membership.view import Coordination
from gopush.model import Message, SlowConsumer
from gopush.net.http.request import Request
from gopush.net.http.routes import Route, Routes
from gopush.stats.histogram import Histogram
from gopush.web import params
from gopush.web.counters import WebCounters
from gopush.web.peers import AllComets, KeyLogs
from gopush.web.responses import api
from gopush.web.tokens import listing

MAX_SHOWN = 1000
MAX_SLOW_CONSUMERS = 20


class Insight:
    """Looks, and changes nothing."""

    def __init__(
        self,
        coordination: Coordination,
        messages: KeyLogs,
        comets: AllComets,
        counters: WebCounters,
        latency: Histogram,
    ) -> None:
        self._coordination = coordination
        self._messages = messages
        self._comets = comets
        self._counters = counters
        self._latency = latency

    def routes(self) -> Routes:
        """The routes of the admin port."""
        return {
            "/1/admin/status": {"GET": Route(api(self._status))},
            "/1/admin/key": {"GET": Route(api(self._key))},
            "/1/admin/slowest": {"GET": Route(api(self._slow_consumers))},
        }

    def _status(self, _request: Request) -> bytes:
        latency = self._latency
        shown = {"pushes": self._counters.pushes, "lookups": self._counters.lookups, "reads": self._counters.reads}
        took = {"bounds": latency.bounds, "counts": latency.counts, "total": round(latency.total, 6)}
        return _json({**shown, "push_seconds": took})

    def _slow_consumers(self, _request: Request) -> Deferred[bytes]:
        nodes = {comet.id: comet.node for comet in self._coordination.view.comets}

        def merge(found: dict[str, list[SlowConsumer] | None]) -> bytes:
            every = [
                {"node": nodes.get(name, ""), "rpc": name, **slow._asdict()}
                for name, several in found.items()
                for slow in several or ()
            ]
            return _json({"slowest": nlargest(MAX_SLOW_CONSUMERS, every, key=lambda slow: slow["bytes"])})

        return self._comets.slowest(MAX_SLOW_CONSUMERS).addCallback(merge)

    def _key(self, request: Request) -> Deferred[bytes]:
        return Deferred.fromCoroutine(self._show(params.key(request.query, "key")))

    async def _show(self, key: str) -> bytes:
        view = self._coordination.view
        owner = view.owner(key)
        shown: dict[str, Any] = {"owner": None if owner is None else owner.id, "ws": [] if owner is None else owner.ws}
        messages, more = await self._kept(key)
        shown["messages"] = [{"mid": message.mid, "size": len(message.body)} for message in messages]
        shown["more"] = more
        tokens = await self._messages.tokens(key)
        counts = await self._comets.subscribers(key)
        shown["subscribers"] = [
            {"node": comet.node, "rpc": comet.rpc, "count": counts.get(comet.id)} for comet in view.comets
        ]
        return b'%b,"tokens":[%b]}' % (_json(shown)[:-1], listing(tokens))

    async def _kept(self, key: str) -> tuple[list[Message], bool]:
        """The oldest messages that are kept, and whether there are more."""
        messages: list[Message] = []
        more = True
        while more and len(messages) < MAX_SHOWN:
            page = await self._messages.read(key, messages[-1].mid if messages else 0)
            messages += page.messages
            more = page.more and bool(page.messages)
        return messages[:MAX_SHOWN], more or len(messages) > MAX_SHOWN


def _json(shown: dict[str, Any]) -> bytes:
    return json.dumps(shown, separators=(",", ":")).encode()
