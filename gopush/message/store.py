"""What a store offers: the calls of a message node, and a life of its own; and what every store is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from twisted.internet.defer import Deferred

from gopush.config.schema import option
from gopush.config.values import count, duration
from gopush.message.counters import StoreNumbers
from gopush.rpc.services import MessageService


@dataclass(frozen=True)
class StoreSettings:
    """What every store is told."""

    store: int = option(
        "storage", "store", "20", count(1, 1_000_000), "messages that a key keeps, the newest", live=True
    )
    head_life: float = option(
        "storage", "head.life", "1d", duration, "how long a key's last mid outlives its messages", live=True
    )


class Store(MessageService, Protocol):
    """Keeps the log of every key (memory.py, sqlite/, redis/, hbase/).

    A batch of appends is atomic and in order; of a batch over several shards that holds for the part of each shard
    (in HBase: of each key), and a shard that cannot store answers 65535 for its own part alone. Other calls fail as a
    whole.
    """

    shards: tuple[tuple[str, int], ...]
    """Names and weights of the servers behind it, as they stand on the ring of keys; empty where there is but one."""

    numbers: dict[str, StoreNumbers]
    """What each server behind it, or it itself, has done."""

    @property
    def identity(self) -> str:
        """What tells the data behind it from those of every other store; empty while that is not known."""

    def start(self) -> Deferred[None]:
        """Open it. Fails with StartError where it can never work; a server may still come later."""

    def stop(self) -> Deferred[None]:
        """Close it, once what was called before is done."""

    def purge(self) -> Deferred[None]:
        """Let go of a bounded number of things that nobody can see any more; to be called every second."""
