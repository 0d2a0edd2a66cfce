"""`twistd comet`."""

from __future__ import annotations

from gopush.comet.node import CometNode
from gopush.comet.settings import CometSettings
from gopush.garbage import garbage
from gopush.process import RoleOptions, start_errors, steady
from gopush.role import Role
from gopush.rpc.zookeeper import coordinate


class Options(RoleOptions):
    """See RoleOptions."""

    role = CometSettings


def makeService(options: Options) -> Role:
    """What twistd runs."""
    from twisted.internet import reactor as process_reactor  # by now twistd has chosen which

    reactor = steady(process_reactor)
    with start_errors():
        settings: CometSettings = options.settings
        node = CometNode(reactor, settings, coordinate(reactor, settings.zookeeper))
    garbage.tame()
    return Role(reactor, options, node, settings.node)
