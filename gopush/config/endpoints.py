"""Twisted endpoint strings: their words, the place that each names, and which of them cannot both be bound. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import combinations

WITH_PORT = ("tcp", "tcp6", "ssl")
_NAMES = {
    *("port", "interface", "backlog", "address", "mode", "lockfile", "domain", "index", "name"),
    *("privateKey", "certKey", "extraCertChain", "clientCA"),
}
"""What words of endpoints are called, but for those of plug-ins."""


def words(endpoint: str) -> tuple[str, list[str], dict[str, str]]:
    """The kind of an endpoint, its words that have no name, and those that have one."""
    kind, *words = (re.sub(r"\\(.)", r"\1", word) for word in re.split(r"(?<!\\):", endpoint))
    if kind == "haproxy":
        kind, *words = words
    return kind, [word for word in words if "=" not in word], dict(word.split("=", 1) for word in words if "=" in word)


def without_secrets(endpoint: str) -> str:
    """An endpoint as messages may show it: what stands behind an unknown name, perhaps a password, is hidden. Whoever
    listens there refuses the name, whatever it has.
    """
    for match in re.finditer(r"(?<!\\):([^:=]*)=", endpoint):
        if match[1] not in _NAMES:
            return f"{endpoint[: match.end()]}(hidden)"
    return endpoint


def place(endpoint: str) -> tuple[str, str, str]:
    """The kind of an endpoint, its host and its port, as far as it has them."""
    kind, plain, named = words(endpoint)
    port = named.get("port") or (plain[0] if plain else "")
    return kind, named.get("interface", plain[1] if kind.startswith("tcp") and len(plain) > 1 else ""), port


def port(endpoint: str) -> int | None:
    """The port of an endpoint; 0: any; None where it is of a kind without one, or names none."""
    kind, _, found = place(endpoint)
    return int(found) if kind in WITH_PORT and re.fullmatch("[0-9]+", found) else None


def ip(host: str) -> IPv4Address | IPv6Address | None:
    """The IP address that a host is given as; None of a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def is_wildcard(host: str) -> bool:
    """Whether a host means all addresses of a machine, and so nothing to others: 0.0.0.0 in any spelling, or none."""
    address = ip(host)
    address = getattr(address, "ipv4_mapped", None) or address
    return not host.strip("0.") or (address is not None and address.is_unspecified)


def refuse_shared(binds: Mapping[str, Sequence[str]]) -> None:
    """Raise ValueError where two endpoints of these options of [base] could not both be bound."""
    taken = [(name, endpoint) for name, endpoints in binds.items() for endpoint in endpoints if port(endpoint) != 0]
    for (name, endpoint), (other, beside) in combinations(taken, 2):
        if all(map(_meet, _taken(endpoint), _taken(beside))):
            names = name if name == other else f"{name} and {other}"
            raise ValueError(f"[base] {names}: {endpoint} and {beside} take the same port: use another one for each")


def _meet(one: object, other: object) -> bool:
    return one == other or None in (one, other)


def _taken(endpoint: str) -> Iterator[object]:
    """A port with its family, and the interface there, None for all; of another kind, the words as they are.

    A port of all IPv6 interfaces may take in those of IPv4: the system decides, so the two never meet here.
    """
    kind, host, _ = place(endpoint)
    number = port(endpoint)
    if number is None:
        yield endpoint
        return
    host = "127.0.0.1" if host == "localhost" else host or ("::" if kind == "tcp6" else "0.0.0.0")
    if (address := ip(host)) is None:
        yield from ((4, number), host)  # Twisted looks for names in IPv4 alone
    else:
        yield from ((address.version, number), None if address.is_unspecified else address)
