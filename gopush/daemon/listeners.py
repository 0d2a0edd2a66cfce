"""Listening on all endpoints of an option, and the addresses that others get.

A process that cannot listen ends with one line on stderr and exit status 1, also where twistd makes a daemon of it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, gatherResults, maybeDeferred
from twisted.internet.endpoints import AdoptedStreamServerEndpoint, serverFromString
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from gopush.config.endpoints import WITH_PORT, is_wildcard, place, words
from gopush.config.values import address
from gopush.daemon.start import give_up, refuse
from gopush.errors import SettingsError, StartError
from gopush.net.proxy_protocol import ProxiedReactor
from gopush.net.tls import TlsEndpoint

_WHERE = "[:interface=ADDRESS][:backlog=N]"
_BACKLOG = 4096
"""Connections that may wait to be accepted, where an endpoint does not say: all subscribers of a lost comet come at
once.
"""
_BEFORE_BACKLOG = {"tcp": 2, "tcp6": 1, "ssl": 1, "unix": 2}
"""For Twisted, the next word without a name is the backlog."""

_FORMS = {
    "tcp": f"tcp:PORT{_WHERE}",
    "tcp6": f"tcp6:PORT{_WHERE}, with \\: for each colon of an address",
    "ssl": f"ssl:PORT:privateKey=FILE[:certKey=FILE][:extraCertChain=FILE][:clientCA=FILE]{_WHERE}",
    "unix": "unix:PATH[:mode=660][:backlog=N]",
    "systemd": "systemd:domain=INET:index=0, or systemd:domain=INET:name=NAME",
}

_NO_SOCKET = (
    "gopush cannot listen there: systemd handed over no such socket (the .socket unit's FileDescriptorName= is the "
    "name; systemd-socket-activate names one with --fdname=; index=0 needs none)"
)
_MOST_PATH_BYTES = 107  # of sockaddr_un
_FIRST_HANDED_OVER = 3  # SD_LISTEN_FDS_START

log = Logger()


class Listeners(Service):
    """Listens on all endpoints of one option, from before root's privileges are dropped until the service stops."""

    def __init__(self, reactor: Any, where: str, endpoints: Sequence[str], factory: Factory[Any]) -> None:
        """`where` names the option in errors: "[base] tcp.bind". Raises SettingsError for what is no endpoint."""
        self.ports: list[Any] = []
        self._reactor = reactor
        self._where = where
        self._factory = factory
        self._endpoints = [(description, _endpoint(reactor, where, description)) for description in endpoints]
        self._binding: list[Deferred[None]] = []
        self._refused: str | None = None

    def privilegedStartService(self) -> None:
        """Bind. Raises CannotStartError where that fails at once, as TCP and Unix sockets do."""
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        for description, endpoint in self._endpoints:
            bound = endpoint.listen(self._factory)
            self._binding.append(bound.addCallbacks(self._bound, self._refuse, errbackArgs=(description,)))
        if self._refused is not None:
            refuse(self._refused)

    def startService(self) -> None:
        """Bind, unless that was done with privileges."""
        if not self._binding:
            self.privilegedStartService()
        super().startService()  # type: ignore[no-untyped-call]

    def hold(self) -> None:
        """Accept nobody for now: clients wait."""
        for port in self.ports:
            port.stopReading()

    def admit(self) -> None:
        """Accept who connects."""
        for port in self.ports:
            port.startReading()

    def stopService(self) -> Deferred[None]:
        """Stop listening; connections stay."""
        super().stopService()  # type: ignore[no-untyped-call]
        for binding in self._binding:
            binding.cancel()
        ports, self.ports, self._binding = self.ports, [], []
        return gatherResults([maybeDeferred(port.stopListening) for port in ports]).addCallback(lambda _: None)

    def _bound(self, port: Any) -> None:
        self.ports.append(port)
        log.info("{where}: listening on {address}", where=self._where, address=_shown(port.getHost()))

    def _refuse(self, failure: Failure, description: str) -> None:
        self._refused = f"{self._where}: {description}: {_reason(failure.value)}"
        if self.running:
            give_up(self._reactor, StartError(self._refused))


def _endpoint(reactor: Any, where: str, description: str) -> Any:
    try:
        return _listener(reactor, description)
    except (TypeError, ValueError):  # Twisted's words for these are about its own functions
        kind, *_ = words(description)
        form = _FORMS.get(kind)
        why = f"the form is {form}" if form else f"Twisted takes no {kind}: like this, or lacks the plugin for it"
    except Exception as wrong:  # each kind of endpoint has its own ways to refuse, a certificate's file included
        why = _reason(wrong)
    raise SettingsError(f"{where}: {description}: gopush cannot listen there: {why}")


def _listener(reactor: Any, description: str) -> Any:
    kind, _, rest = description.partition(":")
    if kind == "haproxy":
        return _listener(ProxiedReactor(reactor), rest)
    if kind == "systemd":
        return _handed_over(reactor, description)
    _, plain, named = words(description)
    if len(plain) <= _BEFORE_BACKLOG.get(kind, -1) and "backlog" not in named:
        description += f":backlog={_BACKLOG}"
    return TlsEndpoint(reactor, description) if kind == "ssl" else serverFromString(reactor, description)


def _handed_over(reactor: Any, description: str) -> Any:
    """A socket of systemd's. Twisted forgets those that were given no names, and that of Debian 12 knows no names."""
    _, plain, named = words(description)
    wanted = dict(zip(("domain", "index"), plain, strict=False)) | named
    family = getattr(socket, f"AF_{wanted.pop('domain', '')}", None)
    if family is None or len(plain) > 2 or wanted.keys() not in ({"index"}, {"name"}):
        raise ValueError(description)
    given = dict(line.partition("=")[::2] for line in os.fsdecode(Path("/proc/self/environ").read_bytes()).split("\0"))
    count = int(given.get("LISTEN_FDS", 0)) if given.get("LISTEN_PID") == str(os.getpid()) else 0
    names = given.get("LISTEN_FDNAMES", "").split(":")[:count]
    index = names.index(wanted["name"]) if wanted.get("name") in names else int(wanted.get("index", count))
    if 0 <= index < count:
        return AdoptedStreamServerEndpoint(reactor, _FIRST_HANDED_OVER + index, family)
    # `gopush check` has none; listening fails.
    return SimpleNamespace(listen=lambda _: fail(ValueError(_NO_SOCKET)))


def refuse_unbindable(name: str, endpoint: str) -> None:
    """Raise StartError where an endpoint in [base] `name` is a Unix socket that cannot be, as far as that shows without
    binding it."""
    kind, plain, named = words(endpoint)
    path = Path(named.get("address") or "".join(plain[:1]))
    if kind == "unix" and (why := _no_place(path)):
        raise StartError(f"[base] {name}: {endpoint}: {why}")


def lacking(endpoint: str) -> str:
    """Why this machine cannot listen at the address of an endpoint, whatever the port; empty: it can."""
    kind, host, _ = place(endpoint)
    if kind not in WITH_PORT or is_wildcard(host):
        return ""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.bind((host, 0))
    except OSError as wrong:
        return _reason(wrong)
    return ""


def _no_place(path: Path) -> str:
    """Why no Unix socket can be there; empty: one can."""
    if len(os.fsencode(path)) > _MOST_PATH_BYTES:
        return f"the path has more than {_MOST_PATH_BYTES} bytes"
    if not path.parent.is_dir():
        return "there is no such directory, or none that this user can reach"
    if os.path.lexists(path) and not path.is_socket():
        return "something that is no socket has this name"
    return "" if os.access(path.parent, os.W_OK | os.X_OK) else "this user cannot write to its directory"


def _shown(found: Any) -> str:
    """An address that is listened on: host:port, or the path of a Unix socket."""
    if not hasattr(found, "port"):
        return os.fsdecode(getattr(found, "name", None) or str(found))
    return address(found.host, found.port)


def _reason(wrong: BaseException | None) -> str:
    """Why, in a few words on one line."""
    cause = getattr(wrong, "socketError", wrong)
    if strerror := getattr(cause, "strerror", None):
        return f"{strerror[0].lower()}{strerror[1:]}"
    return " ".join((str(cause) or type(cause).__name__).split())


def advertised(name: str, bind: Sequence[str], advertise: Sequence[str]) -> tuple[str, ...]:
    """The addresses for others of the endpoints in option `<name>.bind`: `<name>.advertise`, else "host:port" as bound.

    Raises SettingsError where nobody could connect to that: a wildcard, a port of chance, or only Unix sockets; or, of
    an endpoint that nobody can listen at either, what is wrong with it.
    """
    if advertise or not bind:
        return tuple(advertise)
    found = tuple(one for endpoint in bind if (one := _address(name, endpoint)) is not None)
    if not found:
        _refuse_unadvertised(name, bind, "is no host:port")
    return found


def _address(name: str, endpoint: str) -> str | None:
    """ "host:port" of a TCP or TLS endpoint; None for one that has no such name (unix, systemd)."""
    kind, host, port = place(endpoint)
    if kind not in ("tcp", "tcp6", "ssl"):
        return None
    if is_wildcard(host) or port in ("", "0"):
        _refuse_unadvertised(name, [endpoint], "others cannot connect to that")
    return address(host, port)


def _refuse_unadvertised(name: str, bind: Sequence[str], why: str) -> NoReturn:
    for endpoint in bind:
        _endpoint(None, f"[base] {name}.bind", endpoint)  # an oversight there is the reason, and an address no help
    raise SettingsError(f"[base] {name}.bind: {' '.join(bind)}: {why}; set {name}.advertise")


def local(bind: Sequence[str]) -> tuple[str, str, str] | None:
    """Where this machine reaches the first of these endpoints that takes TCP in the clear ("host:port"), else that
    takes TLS ("https://host:port"); and the files of the process's own certificate and key where callers need one, else
    "". None: at none. Callers there speak no PROXY protocol."""
    for kinds, scheme in (("tcp", "tcp6"), ""), (("ssl",), "https://"):
        for endpoint in bind:
            kind, host, port = place(endpoint)
            if kind in kinds and port not in ("", "0") and not endpoint.startswith("haproxy:"):
                host = "localhost" if is_wildcard(host) else host
                _, _, named = words(endpoint)
                shown = named if "clientCA" in named else {}
                key = shown.get("privateKey", "")
                return scheme + address(host, port), shown.get("certKey", key), key
    return None
