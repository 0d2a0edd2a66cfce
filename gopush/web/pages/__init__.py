"""The pages that gopush shows in a browser: plain HTML beside the few lines that serve it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import gopush
from gopush.config.endpoints import port, words
from gopush.net.http.request import Fields, Request, Response, plain
from gopush.net.http.routes import Route, Routes, always

# Pages run no script but their own. They talk to this gopush: to its public port, and to the ports of its comets.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; "
    "connect-src 'self' http: https: ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_SCRIPT = "text/javascript;charset=utf-8"
TYPES = {"html": "text/html;charset=utf-8", "js": _SCRIPT, "mjs": _SCRIPT, "css": "text/css;charset=utf-8"}
ASSETS = (
    *("page.js", "page.css", "admin.js", "charts.js", "key.js", "admin.css", "demo.js", "demo.css"),
    *("uPlot.iife.min.js", "uPlot.min.css"),
)
CLIENTS = ("gopush.js", "gopush.mjs")
_HEADERS = (("Cache-Control", "no-cache"), ("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer"))
# Pages of any site may load the client; a new release of it reaches them within the hour.
_CLIENT_HEADERS = (
    ("Cache-Control", "public, max-age=3600"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cross-Origin-Resource-Policy", "cross-origin"),
    ("Vary", "Origin"),  # what a plain script is answered, without one, is no answer for a module
)
_OWN_HEADERS = (("Content-Security-Policy", POLICY), *_HEADERS)
START = "administration.md"


class Ports(NamedTuple):
    """What the pages have to know of their process: where the public port and the statistics are listened for, and by
    which URLs browsers reach the public port where that is not the same host."""

    http_bind: Sequence[str]
    stat_bind: Sequence[str] = ()
    urls: Sequence[str] = ()


def client() -> Routes:
    """The client for browsers, as a plain script and as an ES module."""
    return {f"/{name}": {"GET": _file(name, _CLIENT_HEADERS)} for name in CLIENTS}


def admin(ports: Ports) -> Routes:
    """`GET /` on the admin port: a page for those who run the cluster, and what it is made of below /pages/.

    It calls what anybody can (protocol.md, section 10). The page itself shows nothing and needs no key; it asks for one
    where its calls get 401.
    """
    return {"/": {"GET": _page("admin.html", ports)}} | {
        f"/pages/{name}": {"GET": _file(name, _OWN_HEADERS)} for name in ASSETS
    }


def demo(ports: Ports) -> Routes:
    """`GET /demo` on the admin port: push, subscribe, break the connection, see it resume; and the documents, as text,
    where they are beside the package."""
    documents = {f"/pages/docs/{path.name}": {"GET": Route(partial(_document, path))} for path in _documents()}
    return {"/demo": {"GET": _page("demo.html", ports)}} | documents


def _documents() -> list[Path]:
    """Of a source tree, or of the Debian package."""
    for docs in (Path(gopush.__file__).parents[1] / "docs", Path("/usr/share/doc/python3-gopush/docs")):
        if (docs / START).is_file() and (docs / "delivery.md").is_file():
            return sorted(docs.glob("*.md"))
    return []


def _document(path: Path, _request: Request) -> Response:
    try:
        return Response(200, "text/plain;charset=utf-8", path.read_bytes(), _OWN_HEADERS)
    except OSError:
        return plain(404)


def public_port(http_bind: Sequence[str]) -> str:
    """Where a page finds the public port on its own host: "http:8090"; "" where that is no port (a Unix socket)."""
    for endpoint in http_bind:
        if (number := port(endpoint)) is not None:
            return f"{'https' if words(endpoint)[0] == 'ssl' else 'http'}:{number}"
    return ""


def _page(name: str, ports: Ports) -> Route:
    page = files(__name__).joinpath(name).read_text("utf-8")
    values = {
        "PUBLIC": public_port(ports.http_bind),
        "STAT": public_port(ports.stat_bind),
        "URLS": " ".join(ports.urls),
        "DOCS": f"/pages/docs/{START}" if _documents() else "",
    }
    page = re.sub("@([A-Z]+)@", lambda found: escape(values[found[1]]), page)
    return always(Response(200, TYPES["html"], page.encode(), _OWN_HEADERS))


def _file(name: str, headers: Fields) -> Route:
    content = files(__name__).joinpath(name).read_bytes()
    return always(Response(200, TYPES[name.rpartition(".")[2]], content, headers))
