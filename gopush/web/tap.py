"""`twistd gopush-web`."""

from __future__ import annotations

from socket import gethostname
from typing import Any

from gopush.garbage import garbage
from gopush.process import RoleOptions, start_errors, steady
from gopush.role import Role
from gopush.rpc.zookeeper import coordinate
from gopush.web.node import WebNode
from gopush.web.settings import WebSettings


class Options(RoleOptions):
    """See RoleOptions."""

    role = WebSettings


def make_node(reactor: Any, settings: WebSettings) -> WebNode:
    """What does the work; nothing of it is started. Raises SettingsError or StartError where it could not be."""
    return WebNode(reactor, settings, coordinate(reactor, settings.zookeeper))


def makeService(options: Options) -> Role:
    """What twistd runs."""
    from twisted.internet import reactor as process_reactor  # by now twistd has chosen which

    reactor = steady(process_reactor)
    with start_errors():
        node = make_node(reactor, options.settings)
    garbage.tame()
    return Role(reactor, options, node, options.settings.node or gethostname())
