"""Push to gopush, and receive from it: for asyncio and for threads, with the standard library alone."""

from gopush_client.errors import GopushError, RefusedError, UnavailableError
from gopush_client.publisher import AsyncPublisher, Publisher
from gopush_client.publishing import Push, Pushed
from gopush_client.subscriber import Subscriber
from gopush_client.version import __version__
from gopush_client.wire import Message

__all__ = [
    "AsyncPublisher",
    "GopushError",
    "Message",
    "Publisher",
    "Push",
    "Pushed",
    "RefusedError",
    "Subscriber",
    "UnavailableError",
    "__version__",
]
