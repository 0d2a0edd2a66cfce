"""Run schedules and say which of them break a rule: `python -m tests.simulation --seed 7 -n 1000`."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from tests.simulation.broken import BREAKS
from tests.simulation.many import run_many
from tests.simulation.plan import ALONE, MIXED

SHOWN_LINES = 50


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="the first seed; alone: replay just this one")
    parser.add_argument("-n", "--count", type=int, help="how many seeds (2000)")
    parser.add_argument("--break", dest="broken", choices=sorted(BREAKS), help="break a rule on purpose")
    parser.add_argument(
        "--members", default="", choices=(ALONE, MIXED), help="equal nodes in the place of all roles, or beside them"
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes (2)")
    parser.add_argument("--show", type=int, default=3, help="how many failing seeds to show (3)")
    asked = parser.parse_args()
    first = asked.seed or 0
    count = asked.count or (1 if asked.seed is not None else 2000)
    began = time.monotonic()
    failed, pushes, received = [], 0, 0
    for outcome in run_many(range(first, first + count), asked.broken, asked.jobs, asked.members):
        pushes += outcome.pushes
        received += outcome.received
        if outcome.violations:
            failed.append(outcome)
    seconds = time.monotonic() - began
    for outcome in failed[: asked.show]:
        members = f" MEMBERS={asked.members}" if asked.members else ""
        print(f"--- seed {outcome.seed}: replay with `make simulate SEED={outcome.seed}{members}`")
        lines = outcome.trace.splitlines()
        print("\n".join(lines if count == 1 else lines[-SHOWN_LINES:]))
    rules = Counter(outcome.violations[0][1] for outcome in failed)
    print(
        f"{count} schedules in {seconds:.1f} s ({count / seconds:.0f} a second), {pushes} pushes, {received} received"
    )
    print(f"{len(failed)} seeds failed", dict(rules.most_common()), [outcome.seed for outcome in failed[:20]])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
