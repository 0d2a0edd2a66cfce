"""Where a command's calls go: "host:port" in the clear, or a URL, and whom TLS trusts there."""

from __future__ import annotations

import re
import ssl
from argparse import ArgumentTypeError
from pathlib import Path
from typing import NamedTuple

from gopush.config.values import impossible, shown
from gopush.errors import SettingsError

SECURE = "https://"
_HOST = re.compile(r"\[[0-9A-Fa-f:.]+\]|[^\s/:@?#\[\]]+")
_PORTS = {"http": "80", "https": "443"}


class Server(NamedTuple):
    """A port that takes calls: its address, the API key for it, and whom TLS trusts."""

    address: str
    api_key: str = ""
    context: ssl.SSLContext | None = None


def address(value: str, port: int = 8091) -> str:
    """ "host:port", or "https://host:port", from the command line; `port`: the usual one.

    Raises ArgumentTypeError.
    """
    scheme, is_url, rest = value.rpartition("://")
    if is_url and scheme.lower() not in _PORTS:
        raise ArgumentTypeError(f"{shown(value)} is neither host:port nor a URL with http:// or https://")
    rest = rest.removesuffix("/") if is_url else rest
    if _HOST.fullmatch(rest) and not impossible(rest):
        if not is_url:
            raise ArgumentTypeError(f"{shown(value)} names no port (try {rest}:{port})")
        rest = f"{rest}:{_PORTS[scheme.lower()]}"
    host, _, number = rest.rpartition(":")
    if not _HOST.fullmatch(host) or impossible(host) or not _is_port(number):
        what = f"{shown(value)} is neither host:port nor a URL without a path"
        raise ArgumentTypeError(f"{what} (try localhost:{port}, or https://push.example.org:{port})")
    return f"{SECURE if scheme.lower() == 'https' else ''}{rest}"


def _is_port(port: str) -> bool:
    return bool(re.fullmatch("[0-9]{1,5}", port)) and 0 < int(port) < 65536


def plain(address: str) -> str:
    """ "host:port"."""
    return address.removeprefix(SECURE)


def trust(cacert: Path | None, insecure: bool) -> ssl.SSLContext:
    """Whom a command trusts: the machine's CAs, or those of a file alone, or everybody. Raises SettingsError."""
    try:
        context = ssl.create_default_context(cafile=None if cacert is None else str(cacert))
    except (OSError, ssl.SSLError) as wrong:
        reason = "it holds no certificate in PEM" if isinstance(wrong, ssl.SSLError) else wrong.strerror
        raise SettingsError(f"--cacert {cacert}: cannot be used: {reason}") from None
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
