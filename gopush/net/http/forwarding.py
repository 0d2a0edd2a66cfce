"""Whose requests come over a connection, where that is a proxy's: each is its client's, one after the other."""

from __future__ import annotations

from gopush.net import forwarded
from gopush.net.http.request import Request
from gopush.net.limits import ConnectionLimiter


class Forwarding:
    """Of one connection, whose `peer` is one of `[connections] proxies`. It counts as its client's while it answers."""

    def __init__(self, limiter: ConnectionLimiter, peer: str) -> None:
        self._limiter = limiter
        self._peer = peer
        self._client: str | None = None

    def begin(self, request: Request) -> bool:
        """A request is under way; whether its client may have one more."""
        self.end()
        client = forwarded.client(request.headers, self._peer, self._limiter.proxies)
        if client == self._peer:
            return True
        request.peer = client
        if not self._limiter.take(client):
            return False
        self._client = client
        return True

    def end(self) -> None:
        """It is answered, or the connection is gone."""
        client, self._client = self._client, None
        if client is not None:
            self._limiter.release(client)


def forwarding(limiter: ConnectionLimiter | None, peer: str) -> Forwarding | None:
    """None where the connection is its client's own."""
    if limiter is None or not forwarded.trusted(limiter.proxies, peer):
        return None
    return Forwarding(limiter, peer)
