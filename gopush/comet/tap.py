"""`twistd comet`."""

from __future__ import annotations

from twisted.application.service import MultiService

from gopush.comet.node import CometNode
from gopush.comet.settings import CometSettings
from gopush.garbage import garbage
from gopush.process import RoleOptions, start_errors, steady
from gopush.reload import Reload
from gopush.rpc.zookeeper import ZooKeeperCoordination


class Options(RoleOptions):
    """See RoleOptions."""

    role = CometSettings


def makeService(options: Options) -> MultiService:
    """What twistd runs."""
    from twisted.internet import reactor

    steady(reactor)
    with start_errors():
        settings: CometSettings = options.settings
        node = CometNode(reactor, settings, ZooKeeperCoordination(reactor, settings.zookeeper))
    Reload(reactor, options).setServiceParent(node)  # type: ignore[no-untyped-call]
    garbage.tame()
    return node
