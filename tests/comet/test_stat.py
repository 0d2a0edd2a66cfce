"""A comet's statistics over HTTP (protocol.md, section 6)."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

import pytest

from gopush.comet.settings import CometSettings
from gopush.net.http.request import Request
from gopush.net.http.routes import Route
from gopush.rpc.settings import RpcSettings
from gopush.stats.resource import Statistics
from tests.clients import TcpClient, WebSocketClient, eventually, request
from tests.comet.conftest import Start
from tests.comet.wire import CometServer
from tests.http.client import Answer, Client


def get(server: CometServer, target: str, method: str = "GET") -> Answer:
    with Client(server.stat) as client:
        return client.request(method, target)


def stat(server: CometServer, query: str) -> Any:
    answer = get(server, f"/stat?type={query}")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json;charset=utf-8"
    return json.loads(answer.body)


@pytest.mark.parametrize("of_type", ["memory", "server", "python", "config", "channel", "message", "connection"])
def test_answers_are_json_indented_by_four_spaces(server: CometServer, of_type: str) -> None:
    """protocol.md, section 6: JSON indented by four spaces."""
    body = get(server, f"/stat?type={of_type}").body.decode()
    assert body.startswith('{\n    "')
    assert body.endswith("\n}")
    if of_type not in ("memory", "python"):  # these change from one look to the next
        assert body == json.dumps(stat(server, of_type), indent=4, ensure_ascii=False)


@pytest.mark.parametrize(
    "query", ["", "?", "?type=", "?type=golang", "?type=Memory", "?type=memory%20", "?type=a&type=memory"]
)
def test_another_type_is_not_found(server: CometServer, query: str) -> None:
    """protocol.md, section 6: another type 404; `type=golang` became `type=python`."""
    assert get(server, f"/stat{query}").status == 404


@pytest.mark.parametrize("path", ["/", "/stat/", "/stats?type=memory"])
def test_another_path_is_not_found(server: CometServer, path: str) -> None:
    """protocol.md, section 6: `GET /stat?type=T`."""
    assert get(server, path).status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_another_method_is_not_allowed(server: CometServer, method: str) -> None:
    """protocol.md, section 6: another method 405."""
    assert get(server, "/stat?type=memory", method).status == 405


def test_the_memory(server: CometServer) -> None:
    """protocol.md, section 6: `memory`."""
    memory = stat(server, "memory")
    assert set(memory) == {"virtual", "resident", "shared", "peak"}
    assert 1 << 20 < memory["resident"] <= memory["virtual"]


def test_the_server(server: CometServer) -> None:
    """protocol.md, section 6: `server` (uptime, hostname, wd, ppid, pid, pagesize, group, user)."""
    reported = stat(server, "server")
    assert list(reported) == ["uptime", "hostname", "wd", "ppid", "pid", "pagesize", "group", "user"]
    assert (reported["pid"], reported["ppid"], reported["wd"]) == (os.getpid(), os.getppid(), os.getcwd())
    assert reported["hostname"] == socket.gethostname()
    assert 0 <= reported["uptime"] < 600
    assert isinstance(reported["user"], str)
    assert isinstance(reported["group"], str)


def test_python(server: CometServer) -> None:
    """protocol.md, section 6: `type=golang` becomes `type=python`."""
    assert stat(server, "python")["version"].startswith("3.")


def test_the_config(start: Start) -> None:
    """protocol.md, section 6: `config`: what is in force."""
    reported = stat(start(max_subscribers=7, proto=("tcp",)), "config")
    assert reported["max_subscribers"] == 7
    assert reported["proto"] == ["tcp"]
    assert reported["tcp_bind"]


def test_secrets_are_not_reported(server: CometServer) -> None:
    """What is secret stays so."""
    settings = CometSettings(rpc=RpcSettings(secret="open sesame"))
    statistics = Statistics(settings)
    (route,) = statistics.routes()["/stat"].values()
    assert isinstance(route, Route)
    answer: Any = route.handler(Request(b"GET", b"/stat", b"type=config"))
    assert answer.status == 200
    assert b"sesame" not in answer.body
    assert json.loads(answer.body)["rpc"]["secret"] == "(hidden)"


def test_channels_and_connections_are_counted(start: Start) -> None:
    """protocol.md, section 6: `channel` (access, create, delete, current), `connection` (add, remove, current)."""
    server = start()
    assert stat(server, "channel") == {"access": 0, "create": 0, "delete": 0, "current": 0}
    assert stat(server, "connection") == {"add": 0, "remove": 0, "current": 0}
    with TcpClient(server.tcp) as first, TcpClient(server.tcp) as second, WebSocketClient(server.websocket) as third:
        first.subscribe("a")
        second.subscribe("b")
        third.subscribe("a")
        with TcpClient(server.tcp) as refused:
            refused.send(request("pub"))
            assert refused.rest() == b"-p\r\n"
        eventually(lambda: server.comet.counters.connections_removed == 1)
        assert stat(server, "channel") == {"access": 3, "create": 2, "delete": 0, "current": 2}
        assert stat(server, "connection") == {"add": 4, "remove": 1, "current": 3}
    eventually(lambda: server.comet.counters.connections_removed == 4)
    assert stat(server, "channel") == {"access": 3, "create": 2, "delete": 2, "current": 0}
    assert stat(server, "connection") == {"add": 4, "remove": 4, "current": 0}


def test_the_connections_of_a_key(start: Start) -> None:
    """protocol.md, section 6: with `&key=K` `{"channel":{"conn":n}}`."""
    server = start()
    with TcpClient(server.tcp) as first, WebSocketClient(server.websocket) as second:
        first.subscribe("a key ü")
        second.subscribe("a+key+%C3%BC")
        assert stat(server, "channel&key=a+key+%C3%BC") == {"channel": {"conn": 2}}
        assert stat(server, "channel&key=another") == {"channel": {"conn": 0}}
        assert stat(server, "channel&key=") == {"channel": {"conn": 0}}


def test_messages_are_counted(start: Start) -> None:
    """protocol.md, section 6: `message` (succeed, failed, total)."""
    server = start()
    assert stat(server, "message") == {"succeed": 0, "failed": 0, "total": 0}
    server.push("a", b"1")
    server.push("a", b"2", expire=0)
    server.fail_push("a")
    assert stat(server, "message") == {"succeed": 2, "failed": 1, "total": 3}


@pytest.mark.parametrize("key", ["%FF", "%", "%zz"])
def test_a_key_that_is_no_text_is_a_bad_request(server: CometServer, key: str) -> None:
    """protocol.md, section 6: no query makes a traceback."""
    assert get(server, f"/stat?type=channel&key={key}").status == 400
    assert get(server, f"/stat?type={key}").status == 400
