"""What is fuzzed. A target takes one input and raises only where gopush did what it must not.

Its seeds are good inputs; the mutations of run.py make bad ones of them.
"""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import msgpack
from twisted.internet.testing import StringTransport

from gopush.auth import SignedTokens
from gopush.comet.codec import SubRequest, parse_subscribe, whole
from gopush.comet.session import State
from gopush.comet.settings import CometSettings
from gopush.comet.tcp import TcpFactory
from gopush.comet.websocket import SubscriberFactory
from gopush.config.schema import load, render
from gopush.errors import ParameterError, SettingsError
from gopush.rpc.codec import COMET_CALLS, MESSAGE_CALLS, BatchError, pack, unpack
from gopush.web import params
from gopush.web.lines import LineSplitter
from gopush.web.push import _envelope
from tests.clients import frame, opening, request
from tests.comet.harness import World
from tests.http.ways import Ways

MAX_HELD_BYTES = 5000
_MEMORY = Path("/dev/shm")


class Target(NamedTuple):
    """`run` takes an input, and numbers between 0 and 1 that say where it is cut into segments."""

    name: str
    seeds: Sequence[bytes]
    run: Callable[[bytes, Sequence[float]], None]


def pieces(data: bytes, cuts: Sequence[float]) -> list[bytes]:
    """`data` as the network may bring it."""
    indexes = sorted(int(cut * len(data)) for cut in cuts)
    return [data[start:end] for start, end in zip([0, *indexes], [*indexes, len(data)], strict=True)]


SUBSCRIBES = (
    request("sub", "Terry-Mao", "30", "token", "1.0.5") + b"hhh",
    request("sub", "key", "86400", "", "", "0"),
    request("sub", "k", "+30"),
    b"*3\r\n$3\r\nsub\r\n$-1\r\n",
)


def codec(data: bytes, cuts: Sequence[float]) -> None:
    """Only ParameterError, and in one piece or in lines the same."""
    found = whole(data)
    request, rest = SubRequest(), data
    arguments: list[bytes] | None = None
    try:
        while arguments is None and b"\n" in rest:
            line, rest = rest.split(b"\n", 1)
            arguments = request.take(line)
    except ParameterError:
        assert found is None
        return
    assert found is None or found == (arguments, rest)
    if arguments is not None:
        with contextlib.suppress(ParameterError):
            parse_subscribe(arguments)


class Connected:
    """A comet without sockets, with a well-behaved subscriber who notices nothing."""

    def __init__(self, factory: Callable[[Any], Any]) -> None:
        self._world = World()
        self._factory = factory(self._world.comet)
        self._friend, self._friends_wire = self._world.subscribe(key="friend")

    def run(self, data: bytes, cuts: Sequence[float]) -> None:
        """One connection from its beginning to its end."""
        protocol, transport = self._factory.buildProtocol(None), _Transport()  # type: ignore[no-untyped-call]
        protocol.makeConnection(transport)
        for piece in pieces(data, cuts):
            protocol.dataReceived(piece)
        self._world.turns()
        protocol.connectionLost()
        self._world.turns()
        self._world.clock.advance(0.5)
        self._world.node.calls.clear()
        self._world.store.logs.clear()
        comet = self._world.comet
        assert protocol._session.state is State.CLOSING
        assert comet.counters.connections_added == comet.counters.connections_removed + 1
        assert list(comet.channels) == ["friend"]
        assert self._friend.state is State.LIVE
        assert len(transport.value()) <= 16 * len(data) + 1024  # type: ignore[no-untyped-call]


class _Transport(StringTransport):
    def setTcpNoDelay(self, _: bool) -> None: ...

    def getHandle(self) -> Any:
        return self

    def setsockopt(self, *_: int) -> None: ...


WEBSOCKETS = (
    opening("/sub?key=Terry-Mao&heartbeat=30&ver=1") + frame(1, b"h") + frame(1, b"h"),
    opening("/sub?key=k&heartbeat=30&mid=0") + frame(9) + frame(1, b"h") + frame(8, b"\x03\xe8"),
    opening("/sub?key=k&heartbeat=30") + frame(1, b"h", fin=False) + frame(0),
    opening("/sub?key=%ff&heartbeat=x"),
)


def bodies(data: bytes, cuts: Sequence[float]) -> None:
    """The bodies of pushes: what is taken as JSON, json takes too."""
    try:
        params.check_json(data)
    except ParameterError:
        pass
    else:
        json.loads(data, parse_int=len, parse_float=len)
    try:
        message, keys = _envelope(data, 100, 4096)
        assert message
        assert keys
    except ParameterError:
        pass
    lines = LineSplitter(4096)
    for piece in pieces(data, cuts):
        lines.feed(piece)
        for line in lines.take(len(data) + 1, len(data) + 1):
            assert len(line) <= 4096
            with contextlib.suppress(ParameterError):
                params.properties(params.decode(line))


BODIES = (
    b'{"m":"{\\"a\\":1}","k":"k1,k2,k3"}',
    b'{"k":"a","m":[1,{"b":null}],"expire":600,"id":"x"}\n{"k":"\xc3\xbc","m":1e400,"expire":0}\n',
    b'["\\u0000\\ud800", -0.0E+1, true, {"a":{}}]',
)


class Batches:
    """The arguments of every call, as a stranger packs them: only BatchError."""

    def __init__(self) -> None:
        self._calls = [*COMET_CALLS.values(), *MESSAGE_CALLS.values()]

    def run(self, data: bytes, cuts: Sequence[float]) -> None:
        call = self._calls[int(cuts[0] * len(self._calls)) if cuts else 0]
        for read in (call.read_arguments, call.answer):
            with contextlib.suppress(BatchError):
                unpack([data], read)


BATCHES = (
    pack(([["key", b"{}", 600, "id", 60, 1.5]],))[0],
    pack(([[["key", b"{}", 600, "id", 60, 1.5], 0]],))[0],
    pack(([["key", 16, 0, b"1", 2]],))[0],
    pack((["a", "b"],))[0],
    msgpack.packb((1, [2**63, -(2**63), None, True, "x" * 40, b"y" * 300])),
    struct.pack(">BI", 0xDD, 2**32 - 1),
)


class Ini:
    """Ini files: only SettingsError, in one line."""

    def __init__(self) -> None:
        self._directory = TemporaryDirectory(prefix="gopush-fuzz-", dir=_MEMORY if _MEMORY.is_dir() else None)
        self._path = Path(self._directory.name) / "ini"

    def run(self, data: bytes, cuts: Sequence[float]) -> None:
        self._path.write_bytes(data)
        try:
            load(CometSettings, self._path)
        except SettingsError as wrong:
            lines = str(wrong).count("\n") + 1
        else:
            lines = 1
        assert lines == 1


INIS = (
    b"[base]\nnode = node1\ntcp.bind = localhost:6969 tcp:7000\n[channel]\nmsgbuf.size = 2MiB\n",
    b"[rpc]\ntimeout = 1s\n[connections]\norigins = https://a.example\n[zookeeper]\naddr = a:1, b:2\n",
    render(CometSettings).encode()[:2000],
)


class Tokens:
    """Signed tokens: whatever is not one is refused."""

    def __init__(self) -> None:
        self._directory = TemporaryDirectory(prefix="gopush-fuzz-")
        path = Path(self._directory.name) / "secret"
        path.write_text("s" * 32)
        self._tokens = SignedTokens("HS256", path)

    def run(self, data: bytes, cuts: Sequence[float]) -> None:
        assert not self._tokens.allow(data.decode("utf-8", "replace"), "key")


TOKENS = (b"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJrZXkiLCJleHAiOjk5OTk5OTk5OTl9.AAAA", b"a.b.c", b"..")


class Http:
    """An HTTP port: with and without its short cut, whole and in segments, the same is answered."""

    def __init__(self) -> None:
        self._short, self._long = Ways(short=True), Ways(short=False)

    def run(self, data: bytes, cuts: Sequence[float]) -> None:
        answers = self._short.answers(pieces(data, cuts))
        assert answers == self._long.answers([data])
        assert len(answers[0]) <= 16 * len(data) + 1024


HTTPS = (
    b"GET /echo?q=a+b HTTP/1.1\r\nHost: h\r\n\r\nGET /pages HTTP/1.1\r\nHost: h\r\nOrigin: http://a\r\n\r\n",
    b"POST /later?q=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbodyGET /nothing HTTP/1.0\r\n\r\n",
    b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4;x=y\r\nbody\r\n0\r\nT: t\r\n\r\n",
    b"POST /stream HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nbody",
    b"POST /locked HTTP/1.1\r\nContent-Length: 1\r\n\r\naHEAD /deferred HTTP/1.1\r\nConnection: close\r\n\r\n",
)


def targets() -> list[Target]:
    """All of them, each with what it needs."""
    return [
        Target("codec", SUBSCRIBES, codec),
        Target("tcp", SUBSCRIBES, Connected(TcpFactory).run),
        Target("websocket", WEBSOCKETS, Connected(SubscriberFactory).run),
        Target("bodies", BODIES, bodies),
        Target("batches", BATCHES, Batches().run),
        Target("ini", INIS, Ini().run),
        Target("tokens", TOKENS, Tokens().run),
        Target("http", HTTPS, Http().run),
    ]
