"""What a connection leaves behind: nothing, also where the garbage collector does not look (daemon/gc.py)."""

from __future__ import annotations

import gc
import weakref

import pytest

from tests.clients import TcpClient, WebSocketClient, eventually
from tests.comet.wire import CometServer, in_reactor


@pytest.mark.parametrize("protocol", ["tcp", "websocket"])
@pytest.mark.parametrize("clients_first", [True, False])
def test_a_closed_connection_leaves_no_cycle(
    server: CometServer, key: str, protocol: str, *, clients_first: bool
) -> None:
    client: TcpClient | WebSocketClient
    client = TcpClient(server.tcp) if protocol == "tcp" else WebSocketClient(server.websocket)
    with client:
        client.subscribe(key)
        (session,) = server.sessions(key)
        left = [weakref.ref(session.wire), weakref.ref(session.wire.transport)]
        gc.disable()
        try:
            if not clients_first:
                in_reactor(server.comet.close, [key])
            client.close()
            del session
            eventually(lambda: [ref() for ref in left] == [None] * 2)
        finally:
            gc.enable()
