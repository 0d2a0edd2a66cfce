"""The services of services.py in other processes, as their callers hold them."""

from __future__ import annotations

from operator import attrgetter

from gopush.rpc.client import Remote
from gopush.rpc.codec import COMET_CALLS, MESSAGE_CALLS, NODE_CALLS


class RemoteComet(Remote):
    """A comet in another process: a CometService and a NodeService, as services.py describes them."""

    calls = COMET_CALLS
    patience = attrgetter("attempt_timeout")


class RemoteMessage(Remote):
    """A message node in another process: a MessageService and a NodeService."""

    calls = MESSAGE_CALLS


class RemoteNode(Remote):
    """A process of either kind: a NodeService."""

    calls = NODE_CALLS
