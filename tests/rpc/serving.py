"""What a node of each kind listens with for calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gopush.rpc.broker import Calls
from gopush.rpc.codec import COMET_CALLS, MESSAGE_CALLS
from gopush.rpc.server import ServerFactory


def _serving(calls: Any) -> Callable[..., ServerFactory]:
    def serve(reactor: Any, service: object, *secrets: str, **named: Any) -> ServerFactory:
        return ServerFactory(reactor, Calls(service, calls), tuple(filter(None, secrets)), **named)

    return serve


serve_comet = _serving(COMET_CALLS)
serve_message = _serving(MESSAGE_CALLS)
serve_both = _serving({**MESSAGE_CALLS, **COMET_CALLS})
