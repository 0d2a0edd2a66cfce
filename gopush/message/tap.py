"""`twistd message`."""

from __future__ import annotations

from typing import Any

from gopush.daemon.gc import collector
from gopush.daemon.listeners import DaemonOptions, start_errors, steady
from gopush.daemon.service import DaemonService
from gopush.membership.zookeeper import coordinate
from gopush.message.node import MessageNode
from gopush.message.settings import MessageSettings


class Options(DaemonOptions):
    """See DaemonOptions."""

    role = MessageSettings


def make_node(reactor: Any, settings: MessageSettings) -> MessageNode:
    """What does the work; nothing of it is started. Raises SettingsError or StartError where it could not be."""
    return MessageNode(reactor, settings, coordinate(reactor, settings.zookeeper, rings=False))


def makeService(options: Options) -> DaemonService:
    """What twistd runs."""
    from twisted.internet import reactor as process_reactor  # by now twistd has chosen which

    reactor = steady(process_reactor)
    with start_errors():
        node = make_node(reactor, options.settings)
    collector.freeze()
    return DaemonService(reactor, options, node, node.info.node)
