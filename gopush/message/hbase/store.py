"""The store in HBase: a row for each key, written by one check of its head (row.py, append.py)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from operator import attrgetter
from typing import Any, TypeVar
from uuid import uuid4

from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.logger import Logger

from gopush.errors import StartError, UnavailableError
from gopush.message.hbase.appender import Appender
from gopush.message.hbase.client import Client, trying
from gopush.message.hbase.clock import TableClock
from gopush.message.hbase.codec import HBaseError
from gopush.message.hbase.reader import RowReader
from gopush.message.hbase.row import (
    HEAD,
    STAMP_BYTES,
    Put,
    emptied,
    has_message,
    head_in,
    own_row,
    row_head,
    row_key,
    token_cell,
    token_ends,
    token_put,
)
from gopush.message.hbase.settings import TRY_PARTS, HBaseSettings
from gopush.message.rules import MOST_TOKENS
from gopush.message.store import StoreNumbers, StoreSettings, Troubles
from gopush.model import Append, Appended, Head, Page, Read, Token, TokenState
from gopush.reports import Backup

TOUCH_PURGES = 5
ID_SECONDS = 100 * 365 * 86400.0

T = TypeVar("T")

NO_BACKUP = "HBase keeps the messages: save its tables with its own tools (hbase shell: snapshot; hbase backup create)"


class HBaseStore:
    """A Store in a table of HBase. `now`: this process's clock, in seconds since the epoch."""

    _log = Logger()
    name = "HBase"
    shards: tuple[tuple[str, int], ...] = (("hbase", 1),)

    def __init__(
        self, store: StoreSettings, settings: HBaseSettings, reactor: Any, now: Callable[[], float] = time.time
    ) -> None:
        self.numbers = {"hbase": StoreNumbers()}
        self._numbers = self.numbers["hbase"]
        self._reactor = reactor
        self._store = store
        self._settings = settings
        self._troubles = Troubles("HBase", reactor)
        self._writes = Client(reactor, settings, self._tell)
        self._reads = Client(reactor, settings, self._tell)
        self._row = own_row(settings.prefix)
        self._now = TableClock(self._writes, self._row, now, self._tell_skew)
        self._reader = RowReader(self._reads, settings, reactor, self._now)
        self._appender = Appender(self._writes, settings, store, self._numbers, reactor, self._now, self._appended)
        self.identity = ""
        self._started = False
        self._purges = 0

    def start(self) -> Deferred[None]:
        """See Store."""
        return Deferred.fromCoroutine(self._start())

    async def _start(self) -> None:
        tried = await gatherResults([self._writes.start(), self._reads.start()])
        for refusal in filter(None, [refusal for refusals in tried for refusal in refusals]):
            await self._disconnect()
            raise StartError(f"HBase: {refusal}")
        with suppress(UnavailableError):
            await self._touch()
        self._started = True

    def stop(self) -> Deferred[None]:
        """See Store."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await self._appender.drained()
        await self._disconnect()

    async def _disconnect(self) -> None:
        await gatherResults([self._writes.stop(), self._reads.stop()])

    def purge(self) -> Deferred[None]:
        """See Store. HBase drops what has expired by itself; every few calls this checks that HBase answers."""
        self._purges += 1
        return self.ping() if self._purges % TOUCH_PURGES == 0 or not self._now.known else succeed(None)

    def append(self, appends: Sequence[Append]) -> Deferred[list[Appended]]:
        """See MessageService; never fails."""
        return self._appender.append(appends)

    def read(self, reads: Sequence[Read]) -> Deferred[list[Page | None]]:
        """See MessageService."""
        return self._timed("read", self._reader.read(reads, self._until()))

    def heads(self, keys: Sequence[str]) -> Deferred[list[Head | None]]:
        """See MessageService."""
        return self._timed("heads", self._heads(keys))

    async def _heads(self, keys: Sequence[str]) -> list[Head | None]:
        gets = [(row_key(self._settings.prefix, key), [HEAD]) for key in keys]
        found = await self._reader.each(gets, self._until())
        return [None if cells is None else head_in(cells.get(HEAD), self._now()) for cells in found]

    def delete(self, key: str) -> Deferred[None]:
        """See MessageService."""

        def empty(old: bytes | None) -> list[Put]:
            head = row_head(old)
            return emptied(head, self._store.head_life, self._now(), os.urandom(STAMP_BYTES)) if head else []

        row = row_key(self._settings.prefix, key)
        return self._timed("delete", self._change(row, HEAD, empty)).addCallback(lambda _: None)

    def create_token(self, key: str, token: Token) -> Deferred[None]:
        """See MessageService."""

        def create(old: bytes | None) -> list[Put]:
            return [token_put(token.digest, token.expires, old, self._now())]

        async def make() -> None:
            await self._change(row_key(self._settings.prefix, key), token_cell(token.digest), create)
            live = sorted(await self._tokens(key), key=attrgetter("expires"))
            for excess in live[: max(len(live) - MOST_TOKENS, 0)]:
                await self.revoke_token(key, excess.digest)
                self._numbers.counters.dropped_tokens += 1

        return self._timed("tokens", make())

    def revoke_token(self, key: str, digest: bytes) -> Deferred[bool]:
        """See MessageService."""
        return self._timed("tokens", self._revoke_token(key, digest))

    async def _revoke_token(self, key: str, digest: bytes) -> bool:
        now = self._now()

        def revoke(old: bytes | None) -> list[Put]:
            return [token_put(digest, 0, old, now)] if token_ends(old) > now else []

        first, _ = await self._change(row_key(self._settings.prefix, key), token_cell(digest), revoke)
        return token_ends(first) > now

    def tokens(self, key: str) -> Deferred[list[Token]]:
        """See MessageService."""
        return self._timed("tokens", self._tokens(key))

    async def _tokens(self, key: str) -> list[Token]:
        (found,) = await self._reader.cells([(row_key(self._settings.prefix, key), [("t", None)])], self._until())
        now = self._now()
        ends = ((digest, token_ends(value)) for (_, digest), value in found.items())
        return [Token(digest, int(end)) for digest, end in ends if end > now]

    def check_token(self, key: str, digest: bytes) -> Deferred[TokenState]:
        """See MessageService."""
        return self._timed("tokens", self._check_token(key, digest))

    async def _check_token(self, key: str, digest: bytes) -> TokenState:
        cell = token_cell(digest)
        (found,) = await self._reader.cells([(row_key(self._settings.prefix, key), [HEAD, cell])], self._until())
        now = self._now()
        valid = token_ends(found.get(cell)) > now
        created = valid or has_message(row_head(found.get(HEAD)), now) or bool(await self._tokens(key))
        return TokenState(created, valid)

    def backup(self, path: str, id: str) -> Deferred[Backup]:
        """See BackupService."""
        return succeed(Backup("refused", why=NO_BACKUP))

    def ping(self) -> Deferred[None]:
        """See MessageService: writes."""
        return Deferred.fromCoroutine(self._touch())

    async def _touch(self) -> None:
        """Write the id of the data in this table, under this prefix, anew: a new one where there is none. Then look at
        HBase's clock.
        """
        new = uuid4().hex.encode()
        _, found = await self._change(self._row, HEAD, lambda old: [Put({HEAD: old or new}, ID_SECONDS)])
        identity = (found or new).decode()
        if self.identity and identity != self.identity:
            self._log.warn("HBase: the table has lost what it held; it begins anew")
        self.identity = identity
        self._troubles.end("appends", calm=True)
        with suppress(UnavailableError):
            await self._now.look(self._until())
        self._now()  # raises where it is not known

    async def _change(
        self, row: bytes, cell: tuple[str, bytes], make: Callable[[bytes | None], list[Put]]
    ) -> tuple[bytes | None, bytes | None]:
        """Write what is made of a cell's old value, unless nothing is; gives the values found first and last."""
        until = self._until()
        found: list[bytes | None] = []

        async def change() -> tuple[bytes | None, bytes | None] | None:
            old = (await self._appender.get(row, [cell], until)).get(cell)
            found.append(old)
            puts = make(old)
            done = not puts or await self._writes.check(row, puts, old, until, cell=cell)
            return (found[0], old) if done else None

        return await trying(change, until, self._reactor)

    def _until(self) -> float:
        return float(self._reactor.seconds() + TRY_PARTS * self._settings.timeout)

    def _timed(self, call: str, made: Coroutine[Any, Any, T]) -> Deferred[T]:
        return self._numbers.timed(call, Deferred.fromCoroutine(made), self._reactor)

    def _appended(self, failed: Exception | None) -> None:
        if failed is None:
            self._troubles.end("appends")
            return
        self._numbers.counters.failed += 1
        if not isinstance(failed, UnavailableError):
            self._log.failure("HBase: appending")
        if isinstance(failed, HBaseError):
            self._log.debug("HBase: {said}", said=failed.text)
        if "appends" in self._troubles or self._writes.ready:  # else what is wrong was said of the Thrift servers
            self._troubles.begin("appends", self._troubles.now.get("appends") or f"appends fail: {failed}")

    def _tell_skew(self, skew: float) -> None:
        self._numbers.skew = skew
        self._troubles.clock(skew)

    def _tell(self, link: object, address: str, trouble: str | None) -> None:
        if trouble is None:
            self._troubles.end(f"{id(link)}", calm=True)
            if self._started and not self._now.known:
                self.ping().addErrback(lambda _: None)
        else:
            self._troubles.begin(f"{id(link)}", f"Thrift server {address}: {trouble}")
