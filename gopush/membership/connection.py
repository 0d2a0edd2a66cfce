"""How a session with ZooKeeper connects: kazoo's handler of threads, with resolving and TLS of our own.

kazoo ends its thread for good where a host's name cannot be, or (2.8) where none resolves; over TLS it trusts the
system's CAs beside the one that is given, and checks no names (2.8). So it is told the servers by their places in the
list, as ports of an address that needs no resolving, and the connections to them are made here.
"""

from __future__ import annotations

import socket
import ssl
from typing import Any, NoReturn

from kazoo.handlers.threading import SequentialThreadingHandler

from gopush.config.reload import lasting
from gopush.errors import SettingsError
from gopush.rpc.settings import ZooKeeperSettings

CONNECT_SECONDS = 5.0
"""For the connection to one server, TLS included; the next one is tried then."""


class Connector(SequentialThreadingHandler):  # type: ignore[misc]
    """Connects to the servers of the settings. Raises SettingsError for TLS files that are no good."""

    def __init__(self, settings: ZooKeeperSettings) -> None:
        super().__init__()
        self._servers = [_split(address) for address in settings.hosts]
        self._tls = _Tls(settings) if settings.tls else None
        self.wrong = ""
        """Why the last attempt failed."""

    @property
    def hosts(self) -> str:
        """The servers, as kazoo is told."""
        return ",".join(f"127.0.0.1:{index}" for index in range(1, len(self._servers) + 1))

    def create_connection(self, address: tuple[str, int], timeout: float | None = None, **_: Any) -> socket.socket:
        """See IHandler. Fails with an OSError, whatever is wrong: kazoo tries again after that."""
        host, port = self._servers[address[1] - 1]
        try:
            connection = socket.create_connection((host, port), min(timeout or CONNECT_SECONDS, CONNECT_SECONDS))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                connection = self._tls.wrap(connection, host)
        except Exception as wrong:
            self.wrong = f"{host}: {_reason(wrong)}"
            raise OSError(self.wrong) from None
        return connection


class _Tls:
    """The client's side: trusts the given CA alone, checks the server's name, and reads the files at every attempt."""

    def __init__(self, settings: ZooKeeperSettings) -> None:
        files = (settings.tls_authorities, settings.tls_certificate, settings.tls_key)
        self._authorities, self._certificate, self._key = (lasting(name) if name else None for name in files)
        try:
            self._context()
        except OSError as wrong:
            raise SettingsError(
                f"[zookeeper] tls.ca, tls.cert and tls.key: make no TLS client: {_reason(wrong)}"
            ) from None

    def wrap(self, connection: socket.socket, host: str) -> socket.socket:
        """TLS over a connection to `host`."""
        try:
            return self._context().wrap_socket(connection, server_hostname=host)
        except BaseException:
            connection.close()
            raise

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # wants a certificate, and checks the name in it
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self._authorities is not None:
            context.load_verify_locations(self._authorities)
        else:
            context.load_default_certs()
        if self._certificate is not None:
            context.load_cert_chain(self._certificate, self._key, _no_phrase)
        return context


def _no_phrase() -> NoReturn:
    """OpenSSL would ask for it on the terminal, and everything would wait."""
    raise OSError("the key has a pass phrase, which nobody is asked for: write it without")


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _reason(wrong: BaseException) -> str:
    """Why, in a few words: a name that cannot be is a UnicodeError, a certificate's fault an SSLError."""
    words = (
        getattr(wrong, "verify_message", "") or getattr(wrong, "strerror", None) or str(wrong) or type(wrong).__name__
    )
    return " ".join(str(words).split())
