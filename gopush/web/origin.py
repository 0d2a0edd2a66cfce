"""Whom browsers may let call the admin port: only pages that came from it (protocol.md, section 5). Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from ipaddress import ip_address

from gopush.http.request import Request
from gopush.http.response import Response, plain
from gopush.http.routing import AnyRoute, Routes
from gopush.web.counters import Counters

_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_FORBIDDEN = plain(403)


class Origins:
    """The origins of the admin port's own pages: its listeners', whatever a Host header says."""

    def __init__(self) -> None:
        self._own: set[str] = set()

    def add(self, host: str, port: int) -> None:
        """A listener of the admin port; one on all interfaces is known by its loopback names alone."""
        for name in _names(host):
            self._own |= {f"http://{name}:{port}", f"https://{name}:{port}"}
            if port == 80:
                self._own.add(f"http://{name}")
            if port == 443:
                self._own.add(f"https://{name}")

    def allow(self, request: Request) -> bool:
        """Whether a request carries no origin, or one of these."""
        origin = request.header(b"origin")
        return origin is None or origin.lower() in self._own


def listed(routes: Routes, origins: Callable[[], Collection[str]], counters: Counters) -> Routes:
    """`routes`, with 403 for pages of other web sites than `origins` tells (none: all).

    A script's request, which is how JSONP works, bears no Origin: there the Referer counts.
    """

    def refuse(request: Request) -> Response | None:
        if not (allowed := origins()):
            return None
        origin = request.header(b"origin") or _origin(request.header(b"referer") or "")
        if not origin or origin.lower() in allowed:
            return None
        counters.foreign_origins += 1
        return _FORBIDDEN

    def guard(route: AnyRoute) -> AnyRoute:
        return replace(route, refuse=refuse)

    return {path: {method: guard(route) for method, route in methods.items()} for path, methods in routes.items()}


def _origin(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{re.split('[/?#]', rest, maxsplit=1)[0]}" if rest else ""


def _names(host: str) -> tuple[str, ...]:
    try:
        address = ip_address(host)
    except ValueError:
        return (host.lower(),)
    if address.is_loopback or address.is_unspecified:
        return _LOOPBACK
    return (f"[{address}]" if address.version == 6 else str(address),)


def guarded(routes: Routes, origins: Origins, counters: Counters) -> Mapping[str, Mapping[str, AnyRoute]]:
    """`routes`, with 403 for requests from foreign pages."""

    def refuse(request: Request) -> Response | None:
        if origins.allow(request):
            return None
        counters.foreign_origins += 1
        return _FORBIDDEN

    def guard(route: AnyRoute) -> AnyRoute:
        return replace(route, refuse=lambda request: refuse(request) or route.refuse(request))

    return {path: {method: guard(route) for method, route in methods.items()} for path, methods in routes.items()}
