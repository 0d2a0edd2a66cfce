"""The messages that a client missed (protocol.md, section 4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.defer import Deferred

from gopush.errors import ParameterError
from gopush.http.request import Request
from gopush.http.routing import Route, Routes
from gopush.rpc import envelope
from gopush.rpc.model import Message, snap
from gopush.rpc.tokens import SignedTokens, is_signed
from gopush.web import params
from gopush.web.answers import NEW, OLD, callback_api
from gopush.web.counters import Counters
from gopush.web.peers import Messages
from gopush.web.tokens import digest


class Offline:
    """Reads of a key's log from the client's cursor on; while `auth` says so they want the subscriber's token."""

    def __init__(
        self, messages: Messages, auth: Callable[[], bool], counters: Counters, signed: SignedTokens | None = None
    ) -> None:
        self._signed = signed
        self._messages = messages
        self._auth = auth
        self._counters = counters

    def routes(self) -> Routes:
        """The routes of the public port."""
        return {
            "/1/msg/get": {"GET": Route(callback_api(NEW, self._new))},
            "/msg/get": {"GET": Route(callback_api(OLD, self._old))},
        }

    def _new(self, request: Request) -> Deferred[bytes]:
        query = request.query
        found = self._read(params.key(query, "k"), params.cursor(query, "m"), query.text("t"))
        return found.addCallback(_new_data)

    def _old(self, request: Request) -> Deferred[bytes]:
        """`pmid` was the cursor of public messages, which were never there: it may say what it wants."""
        query = request.query
        found = self._read(params.key(query, "key"), params.cursor(query, "mid"), query.text("token"))
        return found.addCallback(_old_data)

    def _read(self, key: str, cursor: int, token: str) -> Deferred[list[Message]]:
        self._counters.reads += 1
        return Deferred.fromCoroutine(self._read_all(key, snap(cursor), token))

    async def _allowed(self, key: str, token: str) -> bool:
        if self._signed is not None and is_signed(token):
            return self._signed.allow(token, key)
        return (await self._messages.check_token(key, digest(token))).valid

    async def _read_all(self, key: str, cursor: int, token: str) -> list[Message]:
        if self._auth() and not await self._allowed(key, token):
            self._counters.refused_tokens += 1
            raise ParameterError("the token is missing or not good")
        messages: list[Message] = []
        more = True
        while more:
            page = await self._messages.read(key, cursor)
            messages += page.messages
            more = page.more and bool(page.messages)
            cursor = messages[-1].mid if messages else cursor
        return messages


def _new_data(messages: list[Message]) -> bytes:
    return b'{"msgs":[%b]}' % _list(messages, envelope.raw) if messages else b""


def _old_data(messages: list[Message]) -> bytes:
    return b'{"msgs":[%b],"pmsgs":[]}' % _list(messages, _old_string) if messages else b""


def _list(messages: Iterable[Message], form: Callable[[Message], bytes]) -> bytes:
    return b",".join(form(message) for message in messages)


def _old_string(message: Message) -> bytes:
    return envelope.json_string(envelope.old(message).decode())
