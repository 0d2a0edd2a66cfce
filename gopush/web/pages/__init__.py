"""The pages that gopush shows in a browser: plain HTML beside the few lines that serve it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files

from gopush.net.http.request import Fields, Response
from gopush.net.http.routes import Route, Routes, always

_REST = "connect-src 'self' http: https: ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
# Pages run no script but their own. They talk to this gopush: to its public port, and to the ports of its comets.
ADMIN_POLICY = f"default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; {_REST}"
DEMO_POLICY = f"default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'unsafe-inline'; {_REST}"
_SCRIPT = "text/javascript;charset=utf-8"
TYPES = {"html": "text/html;charset=utf-8", "js": _SCRIPT, "mjs": _SCRIPT, "css": "text/css;charset=utf-8"}
ASSETS = ("admin.js", "admin.css", "uPlot.iife.min.js", "uPlot.min.css")
CLIENTS = ("gopush.js", "gopush.mjs")
_HEADERS = (("Cache-Control", "no-cache"), ("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer"))
# Pages of any site may load the client; a new release of it reaches them within the hour.
_CLIENT_HEADERS = (
    ("Cache-Control", "public, max-age=3600"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cross-Origin-Resource-Policy", "cross-origin"),
    ("Vary", "Origin"),  # what a plain script is answered, without one, is no answer for a module
)
_LISTENS = re.compile(r"(?:haproxy:)?(tcp6?|ssl):(?:[^\d].*?:)?(?:port=)?(\d{1,5})(?::.*)?")


def client() -> Routes:
    """The client for browsers, as a plain script and as an ES module."""
    return {f"/{name}": {"GET": _file(name, _CLIENT_HEADERS)} for name in CLIENTS}


def admin(http_bind: Sequence[str]) -> Routes:
    """`GET /` on the admin port: a page for those who run the cluster, and what it is made of below /pages/.

    It calls what anybody can (protocol.md, section 10). The page itself tells nothing and wants no key; it asks for one
    where its calls are answered 401. `http_bind`: where the public port listens, which it subscribes at.
    """
    headers = (("Content-Security-Policy", ADMIN_POLICY), *_HEADERS)
    page = _page("admin.html", http_bind, headers)
    return {"/": {"GET": page}} | {f"/pages/{name}": {"GET": _file(name, headers)} for name in ASSETS}


def demo(http_bind: Sequence[str]) -> Routes:
    """`GET /demo` on the admin port of an embedded gopush: subscribe, push, break the connection, see it resume."""
    headers = (("Content-Security-Policy", DEMO_POLICY), ("Cache-Control", "no-store"))
    return {"/demo": {"GET": _page("demo.html", http_bind, headers)}}


def public_port(http_bind: Sequence[str]) -> str:
    """Where a page finds the public port on its own host: "http:8090"; "" where that is no port (a Unix socket)."""
    for endpoint in http_bind:
        if found := _LISTENS.fullmatch(endpoint):
            return f"{'https' if found[1] == 'ssl' else 'http'}:{found[2]}"
    return ""


def _page(name: str, http_bind: Sequence[str], headers: Fields) -> Route:
    page = files(__name__).joinpath(name).read_bytes().replace(b"@PUBLIC@", public_port(http_bind).encode())
    return always(Response(200, TYPES["html"], page, headers))


def _file(name: str, headers: Fields) -> Route:
    content = files(__name__).joinpath(name).read_bytes()
    return always(Response(200, TYPES[name.rpartition(".")[2]], content, headers))
