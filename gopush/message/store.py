"""What a store offers: the calls of a message node, and a life of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from twisted.internet.defer import Deferred

from gopush.config.values import one_of
from gopush.message.counters import StoreNumbers
from gopush.rpc.services import MessageService

if TYPE_CHECKING:  # the settings name the types
    from gopush.message.settings import MessageSettings


class Store(MessageService, Protocol):
    """Keeps the log of every key (memory.py, sqlite.py, redis.py, hbase/).

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


class StoreType(NamedTuple):
    """How a store is opened, which library it `needs` beside those that gopush always has ("": none), and whether one
    process may have it for itself alone (embedded).
    """

    open: Callable[[MessageSettings, Any], Store]
    needs: str = ""
    alone: bool = False


def _redis(settings: MessageSettings, reactor: Any) -> Store:
    from gopush.message.redis.store import RedisStore

    return RedisStore(settings.store, settings.redis, reactor)


def _hbase(settings: MessageSettings, reactor: Any) -> Store:
    from gopush.message.hbase.store import HBaseStore

    return HBaseStore(settings.store, settings.hbase, reactor)


def _sqlite(settings: MessageSettings, reactor: Any) -> Store:
    from gopush.message.sqlite.store import SqliteStore

    return SqliteStore(settings.store, settings.sqlite, reactor)


def _memory(settings: MessageSettings, _reactor: Any) -> Store:
    from gopush.message.memory import MemoryStore

    return MemoryStore(settings.store, time.time)


STORES = {
    "redis": StoreType(_redis),
    "hbase": StoreType(_hbase, needs="thriftpy2"),
    "sqlite": StoreType(_sqlite, alone=True),
    "memory": StoreType(_memory, alone=True),
}


def open_store(settings: MessageSettings, reactor: Any) -> Store:
    """The store of a message node; its start() opens it."""
    return STORES[settings.storage].open(settings, reactor)


def store_type(alone: bool = False) -> Callable[[str], str]:
    """Reads the name of a type; `alone`: of those that a process can have for itself. See config/values.py."""
    known = one_of(*(name for name, kind in STORES.items() if kind.alone or not alone))

    def parse(value: str) -> str:
        needs = STORES[known(value)].needs
        if needs and find_spec(needs) is None:
            raise ValueError(f"needs {needs}, which is not installed (pip install 'gopush[{value}]')")
        return value

    return parse
