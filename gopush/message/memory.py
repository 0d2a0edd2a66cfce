"""The store that forgets everything when its process ends: for trying out, and for tests."""

from __future__ import annotations

import math
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import attrgetter
from uuid import uuid4

from twisted.internet.defer import Deferred, succeed

from gopush.errors import RET_OK
from gopush.message.rules import MOST_TOKENS, NO_HEAD, First, Kept, Room, remembered_until, sequence
from gopush.message.store import StoreNumbers, StoreSettings
from gopush.model import Append, Appended, Head, Message, Page, Read, Token, TokenState
from gopush.reports import Backup

_MID = attrgetter("mid")
_WALK_SECONDS = 60


@dataclass(eq=False, repr=False, slots=True)
class Log:
    """A key's log. `soonest` is at or before the first expiry of its messages; it may be forgotten from `ends` on."""

    last: int = 0
    trimmed: int = 0
    messages: list[Kept] = field(default_factory=list)
    firsts: dict[str, First] = field(default_factory=dict)
    soonest: float = math.inf
    ends: float = 0.0

    def keep(self, message: Kept, most: int, now: float) -> tuple[int, int]:
        """Add a message and trim the log to the newest `most` unexpired ones; how many were trimmed and had expired."""
        expired = 0
        self.messages.append(message)
        self.soonest = min(self.soonest, message.expires)
        if len(self.messages) > most:
            expired = self.drop_expired(now)
        if (excess := len(self.messages) - most) > 0:
            self.trimmed = self.messages[excess - 1].mid
            del self.messages[:excess]
        return max(excess, 0), expired

    def drop_expired(self, now: float) -> int:
        """Drop the expired messages; that is no trimming. How many there were."""
        before = len(self.messages)
        if self.soonest <= now:
            self.messages = [message for message in self.messages if message.expires > now]
            self.soonest = min((message.expires for message in self.messages), default=math.inf)
        return before - len(self.messages)

    def after(self, cursor: int, now: float) -> Iterator[Kept]:
        """The unexpired messages after a cursor, ascending."""
        begin = bisect_right(self.messages, cursor, key=_MID)
        return (message for message in islice(self.messages, begin, None) if message.expires > now)


NO_BACKUP = "the messages are in memory alone ([storage] type = memory): there is nothing to save"


class MemoryStore:
    """A Store in two dictionaries, which needs neither options of its own nor a reactor. `now`: the clock, in seconds
    since the epoch.

    `logs` and `token_sets` are all its state, plain enough for copy.deepcopy.
    """

    name = "memory"
    shards: tuple[tuple[str, int], ...] = ()

    def __init__(
        self,
        store: StoreSettings,
        _options: None = None,
        _reactor: object = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.logs: dict[str, Log] = {}
        self.token_sets: dict[str, dict[bytes, int]] = {}
        self.identity = uuid4().hex
        self.numbers = {"memory": StoreNumbers()}
        self._counters = self.numbers["memory"].counters
        self._settings = store
        self._now = now
        self._walk: Iterator[str] = iter(())

    def start(self) -> Deferred[None]:
        """See Store."""
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """See Store."""
        return succeed(None)

    def append(self, appends: Sequence[Append]) -> Deferred[list[Appended]]:
        """See MessageService."""
        now = self._now()
        return succeed([self._append(append, now) for append in appends])

    def _append(self, append: Append, now: float) -> Appended:
        push = append.push
        log = self.logs.get(push.key) or Log()
        answer = sequence(append, log.last, log.firsts.get(push.id), now)
        if answer.ret != RET_OK:
            return answer
        if push.id:
            self._remember(log, append, answer, now)
        if answer.repeat:
            return answer
        self.logs[push.key] = log
        log.last = answer.mid
        log.ends = max(log.ends, now + push.expire + self._settings.head_life)
        if push.expire:
            message = Kept(answer.mid, now + push.expire, push.body)
            trimmed, expired = log.keep(message, self._settings.store, now)
            self._counters.trimmed += trimmed
            self._counters.expired += expired
        return answer

    @staticmethod
    def _remember(log: Log, append: Append, answer: Appended, now: float) -> None:
        until = remembered_until(append.push, now)
        if answer.repeat:
            until = max(until, log.firsts[append.push.id].until)
        log.firsts[append.push.id] = First(answer.mid, answer.previous, until)

    def read(self, reads: Sequence[Read]) -> Deferred[list[Page | None]]:
        """See MessageService."""
        now, room = self._now(), Room(reads)
        return succeed([self._read(read, now, room) for read in reads])

    def _read(self, read: Read, now: float, room: Room) -> Page:
        log = self.logs.get(read.key)
        if log is None:
            return Page([], NO_HEAD, False)
        count, more = room.take(read, (len(kept.body) for kept in log.after(read.after, now)))
        found = islice(log.after(read.after, now), count)
        return Page([Message(kept.mid, kept.body) for kept in found], Head(log.last, log.trimmed), more)

    def heads(self, keys: Sequence[str]) -> Deferred[list[Head | None]]:
        """See MessageService."""
        logs = [self.logs.get(key) for key in keys]
        return succeed([NO_HEAD if log is None else Head(log.last, log.trimmed) for log in logs])

    def delete(self, key: str) -> Deferred[None]:
        """See MessageService."""
        if (log := self.logs.get(key)) is not None:
            log.messages = []
            log.soonest = math.inf
            log.ends = self._now() + self._settings.head_life
        return succeed(None)

    def create_token(self, key: str, token: Token) -> Deferred[None]:
        """See MessageService."""
        tokens = self.token_sets.setdefault(key, {})
        tokens[token.digest] = token.expires
        if len(tokens) > MOST_TOKENS:
            del tokens[min(tokens, key=tokens.__getitem__)]
            self._counters.dropped_tokens += 1
        return succeed(None)

    def revoke_token(self, key: str, digest: bytes) -> Deferred[bool]:
        """See MessageService."""
        live = self._live_tokens(key)
        return succeed(live.pop(digest, None) is not None)

    def tokens(self, key: str) -> Deferred[list[Token]]:
        """See MessageService."""
        return succeed([Token(digest, expires) for digest, expires in self._live_tokens(key).items()])

    def check_token(self, key: str, digest: bytes) -> Deferred[TokenState]:
        """See MessageService."""
        live = self._live_tokens(key)
        log = self.logs.get(key)
        kept = log is not None and next(log.after(0, self._now()), None) is not None
        return succeed(TokenState(bool(live) or kept, digest in live))

    def _live_tokens(self, key: str) -> dict[bytes, int]:
        """The key's live tokens, to be changed in place; the expired ones are dropped."""
        now = self._now()
        live = {digest: expires for digest, expires in self.token_sets.pop(key, {}).items() if expires > now}
        if live:
            self.token_sets[key] = live
        return live

    def backup(self, path: str, id: str) -> Deferred[Backup]:
        """See BackupService."""
        return succeed(Backup("refused", why=NO_BACKUP))

    def ping(self) -> Deferred[None]:
        """See MessageService."""
        return succeed(None)

    def purge(self) -> Deferred[None]:
        """See Store. A walk over all keys takes a minute at most, or more where they go meanwhile: a million, three."""
        now = self._now()
        keys = list(islice(self._walk, 1000 + len(self.logs) // _WALK_SECONDS))
        if not keys:
            self._walk = iter([*self.logs, *self.token_sets])
        for key in keys:
            self._purge_log(key, now)
            self._live_tokens(key)
        return succeed(None)

    def _purge_log(self, key: str, now: float) -> None:
        log = self.logs.get(key)
        if log is None:
            return
        self._counters.expired += log.drop_expired(now)
        log.firsts = {id: first for id, first in log.firsts.items() if first.until > now}
        if log.ends <= now and not log.firsts:
            del self.logs[key]
