"""One Redis server behind the store: what it is asked, packed for the scripts in lua/, and how well it is."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import msgpack
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger
from twisted.python.failure import Failure

from gopush.errors import StartError, UnavailableError
from gopush.message.counters import StoreNumbers
from gopush.message.gather import Gatherer
from gopush.message.log import NO_HEAD, REFUSED, Kept, page, page_bytes
from gopush.message.redis_link import Link, Script
from gopush.message.settings import RedisSettings, StoreSettings
from gopush.message.sources import Source
from gopush.rpc.model import MID_STEP, Append, Appended, Head, Page, Read, Token, TokenState
from gopush.tls import ClientTls

_HEAD = struct.Struct(">dd")
_MESSAGE = struct.Struct(">dd")

_APPEND, _READ, _HEADS, _DELETE, _TOKENS = (
    Script(f"{name}.lua") for name in ("append", "read", "heads", "delete", "tokens")
)


class RedisServer:
    """One Redis server with the keys that the ring gives it: a connection for what writes, another one for reads."""

    _log = Logger()

    def __init__(self, reactor: Any, source: Source, settings: RedisSettings, store: StoreSettings) -> None:
        self.name = source.name
        self.numbers = StoreNumbers()
        self._reactor = reactor
        self._settings = settings
        self._prefix = settings.prefix
        self._store = store
        self._troubles: dict[str, str] = {}
        writing, reading = (_APPEND, _DELETE, _TOKENS), (_READ, _HEADS, _TOKENS)
        tls = ClientTls(settings.tls_authorities, settings.tls_certificate, settings.tls_key) if source.tls else None
        self._writes = Link(reactor, source, settings.timeout, writing, lambda said: self._tell("writes", said), tls)
        self._reads = Link(reactor, source, settings.timeout, reading, lambda said: self._tell("reads", said), tls)
        self._gatherer = Gatherer(self._append)

    @property
    def _head_life(self) -> int:
        return max(1, math.ceil(self._store.head_life))

    def start(self) -> Deferred[None]:
        """Connect, or begin to try. Fails with StartError where the server is there and will not do."""
        return gatherResults([self._writes.start(), self._reads.start()]).addCallback(self._check)

    def _check(self, refusals: list[str | None]) -> None:
        for refusal in filter(None, refusals):
            raise StartError(f"Redis {self.name}: {refusal}")

    async def stop(self) -> None:
        """Answer what was called, and disconnect."""
        await self._gatherer.drained()
        await gatherResults([self._writes.stop(), self._reads.stop()])

    def append(self, appends: Sequence[Append]) -> Deferred[list[Appended]]:
        """See MessageService; never fails."""
        return self._gatherer.append(appends)

    def _append(self, appends: Sequence[Append]) -> Deferred[list[Appended]]:
        arguments: list[Any] = [self._prefix, self._store.store, self._head_life]
        for (key, body, expire, id, dedupe, deadline), floor in appends:
            arguments += (key, id, floor, deadline, expire, dedupe, body)
        return self._write(_APPEND, arguments).addCallbacks(self._appended, self._refused, errbackArgs=(len(appends),))

    def _write(self, script: Script, arguments: list[Any]) -> Deferred[bytes]:
        made = self._writes.run(script, arguments, self._settings.wait)
        return self.numbers.timed(script.name, made, self._reactor)

    def _ask(self, script: Script, arguments: list[Any]) -> Deferred[bytes]:
        return self.numbers.timed(script.name, self._reads.run(script, arguments), self._reactor)

    def _appended(self, answer: bytes) -> list[Appended]:
        if self._troubles:
            self._tell("appends", None)
        values = iter(msgpack.unpackb(answer))
        self.numbers.counters.trimmed += next(values)
        self.numbers.counters.expired += next(values)
        return list(map(Appended, values, values, values, values))

    def _refused(self, failure: Failure, count: int) -> list[Appended]:
        if not isinstance(failure.value, UnavailableError):
            self._log.failure("Redis {name}: appending", failure, name=self.name)
        if "writes" not in self._troubles:
            self._tell("appends", failure.getErrorMessage())
        return [REFUSED] * count

    def _tell(self, part: str, trouble: str | None) -> None:
        """Log what is wrong here once, however many connections and calls notice it."""
        before = set(self._troubles.values())
        if trouble is None:
            self._troubles.pop(part, None)
        else:
            self._troubles[part] = trouble
        after = set(self._troubles.values())
        for said in after - before:
            self._log.warn("Redis {name}: {said}", name=self.name, said=said)
        if before and not after:
            self._log.info("Redis {name}: all is well again", name=self.name)

    def read(self, reads: Sequence[Read]) -> Deferred[list[Page]]:
        """See MessageService."""
        most_bytes = page_bytes(len(reads))
        arguments: list[Any] = [self._prefix, most_bytes]
        for key, after, limit in reads:
            # Lua compares doubles: what is no multiple of 16 would be rounded, perhaps up to the next mid.
            arguments += (key, after & ~(MID_STEP - 1), limit)

        def pages(answer: bytes) -> list[Page]:
            values = iter(msgpack.unpackb(answer, raw=True))
            return [
                page(map(_kept, members), _head(head), read.limit, most_bytes)
                for read, head, members in zip(reads, values, values, strict=False)
            ]

        return self._ask(_READ, arguments).addCallback(pages)

    def heads(self, keys: Sequence[str]) -> Deferred[list[Head]]:
        """See MessageService."""
        answer = self._ask(_HEADS, [self._prefix, *keys])
        return answer.addCallback(
            lambda answer: [Head(int(last), int(trimmed)) for last, trimmed in _HEAD.iter_unpack(answer)]
        )

    def delete(self, key: str) -> Deferred[None]:
        """See MessageService."""
        return self._write(_DELETE, [self._prefix, self._head_life, key]).addCallback(lambda _: None)

    def create_token(self, key: str, token: Token) -> Deferred[None]:
        """See MessageService."""
        arguments = [self._prefix, key, "create", token.digest, token.expires]
        return self._write(_TOKENS, arguments).addCallback(lambda _: None)

    def revoke_token(self, key: str, digest: bytes) -> Deferred[bool]:
        """See MessageService."""
        answer = self._write(_TOKENS, [self._prefix, key, "revoke", digest])
        return answer.addCallback(lambda answer: bool(msgpack.unpackb(answer)[0]))

    def tokens(self, key: str) -> Deferred[list[Token]]:
        """See MessageService."""

        def unpack(answer: bytes) -> list[Token]:
            values = iter(msgpack.unpackb(answer, raw=True))
            return [Token(digest, int(expires)) for digest, expires in zip(values, values, strict=True)]

        return self._ask(_TOKENS, [self._prefix, key, "list"]).addCallback(unpack)

    def check_token(self, key: str, digest: bytes) -> Deferred[TokenState]:
        """See MessageService."""
        answer = self._ask(_TOKENS, [self._prefix, key, "check", digest])
        return answer.addCallback(lambda answer: TokenState(*msgpack.unpackb(answer)))

    def ping(self) -> Deferred[None]:
        """See MessageService."""
        return self._reads.ping()


def _head(packed: bytes) -> Head:
    if not packed:
        return NO_HEAD
    last, trimmed = _HEAD.unpack(packed)
    return Head(int(last), int(trimmed))


def _kept(member: bytes) -> Kept:
    mid, expires = _MESSAGE.unpack_from(member)
    return Kept(int(mid), expires, member[_MESSAGE.size :])
