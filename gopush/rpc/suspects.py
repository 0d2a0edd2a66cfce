"""Peers that did not answer, or refused: they are asked again and again until they do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar, cast

from twisted.internet.defer import maybeDeferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from gopush.clock import Clock, within
from gopush.rpc.peer import Peer, Service
from gopush.rpc.settings import RpcSettings

QUIET_SECONDS = 60.0
"""A peer that answers pings and nothing else is told of so often: the lines are for people."""

log = Logger()

S = TypeVar("S", bound=Service)


class Suspects(Generic[S]):
    """Keeps the health of `live` peers, by NodeInfo.id. `changed` is called whenever that of one changes."""

    def __init__(
        self, clock: Clock, live: Mapping[str, Peer[S]], settings: RpcSettings, changed: Callable[[], None]
    ) -> None:
        self._clock = clock
        self._live = live
        self._settings = settings
        self._changed = changed
        self._pinging = LoopingCall(self._ping)
        self._pinging.clock = cast(Any, clock)

    def add(self, peer: Peer[S], does: str) -> None:
        """This peer did not answer, or refused: `does` says it."""
        if not peer.healthy or peer.info.id not in self._live:
            return
        peer.healthy = False
        self._changed()
        peer.told = self._clock.seconds() >= peer.quiet_until
        if peer.told:
            peer.quiet_until = self._clock.seconds() + QUIET_SECONDS
            log.warn("{peer} {does}; others are asked first until it answers a ping", peer=peer.info.id, does=does)
        if not self._pinging.running:
            self._pinging.start(self._settings.ping, now=False)

    def stop(self) -> None:
        """Ask no more."""
        if self._pinging.running:
            self._pinging.stop()

    def _ping(self) -> None:
        unhealthy = [peer for peer in self._live.values() if not peer.healthy]
        if not unhealthy:
            self._pinging.stop()
        for peer in unhealthy:
            ping = within(self._settings.call_timeout, maybeDeferred(peer.service.ping), self._clock)
            ping.addCallbacks(lambda _, peer=peer: self._recovered(peer), lambda _: None)

    def _recovered(self, peer: Peer[S]) -> None:
        if not peer.healthy:
            peer.healthy = True
            self._changed()
            if peer.told:
                log.info("{peer} answers again", peer=peer.info.id)
