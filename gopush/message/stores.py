"""Which store the settings name; only its own module is imported."""

from __future__ import annotations

import time
from typing import Any

from gopush.message.settings import MessageSettings
from gopush.message.store import Store


def open_store(settings: MessageSettings, reactor: Any) -> Store:
    """The store of a message node; its start() opens it."""
    if settings.storage == "redis":
        from gopush.message.redis import RedisStore

        return RedisStore(settings.store, settings.redis, reactor)
    if settings.storage == "sqlite":
        from gopush.message.sqlite import SqliteStore

        return SqliteStore(settings.store, settings.sqlite, reactor)
    from gopush.message.memory import MemoryStore

    return MemoryStore(settings.store, time.time)
