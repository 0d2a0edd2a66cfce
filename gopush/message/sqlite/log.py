"""The logs in a SQLite database: blocking calls, all made from one thread.

Every statement here is one step for a whole batch, whose rows go in and out as JSON: the interpreter lock is let go
at each step, and a busy reactor gives it back late.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from gopush.message.rules import MOST_TOKENS, NO_HEAD, First, Room
from gopush.message.sqlite.batch import Batch, LogRow
from gopush.message.sqlite.disk import PAGE_BYTES, DatabaseFiles, is_full
from gopush.message.sqlite.file import UPGRADES, transaction
from gopush.message.store import StoreCounters, StoreSettings
from gopush.model import Append, Appended, Head, Message, Page, Read, Token, TokenState

T = TypeVar("T")

PURGED_AT_ONCE = 500
PURGED_PAGES = 8
"""A transaction of a purge takes so many logs at most, and twice as many messages, unless one log alone has more. Each
log may write so many pages: where the reserve is small, fewer go.
"""

_LOGS = """
    SELECT json_group_array(json_array(key, last, trimmed, kept, due, ends)) FROM logs
    WHERE key IN (SELECT value FROM json_each(?))
"""
_SET_LOGS = """
    INSERT INTO logs (key, last, trimmed, kept, due, ends)
    SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5 FROM json_each(?) WHERE true
    ON CONFLICT (key) DO UPDATE SET last = excluded.last, kept = excluded.kept, due = excluded.due, ends = excluded.ends
"""
_ADD_MESSAGES = """
    INSERT INTO messages (log, mid, expires, body)
    SELECT logs.id, value->>1, value->>2, coalesce(substr(?, value->>3, value->>4), x'')
    FROM json_each(?) CROSS JOIN logs ON logs.key = value->>0
"""
_ADD_IDS = """
    INSERT INTO ids (key, id, mid, previous, until)
    SELECT value->>0, value->>1, value->>2, value->>3, value->>4 FROM json_each(?)
"""
_LOG_IDS = "SELECT json_group_array(id) FROM logs WHERE key IN (SELECT value FROM json_each(?))"
_DUE = """
    SELECT json_group_array(id) FROM (
        SELECT id, sum(kept) OVER (ORDER BY due, id) - kept AS before
        FROM (SELECT id, due, kept FROM logs WHERE due <= ? ORDER BY due LIMIT ?)
    ) WHERE before < ?
"""
_ANY_DUE = "SELECT 1 FROM logs WHERE due <= ? LIMIT 1"
_DROP_EXPIRED = """
    DELETE FROM messages WHERE seq IN (
        SELECT seq FROM json_each(:logs) CROSS JOIN logs ON logs.id = value AND due <= :now
        CROSS JOIN messages ON log = logs.id AND expires <= :now
    )
"""
_RECOUNT = """
    UPDATE logs SET
        kept = (SELECT count(*) FROM messages WHERE log = id),
        due = coalesce((SELECT min(expires) FROM messages WHERE log = id), ends)
    WHERE id IN (SELECT value FROM json_each(:logs)) AND due <= :now
"""
_KEPT = "SELECT json_group_array(DISTINCT kept) FROM logs WHERE id IN (SELECT value FROM json_each(?)) AND kept > ?"
_TRIM_HEADS = """
    UPDATE logs SET kept = :store,
        trimmed = (SELECT mid FROM messages WHERE log = logs.id ORDER BY mid LIMIT 1 OFFSET :kept - :store - 1)
    WHERE id IN (SELECT value FROM json_each(:logs)) AND kept = :kept
"""
_TRIM = """
    DELETE FROM messages WHERE seq IN (
        SELECT seq FROM json_each(:logs) CROSS JOIN logs ON logs.id = value
        CROSS JOIN messages ON log = logs.id AND mid <= trimmed
    )
"""
_FORGET_LOGS = "DELETE FROM logs WHERE id IN (SELECT value FROM json_each(?)) AND kept = 0 AND ends <= ?"
_SIZES = "SELECT length(body) FROM messages WHERE log = ? AND mid > ? AND expires > ? ORDER BY mid"
_LIVE = "SELECT mid, body FROM messages WHERE log = ? AND mid > ? AND expires > ? ORDER BY mid LIMIT ?"
_CHECK_TOKEN = """
    SELECT
        EXISTS (SELECT 1 FROM tokens WHERE key = :key AND digest = :digest AND expires > :now),
        EXISTS (SELECT 1 FROM tokens WHERE key = :key AND expires > :now)
        OR EXISTS (SELECT 1 FROM messages WHERE log = (SELECT id FROM logs WHERE key = :key) AND expires > :now)
"""
_BOUND_TOKENS = """
    DELETE FROM tokens WHERE key = ? AND digest IN
        (SELECT digest FROM tokens WHERE key = ? ORDER BY expires DESC LIMIT -1 OFFSET ?)
"""
_OLD_IDS = "SELECT json_group_array(json_array(key, id)) FROM ids WHERE seq BETWEEN ? AND ? AND until <= ?"
_DROP_IDS = "DELETE FROM ids WHERE seq BETWEEN ? AND ? AND until <= ?"

_DROP_TOKENS = """
    DELETE FROM tokens WHERE (key, digest) IN (SELECT key, digest FROM tokens WHERE expires <= ? LIMIT ?)
"""

_IDS_WALK_SECONDS = 30


@dataclass(eq=False, repr=False)
class SqliteLogs:
    """All that a Store does. What fails raises sqlite3.Error and has changed nothing."""

    _connection: sqlite3.Connection
    _files: DatabaseFiles
    _settings: StoreSettings
    _now: Callable[[], float]
    _counters: StoreCounters

    def __post_init__(self) -> None:
        small = self._files.reserve_bytes // (PURGED_PAGES * PAGE_BYTES)
        self._purged_at_once = min(small or PURGED_AT_ONCE, PURGED_AT_ONCE)
        # Asking for the ids of a batch would cost as much as storing it, so the live ones are here too.
        self._firsts: dict[tuple[str, str], First] = {}
        self._walked = 0
        live = "SELECT key, id, mid, previous, until FROM ids WHERE until > ? ORDER BY seq"
        for key, id, mid, previous, until in self._connection.execute(live, [self._now()]):
            self._firsts[key, id] = First(mid, previous, until)

    def append(self, appends: Sequence[Append]) -> list[Appended]:
        """See MessageService."""
        batch = Batch(self._firsts, self._settings.head_life, self._now())
        with self._change():
            keys = list({append.push.key for append in appends})
            batch.logs = {row[0]: LogRow(*row) for row in self._json(_LOGS, _dump(keys))}
            answers = [batch.append(append) for append in appends]
            trimmed, expired = self._write(batch)
        self._firsts.update(batch.firsts)  # before anything can fail: it is stored, and a repeat must find it
        self._files.check()
        self._counters.trimmed += trimmed
        self._counters.expired += expired
        return answers

    @contextmanager
    def _change(self) -> Iterator[None]:
        """A transaction, undone where the files are no longer those that were opened: what is not acknowledged must not
        be found there when they are back."""
        with transaction(self._connection):
            yield
            self._files.check()

    def _write(self, batch: Batch) -> tuple[int, int]:
        """How many messages had to go for it: trimmed ones, expired ones."""
        execute = self._connection.execute
        if batch.touched:
            execute(_SET_LOGS, [_dump([batch.logs[key] for key in batch.touched])])
        if batch.messages:
            execute(_ADD_MESSAGES, [b"".join(batch.bodies), _dump(batch.messages)])
        if batch.firsts:
            execute(_ADD_IDS, [_dump([(*name, *first) for name, first in batch.firsts.items()])])
        full = [key for key in batch.touched if batch.logs[key].kept > self._settings.store]
        return self._trim(self._json(_LOG_IDS, _dump(full)), batch.now) if full else (0, 0)

    def _trim(self, logs: list[int], now: float) -> tuple[int, int]:
        expired, trimmed, store = self._drop_expired(logs, now), 0, self._settings.store
        too_many = self._json(_KEPT, _dump(logs), store)
        for kept in too_many:  # OFFSET is the same for all rows; mostly it is one anyway
            self._connection.execute(_TRIM_HEADS, {"logs": _dump(logs), "kept": kept, "store": store})
        if too_many:
            trimmed = self._connection.execute(_TRIM, {"logs": _dump(logs)}).rowcount
        return trimmed, expired

    def _drop_expired(self, logs: list[int], now: float) -> int:
        only = {"logs": _dump(logs), "now": now}
        expired = self._connection.execute(_DROP_EXPIRED, only).rowcount
        self._connection.execute(_RECOUNT, only)
        return expired

    def read(self, reads: Sequence[Read]) -> list[Page | None]:
        """See MessageService."""
        now, room = self._now(), Room(reads)
        return [self._read(read, now, room) for read in reads]

    def _read(self, read: Read, now: float, room: Room) -> Page:
        row = self._connection.execute("SELECT id, last, trimmed FROM logs WHERE key = ?", [read.key]).fetchone()
        if row is None:
            return Page([], NO_HEAD, False)
        log, last, trimmed = row
        sizes = self._connection.execute(_SIZES, [log, read.after, now])
        count, more = room.take(read, (size for (size,) in sizes))
        sizes.close()
        found = self._connection.execute(_LIVE, [log, read.after, now, count]) if count else ()
        return Page([Message(*row) for row in found], Head(last, trimmed), more)

    def heads(self, keys: Sequence[str]) -> list[Head | None]:
        """See MessageService."""
        logs = {row[0]: Head(row[1], row[2]) for row in self._json(_LOGS, _dump(keys))}
        return [logs.get(key, NO_HEAD) for key in keys]

    def delete(self, key: str) -> None:
        """See MessageService. Works on a full disk, too."""
        self._with_room(lambda: self._delete(key))

    def _with_room(self, call: Callable[[], T]) -> T:
        """Calls that give room back may use the reserve."""
        try:
            return call()
        except sqlite3.Error as wrong:
            if not is_full(wrong):
                raise
        self._files.make_room()
        try:
            return call()
        finally:
            self._files.tidy()  # also where it fails: what appends took without a bound would be missing for ever

    def _delete(self, key: str) -> None:
        with self._change():
            self._connection.execute("DELETE FROM messages WHERE log = (SELECT id FROM logs WHERE key = ?)", [key])
            ends = self._now() + self._settings.head_life
            self._connection.execute("UPDATE logs SET kept = 0, due = ?, ends = ? WHERE key = ?", [ends, ends, key])

    def create_token(self, key: str, token: Token) -> None:
        """See MessageService."""
        with self._change():
            row = [key, token.digest, token.expires]
            self._connection.execute("INSERT OR REPLACE INTO tokens VALUES (?, ?, ?)", row)
            self._counters.dropped_tokens += self._connection.execute(_BOUND_TOKENS, [key, key, MOST_TOKENS]).rowcount

    def revoke_token(self, key: str, digest: bytes) -> bool:
        """See MessageService."""
        sql = "DELETE FROM tokens WHERE key = ? AND digest = ? RETURNING expires"
        with self._change():
            row = self._connection.execute(sql, [key, digest]).fetchall()
        return bool(row) and row[0][0] > self._now()

    def tokens(self, key: str) -> list[Token]:
        """See MessageService."""
        sql = "SELECT digest, expires FROM tokens WHERE key = ? AND expires > ? ORDER BY expires"
        return [Token(*row) for row in self._connection.execute(sql, [key, self._now()])]

    def check_token(self, key: str, digest: bytes) -> TokenState:
        """See MessageService."""
        now = self._now()
        (valid, created) = self._connection.execute(_CHECK_TOKEN, {"key": key, "digest": digest, "now": now}).fetchone()
        return TokenState(bool(created), bool(valid))

    def opened(self) -> sqlite3.Connection:
        """The connection: for a backup, whose thread shares it."""
        return self._connection

    def ping(self) -> None:
        """Check that the file can be written."""
        self._files.check()
        self._connection.execute(f"PRAGMA user_version = {len(UPGRADES)}")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def purge(self) -> bool:
        """Let go of some of what nobody can see any more; whether there is more of it. Works on a full disk, too."""
        self._files.check()
        self._files.lay_in()
        return self._with_room(self._purge)

    def _purge(self) -> bool:
        now = self._now()
        expired = 0
        most = self._purged_at_once
        with transaction(self._connection):
            if logs := self._json(_DUE, now, most, 2 * most):
                expired = self._drop_expired(logs, now)
                self._connection.execute(_FORGET_LOGS, [_dump(logs), now])
            tokens = self._connection.execute(_DROP_TOKENS, [now, most]).rowcount
            self._purge_ids(now)
        self._counters.expired += expired
        return tokens >= most or self._connection.execute(_ANY_DUE, [now]).fetchone() is not None

    def _purge_ids(self, now: float) -> None:
        """The next piece of a walk over all ids."""
        first, last = self._connection.execute("SELECT min(seq), max(seq) FROM ids").fetchone()
        if first is None:
            return
        begin = max(first, self._walked + 1)
        if begin > last:
            begin = first
        self._walked = begin + 1000 + (last - first) // _IDS_WALK_SECONDS
        piece = [begin, self._walked, now]
        for key, id in self._json(_OLD_IDS, *piece):
            first_time = self._firsts.get((key, id))
            if first_time is not None and first_time.until <= now:
                del self._firsts[key, id]
        self._connection.execute(_DROP_IDS, piece)

    def _json(self, sql: str, *values: Any) -> Any:
        (text,) = self._connection.execute(sql, values).fetchone()
        return json.loads(text)


def _dump(rows: Iterable[Any]) -> str:
    return json.dumps(rows, ensure_ascii=False, separators=(",", ":"))
