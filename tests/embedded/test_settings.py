"""The options of a process that is all of gopush: alone, or a member of a cluster of equals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.testing import MemoryReactorClock

from gopush.client import cli
from gopush.config.schema import load
from gopush.config.values import node_name
from gopush.embedded.node import EmbeddedNode
from gopush.embedded.settings import EmbeddedSettings, default_name
from gopush.errors import SettingsError
from gopush.membership.view import StaticCoordination
from gopush.rpc.settings import ZooKeeperSettings

KEEPER = "[zookeeper]\naddr = 127.0.0.1:2181\n"
REDIS = "[storage]\ntype = redis\n"


def memory_reactor() -> Any:
    """One that connects to nobody."""
    return MemoryReactorClock()


def read(tmp_path: Path, text: str) -> EmbeddedSettings:
    path = tmp_path / "gopush.ini"
    path.write_text(text)
    return load(EmbeddedSettings, path)


@pytest.mark.parametrize("store", ["", "[storage]\ntype = sqlite\n", "[storage]\ntype = memory\n"])
def test_a_cluster_shares_its_store(tmp_path: Path, store: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read(tmp_path, KEEPER + store)
    (line,) = str(refused.value).splitlines()
    name = "memory" if "memory" in store else "sqlite"
    assert f"gopush.ini: [storage] type: {name} is a store for one process alone" in line
    assert "set redis or hbase (gopush migrate moves what is kept), or leave addr empty" in line


def test_who_is_in_a_cluster_can_be_called(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        read(tmp_path, f"[base]\nrpc.bind =\nrpc.advertise = push1.example.org:6970\n{KEEPER}{REDIS}")
    (line,) = str(refused.value).splitlines()
    assert "[base] rpc.bind: is empty, but other nodes must call a member of a cluster" in line
    assert read(tmp_path, "[base]\nrpc.bind =\n").rpc_bind == ()


def test_a_process_alone_is_called_by_nobody(tmp_path: Path) -> None:
    assert read(tmp_path, "").called_at == ()
    assert read(tmp_path, REDIS).called_at == ()
    assert read(tmp_path, KEEPER + REDIS).called_at != ()


@pytest.mark.parametrize(
    ("base", "name"),
    [
        ("", "127.0.0.1-6970"),
        ("rpc.bind = 127.0.0.1:7003\n", "127.0.0.1-7003"),
        ("rpc.advertise = push1.example.org:6970\n", "push1.example.org-6970"),
        ("rpc.advertise = [2001:db8::1]:6970\n", "-2001-db8--1--6970"),
        ("node = west\n", "west"),
    ],
)
def test_who_has_no_name_is_called_by_its_address(tmp_path: Path, base: str, name: str) -> None:
    """So that nobody is a standby by oversight."""
    settings = read(tmp_path, f"[base]\n{base}{KEEPER}{REDIS}")
    assert EmbeddedNode(memory_reactor(), settings, StaticCoordination()).log_name == name


def test_a_name_from_a_long_address_is_another_one_for_each(tmp_path: Path) -> None:
    """Of two processes of one name one would be a standby, by oversight."""
    host = "gopush-node-0.gopush-headless-service.push-production.svc.cluster.local"
    twin = host.replace("production", "productive")
    addresses = [f"{host}:6970", f"{host}:6971", f"{twin}:6970"]
    assert default_name(addresses[1]) == "gopush-node-0.gopush-headless-service.push-product-4596cf22-6971"
    names = {default_name(address) for address in addresses}
    assert len(names) == 3
    assert {node_name(name) for name in names} == names
    assert default_name("h" * 59 + ":6970") == "h" * 59 + "-6970"


def test_a_process_alone_needs_no_name(tmp_path: Path) -> None:
    assert EmbeddedNode(memory_reactor(), read(tmp_path, "[storage]\ntype = memory\n")).log_name == "embedded"


def test_all_else_of_zookeeper_is_as_in_the_roles(tmp_path: Path) -> None:
    mine, theirs = read(tmp_path, "").zookeeper, ZooKeeperSettings()
    assert (mine.hosts, theirs.hosts) == ((), ("localhost:2181",))
    assert (mine.session_timeout, mine.comet_path) == (theirs.session_timeout, theirs.comet_path)


AWAY = "[zookeeper]\naddr = 10.0.0.9:2181\ntrusted = yes\n"
HERE = "rpc.bind = 10.0.0.1:6970\ntcp.bind = 10.0.0.1:6969\nwebsocket.bind = 0.0.0.0:6968\n"
NAMED = "websocket.advertise = push1.example.org:6968\n"
SECRET = "[rpc]\nsecret = a secret for the whole cluster\n"


@pytest.mark.parametrize(
    ("text", "lacks"),
    [
        (KEEPER + REDIS, []),
        (AWAY, ["[storage] type", "rpc.advertise", "tcp.advertise", "websocket.advertise", "[rpc] secret"]),
        (AWAY + REDIS, ["rpc.advertise", "tcp.advertise", "websocket.advertise", "[rpc] secret"]),
        (f"[base]\n{HERE}{AWAY}{REDIS}", ["websocket.advertise", "[rpc] secret"]),
        (f"[base]\n{HERE}{NAMED}{AWAY}{REDIS}", ["[rpc] secret"]),
        (f"[base]\n{HERE}{NAMED}{AWAY}{REDIS}{SECRET}", []),
        (f"[base]\nrpc.bind = 10.0.0.1:6970\n{KEEPER}{REDIS}", ["[rpc] secret"]),
        (f"[base]\nproto = tcp\n{AWAY}{REDIS}{SECRET}", ["rpc.advertise", "tcp.advertise"]),
    ],
)
def test_check_says_all_that_is_missing(
    tmp_path: Path, text: str, lacks: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    """A shared store, addresses that others reach, a secret: what is needed depends on where the cluster is."""
    path = tmp_path / "gopush.ini"
    path.write_text(text)
    assert cli.main(["check", "-c", str(path)]) == (3 if lacks else 0)
    captured = capfd.readouterr().err
    assert all(lack in captured for lack in lacks), captured
    every = ("[storage] type", "rpc.advertise", "tcp.advertise", "websocket.advertise", "[rpc] secret")
    assert not [lack for lack in every if lack in captured and lack not in lacks]
