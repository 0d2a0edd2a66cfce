"""What administrators call and see: nodes, weights, draining, a key, slow connections (protocol.md, section 10)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from heapq import nlargest
from itertools import chain
from typing import Any, NamedTuple, cast

from twisted.internet.defer import Deferred, gatherResults

import gopush
from gopush.errors import RET_INTERNAL, NoNodeError, ParameterError, UnavailableError
from gopush.membership.view import Coordination, View
from gopush.model import MAX_WEIGHT, MID_STEP, Message, NodeInfo, raw_json, snap
from gopush.net.http.request import Request
from gopush.net.http.routes import Route, Routes
from gopush.reports import Backup, BusyKey, SlowConsumer, Status
from gopush.routing.comets import Comets
from gopush.routing.messages import Messages
from gopush.rpc.services import BackupService, NodeService
from gopush.stats.histogram import Histogram
from gopush.web import params
from gopush.web.counters import WebCounters
from gopush.web.keys import check_keys
from gopush.web.responses import FailedError, api, compact
from gopush.web.tokens import listing

_UNKNOWN = Status("", 0, None, None)


class _Process(NamedTuple):
    """A registered process, and the service that reaches it."""

    role: str
    info: NodeInfo
    peers: Comets | Messages


@dataclass(eq=False, repr=False)
class Cluster:
    """The comets and message nodes of the current view. A node is named as on the ring, or by its RPC address.

    A process that is both is asked once, and does both.
    """

    _coordination: Coordination
    _comets: Comets
    _messages: Messages

    def routes(self) -> Routes:
        """The routes of the admin port."""
        return {
            "/1/admin/nodes": {"GET": Route(api(self._list))},
            "/1/admin/node/weight": {"POST": Route(api(self._set_weight))},
            "/1/admin/node/drain": {"POST": Route(api(self._drain))},
            "/1/admin/node/undrain": {"POST": Route(api(self._undrain))},
            "/1/admin/key/close": {"POST": Route(api(self._close))},
            "/1/admin/backup": {"POST": Route(api(self._backup))},
        }

    def _list(self, _request: Request) -> Deferred[bytes]:
        view = self._coordination.view
        processes = self._processes(view)
        asked = [_status(process) for process in processes]
        return gatherResults(asked).addCallback(
            lambda found: compact({"nodes": list(map(partial(_shown, view), processes, found))})
        )

    def _set_weight(self, request: Request) -> Deferred[bytes]:
        weight = params.decimal(request.query.text("weight"), MAX_WEIGHT, "weight", least=1)
        return _tell(self._named(request), lambda node: node.set_weight(weight))

    def _drain(self, request: Request) -> Deferred[bytes]:
        named = self._named(request)
        every = self._processes(self._coordination.view)
        left = {process.role for process in every if not process.info.draining and process not in named}
        if not {process.role for process in named} <= left:
            raise ParameterError(
                "the last comets, or the last message nodes, cannot drain: none would take their place"
            )
        return _tell(named, lambda node: node.drain(True))

    def _undrain(self, request: Request) -> Deferred[bytes]:
        return _tell(self._named(request), lambda node: node.drain(False))

    def _close(self, request: Request) -> Deferred[bytes]:
        closed = self._comets.close(params.key(request.query, "key"))
        return closed.addCallback(lambda count: b'{"closed":%d}' % count)

    def _backup(self, request: Request) -> Deferred[bytes]:
        """Of several message nodes any will do: they share a store that has its own tools, and say so."""
        file, id = request.query.text("file"), request.query.text("id")
        if not file:
            raise ParameterError("file is missing: the path of the copy, on the machine of the message node")
        if not id:
            raise ParameterError("id is missing: it tells this backup from others")
        params.push_id(id)
        nodes = self._coordination.view.messages
        if not nodes:
            raise UnavailableError("no message node is registered")
        asked = self._messages.ask(nodes[0].id, lambda node: cast(BackupService, node).backup(file, id))
        return asked.addCallback(_backed_up)

    def _processes(self, view: View) -> list[_Process]:
        comets = [_Process("comet", info, self._comets) for info in view.comets]
        return comets + [_Process("message", info, self._messages) for info in view.messages]

    def _named(self, request: Request) -> list[_Process]:
        name = request.query.text("node")
        if not name:
            raise ParameterError("node is missing: the name of a node as listed, or the RPC address of one process")
        every = self._processes(self._coordination.view)
        ids = {one.info.id for one in every if name in one.info.place}
        if not ids:
            raise NoNodeError(f"no process of this name is registered {params.found(name)}")
        return [one for one in every if one.info.id in ids]


def _backed_up(backup: Backup) -> bytes:
    if backup.state == "refused":
        raise ParameterError(backup.why)
    if backup.state == "failed":
        raise FailedError(RET_INTERNAL, backup.why)  # an UnavailableError would not say why
    return compact({"state": backup.state, "copied": backup.copied, "size": backup.size})


def _tell(processes: Iterable[_Process], call: Callable[[NodeService], Deferred[None]]) -> Deferred[bytes]:
    asked = {process.info.id: process.peers for process in processes}
    sent = [peers.ask(id, call) for id, peers in asked.items()]
    return gatherResults(sent, consumeErrors=True).addCallbacks(lambda _: b"", _first)


def _first(failure: Any) -> bytes:
    raise FailedError(RET_INTERNAL, failure.value.subFailure.getErrorMessage())


def _status(process: _Process) -> Deferred[Status]:
    """What the process itself says; where it does not answer, that is shown."""
    return process.peers.ask(process.info.id, lambda node: node.status()).addErrback(lambda _: _UNKNOWN)


def _state(view: View, process: _Process) -> str:
    if process.info.draining:
        return "draining"
    return "active" if process.role == "message" or process.info in view.active else "standby"


def _shown(view: View, process: _Process, status: Status) -> dict[str, Any]:
    info, answers = process.info, status is not _UNKNOWN
    shown = {"role": process.role, "node": info.node, "state": _state(view, process), "weight": info.weight}
    shown |= {"rpc": info.rpc, "tcp": info.tcp, "ws": info.ws}
    load = status if process.role == "comet" else _UNKNOWN  # not twice, of a process that is both
    shown |= {"connections": load.connections, "channels": load.channels, "deliveries": load.deliveries}
    return shown | {"age": status.age if answers else None, "version": status.version if answers else None}


MAX_SHOWN = 1000
MAX_SLOW_CONSUMERS = 20
MAX_BUSY_KEYS = 1000
USUAL_BUSY_KEYS = 50


@dataclass(eq=False, repr=False)
class Insight:
    """This web node's numbers, keys, slow connections: looks, and changes nothing."""

    _coordination: Coordination
    _messages: Messages
    _comets: Comets
    _counters: WebCounters
    _latency: Histogram

    def routes(self) -> Routes:
        """The routes of the admin port. What tells of others' keys and messages may be large."""
        return {
            "/1/admin/status": {"GET": Route(api(self._status))},
            "/1/admin/key": {"GET": Route(api(self._key), alone=True)},
            "/1/admin/key/message": {"GET": Route(api(self._message), alone=True)},
            "/1/admin/keys": {"GET": Route(api(self._keys), alone=True)},
            "/1/admin/slowest": {"GET": Route(api(self._slow_consumers), alone=True)},
        }

    def _status(self, _request: Request) -> bytes:
        latency = self._latency
        shown = {"pushes": self._counters.pushes, "lookups": self._counters.lookups, "reads": self._counters.reads}
        took = {"bounds": latency.bounds, "counts": latency.counts, "total": round(latency.total, 6)}
        here = {"version": gopush.__version__, "cluster": self._coordination.cluster}
        return compact({**here, **shown, "push_seconds": took})

    def _slow_consumers(self, _request: Request) -> Deferred[bytes]:
        nodes = {comet.id: comet.node for comet in self._coordination.view.comets}

        def merge(found: dict[str, list[SlowConsumer] | None]) -> bytes:
            every = [
                {"node": nodes.get(name, ""), "rpc": name, **slow._asdict()}
                for name, several in found.items()
                for slow in several or ()
            ]
            return compact({"slowest": nlargest(MAX_SLOW_CONSUMERS, every, key=lambda slow: slow["bytes"])})

        return self._comets.slowest(MAX_SLOW_CONSUMERS).addCallback(merge)

    def _keys(self, request: Request) -> Deferred[bytes]:
        """An API key of a prefix is good for keys that begin with at least that."""
        prefix = params.prefix(request.query, "prefix")
        given = request.query.get("most")
        most = USUAL_BUSY_KEYS if given is None else params.decimal(given, MAX_BUSY_KEYS, "most", least=1)
        check_keys(request, [prefix])
        return self._comets.keys(prefix, most).addCallback(self._busiest, most)

    def _busiest(self, found: Mapping[str, Sequence[BusyKey] | None], most: int) -> bytes:
        sums: dict[str, BusyKey] = {}
        for key, connections, rate in chain.from_iterable(filter(None, found.values())):
            before = sums.get(key, BusyKey(key, 0, 0.0))
            sums[key] = BusyKey(key, before.connections + connections, round(before.rate + rate, 3))
        busiest = nlargest(most, sums.values(), key=lambda busy: (busy.rate, busy.connections))
        owners = map(self._coordination.view.owner, (busy.key for busy in busiest))
        shown = [
            {**busy._asdict(), "node": owner and owner.node, "rpc": owner and owner.id}
            for busy, owner in zip(busiest, owners, strict=True)
        ]
        return compact({"keys": shown, "silent": [name for name, keys in found.items() if keys is None]})

    def _message(self, request: Request) -> Deferred[bytes]:
        key, mid = params.key(request.query, "key"), snap(params.cursor(request.query, "mid"))
        read = self._messages.read(key, max(0, mid - MID_STEP), 1)
        return read.addCallback(lambda page: _found(page.messages, mid))

    def _key(self, request: Request) -> Deferred[bytes]:
        return Deferred.fromCoroutine(self._show(params.key(request.query, "key")))

    async def _show(self, key: str) -> bytes:
        view = self._coordination.view
        owner = view.owner(key)
        shown: dict[str, Any] = {"owner": None if owner is None else owner.id, "ws": [] if owner is None else owner.ws}
        kept, more = await self._kept(key)
        shown["messages"] = [{"mid": mid, "size": size} for mid, size in kept]
        shown["more"] = more
        tokens = await self._messages.tokens(key)
        counts = await self._comets.subscribers(key)
        shown["subscribers"] = [
            {"node": comet.node, "rpc": comet.rpc, "count": counts.get(comet.id)} for comet in view.comets
        ]
        return b'%b,"tokens":[%b]}' % (compact(shown)[:-1], listing(tokens))

    async def _kept(self, key: str) -> tuple[list[tuple[int, int]], bool]:
        """Mids and sizes of the oldest messages that are kept, and whether there are more. Bodies stay for a page."""
        kept: list[tuple[int, int]] = []
        more = True
        while more and len(kept) < MAX_SHOWN:
            page = await self._messages.read(key, kept[-1][0] if kept else 0)
            kept += [(message.mid, len(message.body)) for message in page.messages]
            more = page.more and bool(page.messages)
        return kept[:MAX_SHOWN], more or len(kept) > MAX_SHOWN


def _found(messages: Sequence[Message], mid: int) -> bytes:
    if not messages or messages[0].mid != mid:
        raise ParameterError(f"mid: no message {mid} of this key is kept (any more)")
    return raw_json(messages[0])
