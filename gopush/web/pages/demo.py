"""`GET /demo` on the admin port of an embedded gopush: subscribe, push, break the connection, see it resume."""

from __future__ import annotations

from importlib.resources import files

from gopush.net.http.response import Response
from gopush.net.http.routes import Route, Routes

HTML = "text/html;charset=utf-8"
# The page runs nothing but what it holds, and talks to nobody but the ports of this gopush.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self' ws:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def routes(websocket_port: int) -> Routes:
    """The route of the page; `websocket_port`: where subscribers connect on the same host."""
    page = files(__package__).joinpath("demo.html").read_bytes().replace(b"@WEBSOCKET_PORT@", b"%d" % websocket_port)
    response = Response(200, HTML, page, (("Content-Security-Policy", POLICY), ("Cache-Control", "no-store")))
    return {"/demo": {"GET": Route(lambda _: response)}}
