"""`python -m tests.chaos [--members alone|mixed] [SCENARIO ...]`: all scenarios, or those named."""

from __future__ import annotations

import argparse
import asyncio
import random
import secrets
import signal
import sys
import time
from contextlib import nullcontext

from tests.chaos.cluster import ALONE, MIXED, Cluster
from tests.chaos.load import RATE, Load
from tests.chaos.older import older_cluster
from tests.chaos.scenarios import FIREWALLED, HBASE, OLDER, PARTED, QUORUM, REPLICATED, SCENARIOS, Stage, rules
from tests.chaos.verdict import Outcome

CALM_SECONDS = 3.0


async def play(name: str, cluster: Cluster, seed: str, minutes: float = 5.0, rate: int = RATE) -> Outcome:
    """Have it happen to a cluster that runs, under load."""
    act, _ = SCENARIOS[name]
    load = Load(cluster, seed, rate)
    await load.start()
    await asyncio.sleep(CALM_SECONDS)
    await act(Stage(cluster, load, random.Random(f"{seed} {name}"), minutes))
    return await load.finish()


def run(name: str, seed: str, minutes: float, rate: int, members: str, *, keep: bool) -> bool:
    """Play a scenario on a cluster of its own, and print what came of it; whether all rules were kept."""
    act, _ = SCENARIOS[name]
    print(f"{name} ({members or 'roles'}, seed {seed}): {(act.__doc__ or '').strip()}", flush=True)
    made = (
        older_cluster()
        if name in OLDER
        else nullcontext(
            Cluster(
                replicated=name in REPLICATED,
                quorum=name in QUORUM,
                parted=name in PARTED,
                firewalled=name in FIREWALLED,
                hbase=name in HBASE,
                members=members,
            )
        )
    )
    with made as cluster, cluster.running():
        began = time.monotonic()
        outcome = asyncio.run(play(name, cluster, seed, minutes, rate // 6 if name in HBASE else rate))
        seconds = time.monotonic() - began
        broken = outcome.broken(rules(name, members))
        if "Traceback" in cluster.logs():
            broken.append("a traceback in a log")
        print("\n".join(outcome.lines()))
        for rule in broken:
            print(f"  BROKEN {rule}")
        if broken or keep:
            print(f"  the logs are in {cluster.keep()}")
        print(f"  {'broken' if broken else 'kept'} after {seconds:.0f} s", flush=True)
    return not broken


def main() -> int:
    """See the head of this file."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"of {', '.join(SCENARIOS)}")
    parser.add_argument("--seed", default=secrets.token_hex(4), help="what chance begins with")
    parser.add_argument("--minutes", type=float, default=5.0, help="how long the scenario named mixed lasts")
    parser.add_argument("--rate", type=int, default=RATE, help="pushes a second")
    parser.add_argument(
        "--members",
        default="",
        choices=(ALONE, MIXED),
        help="equal nodes in the place of the roles: of all (alone), or of some (mixed)",
    )
    parser.add_argument("--keep", action="store_true", help="keep the logs, whatever comes out")
    options = parser.parse_args()
    if unknown := [name for name in options.scenarios if name not in SCENARIOS]:
        parser.error(f"no such scenario: {', '.join(unknown)} (there are {', '.join(SCENARIOS)})")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    names = options.scenarios or [
        name for name in SCENARIOS if name != "short" and not (options.members and name in OLDER)
    ]
    broken = [
        name
        for name in names
        if not run(name, options.seed, options.minutes, options.rate, options.members, keep=options.keep)
    ]
    print(
        f"{len(names) - len(broken)} of {len(names)} scenarios kept the rules"
        + "".join(f"\n  not {name}" for name in broken)
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
