"""The options of the store in a SQLite file."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gopush.config.schema import Section

_sqlite = Section("sqlite")


def _file(value: str) -> str:
    """The path of a database. What SQLite may keep in memory, or in a file that goes with the process, is none."""
    if value in ("", ":memory:") or value.startswith("file:"):
        raise ValueError("is no path of a file (try gopush.sqlite; [storage] type = memory keeps nothing on a disk)")
    if re.search(r"[\0-\x1f\x7f]", value):
        raise ValueError("holds a control character, as no path of a file does")
    return value


@dataclass(frozen=True)
class SqliteSettings:
    """Section [sqlite]."""

    path: str = _sqlite("path", "gopush.sqlite", _file, "the database file")
