"""What administrators call: the processes of the cluster, their weights, draining (protocol.md, section 10)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, gatherResults

from gopush.errors import NoNodeError, ParameterError
from gopush.membership.view import Coordination, View
from gopush.model import MAX_WEIGHT, NodeInfo, Status
from gopush.net.http.request import Request
from gopush.net.http.routes import Route, Routes
from gopush.rpc.services import NodeService
from gopush.web import params
from gopush.web.peers import AllComets, AllNodes, KeyLogs
from gopush.web.responses import api

_UNKNOWN = Status("", 0, None, None)


class _Process(NamedTuple):
    """A registered process, and through whom it is asked."""

    role: str
    info: NodeInfo
    peers: AllNodes


class Cluster:
    """The comets and message nodes of the current view. A node is named as on the ring, or by its RPC address."""

    def __init__(self, coordination: Coordination, comets: AllComets, messages: KeyLogs) -> None:
        self._coordination = coordination
        self._comets = comets
        self._messages = messages

    def routes(self) -> Routes:
        """The routes of the admin port."""
        return {
            "/1/admin/nodes": {"GET": Route(api(self._list))},
            "/1/admin/node/weight": {"POST": Route(api(self._set_weight))},
            "/1/admin/node/drain": {"POST": Route(api(self._drain))},
            "/1/admin/node/undrain": {"POST": Route(api(self._undrain))},
            "/1/admin/key/close": {"POST": Route(api(self._close))},
        }

    def _list(self, _request: Request) -> Deferred[bytes]:
        view = self._coordination.view
        processes = self._processes(view)
        asked = [_status(process) for process in processes]
        return gatherResults(asked).addCallback(
            lambda found: _data(_shown(view, process, status) for process, status in zip(processes, found, strict=True))
        )

    def _set_weight(self, request: Request) -> Deferred[bytes]:
        weight = params.decimal(request.query.text("weight"), MAX_WEIGHT, "weight", least=1)
        return _tell(self._named(request), lambda node: node.set_weight(weight))

    def _drain(self, request: Request) -> Deferred[bytes]:
        named = self._named(request)
        left = {process.role for process in self._processes(self._coordination.view) if _stays(process, named)}
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

    def _processes(self, view: View) -> list[_Process]:
        comets = [_Process("comet", info, self._comets) for info in view.comets]
        return comets + [_Process("message", info, self._messages) for info in view.messages]

    def _named(self, request: Request) -> list[_Process]:
        name = request.query.text("node")
        if not name:
            raise ParameterError("node is missing: a name as listed, or the RPC address of one process")
        found = [one for one in self._processes(self._coordination.view) if name in (one.info.node, one.info.id)]
        if not found:
            raise NoNodeError(f"no process {params.found(name)} is registered")
        return found


def _stays(process: _Process, named: Iterable[_Process]) -> bool:
    return not process.info.draining and process not in named


def _tell(processes: Iterable[_Process], call: Callable[[NodeService], Deferred[None]]) -> Deferred[bytes]:
    sent = [process.peers.ask(process.info.id, call) for process in processes]
    return gatherResults(sent, consumeErrors=True).addCallbacks(lambda _: b"", _first)


def _first(failure: Any) -> Any:
    return failure.value.subFailure


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
    shown |= {"connections": status.connections, "channels": status.channels, "deliveries": status.deliveries}
    return shown | {"age": status.age if answers else None, "version": status.version if answers else None}


def _data(shown: Iterable[dict[str, Any]]) -> bytes:
    return json.dumps({"nodes": list(shown)}, separators=(",", ":")).encode()
