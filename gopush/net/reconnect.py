"""A connection that is made again whenever it breaks."""

from __future__ import annotations

from typing import Any, cast

from twisted.application.internet import ClientService
from twisted.logger import Logger


class QuietClientService(ClientService):
    """Twisted's ClientService without its line for each attempt: who uses it has a line for each change."""

    _log = Logger(observer=cast(Any, lambda _: None))
