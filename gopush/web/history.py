"""The messages that a client missed (protocol.md, section 4)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from twisted.internet.defer import Deferred

from gopush.auth import SignedTokens, is_signed
from gopush.errors import ParameterError
from gopush.model import Message, Page, json_string, old_json, raw_json, snap
from gopush.net.http.held import WaitingClient
from gopush.net.http.request import Request
from gopush.net.http.routes import Answered, Route, Routes
from gopush.routing.messages import Messages
from gopush.web import params
from gopush.web.counters import WebCounters
from gopush.web.polling import MAX_WAIT_SECONDS, Polls
from gopush.web.responses import NEW, OLD, Data, Pages, callback_api
from gopush.web.settings import HttpSettings
from gopush.web.tokens import digest


@dataclass(eq=False, repr=False)
class Offline:
    """Reads of a key's log from the client's cursor on; with `[channel] auth` they need the subscriber's token."""

    _messages: Messages
    _settings: HttpSettings
    _counters: WebCounters
    _signed: SignedTokens | None
    _polls: Polls

    def routes(self) -> Routes:
        """The routes of the public port."""
        return {
            "/1/msg/get": {"GET": Route(self._get, alone=True)},
            "/msg/get": {"GET": Route(callback_api(OLD, self._old), alone=True)},
        }

    def _get(self, request: Request) -> Answered:
        """A client that leaves waits no more."""
        client = WaitingClient()
        answered = callback_api(NEW, partial(self._new, client))(request)
        if request.query.has("wait") and isinstance(answered, Deferred):
            return client.answered(answered)
        return answered

    def _new(self, client: WaitingClient, request: Request) -> Deferred[Data]:
        query = request.query
        key, cursor, token = params.key(query, "k"), snap(params.cursor(query, "m")), query.text("t")
        wait = params.decimal(query.text("wait"), MAX_WAIT_SECONDS, "wait") if query.has("wait") else 0
        self._counters.reads += 1
        if query.get("head") == "1":
            return Deferred.fromCoroutine(self._head(key, cursor, token))
        if not wait or request.method == b"HEAD":
            return Deferred.fromCoroutine(self.read(key, cursor, token, _NEW))
        return Deferred.fromCoroutine(self._wait(client, key, cursor, token, wait))

    def _old(self, request: Request) -> Deferred[Data]:
        """`pmid` was the cursor of public messages, which were never there: any value will do."""
        query = request.query
        key, cursor, token = params.key(query, "key"), snap(params.cursor(query, "mid")), query.text("token")
        self._counters.reads += 1
        return Deferred.fromCoroutine(self.read(key, cursor, token, _OLD))

    async def _check(self, key: str, token: str) -> None:
        if self._settings.auth and not await self._allowed(key, token):
            self._counters.refused_tokens += 1
            raise ParameterError(f"the token is {'not a valid one of this key' if token else 'missing'}")

    async def _allowed(self, key: str, token: str) -> bool:
        if self._signed is not None and is_signed(token):
            return self._signed.allow(token, key)
        return (await self._messages.check_token(key, digest(token))).valid

    async def read(self, key: str, cursor: int, token: str, form: Listing) -> Data:
        """What is kept after a cursor, listed so."""
        await self._check(key, token)
        return self._listed(await self._messages.read(key, cursor), key, form)

    async def _head(self, key: str, cursor: int, token: str) -> Data:
        """The last mid alone, for who begins with what is new: no message is read."""
        await self._check(key, token)
        last = (await self._messages.head(key)).last
        return _NEW.head + raw_json(Message(last, b"null")) + _NEW.tail if last > cursor else b""

    async def _wait(self, client: WaitingClient, key: str, cursor: int, token: str, seconds: int) -> Data:
        """What comes after a cursor within so many seconds, or until the client leaves."""
        await self._check(key, token)
        found = await client.until_left(self._polls.wait(key, token, cursor, seconds))
        if isinstance(found, Page):
            return self._listed(found, key, _NEW)
        return _NEW.head + b",".join(found) + _NEW.tail if found else b""

    def _listed(self, page: Page, key: str, form: Listing) -> Data:
        if not page.messages:
            return b""
        first = form.head + b",".join(map(form.message, page.messages))
        if not page.more:
            return first + form.tail
        return Pages(first, _rest_of_log(self._messages, key, page.messages[-1].mid, form).__anext__)


class Listing(NamedTuple):
    """How messages are listed."""

    head: bytes
    message: Callable[[Message], bytes]
    tail: bytes


async def _rest_of_log(messages: Messages, key: str, cursor: int, form: Listing) -> AsyncIterator[bytes]:
    """All pages of a key's log but the first: a client that reads slowly holds one of them, not the log."""
    more = True
    while more:
        page = await messages.read(key, cursor)
        more = page.more and bool(page.messages)
        piece = b"".join(b"," + form.message(message) for message in page.messages)
        if more:
            cursor = page.messages[-1].mid
        yield piece if more else piece + form.tail
    yield b""


_NEW = Listing(b'{"msgs":[', raw_json, b"]}")
_OLD = Listing(b'{"msgs":[', lambda message: json_string(old_json(message).decode()), b'],"pmsgs":[]}')
