"""protocol.md, section 10: `/stat` of message nodes and web nodes, whose form is that of a comet's (section 6)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from gopush.message.memory import MemoryStore
from gopush.message.node import show as show_message
from gopush.message.redis.settings import RedisSettings, sources
from gopush.message.service import StoreService
from gopush.message.settings import MessageSettings
from gopush.message.store import StoreSettings
from gopush.model import Append, Push, Read
from gopush.net.http.request import Request
from gopush.net.http.routes import Route
from gopush.rpc.settings import RpcSettings
from gopush.stats.resource import Statistics
from gopush.web.node import show as show_web
from tests.message.subject import START, FakeTime
from tests.web.conftest import World, make_world, world

assert make_world
assert world  # fixtures

HISTOGRAM = {"count", "total", "p50", "p99"}


def stat(statistics: Statistics, of_type: str) -> Any:
    route = statistics.routes()["/stat"]["GET"]
    assert isinstance(route, Route)
    answer: Any = route.handler(Request(b"GET", b"/stat", f"type={of_type}".encode()))
    assert answer.status == 200
    assert answer.body.startswith(b'{\n    "')
    return json.loads(answer.body)


def test_a_message_node_tells_of_its_log_and_its_stores() -> None:
    statistics = Statistics(MessageSettings())
    message = StoreService(MemoryStore(StoreSettings(store=2), now=FakeTime()), Clock())
    show_message(message, statistics)
    message.append([Append(Push("k", b"1", 60, "", 60, START + 9), 0)] * 3)
    message.read([Read("k", 0, 9)])
    log = stat(statistics, "log")
    assert (log["saves"], log["reads"], log["read_messages"], log["batches"], log["under_way"]) == (3, 1, 2, 1, 0)
    assert log["batch"] == {"count": 1, "total": 3, "p50": 5, "p99": 5}
    (store,) = stat(statistics, "store").values()
    assert (store["trimmed"], store["expired"], store["failed"]) == (1, 0, 0)
    assert set(store["seconds"]) == {"append", "read", "heads", "other"}
    assert all(set(seconds) == HISTOGRAM for seconds in store["seconds"].values())


def test_a_web_node_tells_of_pushes_and_other_requests(world: World) -> None:
    statistics = Statistics(None)
    show_web(world.web, statistics)
    world.post("/1/admin/push/private", b"1", key="k", expire="60")
    world.get("/1/server/get", k="k", p="1")
    push = stat(statistics, "push")
    assert push["ret"] == {"0": 1, "1001": 0, "65534": 0, "65535": 0}
    assert push["seconds"]["count"] == 1
    assert stat(statistics, "request")["lookups"] == 1


@pytest.mark.parametrize("of_type", ["memory", "server", "python", "config"])
def test_every_process_tells_of_itself(of_type: str) -> None:
    assert stat(Statistics(MessageSettings()), of_type)


def test_the_working_directory_may_be_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert stat(Statistics(MessageSettings()), "server")["wd"].startswith(str(gone))


def test_the_name_of_the_working_directory_may_be_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / os.fsdecode(b"wd-\xff")
    directory.mkdir()
    monkeypatch.chdir(directory)
    assert stat(Statistics(MessageSettings()), "server")["wd"] == str(tmp_path / "wd-?")


def test_no_password_is_reported() -> None:
    settings = MessageSettings(
        redis=RedisSettings(sources=sources("node1:1 tcp@localhost:6379#sesame")),
        rpc=RpcSettings(secret="sesame", previous_secret="sesame"),
    )
    reported = stat(Statistics(settings), "config")
    assert "sesame" not in json.dumps(reported)
    assert reported["redis"]["sources"] == reported["rpc"]["secret"] == "(hidden)"
    assert reported["rpc"]["previous_secret"] == "(hidden)"
