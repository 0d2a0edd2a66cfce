"""Forwards that did not arrive: the comet is told again, once it answers, that the logs of these keys have grown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gopush.model import Forward
from gopush.net.clock import Clock
from gopush.routing.counters import BatcherCounters
from gopush.routing.peer import Peer

AGAIN_SECONDS = 0.5
MOST_KEYS = 10_000
"""Kept for one comet. Beyond that its own sweep finds what it was not told of."""


class Forwards:
    """Keeps one for each key of each comet: the log has the rest. `send`: by the comet's NodeInfo.id."""

    def __init__(
        self,
        clock: Clock,
        live: Mapping[str, Peer[Any]],
        send: Callable[[str, Forward], object],
        counters: BatcherCounters,
    ) -> None:
        self._clock = clock
        self._live = live
        self._send = send
        self._counters = counters
        self._kept: dict[str, dict[str, Forward]] = {}
        self._waiting = False

    def keep(self, name: str, forward: Forward) -> None:
        """This one did not arrive; its body is not kept."""
        kept = self._kept.setdefault(name, {})
        if name not in self._live or (forward.key not in kept and len(kept) >= MOST_KEYS):
            return
        before = kept.get(forward.key)
        if before is None or before.mid < forward.mid:
            kept[forward.key] = forward._replace(body=None)
        if not self._waiting:
            self._waiting = True
            self._clock.callLater(AGAIN_SECONDS, self._again)

    def _again(self) -> None:
        self._waiting = False
        kept, self._kept = self._kept, {}
        for name, forwards in kept.items():
            peer = self._live.get(name)
            if peer is None:
                continue
            if not peer.healthy:
                self._kept[name] = forwards
                continue
            self._counters.retried += len(forwards)
            for forward in forwards.values():
                self._send(name, forward)
        if self._kept and not self._waiting:
            self._waiting = True
            self._clock.callLater(AGAIN_SECONDS, self._again)
