from __future__ import annotations

import os
import pwd
import re
import resource
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ReactorNotRunning
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactor

from gopush.config import values
from gopush.daemon.listeners import Listeners, advertised, local
from gopush.daemon.start import CannotStartError, end_where_it_fails
from gopush.errors import SettingsError, StartError
from gopush.net.eager import EagerReactor
from gopush.net.limits import raise_file_limit
from tests.conftest import InReactor
from tests.fixtures import Logged
from tests.servers.authority import Authority

ROOT = Path(__file__).resolve().parents[2]


class Greeter(Protocol):
    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.write(b"hello")


FACTORY = Factory.forProtocol(Greeter)


def listeners(*endpoints: str, where: str = "[base] tcp.bind", on: Any = reactor) -> Listeners:
    return Listeners(on, where, endpoints, FACTORY)


def free_port_below_1024() -> int:
    for port in range(1023, 100, -1):
        with socket.socket() as candidate, suppress(OSError):
            candidate.bind(("127.0.0.1", port))
            return port
    raise AssertionError("all ports are taken")


def greeting(address: Any) -> bytes:
    with socket.create_connection((address.host, address.port), 10) as connection:
        return connection.recv(100)


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_listens_on_every_endpoint_until_it_stops(in_reactor: InReactor) -> None:
    service = listeners("tcp:0:interface=127.0.0.1", "tcp:0:interface=127.0.0.1")
    in_reactor(service.privilegedStartService)
    in_reactor(service.startService)
    addresses = [port.getHost() for port in service.ports]
    assert [greeting(address) for address in addresses] == [b"hello", b"hello"]
    in_reactor(service.stopService)
    for address in addresses:
        with pytest.raises(ConnectionRefusedError):
            greeting(address)


def test_binds_at_the_start_where_it_was_not_done_with_privileges(in_reactor: InReactor) -> None:
    service = listeners("tcp:0:interface=127.0.0.1")
    in_reactor(service.startService)
    try:
        assert greeting(service.ports[0].getHost()) == b"hello"
    finally:
        in_reactor(service.stopService)


QUEUED = 120


def queued(service: Listeners) -> int:
    """How many of some clients get into the queue of a listener that accepts nobody, which ends with the call."""
    address = service.ports[0].getHost()
    family, to = (
        (socket.AF_UNIX, address.name)
        if not hasattr(address, "port")
        else (socket.AF_INET6 if ":" in address.host else socket.AF_INET, (address.host, address.port))
    )
    with ExitStack() as clients:
        for count in range(QUEUED):
            client = clients.enter_context(socket.socket(family))
            client.settimeout(0.5)
            try:
                client.connect(to)
            except (BlockingIOError, TimeoutError):  # of a Unix socket, of TCP
                return count
    return QUEUED


def held(in_reactor: InReactor, endpoint: str) -> int:
    service = listeners(endpoint)
    in_reactor(service.privilegedStartService)
    try:
        in_reactor(service.hold)
        return queued(service)
    finally:
        in_reactor(service.stopService)


@pytest.mark.parametrize(
    "endpoint",
    [
        *("tcp:0:interface=127.0.0.1", "tcp:0:127.0.0.1", "tcp6:0:interface=\\:\\:1", "unix:{path}", "unix:{path}:660"),
        *("haproxy:tcp:0:interface=127.0.0.1", "haproxy:unix:{path}:mode=660", "ssl:0:{pair}:interface=127.0.0.1"),
        *values.listeners("localhost:0"),
    ],
)
def test_many_may_wait_to_be_accepted_whatever_the_form_of_the_endpoint(
    in_reactor: InReactor, endpoint: str, tmp_path: Path
) -> None:
    pair = Authority(tmp_path).issue("localhost").endpoint
    assert held(in_reactor, endpoint.format(path=tmp_path / "socket", pair=pair)) == QUEUED


@pytest.mark.parametrize(
    "endpoint",
    [
        *("tcp:0:interface=127.0.0.1:backlog=7", "tcp:0:127.0.0.1:7", "tcp6:0:7:interface=\\:\\:1"),
        *("unix:{path}:backlog=7", "unix:{path}:660:7", "haproxy:unix:{path}:backlog=7"),
    ],
)
def test_an_endpoint_may_say_how_many_may_wait(in_reactor: InReactor, endpoint: str, tmp_path: Path) -> None:
    assert held(in_reactor, endpoint.format(path=tmp_path / "socket")) == 8  # the system takes one more


def test_a_port_in_use_is_named_in_one_line(in_reactor: InReactor, taken_port: int) -> None:
    service = listeners(f"tcp:{taken_port}:interface=127.0.0.1")
    with pytest.raises(CannotStartError) as stopped:
        in_reactor(service.privilegedStartService)
    assert str(stopped.value) == f"[base] tcp.bind: tcp:{taken_port}:interface=127.0.0.1: address already in use"


def test_a_path_that_cannot_be_bound_is_named_in_one_line(in_reactor: InReactor, tmp_path: Path) -> None:
    service = listeners(f"unix:{tmp_path}/missing/socket")
    with pytest.raises(
        CannotStartError, match=r"^\[base\] tcp.bind: unix:.*/missing/socket: no such file or directory"
    ):
        in_reactor(service.privilegedStartService)


@pytest.mark.parametrize(
    "endpoint",
    [
        *("tcp:abc", "tcp", "ssl:443:privateKey=/missing.pem", "nothing:1", "tcp:1:x=2"),
        *(
            "systemd:index=0",
            "systemd:NOWHERE:0",
            "systemd:INET",
            "systemd:INET:x",
            "systemd:INET:index=0:x=2",
            "systemd:INET:0:name=x",
        ),
    ],
)
def test_what_is_no_endpoint_is_an_error_in_the_settings(endpoint: str) -> None:
    with pytest.raises(SettingsError) as wrong:
        listeners(endpoint)
    assert str(wrong.value).startswith(f"[base] tcp.bind: {endpoint}: gopush cannot listen there: ")
    assert "\n" not in str(wrong.value)


@pytest.mark.parametrize(
    ("endpoint", "form"),
    [
        ("tcp:7000:interfce=127.0.0.1", "tcp:PORT[:interface=ADDRESS][:backlog=N]"),
        ("tcp:abc", "tcp:PORT[:interface=ADDRESS][:backlog=N]"),
        ("haproxy:tcp6:7000:interfce=1", "tcp6:PORT[:interface=ADDRESS][:backlog=N]"),
        ("ssl:7000:privatekey=key.pem", "ssl:PORT:privateKey=FILE[:certKey=FILE]"),
        ("ssl:abc:privateKey=key.pem", "ssl:PORT:privateKey=FILE[:certKey=FILE]"),
        ("tcp6:7000:interface=::1", "tcp6:PORT[:interface=ADDRESS][:backlog=N], with \\: for each colon of an address"),
        ("unix:/run/socket:mode=rw", "unix:PATH[:mode=660][:backlog=N]"),
        ("systemd:index=0", "systemd:domain=INET:index=0"),
    ],
)
def test_what_has_another_form_gets_that_of_its_kind(endpoint: str, form: str) -> None:
    with pytest.raises(SettingsError) as wrong:
        listeners(endpoint)
    assert str(wrong.value).startswith(f"[base] tcp.bind: {endpoint}: gopush cannot listen there: the form is {form}")


@pytest.mark.parametrize("endpoint", ["tls:7000:privateKey=key.pem", "nothing:1"])
def test_what_twisted_does_not_take_is_said_without_its_functions(endpoint: str) -> None:
    with pytest.raises(SettingsError, match=r"Twisted takes no (tls|nothing): like this, or lacks the plugin for it$"):
        listeners(endpoint)


def test_names_of_files_are_shown_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "PUSH.pem"
    with pytest.raises(SettingsError, match=f"gopush cannot listen there: {path}: cannot be read: No such file"):
        listeners(f"ssl:7000:privateKey={path}")


def test_the_lock_of_a_unix_socket_that_nobody_listens_on_stops_nobody(in_reactor: InReactor, tmp_path: Path) -> None:
    """It names a pid that lives, but is another process: pids begin anew in each container."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    path.with_name("socket.lock").symlink_to(str(os.getpid()))
    service = listeners(f"unix:{path}", on=EagerReactor(reactor))
    in_reactor(service.privilegedStartService)
    second = listeners(f"unix:{path}", on=EagerReactor(reactor))
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            assert client.recv(5) == b"hello"
        with pytest.raises(CannotStartError, match="lock"):
            in_reactor(second.privilegedStartService)
    finally:
        in_reactor(service.stopService)


class LateReactor(MemoryReactor):
    """A reactor whose ports fail when told to, as those do that must ask somebody else first."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.binding: Deferred[Any] = Deferred()
        self.stopped = 0

    def stop(self) -> None:
        self.stopped += 1
        raise ReactorNotRunning


def test_a_late_refusal_ends_the_process(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    at_exit: list[Any] = []
    monkeypatch.setattr("atexit.register", lambda *call: at_exit.append(call))
    late = LateReactor()
    service = listeners("tcp:1", on=late)
    monkeypatch.setattr(service._endpoints[0][1], "listen", lambda _: late.binding)
    service.privilegedStartService()
    service.startService()
    late.binding.errback(OSError(98, "Address already in use"))
    assert capfd.readouterr().err == "[base] tcp.bind: tcp:1: address already in use\n"
    assert (late.stopped, at_exit) == (1, [(os._exit, 1)])


def test_a_late_refusal_after_the_end_is_nobodys_business(monkeypatch: pytest.MonkeyPatch) -> None:
    late = LateReactor()
    service = listeners("tcp:1", on=late)
    monkeypatch.setattr(service._endpoints[0][1], "listen", lambda _: late.binding)
    service.privilegedStartService()
    service.startService()
    service.stopService()
    assert late.stopped == 0


@pytest.mark.parametrize("wrong", [StartError("the stores differ"), RuntimeError("a fault of ours")])
def test_a_start_that_fails_later_ends_the_process_whatever_it_was(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], logged: Logged, wrong: Exception
) -> None:
    """Else it would stay, and serve nobody."""
    at_exit: list[Any] = []
    monkeypatch.setattr("atexit.register", lambda *call: at_exit.append(call))
    late, start = LateReactor(), Deferred[None]()
    end_where_it_fails(start, late)
    start.errback(wrong)
    assert capfd.readouterr().err == f"{wrong}\n"
    assert (late.stopped, at_exit) == (1, [(os._exit, 1)])
    assert bool(logged.lines("the start failed")) == isinstance(wrong, RuntimeError)


@pytest.mark.parametrize("wrong", [StartError("the file is in use"), RuntimeError("a fault of ours")])
def test_a_start_that_has_failed_already_ends_before_the_reactor_runs(
    capfd: pytest.CaptureFixture[str], logged: Logged, wrong: Exception
) -> None:
    """A reactor that does not run yet cannot be stopped."""
    with pytest.raises(CannotStartError, match=str(wrong)):
        end_where_it_fails(fail(wrong), LateReactor())
    assert capfd.readouterr().err == f"{wrong}\n"
    assert bool(logged.lines("the start failed")) == isinstance(wrong, RuntimeError)


def test_as_many_files_as_the_system_grants() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, hard, 1024), hard))
        assert raise_file_limit() == hard
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    ("bind", "advertise", "reported"),
    [
        (["tcp:6969:interface=127.0.0.1"], [], ("127.0.0.1:6969",)),
        (["tcp:6969:127.0.0.1"], [], ("127.0.0.1:6969",)),
        (["tcp:port=6969:interface=10.0.0.1:backlog=50"], [], ("10.0.0.1:6969",)),
        (["tcp6:6969:interface=\\:\\:1"], [], ("[::1]:6969",)),
        (["ssl:443:privateKey=k.pem:certKey=c.pem:interface=10.0.0.1"], [], ("10.0.0.1:443",)),
        (["haproxy:tcp:6969:interface=10.0.0.1"], [], ("10.0.0.1:6969",)),
        (["tcp:1:interface=10.0.0.1", "unix:/run/s", "tcp:2:interface=10.0.0.2"], [], ("10.0.0.1:1", "10.0.0.2:2")),
        (["tcp:6969"], ["push.example.org:6969"], ("push.example.org:6969",)),
        (["unix:/run/socket"], ["push.example.org:443"], ("push.example.org:443",)),
        ([], [], ()),
    ],
)
def test_what_is_advertised(bind: list[str], advertise: list[str], reported: tuple[str, ...]) -> None:
    """protocol.md, section 7: what is advertised is set apart from what is bound."""
    assert advertised("tcp", bind, advertise) == reported


@pytest.mark.parametrize(
    ("bind", "reached"),
    [
        (["unix:/run/s", "tcp:1:interface=127.0.0.1:backlog=9", "tcp:2"], ("127.0.0.1:1", "", "")),
        (["tcp:1"], ("localhost:1", "", "")),
        (["tcp:port=1:interface=0.0.0.0"], ("localhost:1", "", "")),
        (["tcp6:1:interface=\\:\\:"], ("localhost:1", "", "")),
        (["tcp6:1:interface=\\:\\:1"], ("[::1]:1", "", "")),
        (["ssl:443:privateKey=k.pem", "tcp:1"], ("localhost:1", "", "")),
        (["ssl:443:privateKey=k.pem:interface=10.0.0.1", "tcp:0"], ("https://10.0.0.1:443", "", "")),
        (["ssl:443:privateKey=k.pem:clientCA=a.pem"], ("https://localhost:443", "k.pem", "k.pem")),
        (["ssl:443:privateKey=k.pem:certKey=c.pem:clientCA=a.pem"], ("https://localhost:443", "c.pem", "k.pem")),
        (["tcp:0", "systemd:INET:0"], None),
        ([], None),
    ],
)
def test_where_this_machine_reaches_it(bind: list[str], reached: tuple[str, str, str] | None) -> None:
    assert local(bind) == reached


@pytest.mark.parametrize(
    "bind",
    [
        *("tcp:6969", "tcp:6969:interface=0.0.0.0", "tcp6:6969", "tcp6:6969:interface=\\:\\:", "haproxy:tcp:6969"),
        *("ssl:443:{}", "tcp:0:interface=127.0.0.1", "unix:/run/socket", "systemd:domain=INET:index=0"),
    ],
)
def test_what_nobody_can_connect_to_is_not_advertised(bind: str, tmp_path: Path) -> None:
    """protocol.md, section 7: neither a wildcard nor another address that means nothing elsewhere is published."""
    with pytest.raises(SettingsError, match=r"set tcp\.advertise$"):
        advertised("tcp", [bind.format(Authority(tmp_path).issue("own").endpoint)], [])


@pytest.mark.parametrize(
    "bind",
    [
        *("tcp:interface=127.0.0.1", "tcp:port=abc", "tcp:6969:interface=::1", "tcp6:6969:interface=::1", "nothing:1"),
        *("ssl:6969", "ssl:6969:privatekey=/x", "ssl:6969:privateKey=/none.pem", "haproxy:tcp:abc", "systemd:index=0"),
    ],
)
def test_a_mistake_in_an_endpoint_is_said_before_that_others_cannot_connect(bind: str) -> None:
    """An address for others would not mend it."""
    with pytest.raises(SettingsError) as wrong:
        advertised("tcp", [bind], [])
    with pytest.raises(SettingsError) as heard:
        listeners(bind)
    assert str(wrong.value) == str(heard.value)


ROLE = textwrap.dedent(
    """
    import os
    from dataclasses import dataclass
    from twisted.application.service import MultiService, Service
    from twisted.internet import reactor
    from twisted.internet.protocol import Factory
    from gopush.errors import StartError
    from gopush.daemon.listeners import Listeners
    from gopush.daemon.start import DaemonOptions, give_up, start_errors
    from gopush.config.schema import Section
    from gopush.config.values import listeners, text

    @dataclass(frozen=True)
    class Settings:
        user: str = Section("base")("user", "", text, "")
        bind: tuple = Section("base")("tcp.bind", "tcp:0:interface=127.0.0.1", listeners, "")
        late: str = Section("base")("late", "", text, "")

    class Options(DaemonOptions):
        role = Settings

    class Reporter(Service):
        def startService(self):
            print("runs as", os.getuid(), os.getgid(), flush=True)
            if options.settings.late:
                reactor.callLater(0, give_up, reactor, StartError(options.settings.late))
            else:
                reactor.callLater(0, reactor.stop)

    def makeService(found):
        global options
        options = found
        service = MultiService()
        with start_errors(found.path):
            Listeners(reactor, "[base] tcp.bind", found.settings.bind, Factory()).setServiceParent(service)
        Reporter().setServiceParent(service)
        return service
    """
)
TWISTD = "from twisted.scripts.twistd import run; run()"
PLUGIN = 'from twisted.application.service import ServiceMaker\nrole = ServiceMaker("r", "somerole", "r", "somerole")\n'


@pytest.fixture
def twistd(tmp_path: Path) -> Any:
    """Run a small role of its own with an ini file of these lines."""
    (tmp_path / "twisted" / "plugins").mkdir(parents=True)
    (tmp_path / "twisted" / "plugins" / "some_plugin.py").write_text(PLUGIN)
    (tmp_path / "somerole.py").write_text(ROLE)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}

    def run(
        *lines: str, how: tuple[str, ...] = ("--nodaemon",), options: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        (tmp_path / "role.ini").write_text("\n".join(("[base]", *lines)))
        command = [sys.executable, "-c", TWISTD, *how, "--pidfile=role.pid", "somerole", "-c", "role.ini", *options]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)

    return run


def test_twistd_runs_a_role(twistd: Any, tmp_path: Path) -> None:
    ended = twistd()
    assert (ended.returncode, ended.stderr) == (0, "")
    assert f"runs as {os.getuid()} {os.getgid()}" in ended.stdout


def test_the_pid_file_is_twistds_own(twistd: Any, tmp_path: Path) -> None:
    """protocol.md, section 9: `pidfile`: named on twistd's command line, there as long as the process is."""
    source = (tmp_path / "somerole.py").read_text()
    shown = 'print("pid", os.getpid(), open("role.pid").read().strip(), flush=True)'
    (tmp_path / "somerole.py").write_text(source.replace('print("runs as"', f'{shown}; print("runs as"'))
    found = re.search(r"pid (\d+) (\d+)", twistd().stdout)
    assert found
    assert found[1] == found[2]
    assert not (tmp_path / "role.pid").exists()


def test_a_bad_ini_file_is_one_line_and_status_1(twistd: Any) -> None:
    ended = twistd("tcp.bind = nonsense")
    assert ended.returncode == 1
    assert ended.stderr == (
        "role.ini: [base] tcp.bind: 'nonsense' holds 'nonsense', which is no Twisted endpoint "
        "(try tcp:6969:interface=127.0.0.1, or localhost:6969)\n"
    )


@pytest.mark.parametrize("option", ["--nonsense", "nonsense"])
def test_a_wrong_command_line_is_one_line_and_status_1(twistd: Any, option: str) -> None:
    ended = twistd(options=(option,))
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert ended.stderr.endswith(" (see --help)\n")


def test_a_bad_endpoint_is_one_line_and_status_1(twistd: Any, tmp_path: Path) -> None:
    ended = twistd("tcp.bind = tcp:abc")
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    where = f"{tmp_path / 'role.ini'}: [base] tcp.bind: tcp:abc: "
    assert ended.stderr.startswith(f"{where}gopush cannot listen there: ")


def test_a_port_in_use_is_one_line_and_status_1(twistd: Any, taken_port: int, tmp_path: Path) -> None:
    ended = twistd(f"tcp.bind = localhost:{taken_port}")
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"[base] tcp.bind: tcp:{taken_port}:interface=127.0.0.1:")
    assert ended.stderr.endswith(": address already in use\n")
    assert ended.stderr.count("\n") == 1
    assert "Traceback" not in ended.stdout
    assert "address already in use" not in ended.stdout, "a terminal, or the journal, shows it twice"
    assert not (tmp_path / "role.pid").exists()


def test_a_log_in_a_file_has_the_line_too(twistd: Any, taken_port: int, tmp_path: Path) -> None:
    ended = twistd(f"tcp.bind = localhost:{taken_port}", how=("--nodaemon", "--logfile=role.log"))
    assert (ended.returncode, ended.stderr.count("address already in use")) == (1, 1)
    assert (tmp_path / "role.log").read_text().count("address already in use") == 1


def test_a_daemon_that_cannot_start_says_so_too(twistd: Any, taken_port: int, tmp_path: Path) -> None:
    ended = twistd(f"tcp.bind = localhost:{taken_port}", how=())
    assert ended.returncode == 1
    assert f"[base] tcp.bind: tcp:{taken_port}:" in ended.stderr
    assert ": address already in use\n" in ended.stderr
    # The daemon's parent ends as soon as it knows; the daemon itself takes its file away a moment later.
    deadline = time.monotonic() + 30
    while (tmp_path / "role.pid").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_giving_up_later_is_one_line_and_status_1(twistd: Any, tmp_path: Path) -> None:
    ended = twistd("late = the stores differ")
    assert (ended.returncode, ended.stderr) == (1, "the stores differ\n")
    assert "the stores differ" not in ended.stdout
    assert not (tmp_path / "role.pid").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_root_becomes_the_user(twistd: Any) -> None:
    """protocol.md, section 9: `user`. What only root may bind is bound before."""
    nobody = pwd.getpwnam("nobody")
    ended = twistd("user = nobody", f"tcp.bind = localhost:{free_port_below_1024()}")
    assert f"runs as {nobody.pw_uid} {nobody.pw_gid}" in ended.stdout, ended.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_what_twistd_is_given_comes_before_the_user_of_the_ini_file(twistd: Any) -> None:
    daemon = pwd.getpwnam("daemon")
    ended = twistd("user = nobody", how=("--nodaemon", f"--uid={daemon.pw_uid}", f"--gid={daemon.pw_gid}"))
    assert f"runs as {daemon.pw_uid} {daemon.pw_gid}" in ended.stdout, ended.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_unknown_user_is_one_line_and_status_1(twistd: Any) -> None:
    ended = twistd("user = nobody-at-all")
    assert ended.returncode == 1
    assert ended.stderr == ("role.ini: [base] user: 'nobody-at-all' is no user of this system (empty: stay root)\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_default_user_that_cannot_read_the_library_is_one_line_and_status_1(twistd: Any, tmp_path: Path) -> None:
    """What is imported later would fail, somewhere, for no reason that can be told."""
    locked = tmp_path / "locked"
    locked.mkdir(0o700)
    (locked / "gopush.py").touch()
    source = (tmp_path / "somerole.py").read_text()
    source = source.replace('Section("base")("user", "",', 'Section("base")("user", "nobody",')
    (tmp_path / "somerole.py").write_text(f"import gopush\ngopush.__file__ = {str(locked / 'gopush.py')!r}\n{source}")
    ended = twistd()
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert "role.ini: [base] user: 'nobody' cannot read /" in ended.stderr
    assert twistd("user =").returncode == 0


def test_another_caller_stays_who_it_is(twistd: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = (tmp_path / "somerole.py").read_text()
    (tmp_path / "somerole.py").write_text("import os\nos.geteuid = lambda: 1000\n" + source)
    ended = twistd("user = nobody")
    assert f"runs as {os.getuid()} {os.getgid()}" in ended.stdout, ended.stderr
    assert ended.stdout.count("[base] user: nobody is ignored, only root can become another user") == 1
