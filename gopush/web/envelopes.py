"""What an envelope may hold beside its message. Pure.

The scanner reads a value in one go, and nobody else is served meanwhile. 16 MiB of strings or numbers take no time, but
of containers that have a few bytes each two seconds.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from gopush.errors import ParameterError

MAX_PROPERTIES = 1000
MAX_CONTAINERS = 64 << 10
"""Characters of all lists and objects in an envelope together, but for the message and the list of keys."""

REPEATS = 10
"""How often a call may name each of its keys, on average: a key counts once, but all names are read in one go."""


class Property(NamedTuple):
    """A member of an object: where its value lies in the text, and the value as scanned, its numbers not kept."""

    value: Any
    start: int
    end: int

    def of(self, text: str) -> str:
        """The value as it is written in the text it was found in."""
        return text[self.start : self.end]


def is_strings(text: str, at: int, most: int) -> bool:
    """Whether a list of at most so many strings begins at `at`, as far as that shows at a glance."""
    marks, string = r"[ ,\t\n\r]*+", r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
    return bool(re.compile(rf"\[(?:{marks}{string}){{0,{most}}}+{marks}\]").match(text, at))


def key_names(value: object, most: int) -> list[str]:
    """What a list names as keys, or a text with commas between them: at least one and at most so many, each once, and
    named REPEATS times at most on average.
    """
    names = value.split(",", REPEATS * most) if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or not any(names):
        raise ParameterError('k names no keys: "k1,k2", or a list of strings')
    keys = list(dict.fromkeys(names))
    if len(names) > REPEATS * most or len(keys) > most:
        raise ParameterError(f"k names more than the {most} keys that a call may have")
    return keys
