"""`twistd gopush`."""

from __future__ import annotations

from typing import Any

from gopush.embedded.node import NAME, EmbeddedNode
from gopush.embedded.settings import EmbeddedSettings
from gopush.garbage import garbage
from gopush.process import RoleOptions, start_errors, steady
from gopush.role import Role


class Options(RoleOptions):
    """See RoleOptions."""

    role = EmbeddedSettings


def make_node(reactor: Any, settings: EmbeddedSettings) -> EmbeddedNode:
    """What does the work; nothing of it is started. Raises SettingsError or StartError where it could not be."""
    return EmbeddedNode(reactor, settings)


def makeService(options: Options) -> Role:
    """What twistd runs."""
    from twisted.internet import reactor as process_reactor  # by now twistd has chosen which

    reactor = steady(process_reactor)
    with start_errors():
        node = make_node(reactor, options.settings)
    garbage.tame()
    return Role(reactor, options, node, NAME)
