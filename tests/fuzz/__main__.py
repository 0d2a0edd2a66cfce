"""`python -m tests.fuzz -n 10000000`: that many inputs, spread over all targets."""

from __future__ import annotations

import argparse
import os
import random

from tests.fuzz.run import fuzz
from tests.fuzz.targets import targets

ROUND = 20_000
ROUND_SECONDS = 2.0  # those who are slow get less


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser("tests.fuzz", description="Feed gopush what it must not trip over.")
    parser.add_argument("-n", type=int, default=100_000, metavar="INPUTS", help="in all (default: 100000)")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="(default: by chance)")
    parser.add_argument("--target", help="this one alone")
    asked = parser.parse_args()
    os.nice(10)
    chosen = [target for target in targets() if asked.target in (None, target.name)]
    total, seed = 0, asked.seed
    while total < asked.n:
        for target in chosen:
            outcome = fuzz(target, min(ROUND, max(1, asked.n // len(chosen))), seed, ROUND_SECONDS)
            total += outcome.inputs
            print(
                f"{total} {outcome.name} seed {seed}: {outcome.inputs / outcome.seconds:.0f} a second, "
                f"{outcome.grown} KiB more",
                flush=True,
            )
        seed += 1


if __name__ == "__main__":
    main()
