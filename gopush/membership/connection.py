"""What a session with ZooKeeper needs of kazoo and its threads: connections, access rights, a thread that may block.

kazoo ends its thread for good where a host's name is not valid, or (2.8) where none resolves; over TLS it trusts the
system's CAs beside the given one, and checks no names (2.8). So kazoo gets the servers by their indexes in the list, as
ports of an address that needs no resolving, and this module makes the connections.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from queue import SimpleQueue
from threading import Thread
from typing import Any

from kazoo.exceptions import NoAuthError, NoNodeError
from kazoo.handlers.threading import SequentialThreadingHandler
from kazoo.security import CREATOR_ALL_ACL, READ_ACL_UNSAFE, Permissions, make_digest_acl_credential
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from gopush.config.reload import ReloadingFile, lasting
from gopush.config.values import host_port
from gopush.errors import SettingsError
from gopush.net.tls import made_of_files, read_client
from gopush.rpc.settings import ZooKeeperSettings

CONNECT_SECONDS = 5.0
"""For the connection to one server, TLS included; the next one is tried then."""

AT_ONCE = 100
"""Questions under way. Each is many objects: a garbage collection among those of thousands holds the reactor up."""

log = Logger()


class _KazooLog(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Hand a line over to Twisted's log."""
        log.warn("kazoo: {line}", line=record.getMessage())


_kazoo = logging.getLogger("kazoo")
_kazoo.propagate = False
# Below that it has a line for every attempt to connect; zookeeper.py says what an operator needs to know.
_kazoo.setLevel(logging.ERROR)
_kazoo.addHandler(_KazooLog())


class Connector(SequentialThreadingHandler):  # type: ignore[misc]
    """Connects to the servers of the settings. Raises SettingsError for TLS files that are no good."""

    def __init__(self, settings: ZooKeeperSettings) -> None:
        super().__init__()
        self._servers = settings.hosts
        self._tls = made_of_files("zookeeper", settings, _Tls) if settings.tls else None
        self.wrong = ""
        """What the last attempt met, or, where none has ended since there was a session, what this one waits for."""

    @property
    def hosts(self) -> str:
        """The servers, as kazoo gets them."""
        return ",".join(f"127.0.0.1:{index}" for index in range(1, len(self._servers) + 1))

    def create_connection(self, address: tuple[str, int], timeout: float | None = None, **_: Any) -> socket.socket:
        """See IHandler. Fails with an OSError, whatever is wrong: kazoo tries again after that."""
        server = self._servers[address[1] - 1]
        host, port = host_port(server)
        met, step = self.wrong, f"{server}: does not answer"
        self.wrong = met or step
        try:
            connection = socket.create_connection((host, port), min(timeout or CONNECT_SECONDS, CONNECT_SECONDS))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            step = f"{server}: accepts connections, and does not answer"
            self.wrong = met or step
            if self._tls is not None:
                connection = self._tls.wrap(connection, host)
        except Exception as wrong:
            self.wrong = step if isinstance(wrong, TimeoutError) else f"{server}: {_reason(wrong)}"
            raise OSError(self.wrong) from None
        self.wrong = step
        return connection


class Reasons:
    """The reasons for ZooKeeper's absence that the log has: each once, the first one at once, another one when it is
    there at two looks: while ZooKeeper starts it meets several.
    """

    def __init__(self) -> None:
        self._logged: set[str] = set()
        self._seen = ""

    def is_new(self, reason: str) -> bool:
        """Whether this one, which is there at this look, is to be logged now."""
        before, self._seen = self._seen, reason
        if reason in self._logged or (self._logged and reason != before):
            return False
        self._logged.add(reason)
        return True

    def clear(self) -> None:
        """It is back."""
        self._logged.clear()


class _Tls:
    """The client's side: trusts the given CA alone ("": those of the system), and checks the server's name. Raises
    SettingsError.
    """

    def __init__(self, authorities: str, certificate: str, key: str) -> None:
        self._authorities = lasting(authorities) if authorities else None
        self._own = (lasting(certificate), lasting(key or certificate)) if certificate else ()
        paths = [*((self._authorities,) if self._authorities else ()), *self._own]
        self._file: ReloadingFile[ssl.SSLContext] = ReloadingFile(paths, self._read)

    def wrap(self, connection: socket.socket, host: str) -> socket.socket:
        """TLS over a connection to `host`."""
        try:
            return self._file.value.wrap_socket(connection, server_hostname=host)
        except BaseException:
            connection.close()
            raise

    def _read(self) -> ssl.SSLContext:
        read_client(self._authorities, *self._own)  # it says which file is wrong, and why
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # wants a certificate, and checks the name in it
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            if self._authorities is not None:
                context.load_verify_locations(self._authorities)
            else:
                context.load_default_certs()
            if self._own:
                context.load_cert_chain(*self._own, password="")  # OpenSSL never asks the terminal for one
        except ssl.SSLError as wrong:
            raise SettingsError(f"make no TLS client: {_reason(wrong)}") from None
        return context


def _reason(wrong: BaseException) -> str:
    """Why, in a few words: an invalid name is a UnicodeError, a certificate's fault an SSLError."""
    words = (
        getattr(wrong, "verify_message", "") or getattr(wrong, "strerror", None) or str(wrong) or type(wrong).__name__
    )
    return " ".join(str(words).split())


class Ownership:
    """With `[zookeeper] user` set, all that is registered belongs to that user, also what was there before."""

    def __init__(self, settings: ZooKeeperSettings) -> None:
        self.acl: list[Any] | None = None
        """The rights to the znodes made here; None: everybody may do everything."""
        self._readable = settings.readable
        if settings.user:
            self.acl = [*CREATOR_ALL_ACL, *(READ_ACL_UNSAFE if settings.readable else ())]
            self._us = make_digest_acl_credential(settings.user, settings.secret)
        self._ours: set[str] = set()
        self._foreign: set[str] = set()

    def forget(self) -> None:
        """Look at all znodes anew."""
        self._ours.clear()

    def take(self, client: Any, wait: Callable[[Any], Any], paths: Iterable[str]) -> set[str]:
        """Take these znodes over. Gives those that belong to somebody else, which nobody may believe."""
        if self.acl is None:
            return set()
        paths = set(paths)
        self._ours &= paths
        self._foreign &= paths
        open_ones = []
        for path, result in asked(client.get_acls_async, paths - self._ours):
            if self._is_ours(_answer(wait, result)):
                self._ours.add(path)  # at once: where there are too many for a job, the next one goes on here
            else:
                open_ones.append(path)
        taking = asked(partial(client.set_acls_async, acls=self.acl), open_ones)
        foreign = {path for path, result in taking if _answer(wait, result) is NoAuthError}
        for path in sorted(foreign - self._foreign):
            log.warn("{path} is skipped: it belongs to another [zookeeper] user", path=path)
        self._foreign = foreign
        self._ours = paths - foreign
        return foreign

    def _is_ours(self, answer: Any) -> bool:
        if answer is NoNodeError:
            return True  # it has gone
        return answer is not NoAuthError and all(
            (acl.perms == Permissions.READ and self._readable) or (acl.id.scheme, acl.id.id) == ("digest", self._us)
            for acl in answer[0]
        )


def asked(ask: Callable[[str], Any], paths: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Ask about each path, and give the results to wait for; AT_ONCE of them are under way at most."""
    left = iter(paths)
    while some := [(path, ask(path)) for path in islice(left, AT_ONCE)]:
        yield from some


def _answer(wait: Callable[[Any], Any], result: Any) -> Any:
    """The result, or the kind of error that says how it stands."""
    try:
        return wait(result)
    except (NoAuthError, NoNodeError) as wrong:
        return type(wrong)


Job = tuple["Deferred[Any]", Callable[..., Any], tuple[Any, ...]]


class Worker:
    """Runs jobs in its thread and gives their results in the reactor's. It never keeps the process from ending."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()

    def start(self) -> None:
        """Begin to work."""
        # The thread is made here, not earlier: it would not outlive twistd's fork into the background.
        Thread(target=self._work, name="zookeeper", daemon=True).start()

    def stop(self) -> None:
        """End, once the jobs given so far are done; waits for nothing."""
        self._jobs.put(None)

    def run(self, job: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """Have `job` done; fires with what it returns or raises."""
        done: Deferred[Any] = Deferred()
        self._jobs.put((done, job, args))
        return done

    def _work(self) -> None:
        while (item := self._jobs.get()) is not None:
            done, job, args = item
            try:
                result = job(*args)
            except Exception:
                self._reactor.callFromThread(done.errback, Failure())
            else:
                self._reactor.callFromThread(done.callback, result)
