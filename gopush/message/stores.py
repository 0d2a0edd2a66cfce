"""The stores that there are: a line for each. A store is imported only when it is opened."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

from gopush.config.values import one_of
from gopush.message.store import Store, StoreSettings


class StoreType(NamedTuple):
    """How a store is opened, which library it `needs` beside those that gopush always has ("": none), and whether one
    process may have it for itself alone (embedded).
    """

    open: Callable[[StoreSettings, Any, Any], Store]
    needs: str = ""
    alone: bool = False


def _redis(store: StoreSettings, options: Any, reactor: Any) -> Store:
    from gopush.message.redis.store import RedisStore

    return RedisStore(store, options, reactor)


def _hbase(store: StoreSettings, options: Any, reactor: Any) -> Store:
    from gopush.message.hbase.store import HBaseStore

    return HBaseStore(store, options, reactor)


def _sqlite(store: StoreSettings, options: Any, reactor: Any) -> Store:
    from gopush.message.sqlite.store import SqliteStore

    return SqliteStore(store, options, reactor)


def _memory(store: StoreSettings, _options: Any, _reactor: Any) -> Store:
    from gopush.message.memory import MemoryStore

    return MemoryStore(store, time.time)


STORES = {
    "redis": StoreType(_redis),
    "hbase": StoreType(_hbase, needs="thriftpy2"),
    "sqlite": StoreType(_sqlite, alone=True),
    "memory": StoreType(_memory, alone=True),
}


def open_store(settings: Any, reactor: Any) -> Store:
    """The store that the settings of a message node name; its start() opens it. The settings' field of the store's
    name, where they have one, holds its own options.
    """
    return STORES[settings.storage].open(settings.store, getattr(settings, settings.storage, None), reactor)


def store_type(alone: bool = False) -> Callable[[str], str]:
    """Reads the name of a type; `alone`: of those that a process can have for itself. See config/values.py."""
    known = one_of(*(name for name, kind in STORES.items() if kind.alone or not alone))

    def parse(value: str) -> str:
        needs = STORES[known(value)].needs
        if needs and find_spec(needs) is None:
            raise ValueError(f"needs {needs}, which is not installed (pip install 'gopush[{value}]')")
        return value

    return parse
