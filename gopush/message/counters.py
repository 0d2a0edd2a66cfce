"""What a message node counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """Plain integers: counting must cost nothing. All only grow."""

    saves: int = 0
    repeats: int = 0
    refused: int = 0
    reads: int = 0
    read_messages: int = 0
    heads: int = 0
    deletes: int = 0
    batches: int = 0
