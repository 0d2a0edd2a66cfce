"""docs/certificates.md, as it stands there but for places and ports: certificates are made, used and renewed."""

from __future__ import annotations

import configparser
import grp
import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gopush.config.schema import load
from gopush.daemon.listeners import Listeners
from gopush.errors import UnavailableError
from gopush.message.settings import MessageSettings
from gopush.model import NodeInfo
from gopush.net.eager import EagerReactor
from gopush.rpc.remote import RemoteMessage
from gopush.rpc.server import secured
from gopush.rpc.settings import RpcSettings
from tests.chaos.cluster import Node
from tests.clients import eventually
from tests.conftest import InReactor, reactor
from tests.rpc.serving import serve_message
from tests.rpc.test_server import OneMessage

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="wants openssl")

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "certificates.md").read_text()
CLIENTS, HOOK, FIRST, WATCH, MAKE_CA, ISSUE, RPC, CHANGE = re.findall(r"```(?:ini|sh)\n(.*?)```", PAGE, re.DOTALL)


class Machine:
    """A directory in the place of the root of a file system; its own group in the place of gopush's."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tls = root / "etc" / "gopush" / "tls"
        self.group = grp.getgrgid(os.getegid()).gr_name

    def placed(self, text: str) -> str:
        text = re.sub(r"(?<![\w/])/etc/(gopush|letsencrypt)", rf"{self.root}/etc/\1", text)
        return re.sub(r"(-g|chgrp) gopush", rf"\1 {self.group}", text)

    def run(self, script: str, directory: Path) -> str:
        directory.mkdir(parents=True, exist_ok=True)
        command = ["bash", "-euo", "pipefail", "-c", self.placed(script)]
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def here(script: str) -> str:
    """A certificate for this machine."""
    return script.replace("node1.example.org", "localhost").replace("10.0.0.2", "127.0.0.1")


def shown(port: int, authority: Path) -> str:
    """The certificate that who connects gets to see, in PEM."""
    context = ssl.create_default_context(cafile=authority)
    with (
        socket.create_connection(("127.0.0.1", port), 20) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        certificate = secured.getpeercert(binary_form=True)
        assert certificate
        return ssl.DER_cert_to_PEM_cert(certificate)


def test_a_renewed_certificate_is_served_without_a_signal(machine: Machine, tmp_path: Path) -> None:
    issuing, live = tmp_path / "issuing", tmp_path / "etc" / "letsencrypt" / "live" / "push.example.org"
    hook = tmp_path / "etc" / "letsencrypt" / "renewal-hooks" / "deploy" / "gopush"
    for directory in (live, hook.parent, tmp_path / "etc" / "gopush"):
        directory.mkdir(parents=True)
    hook.write_text(machine.placed(HOOK))
    hook.chmod(0o755)
    machine.run(MAKE_CA, issuing)

    def renew() -> str:
        """As certbot does; the certificate."""
        machine.run(here(ISSUE), issuing)
        shutil.copy(issuing / "node1.pem", live / "fullchain.pem")
        shutil.copy(issuing / "node1.key", live / "privkey.pem")
        machine.run(FIRST, tmp_path)
        return (live / "fullchain.pem").read_text()

    first = renew()
    pem = machine.tls / "push.pem"
    assert pem.stat().st_mode & 0o777 == 0o640
    node = Node("gopush", "gopush", tmp_path, {"storage": {"type": "memory"}})
    parser = configparser.ConfigParser(delimiters=("=",))
    parser.read_string(machine.placed(CLIENTS))
    binds = dict(parser["base"])
    assert binds.keys() == {"http.bind", "websocket.bind", "tcp.bind"}
    ports = {name: node.ports[name.removesuffix(".bind")] for name in binds}
    node.set({"base": {n: re.sub(r"ssl:\d+", f"ssl:{ports[n]}", b) + ":interface=127.0.0.1" for n, b in binds.items()}})
    try:
        node.start()
        for port in ports.values():
            assert shown(port, issuing / "ca.pem") == first
        second = renew()
        assert second != first
        for port in ports.values():
            eventually(lambda port=port: shown(port, issuing / "ca.pem") == second)  # type: ignore[misc]
        said = machine.run(WATCH.replace("push.example.org:8090", f"localhost:{ports['http.bind']}"), tmp_path)
        assert re.search(r"subject=\s*CN ?= ?node1\nnotAfter=.*\nCertificate will not expire", said), said
        pem.write_text("half a f")
        eventually(
            lambda: shown(ports["tcp.bind"], issuing / "ca.pem") == second and "keeps what it read before" in log(node)
        )
    finally:
        node.kill()


def log(node: Node) -> str:
    return node.log.read_text()


@pytest.fixture
def reach(in_reactor: InReactor) -> Iterator[Callable[[RpcSettings], bool]]:
    """Whether a process of these settings can be called by one of the same, by a new connection."""
    ends: list[Callable[[], object]] = []

    def call(rpc: RpcSettings) -> bool:
        endpoints = ["tcp:0:interface=127.0.0.1"]
        calls = secured(serve_message(reactor, OneMessage(), rpc.secret), endpoints, rpc)
        listeners = Listeners(EagerReactor(reactor), "[base] rpc.bind", endpoints, calls)
        in_reactor(listeners.startService)
        port = listeners.ports[0].getHost().port
        remote = in_reactor(RemoteMessage, reactor, NodeInfo("", 0, (f"127.0.0.1:{port}",)), rpc, 10.0)
        ends.extend((remote.stop, listeners.stopService))
        try:
            in_reactor(remote.ping)
        except UnavailableError:
            return False
        return True

    yield call
    for end in ends:
        in_reactor(end)


def test_the_authority_of_a_cluster_is_made_used_and_changed(
    machine: Machine, tmp_path: Path, reach: Callable[[RpcSettings], bool]
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for directory in (old, new):
        machine.run(MAKE_CA + here(ISSUE), directory)
    machine.tls.mkdir(parents=True)
    ini = tmp_path / "message.ini"
    ini.write_text(machine.placed(RPC))
    rpc = load(MessageSettings, ini).rpc

    def put(issuing: Path) -> None:
        for name in ("node1.pem", "node1.key"):
            shutil.copy(issuing / name, machine.tls / name)

    put(old)
    shutil.copy(old / "ca.pem", machine.tls / "ca.pem")
    assert reach(rpc)
    shutil.copy(old / "ca.pem", machine.tls / "old-ca.pem")
    shutil.copy(new / "ca.pem", machine.tls / "new-ca.pem")
    both, only_new = CHANGE.splitlines()
    machine.run(both, machine.tls)
    assert reach(rpc)
    put(new)
    assert reach(rpc)
    machine.run(only_new, machine.tls)
    assert reach(rpc)
    put(old)
    assert not reach(rpc)
