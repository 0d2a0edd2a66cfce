"""`twistd gopush-web`."""

from __future__ import annotations

from socket import gethostname
from typing import Any

from gopush.daemon.gc import collector
from gopush.daemon.listeners import DaemonOptions, start_errors, steady
from gopush.daemon.service import DaemonService
from gopush.membership.zookeeper import coordinate
from gopush.web.node import WebNode
from gopush.web.settings import WebSettings


class Options(DaemonOptions):
    """See DaemonOptions."""

    role = WebSettings


def make_node(reactor: Any, settings: WebSettings) -> WebNode:
    """What does the work; nothing of it is started. Raises SettingsError or StartError where it could not be."""
    return WebNode(reactor, settings, coordinate(reactor, settings.zookeeper))


def makeService(options: Options) -> DaemonService:
    """What twistd runs."""
    from twisted.internet import reactor as process_reactor  # by now twistd has chosen which

    reactor = steady(process_reactor)
    with start_errors():
        node = make_node(reactor, options.settings)
    collector.freeze()
    return DaemonService(reactor, options, node, options.settings.node or gethostname())
