"""One Redis server behind the store: what it is asked, packed for the scripts in lua/, and its health."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Any
from uuid import uuid4

import msgpack
from twisted.internet.defer import CancelledError, Deferred, gatherResults, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from gopush.errors import RET_OK, StartError, UnavailableError
from gopush.message.redis.connection import LinkWatcher, RedisRefusedError, Script, UnreplicatedError
from gopush.message.redis.link import RedisLink
from gopush.message.redis.replication import Replication
from gopush.message.redis.settings import RedisSettings, Source
from gopush.message.rules import ANSWER_BYTES, MOST_TOKENS, PAGE_BYTES, REFUSED, UNAVAILABLE, page_bytes
from gopush.message.store import Gatherer, StoreNumbers, StoreSettings, Troubles, unwrap
from gopush.model import MID_STEP, Append, Appended, Head, Message, Page, Read, Token, TokenState, records
from gopush.net.tls import client_tls

IDENTITY_SECONDS = 10 * 86400
"""How long a store that nobody touches keeps its id."""

_HEAD = _MESSAGE = struct.Struct(">dd")
_CLOCK = struct.Struct(">d")

_APPEND, _READ, _HEADS, _DELETE, _TOKENS, _TOUCH = (
    Script(f"{name}.lua") for name in ("append", "read", "heads", "delete", "tokens", "touch")
)


class RedisServer:
    """One Redis server with the keys that the ring gives it: a connection for what writes, another one for reads.

    `identity`: the id of the data there; empty while it is not known.
    """

    _log = Logger()

    def __init__(self, reactor: Any, source: Source, settings: RedisSettings, store: StoreSettings) -> None:
        self.name = source.name
        self.identity = ""
        self.numbers = StoreNumbers()
        self._reactor = reactor
        self._settings = settings
        self._prefix = settings.prefix
        self._store = store
        self._troubles = Troubles(f"Redis {source.name}", reactor)
        self.replication = Replication(self._touch, source.name, lambda: self._writes.server)
        tls = client_tls("redis", settings) if source.tls else None

        def link(part: str, scripts: Sequence[Script], left: Callable[[], None] = lambda: None) -> RedisLink:
            well = partial(self._troubles.end, part, calm=True)
            watcher = LinkWatcher(partial(self._tell, part), partial(self._tell_clock, part), left, well)
            return RedisLink(reactor, source, settings, scripts, watcher, tls)

        self._reads = link("reads", (_READ, _HEADS, _TOKENS))
        # Only writes meet a replica; the reads follow once these are elsewhere.
        self._writes = link("writes", (_APPEND, _DELETE, _TOKENS, _TOUCH), self._reads.leave)
        self._gatherer = Gatherer(self._append)

    def start(self) -> Deferred[None]:
        """Connect, or begin to try. Fails with StartError where the server is there and will not do."""
        return gatherResults([self._writes.start(), self._reads.start()]).addCallback(self._check)

    def _check(self, refusals: list[str | None]) -> Deferred[None]:
        for refusal in filter(None, refusals):
            raise StartError(f"Redis {self.name}: {refusal}")
        return self.touch() if self._writes.connected else succeed(None)

    async def stop(self) -> None:
        """Answer the calls under way, and disconnect."""
        await self._gatherer.drained()
        self._troubles.close()
        await gatherResults([self._writes.stop(), self._reads.stop()])

    def append(self, appends: Sequence[Append]) -> Deferred[list[Appended]]:
        """See MessageService; never fails: the answer is UNAVAILABLE where another message node may reach it."""
        return self._gatherer.append(appends)

    def _append(self, appends: Sequence[Append]) -> Deferred[list[Appended]]:
        arguments: list[Any] = [self._prefix, self._store.store, max(1, math.ceil(self._store.head_life))]
        named = True
        for (key, body, expire, id, dedupe, deadline), floor in appends:
            arguments += (key, id, floor, deadline, expire, dedupe, body)
            named = named and id != ""
        wait = self._settings.wait
        made = self._writes.run(_APPEND, arguments, wait, named)
        sent = (wait, self._reactor.seconds())
        return made.addCallbacks(self._appended, self._not_appended, callbackArgs=sent, errbackArgs=(len(appends),))

    def _write(self, script: Script, arguments: list[Any], again: bool = True) -> Deferred[bytes]:
        made = Deferred.fromCoroutine(self._replicated(script, arguments, again))
        return self.numbers.timed(script.name, made, self._reactor)

    async def _replicated(self, script: Script, arguments: list[Any], again: bool) -> bytes:
        answer = await self._writes.run(script, arguments, 0, again)
        if self._settings.wait:
            self.replication.check()
            await self.replication.confirm_at({self._writes.server})
        return answer

    async def _ask(self, script: Script, arguments: list[Any]) -> bytes:
        """Have a script read, timed."""
        started = self._reactor.seconds()
        try:
            answer = await self._reads.run(script, arguments)
        except Exception:
            self.numbers.counters.failed += 1
            raise
        self.numbers.seconds.get(script.name, self.numbers.seconds["other"]).observe(self._reactor.seconds() - started)
        return answer

    def _appended(self, answer: bytes, wait: int, started: float) -> list[Appended]:
        self.numbers.seconds["append"].observe(self._reactor.seconds() - started)
        values = iter(msgpack.unpackb(answer))
        now, trimmed, expired, strange = islice(values, 4)
        self.numbers.counters.trimmed += trimmed
        self.numbers.counters.expired += expired
        answers = records(Appended, values, values, values, values)
        if strange:
            self._troubles.strange(strange, self._prefix)
            answers = [REFUSED if one.ret < 0 else one for one in answers]
        if wait:
            self.replication.saw("writes", now)
            if any(answer.ret == RET_OK for answer in answers):  # else nothing was written that WAIT was about
                self.replication.reached(now, len(answers))
                self._troubles.end("replicas")
        # A repeat needs no memory.
        if self._troubles.now and any(answer.ret == RET_OK and not answer.repeat for answer in answers):
            self._troubles.end("appends", calm=True)
        return answers

    def _not_appended(self, failure: Failure, count: int) -> list[Appended]:
        self.numbers.counters.failed += 1
        if not isinstance(failure.value, UnavailableError):
            self._log.failure("Redis {name}: appending", failure, name=self.name)
        self._tell_refusal(failure)
        elsewhere = isinstance(failure.value, UnavailableError) and not isinstance(failure.value, RedisRefusedError)
        return [UNAVAILABLE if elsewhere else REFUSED] * count

    def _tell_refusal(self, failure: Failure) -> Failure:
        if "writes" not in self._troubles or self._writes.connected:
            part = "replicas" if isinstance(failure.value, UnreplicatedError) else "appends"
            self._troubles.begin(part, failure.getErrorMessage())
        return failure

    def _tell(self, part: str, trouble: str | None) -> None:
        self.replication.at(self._writes.server)
        if trouble is None:
            self._troubles.end(part, calm=True)
            if self._writes.connected and self._reads.connected and self._reads.server != self._writes.server:
                self._reads.leave()
        else:
            self._troubles.begin(part, trouble)

    def _tell_clock(self, part: str, now: float, ahead: float | None) -> None:
        self.replication.saw(part, now)
        if ahead is not None:
            self.numbers.skew = ahead
            self._troubles.clock(ahead)

    def touch(self) -> Deferred[None]:
        """Look whether writes work, the data are still the same, and the server still keeps them. Never fails."""
        return self.replication.look().addBoth(lambda _: Deferred.fromCoroutine(self._writes.look()))

    def _touch(self) -> Deferred[None]:
        touched = self._writes.run(_TOUCH, [self._prefix, uuid4().hex, IDENTITY_SECONDS], self._settings.wait)
        return self.numbers.timed("touch", touched, self._reactor).addCallbacks(self._touched, self._tell_refusal)

    def _touched(self, answer: bytes) -> None:
        identity, now = msgpack.unpackb(answer)
        self.replication.saw("writes", now)
        if self._settings.wait:
            self.replication.reached(now)
        self._troubles.end("replicas")
        self._troubles.end("appends", calm=True)
        if self.identity and identity != self.identity:
            self._log.warn("Redis {name}: it has lost what it held; it begins anew", name=self.name)
        self.identity = identity

    def read(self, reads: Sequence[Read]) -> Deferred[list[Page | None]]:
        """See MessageService."""
        return Deferred.fromCoroutine(self._read(reads))

    async def _read(self, reads: Sequence[Read]) -> list[Page | None]:
        """In several calls where one answer would be too big, or where much has expired."""
        room = min((read.room for read in reads if read.room), default=ANSWER_BYTES)
        pages: list[Page | None] = [None] * len(reads)
        servers: set[str] = set()
        left = dict(enumerate(reads))
        while left:
            answers = await self._read_some(list(left.values()), room)
            servers.add(self._reads.server)
            for index, (page, passed) in zip(list(left), answers, strict=True):
                read = left[index]
                if page is not None and page.more and not page.messages and (passed or not read.room):
                    left[index] = read._replace(after=passed or read.after)
                else:
                    del left[index]
                    pages[index] = page
        if self._settings.wait:
            await self.replication.cover([page.head for page in pages if page is not None], servers)
        return pages

    async def _read_some(self, reads: Sequence[Read], room: int) -> list[tuple[Page | None, int]]:
        most_bytes = PAGE_BYTES if all(read.room for read in reads) else page_bytes(len(reads))
        arguments: list[Any] = [self._prefix, room, most_bytes]
        for key, after, limit, _ in reads:
            # Lua compares doubles: what is no multiple of 16 would be rounded, perhaps up to the next mid.
            arguments += (key, after & ~(MID_STEP - 1), limit)
        values = iter(msgpack.unpackb(await self._ask(_READ, arguments), raw=True))
        now, strange = next(values), next(values)
        if strange:
            self._troubles.strange(strange.decode(), self._prefix)
        if self._settings.wait or self.replication.until:  # else no replica is waited for, nor has been
            self.replication.saw("reads", now)
        return [
            (Page([*map(_message, found)], Head(*map(int, _HEAD.unpack(head))), more) if head else None, passed)
            for head, more, passed, found in zip(values, values, values, values, strict=True)
        ]

    def heads(self, keys: Sequence[str]) -> Deferred[list[Head | None]]:
        """See MessageService."""
        return Deferred.fromCoroutine(self._heads(keys))

    async def _heads(self, keys: Sequence[str]) -> list[Head | None]:
        answer = await self._ask(_HEADS, [self._prefix, *keys])
        self.replication.saw("reads", *_CLOCK.unpack_from(answer))
        end = _CLOCK.size + len(keys) * _HEAD.size
        pairs = _HEAD.iter_unpack(answer[_CLOCK.size : end])
        heads = [Head(int(last), int(trimmed)) if last >= 0 else None for last, trimmed in pairs]
        if strange := answer[end:]:
            self._troubles.strange(strange.decode(), self._prefix)
        if self._settings.wait:
            await self.replication.cover([head for head in heads if head is not None], {self._reads.server})
        return heads

    def delete(self, key: str) -> Deferred[None]:
        """See MessageService."""
        arguments = [self._prefix, max(1, math.ceil(self._store.head_life)), key]
        gone = self._write(_DELETE, arguments, again=False)
        return gone.addCallback(lambda name: self._troubles.strange(name.decode(), self._prefix) if name else None)

    def create_token(self, key: str, token: Token) -> Deferred[None]:
        """See MessageService."""
        arguments = [self._prefix, key, "create", token.digest, token.expires, MOST_TOKENS]
        return self._write(_TOKENS, arguments).addCallback(self._token_created)

    def _token_created(self, answer: bytes) -> None:
        self.numbers.counters.dropped_tokens += msgpack.unpackb(answer)[0]

    def revoke_token(self, key: str, digest: bytes) -> Deferred[bool]:
        """See MessageService."""
        answer = self._write(_TOKENS, [self._prefix, key, "revoke", digest])
        return answer.addCallback(lambda answer: bool(msgpack.unpackb(answer)[0]))

    def tokens(self, key: str) -> Deferred[list[Token]]:
        """See MessageService."""

        def unpack(answer: bytes) -> list[Token]:
            values = iter(msgpack.unpackb(answer, raw=True))
            return [Token(digest, int(expires)) for digest, expires in zip(values, values, strict=True)]

        return Deferred.fromCoroutine(self._ask(_TOKENS, [self._prefix, key, "list"])).addCallback(unpack)

    def check_token(self, key: str, digest: bytes) -> Deferred[TokenState]:
        """See MessageService."""
        asked = self._ask(_TOKENS, [self._prefix, key, "check", digest])
        return Deferred.fromCoroutine(asked).addCallback(self._checked)

    def _checked(self, answer: bytes) -> TokenState:
        created, valid, strange = msgpack.unpackb(answer)
        if strange:
            self._troubles.strange(strange, self._prefix)
        return TokenState(created, valid)

    def ping(self) -> Deferred[None]:
        """See MessageService. Both connections, and by a write."""
        pings = gatherResults([self.replication.ping(), self._reads.ping()], consumeErrors=True)
        return pings.addCallbacks(lambda _: None, self._no_pong)

    def _no_pong(self, wrapped: Failure) -> Failure:
        failure = unwrap(wrapped)
        if failure.check(CancelledError):
            return failure
        raise UnavailableError(f"Redis {self.name}: {failure.getErrorMessage()}")


def _message(member: bytes) -> Message:
    return Message(int(_MESSAGE.unpack_from(member)[0]), member[_MESSAGE.size :])
