"""Makes inputs of seeds, and counts; a failure says how to see it again."""

from __future__ import annotations

import resource
import time
from math import inf
from random import Random
from typing import NamedTuple

from tests.fuzz.targets import Target

SLOW_SECONDS = 5.0
MAX_BYTES = 8192
EDGES = (
    b"\r\n",
    b"\0",
    b"\xff",
    b"$",
    b"*",
    b"-1",
    b"99999",
    b"h",
    b"{",
    b"[",
    b'"',
    b"\\",
    b"=",
    b"%",
    b"\x80",
    b"\n",
    b",",
)


class Outcome(NamedTuple):
    """How many inputs a target took, in how many seconds, and by how many KiB the process grew."""

    name: str
    inputs: int
    seconds: float
    grown: int


class FuzzError(AssertionError):
    """An input that broke something."""


def mutated(random: Random, seeds: tuple[bytes, ...]) -> bytes:
    """An input: a seed, some places of which are changed, or none."""
    data = bytearray(random.choice(seeds))
    for _ in range(int(random.expovariate(0.4))):
        at = random.randrange(len(data) + 1)
        end = min(len(data), at + int(random.expovariate(0.2)))
        kind = random.randrange(6)
        if kind == 0:
            del data[at:end]
        elif kind == 1:
            data[at:at] = random.choice(EDGES) * random.randrange(1, 4)
        elif kind == 2 and at < len(data):
            data[at] ^= 1 << random.randrange(8)
        elif kind == 3:
            data[at:end] = random.randbytes(random.randrange(9))
        elif kind == 4:
            data[at:at] = data[at:end] * random.randrange(1, 60)
        else:
            other = random.choice(seeds)
            data[at:] = other[random.randrange(len(other) + 1) :]
    return bytes(data[:MAX_BYTES])


def fuzz(target: Target, inputs: int, seed: int, seconds: float = inf) -> Outcome:
    """Run a target on so many inputs, or for so long. Raises FuzzError."""
    random = Random(f"{target.name} {seed}")
    seeds = tuple(target.seeds)
    start, before = time.monotonic(), _memory()
    for number in range(inputs):
        data = mutated(random, seeds)
        cuts = [random.random() for _ in range(random.randrange(4))]
        began = time.monotonic()
        try:
            target.run(data, cuts)
        except Exception as wrong:
            raise FuzzError(f"{target.name}, seed {seed}, input {number}: {data!r} cut at {cuts}") from wrong
        if time.monotonic() - start > seconds:
            inputs = number + 1
            break
        if time.monotonic() - began > SLOW_SECONDS:
            raise FuzzError(f"{target.name}, seed {seed}, input {number} took too long: {data!r} cut at {cuts}")
    return Outcome(target.name, inputs, time.monotonic() - start, _memory() - before)


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
