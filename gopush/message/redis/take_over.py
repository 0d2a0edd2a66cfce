"""Takes the logs of another store into Redis servers: `gopush migrate`."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from gopush.errors import StartError, UnavailableError
from gopush.hashing import Shards
from gopush.message.redis.connection import Script
from gopush.message.redis.link import LinkWatcher, RedisLink
from gopush.message.redis.settings import RedisSettings
from gopush.message.rules import MOST_TOKENS, KeptLog
from gopush.net.tls import ClientTls

SLACK_SECONDS = 60
"""How much longer than needed a log may stay, as append.lua has it."""

CALL_BYTES = 1 << 20
CALL_LOGS = 500

_MESSAGE = struct.Struct(">dd")
_TAKEN = struct.Struct(">ddd")
_TAKE_OVER, _LOOK, _TOKENS = Script("take_over.lua"), Script("taken.lua"), Script("tokens.lua")


class TakeOver:
    """The Redis servers of `settings`. What is taken over twice is there once; `head_life` in seconds."""

    def __init__(self, reactor: Any, settings: RedisSettings, head_life: float) -> None:
        self._settings = settings
        self._head_life = max(1, math.ceil(head_life))
        self._wrong = ""
        weights = tuple((source.name, source.weight) for source in settings.sources)
        self._shards = Shards(weights)
        tls = (
            ClientTls(settings.tls_authorities, settings.tls_certificate, settings.tls_key)
            if any(source.tls for source in settings.sources)
            else None
        )
        self._links = {
            source.name: RedisLink(
                reactor,
                source,
                settings.timeout,
                (_TAKE_OVER, _LOOK, _TOKENS),
                LinkWatcher(self._tell),
                tls if source.tls else None,
                settings.sentinel_password,
            )
            for source in settings.sources
        }

    def _tell(self, trouble: str | None) -> None:
        self._wrong = trouble or ""

    async def start(self) -> None:
        """Connect. Raises StartError where a server will not do, UnavailableError where one does not answer."""
        for refusal in await gatherResults([link.start() for link in self._links.values()]):
            if refusal is not None:
                raise StartError(f"Redis: {refusal}")
        for link in self._links.values():
            await link.ping()

    def stop(self) -> Deferred[Any]:
        """Let go of the servers."""
        return gatherResults([link.stop() for link in self._links.values()])

    async def take(self, logs: Sequence[KeptLog], now: float) -> list[KeptLog]:
        """Take these over, but for those that are there already; gives those that were not."""
        missing = [log for log, there in zip(logs, await self._there(logs), strict=True) if not there]
        for name, mine in self._spread(missing).items():
            await self._send(self._links[name], mine, now)
        return missing

    def _spread(self, logs: Iterable[KeptLog]) -> dict[str, list[KeptLog]]:
        found: dict[str, list[KeptLog]] = {}
        for log in logs:
            found.setdefault(self._shards.of(log.key) or next(iter(self._links)), []).append(log)
        return found

    async def _there(self, logs: Sequence[KeptLog]) -> list[bool]:
        """Which of them are there as they are here; ids and tokens are sent again in any case."""
        there: dict[str, tuple[float, ...]] = {}
        for name, mine in self._spread(logs).items():
            answer = await self._links[name].run(_LOOK, [self._settings.prefix, *(log.key for log in mine)])
            there |= {log.key: found for log, found in zip(mine, _TAKEN.iter_unpack(answer), strict=True)}
        return [
            there[log.key] == (log.last, log.trimmed, len(log.messages)) and not (log.ids or log.tokens) for log in logs
        ]

    async def _send(self, link: RedisLink, logs: Sequence[KeptLog], now: float) -> None:
        head: list[Any] = [self._settings.prefix, self._head_life]
        arguments, size = list(head), 0
        for log in logs:
            if log.last:
                arguments += self._packed(log, now)
                size += sum(len(body) + _MESSAGE.size for _, _, body in log.messages)
            if size > CALL_BYTES or len(arguments) > CALL_LOGS * 8:
                await self._run(link, arguments)
                arguments, size = list(head), 0
            for token in log.tokens:
                create = [self._settings.prefix, log.key, "create", token.digest, token.expires, MOST_TOKENS]
                await link.run(_TOKENS, create)
        if len(arguments) > len(head):
            await self._run(link, arguments)

    async def _run(self, link: RedisLink, arguments: list[Any]) -> None:
        try:
            await link.run(_TAKE_OVER, arguments, self._settings.wait)
        except UnavailableError as failed:
            raise UnavailableError(f"Redis: {failed}; what was moved stays: try again") from None

    @staticmethod
    def _packed(log: KeptLog, now: float) -> list[Any]:
        last = max((expires for _, expires, _ in log.messages), default=log.ends)
        ends = math.ceil(last) + (SLACK_SECONDS if log.messages else 0)
        members = [_MESSAGE.pack(mid, expires) + body for mid, expires, body in log.messages]
        ids: list[Any] = []
        for id, mid, previous, until in log.ids:
            ids += (id, _MESSAGE.pack(mid, previous), max(1, math.ceil(until - now)))
        return [log.key, log.last, log.trimmed, ends, len(members), len(log.ids), *members, *ids]
