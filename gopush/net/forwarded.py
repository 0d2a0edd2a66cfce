"""The client behind a proxy: X-Forwarded-For and Forwarded (RFC 7239) from trusted proxies. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_network

from gopush.config.endpoints import ip

MAX_HOPS = 32
"""How many trusted proxies may stand one behind the other; what they say is looked at from the end."""


@lru_cache(maxsize=16)
def _networks(proxies: tuple[str, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ip_network(proxy) for proxy in proxies if proxy != "unix")


def trusted(proxies: tuple[str, ...], address: str) -> bool:
    """Whether an address is one of `[connections] proxies`; "" is that of all UNIX sockets."""
    if not proxies or not address:
        return not address and "unix" in proxies
    found = ip(plain(address))
    return found is not None and any(found in network for network in _networks(proxies))


def is_loopback(address: str) -> bool:
    """Whether only this machine has it; "" is that of all UNIX sockets."""
    found = ip(plain(address))
    return not address or (found is not None and found.is_loopback)


def plain(address: str) -> str:
    """Without the zone of a link; an IPv4 address that IPv6 carries as itself."""
    if ":" not in address:
        return address
    address = address.partition("%")[0]
    found = ip(address)
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return address if mapped is None else str(mapped)


def client(headers: Mapping[bytes, bytes], peer: str, proxies: tuple[str, ...]) -> str:
    """The address of the last hop that is not trusted, as the proxies say it; `peer` where it is no proxy, or says
    nothing that can be read. `headers`: names in lower case, repeated ones joined by commas.

    A proxy adds to one of the two and may pass the other one on as its client made it: X-Forwarded-For comes first.
    """
    if not trusted(proxies, peer):
        return peer
    name = b"x-forwarded-for" if b"x-forwarded-for" in headers else b"forwarded"
    hops = headers.get(name)
    if hops is None:
        return peer
    read: Callable[[str], str | None] = _for if name == b"forwarded" else _address
    found = peer
    for hop in hops.decode("latin-1").split(",")[: -MAX_HOPS - 1 : -1]:
        address = read(hop.strip(" \t"))
        if address is None:
            return peer
        found = address
        if not trusted(proxies, found):
            break
    return found


def _for(element: str) -> str | None:
    """An element of Forwarded: for=192.0.2.60;proto=http, for="[2001:db8::1]:4711"."""
    for pair in element.split(";"):
        name, _, value = pair.strip(" \t").partition("=")
        if name.lower() == "for":
            quoted = len(value) > 1 and value[0] == value[-1] == '"'
            return _address(value[1:-1] if quoted else value)
    return None


def _address(text: str) -> str | None:
    """An address, with or without a port: 192.0.2.60, 192.0.2.60:80, 2001:db8::1, [2001:db8::1], [2001:db8::1]:80."""
    host, port = text, ""
    if text.startswith("["):
        host, end, port = text[1:].partition("]")
        if not end or (port and port[0] != ":"):
            return None
        port = port[1:]
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if port and not (port.isascii() and port.isdigit() and len(port) < 6):
        return None
    found = ip(host.partition("%")[0])
    return None if found is None else plain(str(found))
