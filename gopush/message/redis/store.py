"""The store in Redis servers: each key on one of them, as the ring has it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from itertools import chain
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredList, gatherResults, succeed

from gopush.errors import StartError
from gopush.hashing import Shards
from gopush.message.redis.server import RedisServer
from gopush.message.redis.settings import RedisSettings
from gopush.message.store import StoreSettings, unwrap
from gopush.model import Append, Appended, Head, Page, Read, Token, TokenState
from gopush.reports import Backup

TOUCH_CALLS = 5

T = TypeVar("T")
R = TypeVar("R")


NO_BACKUP = (
    "Redis keeps the messages: save its files with its own tools (redis-cli --rdb FILE; BGSAVE), for each server"
)


class RedisStore:
    """A Store over Redis servers. Where one fails, its own keys fail, and no others."""

    def __init__(self, store: StoreSettings, settings: RedisSettings, reactor: Any) -> None:
        self.shards = tuple((source.name, source.weight) for source in settings.sources)
        self._shards = Shards(self.shards)
        self._servers = {source.name: RedisServer(reactor, source, settings, store) for source in settings.sources}
        self.name = f"Redis {', '.join(self._servers)}"
        self._calls = 0
        self.numbers = {name: server.numbers for name, server in self._servers.items()}
        if len(self._servers) == 1:  # it is the store: nothing stands between
            (alone,) = self._servers.values()
            for call in ("append", "read", "heads", "check_token"):
                setattr(self, call, getattr(alone, call))

    def start(self) -> Deferred[None]:
        """See Store."""
        return Deferred.fromCoroutine(self._start())

    async def _start(self) -> None:
        try:
            await self._all(RedisServer.start)
        except StartError:
            await self.stop()
            raise

    def stop(self) -> Deferred[None]:
        """See Store."""
        return self._all(lambda server: Deferred.fromCoroutine(server.stop()))

    @property
    def identity(self) -> str:
        """See Store."""
        servers = {name: server.identity for name, server in self._servers.items()}
        named = "\n".join(f"{name} {id}" for name, id in sorted(servers.items()))
        return sha256(named.encode()).hexdigest()[:32] if all(servers.values()) else ""

    def purge(self) -> Deferred[None]:
        """See Store. Redis drops what has expired by itself; every few calls this checks the servers, and those whose
        replicas are missing each time, for nothing else may ask whether they are back.
        """
        self._calls += 1
        due = self._calls % TOUCH_CALLS == 0
        return self._all(lambda server: server.touch() if due or server.replication.missing else succeed(None))

    def append(self, appends: Sequence[Append]) -> Deferred[list[Appended]]:
        """See MessageService."""
        return self._spread(appends, [append.push.key for append in appends], RedisServer.append)

    def read(self, reads: Sequence[Read]) -> Deferred[list[Page | None]]:
        """See MessageService."""
        return self._spread(reads, [read.key for read in reads], RedisServer.read)

    def heads(self, keys: Sequence[str]) -> Deferred[list[Head | None]]:
        """See MessageService."""
        return self._spread(keys, keys, RedisServer.heads)

    def delete(self, key: str) -> Deferred[None]:
        """See MessageService."""
        return self._server(key).delete(key)

    def create_token(self, key: str, token: Token) -> Deferred[None]:
        """See MessageService."""
        return self._server(key).create_token(key, token)

    def revoke_token(self, key: str, digest: bytes) -> Deferred[bool]:
        """See MessageService."""
        return self._server(key).revoke_token(key, digest)

    def tokens(self, key: str) -> Deferred[list[Token]]:
        """See MessageService."""
        return self._server(key).tokens(key)

    def check_token(self, key: str, digest: bytes) -> Deferred[TokenState]:
        """See MessageService."""
        return self._server(key).check_token(key, digest)

    def backup(self, path: str, id: str) -> Deferred[Backup]:
        """See BackupService."""
        return succeed(Backup("refused", why=NO_BACKUP))

    def ping(self) -> Deferred[None]:
        """See MessageService. One server that answers is enough: the others fail for their own keys."""
        pings = [server.ping() for server in self._servers.values()]
        return DeferredList(pings, fireOnOneCallback=True, consumeErrors=True).addCallback(_any)

    def _server(self, key: str) -> RedisServer:
        return self._on(self._shards.of(key))

    def _on(self, shard: str) -> RedisServer:
        return self._servers[shard or self.shards[0][0]]

    def _all(self, call: Callable[[RedisServer], Deferred[None]]) -> Deferred[None]:
        done = gatherResults([call(server) for server in self._servers.values()], consumeErrors=True)
        return done.addCallbacks(lambda _: None, unwrap)

    def _spread(
        self,
        items: Sequence[T],
        keys: Sequence[str],
        call: Callable[[RedisServer, Sequence[T]], Deferred[list[R]]],
    ) -> Deferred[list[R]]:
        """Call each key's server with its part of a batch, and put the answers in order again."""
        indexes = self._shards.spread(keys)
        if len(indexes) == 1:  # as callers send them
            return call(self._on(next(iter(indexes))), items)
        parts = [call(self._on(shard), [items[index] for index in mine]) for shard, mine in indexes.items()]
        order = [index for mine in indexes.values() for index in mine]

        def join(answers: list[list[R]]) -> list[R]:
            found = dict(zip(order, chain.from_iterable(answers), strict=True))
            return [found[index] for index in range(len(items))]

        return gatherResults(parts, consumeErrors=True).addCallbacks(join, unwrap)


def _any(outcome: Any) -> None:
    """From a DeferredList: a pair, or all failures."""
    if isinstance(outcome, list):
        outcome[0][1].raiseException()
