"""What can go wrong, and the numbers that HTTP clients know it by (protocol.md, section 4)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

RET_OK = 0
RET_NO_NODE = 1001
RET_PARAMETER = 65534
RET_INTERNAL = 65535


class GopushError(Exception):
    """The root of all errors that gopush raises on purpose."""


class SettingsError(GopushError):
    """An ini file that cannot be used: names file, section, option, what was found, what would be right."""


@contextmanager
def naming(where: str) -> Iterator[None]:
    """Put `where`, an option or a file, before what a SettingsError from the block says."""
    try:
        yield
    except SettingsError as wrong:
        raise SettingsError(f"{where}: {wrong}") from None


class StartError(GopushError):
    """A process that cannot start (a port in use, an open door): one line for the operator."""


class ParameterError(GopushError):
    """A caller's parameter is wrong: `ret` 65534 over HTTP, `-p` to a subscriber."""


class NoNodeError(GopushError):
    """No comet is known that could serve the key: `ret` 1001."""


class UnavailableError(GopushError):
    """A peer or the store did not answer in time, or refused for now: `ret` 65535."""


class NotTriedError(UnavailableError):
    """No peer was asked: none is known, or too many calls wait."""


class PeerRefusedError(UnavailableError):
    """A peer did answer: that it cannot do it for now."""
