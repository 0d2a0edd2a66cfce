"""`POST /1/admin/presence` (protocol.md, section 10)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gopush.errors import RET_NO_NODE, RET_PARAMETER
from gopush.membership.view import View
from gopush.reports import Presence
from gopush.web.presence import MAX_KEYS
from tests.web.conftest import World, data
from tests.web.fakes import NOW

PATH = "/1/admin/presence"


def ask(world: World, keys: Any) -> list[dict[str, Any]]:
    return list(data(world.post(PATH, json.dumps({"k": keys})))["presence"])


def test_who_is_there_since_when_and_over_what(world: World) -> None:
    world.comets.there = {"a": Presence(3, 60, (("tcp", 1), ("websocket", 2))), "old": Presence(2), "away": None}
    assert ask(world, ["a", "b", "old", "away", "a"]) == [
        {"key": "a", "count": 3, "since": NOW - 60, "over": {"tcp": 1, "websocket": 2}},
        {"key": "b", "count": 0, "since": None, "over": {}},
        {"key": "old", "count": 2, "since": None, "over": {}},
        {"key": "away", "count": None, "since": None, "over": {}},
    ]
    assert world.comets.asked == ["a", "b", "old", "away"]


def test_ten_thousand_keys_and_no_more(world: World) -> None:
    keys = [f"key-{number}" for number in range(MAX_KEYS)]
    assert [there["key"] for there in ask(world, keys)] == keys
    assert MAX_KEYS == 10_000
    refused = world.post(f"{PATH}?why=1", json.dumps({"k": [*keys, "one more"]}))
    assert json.loads(refused.body) == {
        "ret": RET_PARAMETER,
        "why": "k names more than the 10000 keys that a call may have",
    }


@pytest.mark.parametrize(
    "body",
    ["", "[]", "{}", '{"k":[]}', '{"k":[1]}', '{"k":null}', '{"k":["a",""]}', '{"k":["\\ud800"]}', '{"k":["\\n"]}'],
)
def test_what_names_no_keys_is_65534(world: World, body: str) -> None:
    assert json.loads(world.post(PATH, body).body) == {"ret": RET_PARAMETER}
    assert world.comets.asked == []


def test_where_no_comet_is_known_it_is_1001(world: World) -> None:
    world.in_reactor(world.coordination.adopt, View())
    assert json.loads(world.post(PATH, '{"k":["a"]}').body) == {"ret": RET_NO_NODE}
