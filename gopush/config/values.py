"""How the values of an ini file are written: durations, sizes, addresses, listeners. Pure.

Each function reads one value and raises ValueError with words that follow the value in a sentence:
"[section] option: '3 parsecs' is not a duration (try 30s)".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_network

from gopush.config.endpoints import is_wildcard, port, without_secrets

_DURATION = re.compile(r"([0-9]{1,99}(?:\.[0-9]{1,6})?)\s*(ms|s|m|h|d)")
_DURATION_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST_DURATION_DAYS = 36500
_SIZE = re.compile(r"([0-9]{1,99})\s*(B|KiB|MiB|GiB)?")
_SIZE_UNITS = {None: 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_TOO_LARGE_GIB = 1024
_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")
_ORIGIN = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?|null")
_HOST_NAME = re.compile(r"[a-z0-9._-]{1,253}")
_NODE = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,64}")
_HINT_OF_SECRET = re.compile(r"[@#?]|(?i:secret|passw|token)\w*\s*[=:]")
_ENDPOINT_TYPES = ("tcp", "tcp6", "ssl", "tls", "unix", "systemd", "haproxy", "txacme", "le")
_BEHIND_PROXY = ("tcp", "tcp6", "ssl", "unix", "systemd")


def shown(value: str, whole: str = "") -> str:
    """A value for an error message, unless it may hold a password, as an address with a user, a Redis server, the query
    of a URL and what is called so do; or is a part of a `whole` that may: a password may hold what separates the parts.
    """
    return "(hidden)" if "\n" in value or _HINT_OF_SECRET.search(value + whole) else repr(value)


def password(value: str) -> str:
    """A text(); in double quotes, in which a backslash takes the next character as it is, also blanks."""
    if not text(value).startswith('"'):
        return value
    if not re.fullmatch(r'"(?:[^"\\]|\\.)*"', value):
        raise ValueError('begins with a double quote, and does not end with one (within, write \\" for one)')
    return re.sub(r"\\(.)", r"\1", value[1:-1])


def text(value: str) -> str:
    """One line, also an empty one: what is indented below may be meant for another option."""
    if "\n" in value:
        raise ValueError("goes on over several lines; an option begins at its line's start")
    return value


def duration(value: str) -> float:
    """Seconds, more than none, written with their unit: 500ms, 30s, 5m, 1h, 30d."""
    match = _DURATION.fullmatch(value)
    if not match:
        raise ValueError("is not a duration (try 30s; the units are ms, s, m, h, d)")
    seconds = float(match[1]) * _DURATION_UNITS[match[2]]
    if not 0 < seconds <= _LONGEST_DURATION_DAYS * _DURATION_UNITS["d"]:
        raise ValueError(f"is not a duration above 0, up to {_LONGEST_DURATION_DAYS}d")
    return seconds


def size(value: str) -> int:
    """Bytes, written as 4096, 64KiB, 2MiB."""
    match = _SIZE.fullmatch(value)
    if not match:
        raise ValueError("is not a size in bytes (try 64KiB; the units are B, KiB, MiB, GiB)")
    found = int(match[1]) * _SIZE_UNITS[match[2]]
    if found >= _TOO_LARGE_GIB * _SIZE_UNITS["GiB"]:
        raise ValueError(f"is not a size below {_TOO_LARGE_GIB}GiB")
    return found


def count(least: int = 0, most: int = 2**31 - 1) -> Callable[[str], int]:
    """A whole number from `least` to `most`."""

    def parse(value: str) -> int:
        if not re.fullmatch("[0-9]{1,10}", value) or not least <= int(value) <= most:
            raise ValueError(f"is not a whole number from {least} to {most}")
        return int(value)

    return parse


def switch(value: str) -> bool:
    """yes or no."""
    if value.lower() not in ("yes", "no", "on", "off", "true", "false", "1", "0"):
        raise ValueError("is neither yes nor no")
    return value.lower() in ("yes", "on", "true", "1")


def one_of(*choices: str) -> Callable[[str], str]:
    """One word of these."""

    def parse(value: str) -> str:
        if value not in choices:
            raise ValueError(f"is none of {', '.join(choices)}")
        return value

    return parse


def some_of(*choices: str) -> Callable[[str], tuple[str, ...]]:
    """One or more of these words, separated by commas or blanks."""

    def parse(value: str) -> tuple[str, ...]:
        words = tuple(re.split(r"[,\s]+", value.strip(", \n")))
        if not set(words) <= set(choices):
            raise ValueError(f"is not a list of {', '.join(choices)}")
        return words

    return parse


def node_name(value: str) -> str:
    """A name on the ring: letters, digits, dot, dash, underscore."""
    if not _NODE.fullmatch(value):
        raise ValueError("is not a node name (letters, digits, '.', '-' and '_', at most 64; not '.' or '..' alone)")
    return value


def own_name(value: str) -> str:
    """A node_name(), or empty: the process finds one."""
    return node_name(value) if value else value


def _words(value: str) -> list[str]:
    """What commas or blanks separate; perhaps nothing."""
    return [word for word in re.split(r"[,\s]+", value) if word]


def addresses(value: str, example: str = "push1.example.org:6969") -> tuple[str, ...]:
    """Addresses "host:port" separated by commas or blanks; may be empty. An error gives the `example`."""
    found = tuple(_words(value))
    for word in found:
        match = _HOST_PORT.fullmatch(word)
        if not match or not 0 < int(match[2]) < 65536:
            raise ValueError(f"holds {shown(word, value)}, which is not host:port (try {example})")
        if impossible(match[1]):
            raise ValueError(f"holds {shown(word, value)}: this is not a valid host name")
    return found


def own_addresses(value: str) -> tuple[str, ...]:
    """The addresses() that others connect to."""
    found = addresses(value)
    for word in found:
        if is_wildcard(host_port(word)[0]):
            raise ValueError(
                f"holds {shown(word, value)}, which others cannot connect to: give this machine's own name or address"
                " (try push1.example.org:6969)"
            )
    return found


def host_port(address: str) -> tuple[str, int]:
    """The host and the port of one of addresses(); an IPv6 address without its brackets."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def address(host: str, port: int | str) -> str:
    """As host_port() takes it apart: an IPv6 address has brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def impossible(host: str) -> bool:
    """Whether no resolver can know such a name: a label is empty or too long, or all of it is."""
    labels = host.removesuffix(".").split(".")
    return len(host) > 253 or not all(0 < len(label) < 64 for label in labels)


def origins(value: str) -> tuple[str, ...]:
    """Web origins, https://www.example.org or with a port, separated by commas or blanks; may be empty."""
    found = tuple(_words(value.lower()))
    for word in found:
        match = _ORIGIN.fullmatch(word)
        if not match or not 0 < int(match[2] or 1) < 65536:
            raise ValueError(f"holds {shown(word, value)}, which is no origin (try https://www.example.org)")
    return found


def proxies(value: str) -> tuple[str, ...]:
    """IP addresses, networks (10.0.0.0/8), and "unix" for all UNIX sockets, by commas or blanks; may be empty."""
    return tuple(_proxy(word, value) for word in _words(value))


def _proxy(word: str, value: str) -> str:
    if word.lower() == "unix":
        return "unix"
    try:
        return str(ip_network(word))
    except ValueError as wrong:
        why = "has bits behind the network" if "host bits" in str(wrong) else "is no address or network"
        raise ValueError(
            f"holds {shown(word, value)}, which {why} (try 10.0.0.7, 10.0.0.0/8, 2001:db8::/32, or unix)"
        ) from None


def host_names(value: str) -> tuple[str, ...]:
    """Names of hosts without a port, separated by commas or blanks; may be empty."""
    found = tuple(_words(value.lower()))
    for word in found:
        if not _HOST_NAME.fullmatch(word):
            raise ValueError(f"holds {shown(word, value)}, which is no name of a host (try push.example.org)")
        if impossible(word):
            raise ValueError(f"holds {shown(word, value)}: this is not a valid host name")
    return found


def listeners(value: str) -> tuple[str, ...]:
    """Twisted endpoint strings separated by blanks or line breaks; "host:port" is short for a TCP one; may be empty."""
    return tuple(_listener(word, value) for word in value.split())


def _listener(word: str, value: str) -> str:
    kind, _, rest = word.partition(":")
    if kind == "haproxy" and rest.partition(":")[0] not in _BEHIND_PROXY:
        raise ValueError(
            f"holds {shown(word, value)}: haproxy: stands before one of {', '.join(_BEHIND_PROXY)}"
            " (try haproxy:tcp:6969)"
        )
    if kind in _ENDPOINT_TYPES and rest:
        if (port(word) or 0) > 65535:
            raise ValueError(f"holds {shown(word, value)}, whose port is above 65535")
        plugin = word.removeprefix("haproxy:").partition(":")[0] not in _BEHIND_PROXY
        return word if plugin else without_secrets(word)
    match = _HOST_PORT.fullmatch(word)
    if kind == "fd":
        raise ValueError(f"holds {shown(word, value)}: a socket that systemd hands over is systemd:domain=INET:index=0")
    if not match or int(match[2]) > 65535:
        raise ValueError(
            f"holds {shown(word, value)}, which is no Twisted endpoint"
            " (try tcp:6969:interface=127.0.0.1, or localhost:6969)"
        )
    if impossible(match[1]):
        raise ValueError(f"holds {shown(word, value)}: this is not a valid host name")
    host = match[1].strip("[]")
    kind = "tcp6" if ":" in host else "tcp"
    host = "127.0.0.1" if host == "localhost" else host.replace(":", "\\:")
    return f"{kind}:{match[2]}:interface={host}"
