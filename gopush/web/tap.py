"""`twistd gopush-web`."""

from __future__ import annotations

from twisted.application.service import MultiService

from gopush.garbage import garbage
from gopush.process import RoleOptions, start_errors, steady
from gopush.reload import Reload
from gopush.rpc.zookeeper import ZooKeeperCoordination
from gopush.web.node import WebNode
from gopush.web.settings import WebSettings


class Options(RoleOptions):
    """See RoleOptions."""

    role = WebSettings


def makeService(options: Options) -> MultiService:
    """What twistd runs."""
    from twisted.internet import reactor

    steady(reactor)
    with start_errors():
        settings: WebSettings = options.settings
        node = WebNode(reactor, settings, ZooKeeperCoordination(reactor, settings.zookeeper))
    Reload(reactor, options).setServiceParent(node)  # type: ignore[no-untyped-call]
    garbage.tame()
    return node
