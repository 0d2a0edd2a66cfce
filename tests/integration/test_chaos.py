"""What a cluster of real processes survives: one short scenario under load (make chaos has all of them)."""

from __future__ import annotations

import asyncio

import pytest

from tests.chaos.__main__ import play
from tests.chaos.cluster import Cluster
from tests.chaos.publisher import Push
from tests.chaos.scenarios import SCENARIOS
from tests.chaos.subscriber import Subscriber
from tests.chaos.verdict import Rules, judge

SEED = "7"
SLACK_SECONDS = 6.0
"""Times are what make chaos is for; here others may keep the machine busy."""


@pytest.mark.parametrize("name", ["short"])
def test_nothing_acknowledged_is_lost_whatever_dies(name: str) -> None:
    """Delivery rules 1 to 8: a comet and a message node are killed, then a web node; a comet is asked to end."""
    cluster = Cluster()
    with cluster.running():
        outcome = asyncio.run(play(name, cluster, SEED))
        logs = cluster.logs()
    assert outcome.delivered > 1000
    broken = outcome.broken(SCENARIOS[name][1], SLACK_SECONDS)
    assert not broken, logs
    assert "Traceback" not in logs


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_where_hbase_dies() -> None:
    """Delivery rule 1: its region server is killed, then one of two Thrift servers."""
    name = "hbase-killed"
    cluster = Cluster(hbase=True)
    with cluster.running():
        outcome = asyncio.run(play(name, cluster, SEED, rate=50))
        logs = cluster.logs()
    assert outcome.delivered > 1000
    assert not outcome.broken(SCENARIOS[name][1], SLACK_SECONDS), logs
    assert "Traceback" not in logs


def seen(*messages: tuple[str, int]) -> Subscriber:
    subscriber = Subscriber("k", websocket=False, resumes=True, alert=True, webs=list, seed="")
    subscriber._left = None
    for id, mid in messages:
        subscriber._note(mid, id)
    return subscriber


def acknowledged(id: str, mid: int, sent: float, at: float) -> Push:
    return Push(id, "k", True, sent, at, mid)


TWO = [acknowledged("a", 16, 1.0, 2.0), acknowledged("b", 32, 3.0, 4.0)]
LOG = {"k": {"a": 16, "b": 32}}


@pytest.mark.parametrize(
    ("broken", "pushes", "subscriber", "log"),
    [
        ([], TWO, seen(("a", 16), ("b", 32)), LOG),
        (["lost: 1"], TWO, seen(("b", 32)), LOG),
        (["lost in store: 1"], TWO, seen(("a", 16), ("b", 32)), {"k": {"a": 16}}),
        (["duplicated mids: 1"], TWO, seen(("a", 16), ("a", 16), ("b", 32)), LOG),
        (["duplicated ids: 1"], TWO, seen(("a", 16), ("b", 32), ("a", 48)), LOG),
        (["out of order: 1"], TWO, seen(("b", 32), ("a", 16)), LOG),
        (["duplicated ids: 2"], TWO, seen(("a", 16), ("b", 48)), {"k": {"a": 16, "b": 48}}),
        (
            ["out of order: 1"],
            [acknowledged("a", 32, 1.0, 2.0), acknowledged("b", 16, 3.0, 4.0)],
            seen(("b", 16), ("a", 32)),
            {"k": {"a": 32, "b": 16}},
        ),
        (["never acknowledged: 1"], [*TWO, Push("c", "k", True, 5.0)], seen(("a", 16), ("b", 32)), LOG),
        (
            ["1 refused", "longest refusal: 1.00 s, the rule is 0 s"],
            [Push("a", "k", True, 1.0, 2.0, 16, [(1.0, 65535)])],
            seen(("a", 16)),
            {"k": {"a": 16}},
        ),
    ],
)
def test_what_breaks_a_rule_is_reported(
    broken: list[str], pushes: list[Push], subscriber: Subscriber, log: dict[str, dict[str, int]]
) -> None:
    """The judge itself can say no."""
    assert judge(pushes, [subscriber], log).broken(Rules(refusal=0.0)) == broken
