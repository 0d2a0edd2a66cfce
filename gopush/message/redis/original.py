"""Reads what gopush-cluster keeps in its Redis servers, while it serves from them: `gopush migrate`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, gatherResults
from twisted.internet.endpoints import connectProtocol
from twisted.internet.error import ConnectingCancelledError
from txredisapi import RedisError, ResponseError

from gopush.errors import GopushError, StartError, UnavailableError
from gopush.message.original import OldLog, OldMessage, Passed, expiry, old_message
from gopush.message.redis.connection import NoOwner, RedisConnection, error_kind, log_in, refuses
from gopush.message.redis.endpoint import endpoint_of
from gopush.message.redis.settings import RedisSettings, Source
from gopush.message.store import unwrap
from gopush.model import is_key
from gopush.net.tls import client_tls

SCAN_KEYS = 500
READ_KEYS = 50
"""Sorted sets that are read at once."""


def _may_name(key: bytes) -> bool:
    """Whether gopush can have such a key."""
    try:
        return is_key(key.decode())
    except UnicodeDecodeError:
        return False


def _no_set(failure: Any) -> None:
    """Of a key of another type. What else a server says (NOPERM, BUSY) tells nothing of the key."""
    failure.trap(ResponseError)
    if error_kind(failure.value) != "WRONGTYPE":
        failure.raiseException()


def _wrong(server: str, failed: RedisError) -> GopushError:
    return (StartError if refuses(failed) else UnavailableError)(f"{server}: {failed}")


class OriginalRedis:
    """The Redis servers of a gopush-cluster, and perhaps of others. Calls raise UnavailableError, or StartError where
    one refuses for good.

    All sorted sets of each are looked at: 1.0.5 stores a multiple push where its ring has the empty key.
    """

    def __init__(self, reactor: Any, settings: RedisSettings) -> None:
        self.passed = Passed()
        self._reactor = reactor
        self._settings = settings
        self._connections: list[RedisConnection] = []

    async def start(self) -> None:
        """See Original."""
        for source in self._settings.sources:
            try:
                self._connections.append(await self._connect(source))
            except ResponseError as refused:
                raise _wrong(f"Redis {source.name}", refused) from None
            except (CancelledError, ConnectingCancelledError):
                raise CancelledError from None
            except Exception as failed:
                raise UnavailableError(f"Redis {source.name} cannot be reached at {source.address}: {failed}") from None

    async def _connect(self, source: Source) -> RedisConnection:
        settings = self._settings
        tls = client_tls("redis", settings) if source.tls else None
        endpoint = endpoint_of(self._reactor, source, settings.timeout, tls, settings.sentinel_password)
        reading = RedisConnection(self._reactor, settings.timeout, NoOwner())
        connection: RedisConnection = await connectProtocol(endpoint, reading)
        if source.password is not None:
            await log_in(connection, source.password)
        await connection.execute_command("SCAN", 0, "COUNT", 1)  # no PING: a server whose disk is full answers an error
        return connection

    async def stop(self) -> None:
        """See Original."""
        for connection in self._connections:
            connection.transport.abortConnection()

    async def logs(self, before: int, now: float) -> AsyncIterator[list[OldLog]]:
        """See Original."""
        for connection in self._connections:
            cursor = b"0"
            while True:
                cursor, keys = await self._answered(connection.execute_command("SCAN", cursor, "COUNT", SCAN_KEYS))
                for first in range(0, len(keys), READ_KEYS):
                    yield await self._read(connection, keys[first : first + READ_KEYS], before, now)
                if cursor == b"0":
                    break

    async def _read(self, connection: RedisConnection, keys: Sequence[bytes], before: int, now: float) -> list[OldLog]:
        asked = [connection.execute_command("ZRANGE", key, 0, -1, "WITHSCORES").addErrback(_no_set) for key in keys]
        answers = await self._answered(gatherResults(asked, consumeErrors=True).addErrback(unwrap))
        logs = []
        for key, answer in zip(keys, answers, strict=True):
            if answer is None:
                self.passed.keys += 1
                continue
            found = list(zip(answer[1::2], answer[::2], strict=True))
            if old := self._messages(key, found, before, now):
                logs.append(OldLog(key.decode(), old))
        return logs

    def _messages(self, key: bytes, found: Sequence[tuple[bytes, bytes]], before: int, now: float) -> list[OldMessage]:
        """What of these scores and members is to be moved; counts the others."""
        messages = [old_message(score, member) for score, member in found]
        strange = [member for message, (_, member) in zip(messages, found, strict=True) if message is None]
        ends = [end for end in map(expiry, strange) if end is not None]
        live = [message for message in messages if message is not None and message.expires > now]
        self.passed.members += len(strange) - len(ends)
        self.passed.refuse(key, sum(end > now for end in ends))
        if not _may_name(key):
            self.passed.refuse(key, len(live))
            return []
        self.passed.later += sum(message.mid >= before for message in live)
        return [message for message in live if message.mid < before]

    @staticmethod
    async def _answered(asked: Any) -> Any:
        try:
            return await asked
        except RedisError as failed:
            raise _wrong("the Redis to read from", failed) from None
