"""Takes the logs of another store into Redis servers: `gopush migrate`."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple, TypeVar

import msgpack
from twisted.internet.defer import Deferred, gatherResults

from gopush.errors import StartError, UnavailableError
from gopush.hashing import Shards
from gopush.message.original import KeyState, OldLog, OldMessage, placed
from gopush.message.redis.connection import LinkWatcher, Script
from gopush.message.redis.link import RedisLink
from gopush.message.redis.settings import RedisSettings
from gopush.message.rules import MOST_TOKENS, NO_HEAD, KeptLog, pushed_here, remembered
from gopush.message.store import unwrap
from gopush.model import Head
from gopush.net.tls import client_tls

SLACK_SECONDS = 60
"""How much longer than needed a log may stay, as append.lua has it."""

CALL_BYTES = 1 << 20
CALL_PARTS = 500
CALL_INSERTS = 8

MOST_BODY = 500_000_000
"""Redis takes no argument of more than 512 MiB."""

_MESSAGE = struct.Struct(">dd")
_TAKEN = struct.Struct(">dddd")
_SCRIPTS = _TAKE_OVER, _LOOK, _MIDS, _MARKS, _INSERT, _TOKENS = tuple(
    Script(f"{name}.lua") for name in ("take_over", "taken", "mids", "marks", "insert", "tokens")
)


A = TypeVar("A")
L = TypeVar("L", KeptLog, OldLog)


class _Part(NamedTuple):
    """What take_over.lua is told of a log, or of some of its messages where it has too many for a call."""

    key: str
    replaced: int
    last: int
    trimmed: int
    ends: int
    messages: Sequence[tuple[int, float, bytes]]
    ids: Sequence[tuple[str, int, int, float]] = ()
    stays: Sequence[int] = ()

    @property
    def size(self) -> int:
        return sum(len(body) + _MESSAGE.size for _, _, body in self.messages)

    def split(self) -> Iterator[_Part]:
        """Parts that fit into a call; the first one has what concerns the whole log."""
        part, rest = self._replace(messages=[]), self.messages
        while True:
            size = count = 0
            while count < len(rest) and (not count or size + len(rest[count][2]) <= CALL_BYTES):
                size += len(rest[count][2])
                count += 1
            head, rest = rest[:count], rest[count:]
            yield part._replace(messages=head)
            if not rest:
                return
            part = part._replace(replaced=0, ids=(), stays=())

    def packed(self, now: float) -> list[Any]:
        members = [_MESSAGE.pack(mid, expires) + body for mid, expires, body in self.messages]
        ids: list[Any] = []
        for id, mid, previous, until in self.ids:
            ids += (id, _MESSAGE.pack(mid, previous), max(1, math.ceil(until - now)))
        return [*self[:5], len(members), len(self.ids), len(self.stays), *members, *ids, *self.stays]


class RedisTakeOver:
    """The Redis servers of `settings`. What is taken over twice is there once; `head_life` in seconds."""

    most_body = MOST_BODY

    def __init__(self, reactor: Any, settings: RedisSettings, head_life: float) -> None:
        self._settings = settings
        self._head_life = max(1, math.ceil(head_life))
        self._shards = Shards(tuple((source.name, source.weight) for source in settings.sources))
        tls = client_tls("redis", settings) if any(source.tls for source in settings.sources) else None
        self._links = {
            source.name: RedisLink(
                reactor, source, settings, _SCRIPTS, LinkWatcher(lambda _: None), tls if source.tls else None
            )
            for source in settings.sources
        }

    async def start(self) -> None:
        """Connect. Raises StartError where a server will not do, UnavailableError where one does not answer."""
        started = gatherResults([link.start() for link in self._links.values()], consumeErrors=True)
        for refusal in await started.addErrback(unwrap):
            if refusal is not None:
                raise StartError(f"Redis: {refusal}")
        for link in self._links.values():
            await _asked(link.ping(), "")

    def stop(self) -> Deferred[Any]:
        """See Target."""
        return gatherResults([link.stop() for link in self._links.values()])

    async def take(self, logs: Sequence[KeptLog], now: float) -> list[KeptLog]:
        """See Target."""
        there = zip(logs, await self._there(logs), strict=True)
        left = [remembered(log) if is_there else log for log, is_there in there]
        taken = [log for log in left if log.last or log.ids or log.tokens]
        for name, mine in self._spread(taken).items():
            link = self._links[name]
            heads = [log for log in mine if log.last]
            here = await self._mids(link, heads)
            parts = [*map(_part, heads, here), *(_part(log, ()) for log in mine if log.ids and not log.last)]
            await self._send(link, parts, now)
            for log in mine:
                for token in log.tokens:
                    create = [self._settings.prefix, log.key, "create", token.digest, token.expires, MOST_TOKENS]
                    await _asked(link.run(_TOKENS, create))
        return taken

    async def _mids(self, link: RedisLink, logs: Sequence[KeptLog]) -> list[Sequence[int]]:
        answer = await _asked(link.run(_MIDS, [self._settings.prefix, *(log.key for log in logs)]))
        return [list(map(int, mids)) for mids in msgpack.unpackb(answer)]

    async def insert(self, logs: Sequence[OldLog]) -> int:
        """See Target."""
        return sum([await self._insert(self._links[name], mine) for name, mine in self._spread(logs).items()])

    async def _insert(self, link: RedisLink, logs: Sequence[OldLog]) -> int:
        """The newest part of a log goes first: what is interrupted then goes on before it, and what is pushed meanwhile
        comes after it. A log where something was pushed before its place is looked at again.
        """
        inserted = 0
        while logs:
            states = await self._states(link, [log.key for log in logs])
            left = [(log, _pieces(placed(log.messages, states[log.key]))) for log in logs]
            logs = []
            while left := [(log, pieces) for log, pieces in left if pieces]:
                some = _fitting(left)
                arguments: list[Any] = [self._settings.prefix, self._head_life]
                for log, pieces in some:
                    arguments += _inserted(log.key, pieces[-1])
                answer = await self._run(link, _INSERT, arguments)
                for (log, pieces), good in zip(some, answer, strict=True):
                    if good == ord("1"):
                        inserted += len(pieces.pop())
                    else:
                        pieces.clear()
                        logs.append(log)
        return inserted

    async def _states(self, link: RedisLink, keys: Sequence[str]) -> dict[str, KeyState]:
        """A call goes as far as a script should: what it leaves is asked for again."""
        states: dict[str, KeyState] = {}
        left = dict.fromkeys(keys, 0)
        while left:
            asked = [self._settings.prefix, *chain.from_iterable(left.items())]
            answers = msgpack.unpackb(await _asked(link.run(_MARKS, asked)), raw=True)
            for key, (head, marks, more) in zip(list(left), answers, strict=False):
                found = list(zip(map(int, marks[::2]), marks[1::2], strict=True))
                known = states.setdefault(
                    key, KeyState(Head(*map(int, _MESSAGE.unpack(head))) if head else NO_HEAD, [])
                )
                states[key] = known._replace(messages=[*known.messages, *found])
                if more:
                    left[key] = found[-1][0] if found else left[key]
                else:
                    del left[key]
        return states

    def _spread(self, logs: Iterable[L]) -> dict[str, list[L]]:
        found: dict[str, list[L]] = {}
        for log in logs:
            found.setdefault(self._shards.of(log.key) or next(iter(self._links)), []).append(log)
        return found

    async def _there(self, logs: Sequence[KeptLog]) -> list[bool]:
        """Which of them are there as they are here."""
        there: dict[str, tuple[float, ...]] = {}
        for name, mine in self._spread(logs).items():
            answer = await _asked(self._links[name].run(_LOOK, [self._settings.prefix, *(log.key for log in mine)]))
            there |= {log.key: found for log, found in zip(mine, _TAKEN.iter_unpack(answer), strict=True)}
        return [there[log.key] == _taken(log) for log in logs]

    async def _send(self, link: RedisLink, wanted: Iterable[_Part], now: float) -> None:
        parts: list[_Part] = []
        size = 0
        for whole in wanted:
            for part in whole.split():
                if parts and (size + part.size > CALL_BYTES or len(parts) == CALL_PARTS):
                    await self._take(link, parts, now)
                    parts, size = [], 0
                parts.append(part)
                size += part.size
        if parts:
            await self._take(link, parts, now)

    async def _take(self, link: RedisLink, parts: Sequence[_Part], now: float) -> None:
        arguments: list[Any] = [self._settings.prefix, self._head_life]
        for part in parts:
            arguments += part.packed(now)
        await self._run(link, _TAKE_OVER, arguments)

    async def _run(self, link: RedisLink, script: Script, arguments: list[Any]) -> bytes:
        return await _asked(link.run(script, arguments, self._settings.wait))


async def _asked(call: Deferred[A], moved: str = "; what was moved so far stays: try again") -> A:
    """What the server answers. Raises UnavailableError, which names it: the source may be Redis, too."""
    try:
        return await call
    except UnavailableError as failed:
        raise UnavailableError(f"Redis (--to): {failed}{moved}") from None


def _taken(log: KeptLog) -> tuple[float, ...]:
    """What taken.lua says of it where it is whole: the newest one comes last, when others may have expired."""
    return log.last, log.trimmed, len(log.messages), log.messages[-1][0] if log.messages else 0


def _pieces(messages: Sequence[OldMessage]) -> list[list[OldMessage]]:
    """So much that a call takes it."""
    pieces: list[list[OldMessage]] = []
    size = 0
    for message in messages:
        if not pieces or size + len(message.body) > CALL_BYTES or len(pieces[-1]) == CALL_PARTS:
            pieces.append([])
            size = 0
        pieces[-1].append(message)
        size += len(message.body)
    return pieces


def _fitting(left: Sequence[tuple[OldLog, list[list[OldMessage]]]]) -> list[tuple[OldLog, list[list[OldMessage]]]]:
    """The first ones, as many as a call takes: for each it reads one message that was pushed, however large."""
    count = size = 0
    for _, pieces in left[:CALL_INSERTS]:
        size += sum(len(message.body) for message in pieces[-1])
        if count and size > CALL_BYTES:
            break
        count += 1
    return list(left[:count])


def _inserted(key: str, messages: Sequence[OldMessage]) -> list[Any]:
    """What insert.lua is told."""
    ends = max(message.expires for message in messages) + SLACK_SECONDS
    return [key, ends, len(messages), *(_MESSAGE.pack(mid, expires) + body for mid, expires, body in messages)]


def _part(log: KeptLog, here: Sequence[int]) -> _Part:
    last = max((expires for _, expires, _ in log.messages), default=log.ends)
    ends = math.ceil(last) + (SLACK_SECONDS if log.messages else 0)
    stays = sorted(mid for mid in pushed_here(here, log) if mid <= log.last)
    return _Part(log.key, log.last, log.last, log.trimmed, ends, log.messages, log.ids, stays)
