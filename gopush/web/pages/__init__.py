"""The pages that gopush shows in a browser: plain HTML beside the few lines that serve it."""

from __future__ import annotations

from importlib.resources import files

from gopush.net.http.request import Response
from gopush.net.http.routes import Route, Routes, always

# The page runs no script but its own, and talks to nobody but this gopush and the WebSocket ports of its comets.
ADMIN_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self' ws: wss:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# The page runs nothing but what it holds, and talks to nobody but the ports of this gopush.
DEMO_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self' ws:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
TYPES = {"html": "text/html;charset=utf-8", "js": "text/javascript;charset=utf-8", "css": "text/css;charset=utf-8"}
ASSETS = ("admin.js", "admin.css", "uPlot.iife.min.js", "uPlot.min.css")
_HEADERS = (("Cache-Control", "no-cache"), ("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer"))


def admin() -> Routes:
    """`GET /` on the admin port: a page for those who run the cluster, and what it is made of below /pages/.

    It calls what anybody can (protocol.md, section 10). The page itself tells nothing and wants no key; it asks for one
    where its calls are answered 401.
    """
    found: dict[str, dict[str, Route]] = {"/": {"GET": _file("admin.html")}}
    return found | {f"/pages/{name}": {"GET": _file(name)} for name in ASSETS}


def demo(websocket_port: int) -> Routes:
    """`GET /demo` on the admin port of an embedded gopush: subscribe, push, break the connection, see it resume.

    `websocket_port`: where subscribers connect on the same host.
    """
    page = files(__name__).joinpath("demo.html").read_bytes().replace(b"@WEBSOCKET_PORT@", b"%d" % websocket_port)
    headers = (("Content-Security-Policy", DEMO_POLICY), ("Cache-Control", "no-store"))
    response = Response(200, TYPES["html"], page, headers)
    return {"/demo": {"GET": Route(lambda _: response)}}


def _file(name: str) -> Route:
    content = files(__name__).joinpath(name).read_bytes()
    return always(
        Response(200, TYPES[name.rpartition(".")[2]], content, (("Content-Security-Policy", ADMIN_POLICY), *_HEADERS))
    )
