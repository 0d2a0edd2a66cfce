"""The options of the store in a SQLite file."""

from __future__ import annotations

from dataclasses import dataclass

from gopush.config.schema import option
from gopush.config.values import text


@dataclass(frozen=True)
class SqliteSettings:
    """Section [sqlite]."""

    path: str = option("sqlite", "path", "gopush.sqlite", text, "the database file")
