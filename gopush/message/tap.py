"""`twistd message`."""

from __future__ import annotations

from typing import Any

from gopush.garbage import garbage
from gopush.message.node import MessageNode
from gopush.message.settings import MessageSettings
from gopush.process import RoleOptions, start_errors, steady
from gopush.role import Role
from gopush.rpc.zookeeper import coordinate


class Options(RoleOptions):
    """See RoleOptions."""

    role = MessageSettings


def make_node(reactor: Any, settings: MessageSettings) -> MessageNode:
    """What does the work; nothing of it is started. Raises SettingsError or StartError where it could not be."""
    return MessageNode(reactor, settings, coordinate(reactor, settings.zookeeper, rings=False))


def makeService(options: Options) -> Role:
    """What twistd runs."""
    from twisted.internet import reactor as process_reactor  # by now twistd has chosen which

    reactor = steady(process_reactor)
    with start_errors():
        node = make_node(reactor, options.settings)
    garbage.tame()
    return Role(reactor, options, node, node.info.node)
