"""Delivery rule 10: what nobody can see any more leaves the file, however much of it there is."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from gopush.message.sqlite.settings import SqliteSettings
from gopush.message.sqlite.store import SqliteStore
from gopush.message.store import StoreSettings
from gopush.model import Append, Push
from tests.conftest import InReactor, reactor


def test_a_purge_takes_all_that_has_expired_not_only_a_piece(in_reactor: InReactor, tmp_path: Path) -> None:
    now = [1000.0]
    path = tmp_path / "x.sqlite"
    store = SqliteStore(StoreSettings(head_life=10), SqliteSettings(str(path)), reactor, lambda: now[0])
    in_reactor(store.start)
    in_reactor(store.append, [Append(Push(f"k{i}", b"1", 1, "", 0, 2000.0), 0) for i in range(1800)])
    now[0] += 5
    in_reactor(store.purge)
    now[0] += 20
    in_reactor(store.purge)
    in_reactor(store.stop)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM messages").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM logs").fetchone() == (0,)


def test_a_store_that_is_stopped_while_it_opens_closes(in_reactor: InReactor, tmp_path: Path) -> None:
    store = SqliteStore(StoreSettings(), SqliteSettings(str(tmp_path / "x.sqlite")), reactor)

    def start_and_stop() -> object:
        opening = store.start()
        return store.stop().addCallback(lambda _: opening)

    in_reactor(start_and_stop)
    in_reactor(store.start)  # the file is free again
    in_reactor(store.stop)
