"""`python -m tests.attack [NAME ...]`: the attacks at full size, all or those named; their figures in a table."""

from __future__ import annotations

import argparse

from tests.attack.attacks import ATTACKS
from tests.attack.run import attack, victim_of

SECONDS = 120.0


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m tests.attack", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ATTACKS)}")
    names = parser.parse_args().names or ATTACKS
    if unknown := [name for name in names if name not in ATTACKS]:
        parser.error(f"no such attack: {', '.join(unknown)} (there are {', '.join(ATTACKS)})")
    print("attack        done        p99 calm  p50     p99 (ms)  lost/received  MiB before/most/after  processor")
    for name in names:
        with victim_of(name) as victim:
            found = attack(victim, name, 1, SECONDS)
        memory = "/".join(f"{size / 1024:.0f}" for size in found.memory)
        print(
            f"{name:13} {found.done:<11} {found.before_p99:<9.1f} {found.p50:<7.1f} {found.p99:<9.1f} "
            f"{found.lost}/{found.received:<12} {memory:22} {found.processor:.0%}",
            flush=True,
        )
        if "Traceback" in found.log:
            print(found.log)


if __name__ == "__main__":
    main()
