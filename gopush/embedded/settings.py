"""The options of all roles in one process (etc/gopush.ini): those of a cluster that still have a meaning."""

from __future__ import annotations

from dataclasses import dataclass, field

from gopush.comet.settings import SubscriberSettings
from gopush.config.schema import option
from gopush.config.values import text
from gopush.daemon.logs import LogSettings
from gopush.message.sqlite.settings import SqliteSettings
from gopush.message.store import StoreSettings
from gopush.message.stores import store_type
from gopush.web.settings import HttpSettings


@dataclass(frozen=True)
class EmbeddedSettings:
    """All of etc/gopush.ini."""

    user: str = option(
        "base", "user", "", text, "the user that the process becomes when root starts it; empty: stay root"
    )
    subscribers: SubscriberSettings = field(default_factory=SubscriberSettings)
    http: HttpSettings = field(default_factory=HttpSettings)
    storage: str = option("storage", "type", "sqlite", store_type(alone=True), "the store: sqlite or memory")
    store: StoreSettings = field(default_factory=StoreSettings)
    sqlite: SqliteSettings = field(default_factory=SqliteSettings)
    log: LogSettings = field(default_factory=LogSettings)
