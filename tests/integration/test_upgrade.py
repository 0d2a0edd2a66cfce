"""A cluster of 44b05c5 is upgraded process by process, under load: nothing is lost, refused or doubled meanwhile."""

from __future__ import annotations

import asyncio
import re

from tests.chaos.__main__ import play
from tests.chaos.older import older_cluster
from tests.chaos.scenarios import SCENARIOS
from tests.integration.test_chaos import SEED, SLACK_SECONDS


def test_a_cluster_is_upgraded_while_it_works() -> None:
    with older_cluster() as cluster, cluster.running():
        outcome = asyncio.run(play("rolling-upgrade", cluster, SEED, rate=150))
        logs = cluster.logs()
    assert outcome.delivered > 1000
    assert not outcome.broken(SCENARIOS["rolling-upgrade"][1], SLACK_SECONDS), logs
    assert "Traceback" not in logs
    # No process of the one release was kept out by the other; one that ends is gone for all.
    refused = [line for line in logs.splitlines() if re.search("cannot be reached: refused|internal error", line)]
    assert not refused
    assert "is refused: it gives no secret, one is set here" in logs, "nobody of this release called an older one"
