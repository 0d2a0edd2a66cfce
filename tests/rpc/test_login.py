"""Both sides of a connection between nodes prove that they know the secret, before anything else is said."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import UsernamePassword
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred
from twisted.spread import pb
from twisted.spread.banana import encode
from zope.interface import implementer

from gopush.config.schema import load
from gopush.errors import SettingsError, UnavailableError
from gopush.model import NodeInfo, Push, Pushed
from gopush.rpc.codec import pack, unpack
from gopush.rpc.remote import RemoteComet
from gopush.rpc.settings import RpcSettings
from tests.conftest import InReactor, reactor
from tests.fixtures import Logged, eventually
from tests.rpc.serving import serve_comet
from tests.rpc.test_server import OneComet

SECRET = "the secret of this cluster"
PUSH = Push("k", b"1", 60, "id", 60, 1.5)


class Impostor(pb.Root):
    """Somebody who registered as a comet and knows no secret: does what a node does, and keeps what it is told."""

    def __init__(self, proof: Callable[[bytes, bytes], Any] = lambda nonce, address: (bytes(32), bytes(32))) -> None:
        self.heard: list[str] = []
        self._proof = proof

    def remote_challenge(self, nonce: bytes, address: bytes) -> Any:
        self.heard.append("challenge")
        return self._proof(nonce, address)

    def remote_prove(self, proof: bytes) -> Any:
        self.heard.append("prove")
        return self

    def remote_hello(self) -> None:
        self.heard.append("hello")

    def remote_login(self, user: bytes) -> Any:
        self.heard.append("login")
        return bytes(16), self

    def remote_respond(self, response: bytes, mind: Any) -> Any:
        self.heard.append("respond")
        return self

    def remote_push(self, chunks: list[bytes]) -> Any:
        self.heard.append("push")
        return pack([Pushed(0, 16)])


@implementer(IRealm)
class Realm:
    """What PB's own login leads to at a node of an older release."""

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
        return pb.IPerspective, Avatar(), lambda: None


class Avatar(pb.Avatar):
    def perspective_push(self, chunks: list[bytes]) -> Any:
        return pack([Pushed(0, 32)])


class World:
    """Listeners and callers, closed after the test."""

    def __init__(self, in_reactor: InReactor) -> None:
        self.run = in_reactor
        self.comet = OneComet()
        self._ports: list[Any] = []
        self._callers: list[Any] = []
        self._factories: list[pb.PBClientFactory] = []

    def listen(self, factory: Any) -> int:
        port = self.run(reactor.listenTCP, 0, factory, interface="127.0.0.1")
        self._ports.append(port)
        return int(port.getHost().port)

    def serve(self, *secrets: str, **more: Any) -> int:
        return self.listen(serve_comet(reactor, self.comet, *(secrets or (SECRET,)), **more))

    def caller(self, port: int, secret: str = SECRET, **more: Any) -> Any:
        info = NodeInfo("c", 0, (f"127.0.0.1:{port}",))
        made = self.run(RemoteComet, reactor, info, RpcSettings(secret=secret, retry=0.2, **more), 20)
        self._callers.append(made)
        return made

    def root(self, port: int) -> Any:
        """What plain PB meets there."""
        factory = pb.PBClientFactory()
        self._factories.append(factory)

        def connect() -> Any:
            reactor.connectTCP("127.0.0.1", port, factory)
            return factory.getRootObject()

        return self.run(connect)

    def call(self, root: Any, name: str, *arguments: Any) -> Any:
        """The answer, or the words of the refusal."""
        return self.run(lambda: root.callRemote(name, *arguments).addErrback(lambda wrong: wrong.getErrorMessage()))

    def close(self) -> None:
        for caller in self._callers:
            self.run(caller.stop)
        for factory in self._factories:
            self.run(factory.disconnect)
        for port in self._ports:
            self.run(port.stopListening)


@pytest.fixture
def world(in_reactor: InReactor) -> Iterator[World]:
    world = World(in_reactor)
    yield world
    world.close()


def test_who_knows_the_secret_gets_in(world: World) -> None:
    caller = world.caller(world.serve())
    assert world.run(caller.push, [PUSH]) == [Pushed(0, 16)]


def test_an_impostor_is_handed_no_push_and_nothing_to_crack(world: World, logged: Logged) -> None:
    impostor = Impostor()
    caller = world.caller(world.listen(pb.PBServerFactory(impostor)))
    with pytest.raises(UnavailableError):
        world.run(caller.push, [PUSH])
    assert impostor.heard == ["challenge"]
    assert not caller.connected
    assert logged.lines("is refused: it gives the wrong secret")
    assert logged.tracebacks() == []


def test_a_challenge_that_is_sent_on_to_another_node_proves_nothing(world: World, logged: Logged) -> None:
    """Somebody in the middle, whom ZooKeeper names, asks the real node what he is asked himself."""
    real = world.serve(addresses=("10.0.0.1:6970",))
    root = world.root(real)

    def passed_on(nonce: bytes, address: bytes) -> Any:
        return root.callRemote("challenge", nonce, address)

    impostor = Impostor(passed_on)
    caller = world.caller(world.listen(pb.PBServerFactory(impostor)))
    with pytest.raises(UnavailableError):
        world.run(caller.push, [PUSH])
    assert impostor.heard == ["challenge"]
    assert logged.lines("which is not the address of this node")

    impostor._proof = lambda nonce, _: root.callRemote("challenge", nonce, b"10.0.0.1:6970")
    other = world.caller(world._ports[-1].getHost().port)
    with pytest.raises(UnavailableError, match="wrong secret"):
        world.run(other.push, [PUSH])
    assert set(impostor.heard) == {"challenge"}


def test_a_nonce_cannot_reach_into_the_address(world: World) -> None:
    """Or `1:6970` could pass on what the node at `10.0.0.1:6970` proves."""
    root = world.root(world.serve(addresses=("10.0.0.1:6970",)))
    for nonce in (b"", bytes(31), bytes(33), "n" * 32, 5, [bytes(32)]):
        assert "refused" in world.call(root, "challenge", nonce, b"10.0.0.1:6970")


def test_a_caller_is_not_served_before_it_has_proved_itself(world: World) -> None:
    port = world.serve(addresses=("a:1",))
    assert "no secret" in world.call(world.root(port), "push", pack([[PUSH]]))
    root = world.root(port)
    mine = bytes(range(32))
    _, proof = world.call(root, "challenge", mine, b"a:1")
    assert "wrong secret" in world.call(root, "prove", proof)  # what the node proved, sent back
    assert "wrong secret" in world.call(root, "prove", proof)
    assert world.comet.heard == []


def test_a_proof_holds_once(world: World) -> None:
    """In its own connection, for its own challenge."""
    seen: list[bytes] = []
    port = world.serve()
    real = world.root(port)

    class Relay(Impostor):
        def remote_prove(self, proof: bytes) -> Any:
            seen.append(proof)
            return real.callRemote("prove", proof)

    relay = Relay(lambda nonce, address: real.callRemote("challenge", nonce, address))
    world.run(lambda: world_caller(world, relay).addErrback(lambda _: None))
    eventually(lambda: seen)
    for root in (real, world.root(port)):
        world.call(root, "challenge", bytes(32), b"x:1")
        assert "wrong secret" in world.call(root, "prove", seen[0])


def world_caller(world: World, impostor: pb.Root) -> Deferred[Any]:
    """A call through somebody who sends on all that is said, to a node that does not know its own addresses."""
    port = reactor.listenTCP(0, pb.PBServerFactory(impostor), interface="127.0.0.1")
    world._ports.append(port)
    info = NodeInfo("c", 0, (f"127.0.0.1:{port.getHost().port}",))
    caller = RemoteComet(reactor, info, RpcSettings(secret=SECRET, retry=0.2), 5)
    world._callers.append(caller)
    return caller.push([PUSH])  # type: ignore[no-any-return]


# --- older releases, for one rolling upgrade ---


def old_node() -> Any:
    """PB's own login, as nodes of older releases have it."""
    checker = InMemoryUsernamePasswordDatabaseDontUse()
    checker.addUser(b"gopush", SECRET.encode())
    return pb.PBServerFactory(Portal(Realm(), [checker]))  # type: ignore[arg-type,list-item]


def log_in(world: World, port: int, secret: str = SECRET) -> Any:
    """As callers of older releases do; what they may call, or the words of the refusal."""
    factory = pb.PBClientFactory()
    world._factories.append(factory)

    def connect() -> Any:
        reactor.connectTCP("127.0.0.1", port, factory)
        entered: Any = factory.login(UsernamePassword(b"gopush", secret.encode()))
        return entered.addErrback(lambda wrong: wrong.getErrorMessage())

    return world.run(connect)


def test_older_callers_are_admitted_only_where_the_settings_say_so(world: World) -> None:
    assert "[rpc] secret.legacy" in log_in(world, world.serve())
    legacy = world.serve(legacy=True)
    assert "wrong secret" in log_in(world, legacy, "another secret altogether")
    calls = log_in(world, legacy)
    (answer,) = unpack(world.call(calls, "push", pack([[PUSH]])), lambda found: found)
    assert answer == (0, 16)


def test_older_nodes_are_called_only_where_the_settings_say_so(world: World) -> None:
    port = world.listen(old_node())
    with pytest.raises(UnavailableError):
        world.run(world.caller(port).push, [PUSH])
    assert world.run(world.caller(port, legacy_secret=True).push, [PUSH]) == [Pushed(0, 32)]
    with pytest.raises(UnavailableError):
        world.run(world.caller(port, "another secret altogether", legacy_secret=True).push, [PUSH])


def test_nodes_that_take_older_ones_still_prove_their_secret_to_each_other(world: World) -> None:
    impostor = Impostor()
    port = world.listen(pb.PBServerFactory(impostor))
    with pytest.raises(UnavailableError, match="wrong secret"):
        world.run(world.caller(port, legacy_secret=True).push, [PUSH])
    assert impostor.heard == ["challenge"]
    caller = world.caller(world.serve(legacy=True), legacy_secret=True)
    assert world.run(caller.push, [PUSH]) == [Pushed(0, 16)]


@pytest.mark.parametrize("legacy", [False, True])
def test_who_takes_older_ones_hears_why_a_node_that_knows_proofs_refuses_it(world: World, legacy: bool) -> None:
    port = world.serve(addresses=("10.0.0.1:6970",), legacy=legacy)
    with pytest.raises(UnavailableError, match="which is not the address of this node"):
        world.run(world.caller(port, legacy_secret=True).push, [PUSH])
    assert world.comet.heard == []


# --- while the cluster changes its secret ---

OTHER = "another secret altogether"
OLD, BOTH, NEW = (SECRET,), ("the next secret of this cluster", SECRET), ("the next secret of this cluster",)


@pytest.mark.parametrize(("caller", "callee"), [(OLD, BOTH), (BOTH, OLD), (BOTH, BOTH), (NEW, BOTH), (BOTH, NEW)])
def test_whoever_has_a_secret_of_the_other_side_is_let_in_at_once(
    world: World, logged: Logged, caller: tuple[str, ...], callee: tuple[str, ...]
) -> None:
    calling = world.caller(world.serve(*callee), caller[0], previous_secret="".join(caller[1:]))
    assert world.run(calling.push, [PUSH]) == [Pushed(0, 16)]
    assert logged.lines() == []


@pytest.mark.parametrize(("caller", "callee"), [(OLD, NEW), (NEW, OLD), ((OTHER,), BOTH), (BOTH, (OTHER,))])
def test_nobody_else_is(world: World, caller: tuple[str, ...], callee: tuple[str, ...]) -> None:
    calling = world.caller(world.serve(*callee), caller[0], previous_secret="".join(caller[1:]))
    with pytest.raises(UnavailableError, match="wrong secret"):
        world.run(calling.push, [PUSH])
    assert world.comet.heard == []


def test_two_secrets_prove_no_more_to_an_impostor_and_take_no_more_from_one(world: World) -> None:
    impostor = Impostor()
    caller = world.caller(world.listen(pb.PBServerFactory(impostor)), BOTH[0], previous_secret=BOTH[1])
    with pytest.raises(UnavailableError):
        world.run(caller.push, [PUSH])
    assert impostor.heard == ["challenge"]
    port = world.serve(*BOTH)
    for sent_back in (0, 1):
        root = world.root(port)
        _, *proofs = world.call(root, "challenge", bytes(range(32)), b"a:1")
        assert "wrong secret" in world.call(root, "prove", proofs[sent_back])
        assert "wrong secret" in world.call(root, "prove", proofs[1 - sent_back])
    assert world.comet.heard == []


@pytest.mark.parametrize("more", ["", f"secret = {SECRET}\nsecret.legacy = yes\n"])
def test_a_previous_secret_has_one_after_it_and_no_older_nodes_beside_it(tmp_path: Path, more: str) -> None:
    path = tmp_path / "rpc.ini"
    path.write_text(f"[rpc]\nsecret.previous = {OTHER}\n{more}")
    with pytest.raises(SettingsError, match=r"\[rpc\] secret\.previous: needs a secret") as wrong:
        load(RpcSettings, path)
    assert OTHER not in str(wrong.value)


def test_the_call_of_older_releases_is_understood(world: World) -> None:
    port = world.serve("")
    with socket.create_connection(("127.0.0.1", port), timeout=20) as older:
        for said in (b"pb", [b"version", 6], [b"call", 7, b"push", *pack([[PUSH]])]):
            older.sendall(encode(said))
        reply = encode([b"reply", 7, *pack([Pushed(0, 16)])])
        received = b""
        while reply not in received:
            received += older.recv(65536)
    assert world.comet.heard == [[PUSH]]


# --- what is no secret ---


@pytest.mark.parametrize("option", ["secret", "secret.previous"])
@pytest.mark.parametrize("secret", ["x", "fifteen bytes..", "ключ"])
def test_a_short_secret_is_refused_with_the_reason(tmp_path: Path, secret: str, option: str) -> None:
    path = tmp_path / "rpc.ini"
    path.write_text(f"[rpc]\n{option} = {secret}\n")
    said = rf"\[rpc\] {option}: \(hidden\) has only \d+ bytes: use at least 16"
    with pytest.raises(SettingsError, match=said) as wrong:
        load(RpcSettings, path)
    assert secret not in str(wrong.value) or secret == "x"
    path.write_text("[rpc]\nsecret = sixteen bytes...\n")
    assert load(RpcSettings, path).secret == "sixteen bytes..."


@pytest.mark.parametrize("role", ["comet", "message", "gopush-web"])
def test_no_process_starts_with_a_short_secret(tmp_path: Path, role: str) -> None:
    (tmp_path / "node.ini").write_text("[base]\nuser =\n[rpc]\nsecret = hush-hush\n")
    twistd = "import sys; from twisted.scripts.twistd import run; sys.exit(run())"
    command = [sys.executable, "-c", twistd, "--nodaemon", "--pidfile=", role, "-c", "node.ini"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "[rpc] secret" in ended.stderr
    assert "16" in ended.stderr
    assert "hush" not in ended.stdout + ended.stderr
