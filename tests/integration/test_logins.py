"""A process with another secret than all others: it is not ready, says why, and nobody's log overflows."""

from __future__ import annotations

from urllib.request import urlopen

from tests.chaos.cluster import ALONE, SECRET, Cluster, Node
from tests.integration.test_administration import PATIENCE, health, until

WRONG = "another secret for the whole cluster"
SAID = "all other processes that this one reaches refuse its login"


def test_whom_all_others_refuse_is_not_ready_and_the_others_are() -> None:
    cluster = Cluster(members=ALONE)
    good = tuple(cluster.nodes.values())
    wrong = (cluster.add("member", "member-4", "node4"), cluster.add("message", "message-1"))
    for node in good:
        node.set({"rpc": {"secret": SECRET}})
    for number, node in enumerate(wrong):
        node.set({"rpc": {"secret": WRONG * (number + 1)}})
    with cluster.running():
        until(lambda: all(health(node)[0] == 503 and SAID in health(node)[1].get("reason", "") for node in wrong))
        until(lambda: all(health(node)[0] == 200 for node in good))
        until(lambda: _metric(good[0], 'gopush_rpc_complaints_total{source="login"}') > 6)
        reasons = [health(node)[1]["reason"] for node in wrong]
        logs = {node: node.log.read_text() for node in (*good, *wrong)}
    for reason in reasons:
        assert "it gives the wrong secret" in reason
    for node in wrong:
        others = len(cluster.nodes) - 1
        assert logs[node].count(f"{SAID}: ") == 1
        lines = [line for line in logs[node].splitlines() if SAID not in line]
        about = [line for line in lines if "secret" in line or "did not finish" in line]
        assert 0 < len(about) <= 2 * others, "\n".join(about)
    for node in good:
        assert SAID not in logs[node]
        about = [line for line in logs[node].splitlines() if "secret" in line or "did not finish" in line]
        assert 0 < len(about) <= 2 * len(wrong), "\n".join(about)


def _metric(node: Node, name: str) -> float:
    with urlopen(f"http://{node.address('stat')}/metrics", timeout=PATIENCE) as answer:
        lines = answer.read().decode().splitlines()
    return float(next(line for line in lines if line.startswith(name)).split()[1])
