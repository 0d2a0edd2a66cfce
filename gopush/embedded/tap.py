"""`twistd gopush`."""

from __future__ import annotations

from twisted.application.service import MultiService

from gopush.embedded.node import EmbeddedNode
from gopush.embedded.settings import EmbeddedSettings
from gopush.garbage import garbage
from gopush.process import RoleOptions, start_errors, steady
from gopush.reload import Reload


class Options(RoleOptions):
    """See RoleOptions."""

    role = EmbeddedSettings


def makeService(options: Options) -> MultiService:
    """What twistd runs."""
    from twisted.internet import reactor

    steady(reactor)
    with start_errors():
        node = EmbeddedNode(reactor, options.settings)
    Reload(reactor, options).setServiceParent(node)  # type: ignore[no-untyped-call]
    garbage.tame()
    return node
