"""What administrators see of a key and of a web node, and their page (protocol.md, section 10)."""

from __future__ import annotations

from pathlib import Path

import pytest

from gopush.errors import RET_INTERNAL, RET_PARAMETER
from gopush.model import Message, SlowConsumer, Token
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
