"""protocol.md, sections 2 and 5: the admin port's own pages subscribe at the comet of the same process."""

from __future__ import annotations

from tests.clients import WebSocketClient, opening
from tests.integration.systems import embedded

SITE = "https://www.example.org"


def test_its_own_pages_pass_where_other_sites_are_listed() -> None:
    with embedded({"connections": {"origins": SITE}, "admin": {"origins": "https://ops.example.org"}}) as system:
        (node,) = system.webs
        port = node.ports["admin"]

        def answer(origin: str) -> bytes:
            with WebSocketClient(node.ports["websocket"]) as client:
                client.send(opening("/sub?key=k&heartbeat=30&ver=1", Origin=origin))
                return client.until(b"\r\n\r\n").split(b" ", 2)[1]

        for origin in (SITE, f"http://127.0.0.1:{port}", f"http://localhost:{port}"):
            assert answer(origin) == b"101"
        for origin in ("https://evil.example", "https://ops.example.org", f"http://localhost:{port + 1}", "null"):
            assert answer(origin) == b"403"
