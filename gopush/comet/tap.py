"""`twistd comet`."""

from __future__ import annotations

from typing import Any

from gopush.comet.node import CometNode
from gopush.comet.settings import CometSettings
from gopush.daemon.gc import collector
from gopush.daemon.listeners import DaemonOptions, start_errors, steady
from gopush.daemon.service import DaemonService
from gopush.membership.zookeeper import coordinate


class Options(DaemonOptions):
    """See DaemonOptions."""

    role = CometSettings


def make_node(reactor: Any, settings: CometSettings) -> CometNode:
    """What does the work; nothing of it is started. Raises SettingsError or StartError where it could not be."""
    return CometNode(reactor, settings, coordinate(reactor, settings.zookeeper))


def makeService(options: Options) -> DaemonService:
    """What twistd runs."""
    from twisted.internet import reactor as process_reactor  # by now twistd has chosen which

    reactor = steady(process_reactor)
    with start_errors():
        node = make_node(reactor, options.settings)
    collector.freeze()
    return DaemonService(reactor, options, node, options.settings.node)
