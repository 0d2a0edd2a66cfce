"""A batch of appends on its way into SQLite: what it will write, found out before anything is written. Pure."""

from __future__ import annotations

from typing import NamedTuple

from gopush.errors import RET_OK
from gopush.message.rules import First, remembered_until, sequence
from gopush.model import Append, Appended

NUL = "\ufdd0"
"""Stands in the file for U+0000, at which SQLite's functions end a text; Unicode says that nobody's text has it."""


class LogRow(NamedTuple):
    """A row of the table logs (file.py)."""

    key: str
    last: int
    trimmed: int
    kept: int
    due: float
    ends: float


class Batch:
    """Sequences appends. `logs` must hold the rows of their keys that are there; `known` the ids that are remembered.

    It gathers what is to be written: the rows of `logs` whose keys are `touched`, the ids' `firsts`, and `messages` as
    key, mid, expiry, and the place (from 1) and length of the body in the joined `bodies`.
    """

    def __init__(self, known: dict[tuple[str, str], First], head_life: float, now: float) -> None:
        self.now = now
        self.logs: dict[str, LogRow] = {}
        self.touched: dict[str, None] = {}
        self.firsts: dict[tuple[str, str], First] = {}
        self.messages: list[tuple[str, int, float, int, int]] = []
        self.bodies: list[bytes] = []
        self._size = 0
        self._known = known
        self._head_life = head_life

    def append(self, append: Append) -> Appended:
        """Sequence one."""
        push, now = append.push, self.now
        name = (push.key, push.id if "\0" not in push.id else push.id.replace("\0", NUL))
        log = self.logs.get(push.key) or LogRow(push.key, 0, 0, 0, now + self._head_life, 0)
        first = self.firsts.get(name) or self._known.get(name)
        answer = sequence(append, log.last, first, now)
        if answer.ret != RET_OK:
            return answer
        until = remembered_until(push, now)
        if push.id and (first is None or not answer.repeat or first.until < until):
            self.firsts[name] = First(answer.mid, answer.previous, until)
        if not answer.repeat:
            self._keep(append, log, answer.mid)
        return answer

    def _keep(self, append: Append, log: LogRow, mid: int) -> None:
        key, body, expire = append.push[:3]
        kept, due = log.kept, log.due
        expires = self.now + expire
        if expire:
            self.messages.append((key, mid, expires, self._size + 1, len(body)))
            self.bodies.append(body)
            self._size += len(body)
            kept, due = kept + 1, min(due, expires)
        ends = max(log.ends, expires + self._head_life)
        self.logs[key] = LogRow(key, mid, log.trimmed, kept, due, ends)
        self.touched[key] = None
