"""Without a secret, only this machine may call."""

from __future__ import annotations

import pytest

from gopush.errors import StartError
from gopush.net.exposure import refuse_open_doors, refuse_open_zookeeper

AT_HOME = [
    "tcp:6970:interface=127.0.0.1",
    "tcp:port=6970:interface=127.1.2.3",
    "tcp6:6970:interface=\\:\\:1",
    "ssl:6970:interface=127.0.0.1:privateKey=key.pem",
    "unix:/run/gopush/rpc.sock",
    "haproxy:tcp:6970:interface=127.0.0.1",
    "haproxy:unix:/run/x",
]
OPEN = [
    "tcp:6970",
    "tcp:6970:interface=0.0.0.0",
    "tcp:6970:interface=",
    "tcp:6970:interface=10.0.0.1",
    "tcp:6970:interface=push.example.org",
    "tcp6:6970",
    "tcp6:6970:interface=\\:\\:",
    "tcp6:6970:interface=\\:\\:ffff\\:10.0.0.1",
    "ssl:6970",
    "haproxy:tcp:6970",
    "systemd:domain=INET:index=0",
    "onion:6970:interface=127.0.0.1",
]


@pytest.mark.parametrize("endpoint", AT_HOME)
def test_loopback_needs_no_secret(endpoint: str) -> None:
    refuse_open_doors([endpoint], "")


@pytest.mark.parametrize("endpoint", OPEN)
def test_other_addresses_need_one(endpoint: str) -> None:
    with pytest.raises(StartError, match="secret") as refused:
        refuse_open_doors([*AT_HOME, endpoint], "")
    assert endpoint in str(refused.value)
    assert "\n" not in str(refused.value)
    refuse_open_doors([endpoint], "s3cret")


@pytest.mark.parametrize("address", ["10.0.0.1:2181", "zk1.example.org:2181", "[2001:db8::1]:2181", "0.0.0.0:2181"])
def test_an_open_zookeeper_on_another_machine_is_refused(address: str) -> None:
    at_home = ["localhost:2181", "127.0.0.1:2181", "[::1]:2181"]
    refuse_open_zookeeper(at_home, guarded=False)
    refuse_open_zookeeper([*at_home, address], guarded=True)
    with pytest.raises(StartError, match=r"^\[zookeeper\] addr: .* trusted = yes") as refused:
        refuse_open_zookeeper([*at_home, address], guarded=False)
    assert address in str(refused.value)
