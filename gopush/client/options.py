"""What several commands share: options, their values, environment variables for them; roles; extras."""

from __future__ import annotations

import argparse
import math
import os
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from gopush.client.address import SECURE, Server, address, trust
from gopush.config.schema import read_file
from gopush.errors import SettingsError
from gopush.model import MAX_CURSOR, MAX_INT64

ROLES = {
    "comet": "gopush.comet.settings:CometSettings",
    "message": "gopush.message.settings:MessageSettings",
    "web": "gopush.web.settings:WebSettings",
    "gopush": "gopush.embedded.settings:EmbeddedSettings",
}
"""The settings class of each role."""

_PORTS = {"web": 8090, "admin": 8091}
_KEY = re.compile("[!-~]*")


def add_web(command: argparse.ArgumentParser, several: bool = False) -> None:
    """The public port; `several`: or those of several web nodes, by commas."""
    _add_address(command, "web", "where devices look up", several)
    _add_trust(command)


def add_admin(command: argparse.ArgumentParser) -> None:
    """The admin port, and the key for it."""
    _add_address(command, "admin", "where services push")
    command.add_argument(
        "--api-key-file",
        type=Path,
        metavar="FILE",
        help="a file whose first line is the API key (or: GOPUSH_API_KEY, or GOPUSH_API_KEY_FILE)",
    )
    _add_trust(command)


def _add_trust(command: argparse.ArgumentParser) -> None:
    """Whom TLS trusts; once, where a command has two ports."""
    if command.get_default("insecure") is None:
        command.add_argument("--cacert", type=Path, metavar="FILE", help="trust the CAs of this file alone")
        command.add_argument("--insecure", action="store_true", help="trust any certificate: for trials only")


def add_comet_tls(command: argparse.ArgumentParser) -> None:
    """How comets are reached."""
    command.add_argument("--comet-tls", action="store_true", help="the comets' TCP ports speak TLS")


def _add_address(command: argparse.ArgumentParser, name: str, what: str, several: bool = False) -> None:
    port = _PORTS[name]
    read = partial(addresses if several else address, port=port)
    command.set_defaults(**{f"read_{name}": read})
    command.add_argument(
        f"--{name}",
        type=read,
        metavar="ADDRESS" + ",..." * several,
        help=f"{what}: host:port or a URL (default: GOPUSH_{name.upper()}, else localhost:{port})"
        + "; of several, one that answers" * several,
    )


def addresses(value: str, port: int) -> str:
    """One address or several by commas, as they are used. Raises ArgumentTypeError."""
    return ",".join(address(each.strip(), port) for each in value.split(","))


def fill(asked: argparse.Namespace, error: Callable[[str], Any]) -> None:
    """Set the addresses that the command line lacks: from the environment, else the usual ones. `error` ends the
    command.
    """
    for name, port in _PORTS.items():
        if getattr(asked, name, "") is None:
            variable = f"GOPUSH_{name.upper()}"
            try:
                given = os.environ.get(variable) or f"localhost:{port}"
                if not is_text(given):
                    error(f"{variable}: is not UTF-8")
                setattr(asked, name, getattr(asked, f"read_{name}")(given))
            except argparse.ArgumentTypeError as wrong:
                error(f"{variable}: {wrong}")


def web(asked: argparse.Namespace) -> Server:
    """Where devices look up."""
    return Server(asked.web, context=context(asked))


def admin(asked: argparse.Namespace) -> Server:
    """Where services push."""
    return Server(asked.admin, _api_key(asked), context(asked))


def context(asked: argparse.Namespace) -> ssl.SSLContext | None:
    """Whom a command trusts that makes calls to a TLS port."""
    secure = getattr(asked, "comet_tls", False)
    secure = secure or any(str(getattr(asked, name, "")).startswith(SECURE) for name in _PORTS)
    # A file that is named has to be one, even where nothing needs it: the address may lack its https://.
    return trust(asked.cacert, asked.insecure) if secure or asked.cacert is not None else None


def _api_key(asked: argparse.Namespace) -> str:
    """The key: of the file that the command line names, else of the environment; "" where there is none."""
    path: Path | None = asked.api_key_file
    if path is None and (key := os.environ.get("GOPUSH_API_KEY", "").strip()):
        return _checked(key, "GOPUSH_API_KEY")
    if path is None and (named := os.environ.get("GOPUSH_API_KEY_FILE")):
        path = Path(named)
    return "" if path is None else _checked(_first_line(path), f"{path}: line 1")


def _checked(key: str, where: str) -> str:
    if not _KEY.fullmatch(key):
        raise SettingsError(f"{where} is no API key (make one with gopush key NAME)")
    return key


def _first_line(path: Path) -> str:
    """The first line that is no comment: the file may hold all that `gopush key` has printed."""
    for line in read_file(path).splitlines():
        if line.strip() and not line.startswith("#"):
            return line.strip()
    raise SettingsError(f"{path}: holds no key")


def mid(value: str) -> int:
    """A mid. This and what follows raise ArgumentTypeError."""
    if not (value.isdecimal() and int(value) <= MAX_CURSOR):
        raise argparse.ArgumentTypeError(f"{value!r} is no mid")
    return int(value)


def int64(value: str) -> int:
    """A whole number."""
    if not re.fullmatch(r"-?[0-9]{1,19}", value) or not -MAX_INT64 <= int(value) <= MAX_INT64:
        raise argparse.ArgumentTypeError(f"{value!r} is no whole number of at most 64 bits")
    return int(value)


def seconds(value: str) -> float:
    """A number of seconds."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{value!r} is no number of seconds")
    return number


def positive(value: str) -> int:
    """A number from 1."""
    if not (value.isdecimal() and int(value) > 0):
        raise argparse.ArgumentTypeError(f"{value!r} is no number from 1")
    return int(value)


def settings_of(role: str) -> type[Any]:
    """The settings class of one of ROLES, which is imported now."""
    found: type[Any] = resolve_name(ROLES[role])
    return found


@contextmanager
def installed(extra: str) -> Iterator[None]:
    """Around what imports the library of an extra. Raises SettingsError where it is not installed."""
    try:
        yield
    except ModuleNotFoundError as missing:
        raise SettingsError(
            f"this needs {missing.name}, which is not installed (pip install 'gopush[{extra}]')"
        ) from None


def is_text(value: str) -> bool:
    """Whether an argument can be sent: Python keeps bytes that are not UTF-8 as halves of surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
