"""`GET /` on the admin port: a page for those who run the cluster. It calls what anybody can (protocol.md, section 10).

The page itself tells nothing and wants no key; it asks for one where its calls are answered 401.
"""

from __future__ import annotations

from importlib.resources import files

from gopush.net.http.response import Response
from gopush.net.http.routes import Route, Routes, always

# The page runs no script but its own, and talks to nobody but this gopush and the WebSocket ports of its comets.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self' ws: wss:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
TYPES = {"html": "text/html;charset=utf-8", "js": "text/javascript;charset=utf-8", "css": "text/css;charset=utf-8"}
ASSETS = ("admin.js", "admin.css", "uPlot.iife.min.js", "uPlot.min.css")
_HEADERS = (("Cache-Control", "no-cache"), ("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer"))


def routes() -> Routes:
    """The page, and what it is made of below /pages/."""
    found: dict[str, dict[str, Route]] = {"/": {"GET": _file("admin.html")}}
    return found | {f"/pages/{name}": {"GET": _file(name)} for name in ASSETS}


def _file(name: str) -> Route:
    content = files(__package__).joinpath(name).read_bytes()
    return always(
        Response(200, TYPES[name.rpartition(".")[2]], content, (("Content-Security-Policy", POLICY), *_HEADERS))
    )
