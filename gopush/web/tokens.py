"""Tokens that let a client subscribe to a key: `/1/admin/token` creates (POST), lists (GET) and revokes (DELETE).

A token is shown once, when it is created; the store keeps its SHA-256 digest.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import sha256
from math import ceil
from secrets import token_urlsafe

from twisted.internet.defer import Deferred

from gopush.errors import ParameterError
from gopush.model import Token
from gopush.net.http.request import Request
from gopush.net.http.routes import Route, Routes
from gopush.routing.messages import Messages
from gopush.web import params
from gopush.web.responses import api
from gopush.web.schemas import MAX_EXPIRE
from gopush.web.settings import HttpSettings

_DIGEST = re.compile("[0-9a-f]{64}")


class Tokens:
    """The tokens of keys. `now`: seconds since the epoch."""

    def __init__(self, messages: Messages, settings: HttpSettings, now: Callable[[], float]) -> None:
        self._messages = messages
        self._settings = settings
        self._now = now

    def routes(self) -> Routes:
        """The routes of the admin port."""
        return {
            "/1/admin/token": {
                "POST": Route(api(self._create)),
                "GET": Route(api(self._list), alone=True),
                "DELETE": Route(api(self._revoke)),
            }
        }

    def _create(self, request: Request) -> Deferred[bytes]:
        key = params.key(request.query, "key")
        life = request.query.get("life")
        seconds = self._settings.token_life if life is None else params.decimal(life, MAX_EXPIRE, "life")
        expires = ceil(self._now() + seconds)
        token = token_urlsafe(32)
        kept = self._messages.create_token(key, Token(digest(token), expires))
        return kept.addCallback(lambda _: b'{"token":"%b","expires":%d}' % (token.encode(), expires))

    def _list(self, request: Request) -> Deferred[bytes]:
        listed = self._messages.tokens(params.key(request.query, "key"))
        return listed.addCallback(lambda tokens: b'{"tokens":[%b]}' % listing(tokens))

    def _revoke(self, request: Request) -> Deferred[bytes]:
        key = params.key(request.query, "key")
        known = self._messages.revoke_token(key, _named_digest(request))
        return known.addCallback(lambda known: b'{"revoked":%b}' % (b"true" if known else b"false"))


def digest(token: str) -> bytes:
    """What the store knows of a token."""
    return sha256(token.encode()).digest()


def _named_digest(request: Request) -> bytes:
    """The digest of the token that is named by itself (`token`) or as it is listed (`digest`)."""
    token = request.query.text("token")
    if token:
        return digest(token)
    listed = request.query.text("digest")
    if not _DIGEST.fullmatch(listed):
        raise ParameterError("token is missing, and digest is not 64 hexadecimal digits, as a list of tokens shows")
    return bytes.fromhex(listed)


def listing(tokens: list[Token]) -> bytes:
    """Tokens as they are shown: the members of a JSON array."""
    shown = (b'{"digest":"%b","expires":%d}' % (token.digest.hex().encode(), token.expires) for token in tokens)
    return b",".join(shown)
