"""What administrators see of a key and of a web node, and their page (protocol.md, section 10)."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred, succeed

import gopush
from gopush.errors import RET_INTERNAL, RET_PARAMETER
from gopush.membership.view import View
from gopush.model import Head, Message, Page, Token
from gopush.reports import BusyKey, SlowConsumer
from gopush.stats.histogram import Histogram
from gopush.web.keys import make
from gopush.web.nodes import MAX_SHOWN, MAX_SLOW_CONSUMERS
from gopush.web.pages import ASSETS
from tests.web.conftest import MakeWorld, World, data


def test_a_key_is_shown_without_bodies_and_tokens(world: World) -> None:
    world.messages.logs["k"] = [Message(16 * number, b"1" * number) for number in range(1, 6)]
    world.messages.kept_tokens["k"] = [Token(b"\xab" * 32, 1_700_000_100)]
    assert data(world.call_admin("GET", "/1/admin/key", key="k")) == {
        "owner": "10.0.0.1:6970",
        "ws": ["push.example.org:6968"],
        "messages": [{"mid": 16 * number, "size": number} for number in range(1, 6)],
        "more": False,
        "subscribers": [{"node": "node1", "rpc": ["10.0.0.1:6970"], "count": 1}],
        "tokens": [{"digest": "ab" * 32, "expires": 1_700_000_100}],
    }


def test_bodies_are_not_held_for_their_sizes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(key: str, after: int, limit: int = 256) -> Deferred[Page]:
        mid = after + 16
        return succeed(Page([Message(mid, b"1" * (1 << 20))], Head(16 * 60, 0), mid < 16 * 60))

    monkeypatch.setattr(world.messages, "read", read)
    tracemalloc.start()
    try:
        shown = data(world.call_admin("GET", "/1/admin/key", key="k"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(shown["messages"]) == 60
    assert peak < 8 << 20


def test_one_message_is_shown_as_it_was_pushed(world: World) -> None:
    body = b'{"big": 12345678901234567890, "a": "\xe2\x80\xa8"}'
    world.messages.logs["k"] = [Message(16, b"1"), Message(17_000_000_000_000_016, body), Message(2**62, b"3")]
    shown = world.call_admin("GET", "/1/admin/key/message", key="k", mid="17000000000000016")
    assert shown.body == b'{"ret":0,"data":{"msg":%b,"mid":17000000000000016,"gid":0}}' % body
    nearest = str(int(float(17_000_000_000_000_016)))  # as JavaScript's numbers have it
    assert world.call_admin("GET", "/1/admin/key/message", key="k", mid=nearest).body == shown.body
    assert data(world.call_admin("GET", "/1/admin/key/message", key="k", mid="16"))["msg"] == 1


@pytest.mark.parametrize("mid", ["0", "32", "17000000000000000", str(2**63 - 1)])
def test_a_message_that_is_not_kept_is_none(world: World, mid: str) -> None:
    world.messages.logs["k"] = [Message(16, b"1"), Message(48, b"2")]
    answer = json.loads(world.call_admin("GET", "/1/admin/key/message", key="k", mid=mid, why="1").body)
    assert answer["ret"] == RET_PARAMETER
    assert answer["why"].endswith("of this key is kept (any more)")


def test_a_message_wants_a_key_a_mid_and_the_store(world: World) -> None:
    for query in ({}, {"key": "k"}, {"key": "k", "mid": "x"}, {"key": "", "mid": "16"}):
        assert world.call_admin("GET", "/1/admin/key/message", **query).body == b'{"ret":%d}' % RET_PARAMETER
    world.messages.down = True
    answer = world.call_admin("GET", "/1/admin/key/message", key="k", mid="16")
    assert answer.body == b'{"ret":%d}' % RET_INTERNAL


# --- the busiest keys ---


def test_the_busiest_keys_of_all_comets_are_shown_the_busiest_first(world: World) -> None:
    """Connections and pushes of a key that moves are at two comets; one is silent, or of an older release."""
    world.comets.busy = {
        "10.0.0.1:6970": [BusyKey("shop-1", 2, 1.5), BusyKey("shop-2", 9, 0.0), BusyKey("else", 1, 0.0)],
        "10.0.0.2:6970": [BusyKey("shop-3", 0, 7.25), BusyKey("shop-1", 1, 0.25)],
        "10.0.0.3:6970": None,
    }
    owner = {"node": "node1", "rpc": "10.0.0.1:6970"}
    shown = data(world.call_admin("GET", "/1/admin/keys"))
    assert shown == {
        "keys": [
            {"key": "shop-3", "connections": 0, "rate": 7.25, **owner},
            {"key": "shop-1", "connections": 3, "rate": 1.75, **owner},
            {"key": "shop-2", "connections": 9, "rate": 0.0, **owner},
            {"key": "else", "connections": 1, "rate": 0.0, **owner},
        ],
        "silent": ["10.0.0.3:6970"],
    }
    found = data(world.call_admin("GET", "/1/admin/keys", prefix="shop-", most="2"))
    assert [busy["key"] for busy in found["keys"]] == ["shop-3", "shop-1"]


def test_fifty_keys_are_shown_where_no_number_is_given_and_a_thousand_at_most(world: World) -> None:
    world.comets.busy = {"c": [BusyKey(f"k{number}", number, 0.0) for number in range(2000)]}
    for query, shown in (({}, 50), ({"most": "1"}, 1), ({"most": "1000"}, 1000)):
        assert len(data(world.call_admin("GET", "/1/admin/keys", **query))["keys"]) == shown
    wrong = *({"most": most} for most in ("1001", "0", "x", "")), {"prefix": "x" * 256}, {"prefix": "a\n"}
    for query in wrong:
        assert world.call_admin("GET", "/1/admin/keys", **query).body == b'{"ret":%d}' % RET_PARAMETER


def test_keys_without_an_owner_are_shown(world: World) -> None:
    world.in_reactor(world.coordination.adopt, View())
    world.comets.busy = {"c": [BusyKey("k", 1, 0.0)]}
    assert data(world.call_admin("GET", "/1/admin/keys"))["keys"] == [
        {"key": "k", "connections": 1, "rate": 0.0, "node": None, "rpc": None}
    ]


def test_a_long_log_is_shown_in_part(world: World) -> None:
    world.messages.logs["k"] = [Message(16 * number, b"1") for number in range(1, MAX_SHOWN + 20)]
    shown = data(world.call_admin("GET", "/1/admin/key", key="k"))
    assert (len(shown["messages"]), shown["more"]) == (MAX_SHOWN, True)


def test_a_key_must_be_named_and_the_store_there(world: World) -> None:
    assert world.call_admin("GET", "/1/admin/key").body == b'{"ret":%d}' % RET_PARAMETER
    world.messages.down = True
    assert world.call_admin("GET", "/1/admin/key", key="k").body == b'{"ret":%d}' % RET_INTERNAL


def test_the_slowest_connections_of_all_comets_are_shown_the_worst_first(world: World) -> None:
    world.comets.slow = [SlowConsumer(f"k{size}", "tcp", "10.0.0.9:1234", 2, size, 0.25) for size in range(1, 40)]
    shown = data(world.call_admin("GET", "/1/admin/slowest"))["slowest"]
    assert len(shown) == MAX_SLOW_CONSUMERS
    assert shown[0] == {
        "node": "node1",
        "rpc": "10.0.0.1:6970",
        "key": "k20",
        "kind": "tcp",
        "peer": "10.0.0.9:1234",
        "messages": 2,
        "bytes": 20,
        "seconds": 0.25,
    }
    assert [slow["bytes"] for slow in shown] == sorted(range(1, 21), reverse=True)


def test_the_status_counts_what_was_done(world: World) -> None:
    world.get("/1/server/get", k="k", p="1")
    world.get("/1/msg/get", k="k", m="0")
    for expire in ("60", "60", "x"):
        world.post("/1/admin/push/private", b"1", key="k", expire=expire)
    status = data(world.call_admin("GET", "/1/admin/status"))
    assert (status["version"], status["cluster"]) == (gopush.__version__, "")
    assert status["pushes"] == {"0": 2, "1001": 0, "65534": 1, "65535": 0}
    assert (status["lookups"], status["reads"]) == (1, 1)
    took = status["push_seconds"]
    assert (sum(took["counts"]), len(took["counts"])) == (2, len(took["bounds"]) + 1)


@pytest.mark.parametrize(("seconds", "index"), [(-1.0, 0), (0.0, 0), (0.0002, 0), (0.00021, 1), (1.0, -2), (9.0, -1)])
def test_a_latency_counts_in_its_bucket(seconds: float, index: int) -> None:
    latency = Histogram()
    latency.observe(seconds)
    assert latency.counts[index] == sum(latency.counts) == 1
    assert latency.total == max(0.0, seconds)


def test_the_page_wants_no_key_but_what_it_calls_does(make_world: MakeWorld, tmp_path: Path) -> None:
    key, line = make("admin")
    (tmp_path / "keys").write_text(line)
    world = make_world(api_keys=str(tmp_path / "keys"))
    for path in ("/", *(f"/pages/{name}" for name in ASSETS)):
        assert world.call_admin("GET", path).status == 200
    for path in ("/1/admin/nodes", "/1/admin/status", "/1/admin/key", "/1/admin/slowest"):
        assert world.call_admin("GET", path, key="k").status == 401
        assert world.admin_call("GET", path, headers=f"Authorization: Bearer {key}\r\n", key="k").status == 200


def test_the_page_runs_its_own_scripts_alone_and_names_no_other_host(world: World) -> None:
    answer = world.call_admin("GET", "/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert b"//" not in answer.body
    assert answer.headers["x-content-type-options"] == "nosniff"
