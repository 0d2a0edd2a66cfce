"""Which web sites' pages may call, through their visitors' browsers (protocol.md, sections 4 and 5). Pure."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace

from gopush.config.endpoints import ip
from gopush.net.http.request import Fields, Request, Response, explained
from gopush.net.http.routes import Refuse, Routes
from gopush.net.limits import ConnectionSettings
from gopush.web.counters import WebCounters
from gopush.web.responses import FORBIDDEN
from gopush.web.settings import HttpSettings

_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_HOST = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(?::[0-9]*)?")
_PROXIED = frozenset((b"forwarded", b"x-forwarded-for"))
_PREFLIGHT_SECONDS = "600"


class Sharing:
    """What the public port lets pages of other web sites do: those of `[connections] origins` (none: all) may call, and
    read; so may those of `own`, which are the admin port's."""

    def __init__(self, settings: ConnectionSettings, counters: WebCounters, own: Collection[str]) -> None:
        self._settings = settings
        self._counters = counters
        self._own = own

    def fields(self, request: Request) -> Fields:
        """See net.http.request.CrossOrigin."""
        origin = request.header(b"origin")
        return _shared(origin) if origin and self._allows(origin) else ()

    def preflight(self, request: Request, methods: str) -> Response | None:
        """See net.http.request.CrossOrigin."""
        if not _is_preflight(request):
            return None
        return self.refuse(request) or _permission(request, methods)

    def _allows(self, origin: str) -> bool:
        allowed = self._settings.origins
        return not allowed or origin.lower() in allowed or origin.lower() in self._own

    def refuse(self, request: Request) -> Response | None:
        """See Route. 403 for pages of others.

        A script's request, which is how JSONP works, has no Origin: then the Referer counts. A page can suppress
        that as well, but not the browser's Sec-Fetch-Site, which says that the request comes from another site.
        """
        if not self._settings.origins:
            return None
        origin = request.header(b"origin") or _origin(request.header(b"referer") or "")
        elsewhere = request.header(b"sec-fetch-site") in ("cross-site", "same-site")
        if self._allows(origin) if origin else not elsewhere:
            return None
        self._counters.foreign_origins += 1
        return explained(FORBIDDEN, request, "pages of this web site may not call it ([connections] origins)")


class AdminGuard:
    """Which requests may call the admin port without a key: none of a page of another site, none by a rebound name,
    none through a proxy where `[connections] proxies` lists any. Pages that it lets in, or that have a valid key, may
    read, too.

    `with_keys`: the port asks for them, so it does not matter by which name it is called, nor through what. A page of
    any site may ask then whether it may send one: no browser does that by itself.
    """

    def __init__(self, settings: HttpSettings, with_keys: bool, counters: WebCounters) -> None:
        self.own: set[str] = set()
        """The origins of the admin port's own pages: its listeners', whatever a Host header says."""
        self._settings = settings
        self._with_keys = with_keys
        self._counters = counters

    def add(self, host: str, port: int) -> None:
        """A listener of the admin port; one on all interfaces is known by its loopback names alone."""
        for name in _names(host):
            self.own |= {f"http://{name}:{port}", f"https://{name}:{port}"}
            if port == 80:
                self.own.add(f"http://{name}")
            if port == 443:
                self.own.add(f"https://{name}")

    def fields(self, request: Request) -> Fields:
        """See net.http.request.CrossOrigin."""
        origin = request.header(b"origin")
        if not origin:
            return ()
        keyed = request.caller is not None or (self._with_keys and _is_preflight(request))
        return _shared(origin) if keyed or self._allows(request) else ()

    def preflight(self, request: Request, methods: str) -> Response | None:
        """See net.http.request.CrossOrigin."""
        if not _is_preflight(request):
            return None
        if self._with_keys or self._allows(request):
            return _permission(request, methods)
        self._counters.foreign_origins += 1
        return FORBIDDEN

    def refuse(self, request: Request) -> Response | None:
        """See Route."""
        if b"origin" in request.headers and not self._allows(request):
            self._counters.foreign_origins += 1
            return explained(FORBIDDEN, request, "pages of this web site may not call it ([admin] origins)")
        if self._with_keys:
            return None
        if self._settings.connections.proxies and not _PROXIED.isdisjoint(request.headers):
            # It comes from anywhere, though the proxy is on this machine.
            self._counters.proxied_calls += 1
            return explained(
                FORBIDDEN, request, "a call through a proxy needs an API key, and this port has none ([admin] keys)"
            )
        host = request.header(b"host")
        if host is None or request.method not in (b"GET", b"HEAD"):
            return None
        name = _name(host)
        if name == "localhost" or ip(name) is not None or name in self._settings.admin_hosts:
            return None
        self._counters.foreign_hosts += 1
        return explained(FORBIDDEN, request, "Host holds a name that this port does not have ([admin] hosts)")

    def _allows(self, request: Request) -> bool:
        """Whether a request carries no origin, or one of its own pages, or of `[admin] origins`."""
        origin = request.header(b"origin")
        return origin is None or origin.lower() in self.own or origin.lower() in self._settings.admin_origins


def _is_preflight(request: Request) -> bool:
    """Whether a browser asks, before it calls, whether it may."""
    asked = request.method == b"OPTIONS" and request.header(b"access-control-request-method")
    return bool(asked and request.header(b"origin"))


def _permission(request: Request, methods: str) -> Response:
    """The answer to a preflight: these methods, and whatever headers are asked for."""
    wanted = request.header(b"access-control-request-headers")
    allowed = (("Access-Control-Allow-Headers", wanted),) if wanted else ()
    fields = (("Access-Control-Allow-Methods", methods), *allowed, ("Access-Control-Max-Age", _PREFLIGHT_SECONDS))
    return Response(204, "", b"", fields)


def _shared(origin: str) -> Fields:
    return (("Access-Control-Allow-Origin", origin), ("Vary", "Origin"))


def guarded(routes: Routes, refuse: Refuse) -> Routes:
    """`routes`, which ask this first."""
    return {
        path: {method: replace(route, refuse=refuse) for method, route in methods.items()}
        for path, methods in routes.items()
    }


def _origin(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{re.split('[/?#]', rest, maxsplit=1)[0]}" if rest else ""


def _name(host: str) -> str:
    """A Host header without its port."""
    match = _HOST.fullmatch(host)
    return match[1].strip("[]").lower() if match else ""


def _names(host: str) -> tuple[str, ...]:
    if (address := ip(host)) is None:
        return (host.lower(),)
    if address.is_loopback or address.is_unspecified:
        return _LOOPBACK
    return (f"[{address}]" if address.version == 6 else str(address),)
