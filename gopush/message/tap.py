"""`twistd message`."""

from __future__ import annotations

from twisted.application.service import MultiService

from gopush.garbage import garbage
from gopush.message.node import MessageNode
from gopush.message.settings import MessageSettings
from gopush.process import RoleOptions, start_errors, steady
from gopush.reload import Reload
from gopush.rpc.zookeeper import ZooKeeperCoordination


class Options(RoleOptions):
    """See RoleOptions."""

    role = MessageSettings


def makeService(options: Options) -> MultiService:
    """What twistd runs."""
    from twisted.internet import reactor

    steady(reactor)
    with start_errors():
        settings: MessageSettings = options.settings
        node = MessageNode(reactor, settings, ZooKeeperCoordination(reactor, settings.zookeeper))
    Reload(reactor, options).setServiceParent(node)  # type: ignore[no-untyped-call]
    garbage.tame()
    return node
