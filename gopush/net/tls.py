"""TLS from certificates in files, which are read anew when they change: connections stay, new ones see the new files.

TLS 1.2 is the least. A listener may ask clients for certificates (mutual TLS), and a client always checks the name of
the server.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from OpenSSL import SSL, crypto
from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import (
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.internet.ssl import (
    Certificate,
    PrivateCertificate,
    TLSVersion,
    optionsForClientTLS,
    platformTrust,
    trustRootFromCertificates,
)
from zope.interface import implementer

from gopush.config.endpoints import words
from gopush.config.reload import ReloadingFile, lasting
from gopush.errors import SettingsError, naming
from gopush.net.certificates import note
from gopush.net.tls_protocol import MAX_CHAIN_HANDSHAKE_BYTES, MAX_HANDSHAKE_BYTES, TlsFactory, TlsProtocol

T = TypeVar("T")

CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2; those of 1.3 are all good."""

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_NAMES = frozenset({"port", "interface", "backlog", "privateKey", "certKey", "extraCertChain", "clientCA"})


@implementer(IOpenSSLServerConnectionCreator)
class ServerTls:
    """The server's side. `certificate`: in PEM, with its chain behind it; `clients`: the CA that those who connect need
    a certificate of, "" for anybody. Raises SettingsError."""

    def __init__(self, certificate: str, key: str, clients: str = "", chain: str = "") -> None:
        self._certificate = lasting(certificate)
        self._key = lasting(key)
        self._clients = lasting(clients) if clients else None
        self._chain = lasting(chain) if chain else None
        paths = [path for path in (self._certificate, self._key, self._clients, self._chain) if path]
        self._file: ReloadingFile[Any] = ReloadingFile(paths, self._read)

    def serverConnectionForTLS(self, protocol: TlsProtocol) -> Any:
        """See IOpenSSLServerConnectionCreator."""
        protocol.handshake_room = MAX_CHAIN_HANDSHAKE_BYTES if self._clients else MAX_HANDSHAKE_BYTES
        return SSL.Connection(self._file.value, None)

    def _read(self) -> Any:
        for path in (self._certificate, self._key, self._clients):
            if path:
                path.open("rb").close()  # OpenSSL does not say which one it cannot read
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_CIPHER_SERVER_PREFERENCE)
        context.set_cipher_list(CIPHERS)
        context.set_session_id(b"gopush")
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        try:
            context.use_certificate_chain_file(os.fsencode(self._certificate))
            for certificate in _certificates(self._chain) if self._chain else ():
                context.add_extra_chain_cert(certificate.original)
            _check_phrase(self._key)
            context.use_privatekey_file(os.fsencode(self._key))
            context.check_privatekey()
            if self._clients:
                _load_authorities(context, self._clients)
                context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _as_openssl_says)
            note(self._certificate, self._certificate.read_bytes())
        except (SettingsError, OSError):
            raise
        except Exception as wrong:  # each release of the library has its own
            raise _no_pair("server", self._certificate, self._key, wrong) from None
        return context


class ClientTls:
    """A client's side. `authorities`: the CA of the servers, "" for those that the system trusts; `certificate` and
    `key`: for servers that ask for them, "" for none. Raises SettingsError.
    """

    def __init__(self, authorities: str, certificate: str = "", key: str = "") -> None:
        self._authorities = lasting(authorities) if authorities else None
        self._own = (lasting(certificate), lasting(key)) if certificate else ()
        paths = [*((self._authorities,) if self._authorities else ()), *self._own]
        self._file: ReloadingFile[tuple[Any, Any]] = ReloadingFile(paths, self._read)
        self._made_of: tuple[Any, Any] | None = None
        self._options: dict[str, Any] = {}
        """By host: OpenSSL's context costs more than a connection."""

    def around(self, factory: Any, host: str) -> TlsFactory:
        """The factory to connect with to `host`, for that of the connections within TLS."""
        files = self._file.value
        if files is not self._made_of:
            self._made_of, self._options = files, {}
        options = self._options.get(host)
        if options is None:
            roots, own = files
            options = self._options[host] = optionsForClientTLS(
                host, roots, own, extraCertificateOptions={"raiseMinimumTo": TLSVersion.TLSv1_2}
            )
        return TlsFactory(options, True, factory)

    def _read(self) -> tuple[Any, Any]:
        return read_client(self._authorities, *self._own)


def read_client(authorities: Path | None, certificate: Path | None = None, key: Path | None = None) -> tuple[Any, Any]:
    """What a client trusts, the system's CAs where none is given, and what it shows, None where that is nothing. Raises
    SettingsError, or OSError, which name the file.
    """
    roots: Any = trustRootFromCertificates(_certificates(authorities)) if authorities else platformTrust()
    if certificate is None or key is None:
        return roots, None
    _check_phrase(key)
    pem = key.read_bytes() + b"\n" + certificate.read_bytes()
    try:
        own: Any = PrivateCertificate.loadPEM(pem)
        own.options().getContext()  # where the two do not fit, say so now
        note(certificate, certificate.read_bytes())
    except Exception as wrong:
        raise _no_pair("client", certificate, key, wrong) from None
    return roots, own


def client_tls(section: str, settings: Any) -> ClientTls:
    """Of tls.ca, tls.cert and tls.key in a section. Raises SettingsError, which names those that are set."""
    return made_of_files(section, settings, ClientTls)


def made_of_files(section: str, settings: Any, make: Callable[[str, str, str], T]) -> T:
    """As client_tls(), for another kind of client."""
    files = {"tls.ca": settings.tls_authorities, "tls.cert": settings.tls_certificate, "tls.key": settings.tls_key}
    with naming(f"[{section}] {', '.join(name for name, file in files.items() if file)}"):
        return make(*files.values())


@implementer(IStreamClientEndpoint)
class _SecuredEndpoint:
    def __init__(self, endpoint: Any, host: str, tls: ClientTls) -> None:
        self._endpoint = endpoint
        self._host = host
        self._tls = tls

    def connect(self, factory: Any) -> Deferred[Any]:
        """See IStreamClientEndpoint."""
        connecting: Deferred[Any] = self._endpoint.connect(self._tls.around(factory, self._host))
        return connecting.addCallback(lambda protocol: protocol.wrappedProtocol)


def reached(endpoint: Any, host: str, tls: ClientTls | None) -> Any:
    """The endpoint of a client, with TLS over it where that is wanted, to `host`, by its certificate."""
    return endpoint if tls is None else _SecuredEndpoint(endpoint, host, tls)


@implementer(IStreamServerEndpoint)
class TlsEndpoint:
    """`ssl:PORT:privateKey=FILE:certKey=FILE[:extraCertChain=FILE][:clientCA=FILE][:interface=ADDRESS][:backlog=N]`.

    Raises ValueError for what is no such string, SettingsError for files that make no server.
    """

    def __init__(self, reactor: Any, description: str) -> None:
        _, plain, named = words(description)
        found = {"port": plain[0], **named} if plain else named
        if len(plain) > 1 or not found.keys() <= _NAMES or not found.keys() >= {"port", "privateKey"}:
            raise ValueError(description)
        self._reactor = reactor
        self._port = int(found["port"])
        self._interface = found.get("interface", "")
        self._backlog = int(found["backlog"])
        key = found["privateKey"]
        self._tls = ServerTls(
            found.get("certKey", key), key, found.get("clientCA", ""), found.get("extraCertChain", "")
        )

    def listen(self, factory: IProtocolFactory) -> Deferred[Any]:
        """See IStreamServerEndpoint."""
        creator: Any = self._tls
        secured = TlsFactory(creator, False, factory)
        return execute(self._reactor.listenTCP, self._port, secured, backlog=self._backlog, interface=self._interface)


def _no_pair(what: str, certificate: Path, key: Path, wrong: Exception) -> SettingsError:
    """Why these files are of no use."""
    if not _PEM.search(certificate.read_bytes()):
        why = f"{certificate} holds no certificate in PEM"
    elif b"PRIVATE KEY-----" not in key.read_bytes():
        why = f"{key} holds no private key in PEM"
    elif "match" in str(wrong):  # OpenSSL says mismatch, Twisted that they do not match
        why = "the certificate does not belong to the private key"
    else:
        why = "OpenSSL cannot use them"
    return SettingsError(f"{certificate}: makes no TLS {what}{'' if key == certificate else f' with {key}'}: {why}")


def _check_phrase(path: Path) -> None:
    """Raise SettingsError for a private key with a pass phrase: OpenSSL would ask the terminal, and stand still."""
    asked: list[object] = []

    def phrase(*_: object) -> bytes:
        asked.append(_)
        return b"-"

    with suppress(crypto.Error, ValueError, TypeError):  # whoever uses it finds what else is wrong with it
        crypto.load_privatekey(crypto.FILETYPE_PEM, path.read_bytes(), phrase)
    if asked:
        raise SettingsError(f"{path}: has a pass phrase, which gopush cannot ask for: remove it")


def _certificates(path: Path) -> list[Any]:
    """The certificates in a file. Raises SettingsError where there is none, or one that OpenSSL cannot read."""
    found = _PEM.findall(path.read_bytes())
    if not found:
        raise SettingsError(f"{path}: holds no certificate in PEM")
    try:
        return [Certificate.loadPEM(pem) for pem in found]
    except Exception:  # each release of the library has its own
        raise _unreadable(path) from None


def _load_authorities(context: Any, path: Path) -> None:
    try:
        context.load_verify_locations(os.fsencode(path))
    except SSL.Error:
        raise _unreadable(path) from None


def _unreadable(path: Path) -> SettingsError:
    return SettingsError(f"{path}: holds no certificate that OpenSSL can read")


def _as_openssl_says(_connection: object, _certificate: object, _error: int, _depth: int, good: int) -> bool:
    return bool(good)
