"""A running cluster changes its secret, one process after the other: nothing is refused, and nobody is out of reach."""

from __future__ import annotations

from gopush.errors import RET_OK
from tests.chaos.cluster import ALONE, SECRET, Cluster
from tests.integration.test_equals import key_of, push, whole

NEXT = "the next secret of this cluster"
ROUNDS = {"secret": NEXT, "secret.previous": SECRET}, {"secret": NEXT, "secret.previous": ""}


def test_a_running_cluster_changes_its_secret() -> None:
    cluster = Cluster(members=ALONE)
    del cluster.nodes["member-3"]
    names = tuple(cluster.nodes)
    for node in cluster.nodes.values():
        node.set({"rpc": {"secret": SECRET}})
    with cluster.running():
        whole(cluster, nodes=len(names))
        keys = {name: key_of(cluster, name, "member-1") for name in names}
        for settings in ROUNDS:
            for name in names:
                cluster[name].stop()
                cluster[name].set({"rpc": settings})
                cluster[name].start()
                whole(cluster, nodes=len(names))
                pushed = [push(cluster, web, key, "through it") for web in names for key in keys.values()]
                assert pushed == [RET_OK] * len(pushed)
        logs = cluster.logs()
    wrong = "wrong secret", "refuse its login", SECRET, NEXT
    assert [line for line in logs.splitlines() if any(part in line for part in wrong)] == []
