"""The types of stores: a line for each in STORES. Only the one that the settings name is imported."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

from gopush.message.store import Store
from gopush.values import one_of

if TYPE_CHECKING:  # the settings name the types
    from gopush.message.settings import MessageSettings


class StoreType(NamedTuple):
    """How a store is opened, which library it `needs` beside those that gopush always has ("": none), and whether one
    process may have it for itself alone (embedded).
    """

    open: Callable[[MessageSettings, Any], Store]
    needs: str = ""
    alone: bool = False


def _redis(settings: MessageSettings, reactor: Any) -> Store:
    from gopush.message.redis import RedisStore

    return RedisStore(settings.store, settings.redis, reactor)


def _hbase(settings: MessageSettings, reactor: Any) -> Store:
    from gopush.message.hbase.store import HBaseStore

    return HBaseStore(settings.store, settings.hbase, reactor)


def _sqlite(settings: MessageSettings, reactor: Any) -> Store:
    from gopush.message.sqlite import SqliteStore

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
    """Reads the name of a type; `alone`: of those that a process can have for itself. See values.py."""
    known = one_of(*(name for name, kind in STORES.items() if kind.alone or not alone))

    def parse(value: str) -> str:
        needs = STORES[known(value)].needs
        if needs and find_spec(needs) is None:
            raise ValueError(f"needs {needs}, which is not installed (pip install 'gopush[{value}]')")
        return value

    return parse
