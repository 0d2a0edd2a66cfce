"""The services of services.py in other processes, as their callers hold them."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from gopush.model import NodeInfo
from gopush.net.clock import repeating
from gopush.rpc.client import Remote
from gopush.rpc.codec import COMET_CALLS, MESSAGE_CALLS, NODE_CALLS
from gopush.rpc.logins import Logins
from gopush.rpc.services import FeedService
from gopush.rpc.settings import RpcSettings

LOOK_SECONDS = 1.0
MOST_MISSED = 3
"""A comet of which nothing has come for so many looks, though it was asked at the first, is cut off."""


class RemoteComet(Remote):
    """A comet in another process: a CometService and a NodeService, as services.py describes them."""

    calls = COMET_CALLS
    patience = attrgetter("attempt_timeout")


class FeedPeer(FeedService, Protocol):
    """A comet, as one connection reaches it."""

    connections: int
    """How many there were."""

    @property
    def connected(self) -> bool:
        """Whether calls are sent at once."""

    def stop(self) -> Deferred[None]:
        """Close the connection."""


class RemoteFeedComet(RemoteComet):
    """A FeedPeer: a comet in another process for who waits for what it says, and has to know soon that it is silent for
    want of a link, not of messages. `met` is called whenever it lets this process call.
    """

    def __init__(
        self,
        reactor: Any,
        info: NodeInfo,
        settings: RpcSettings,
        timeout: float,
        logins: Logins | None,
        met: Callable[[], object],
    ) -> None:
        super().__init__(reactor, info, settings, timeout, logins)
        self._met = met
        self._heard, self._missed = -1, 0
        self._looking = repeating(self._look, reactor)

    def reached(self, root: Any) -> None:
        """See Remote."""
        super().reached(root)
        if self.connected:
            if not self._looking.running:
                self._looking.start(LOOK_SECONDS, now=False)
            self._met()

    def stop(self) -> Deferred[None]:
        """See Remote."""
        self._looking.stop()
        return super().stop()

    def _look(self) -> None:
        root = self._root
        if root is None or root.broker.received != self._heard:
            self._heard, self._missed = -1 if root is None else root.broker.received, 0
            return
        self._missed += 1
        if self._missed == 1:
            self._call("feed", (), (), ()).addErrback(lambda _: None)
        elif self._missed >= MOST_MISSED:
            self.cut(root.broker, f"no answer within {LOOK_SECONDS * (MOST_MISSED - 1):g} s")


class RemoteMessage(Remote):
    """A message node in another process: a MessageService and a NodeService."""

    calls = MESSAGE_CALLS


class RemoteNode(Remote):
    """A process of either kind: a NodeService."""

    calls = NODE_CALLS
