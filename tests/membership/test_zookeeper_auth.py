"""A ZooKeeper that strangers can reach too: what is registered belongs to the [zookeeper] user."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import NoAuthError
from kazoo.security import CREATOR_ALL_ACL, OPEN_ACL_UNSAFE, READ_ACL_UNSAFE

from gopush.errors import StartError
from gopush.membership.znodes import comet_data
from gopush.model import NodeInfo
from gopush.rpc.settings import ZooKeeperSettings
from tests.conftest import InReactor
from tests.fixtures import Logged, eventually
from tests.membership.test_zookeeper import STANDBY, A, B, Cluster, M, ids, sees
from tests.servers import free_port
from tests.servers.zookeeper import ZooKeeperServer

OURS: dict[str, Any] = {"user": "gopush", "secret": "open sesame"}


@pytest.fixture
def cluster(in_reactor: InReactor, zookeeper: ZooKeeperServer) -> Iterator[Cluster]:
    cluster = Cluster(in_reactor, zookeeper.address)
    yield cluster
    cluster.close()


@contextmanager
def client(zookeeper: ZooKeeperServer, **options: Any) -> Iterator[Any]:
    connected = KazooClient(zookeeper.address, **options)
    connected.start()
    try:
        yield connected
    finally:
        connected.stop()
        connected.close()


Attack = Callable[[Any, str, str], object]


@pytest.mark.parametrize(
    "attack",
    [
        lambda znodes, node, child: znodes.delete(f"{node}/{child}"),
        lambda znodes, node, child: znodes.set(f"{node}/{child}", b"{}"),
        lambda znodes, node, child: znodes.create(f"{node}/", b'{"rpc":["evil:1"]}', ephemeral=True, sequence=True),
        lambda znodes, node, child: znodes.delete(node, recursive=True),
        lambda znodes, node, child: znodes.set_acls(node, OPEN_ACL_UNSAFE),
        lambda znodes, node, child: znodes.create(f"{node}2/child", b"", makepath=True),
    ],
    ids=["delete", "set", "create", "delete all", "set acls", "new node"],
)
@pytest.mark.parametrize("options", [{}, {"auth_data": [("digest", "gopush:guessed")]}], ids=["nobody", "guesser"])
def test_a_stranger_cannot_alter_what_is_registered(
    cluster: Cluster, zookeeper: ZooKeeperServer, attack: Attack, options: dict[str, Any]
) -> None:
    cluster.join(A, **OURS)
    node = f"{cluster.comets}/node1"
    with client(zookeeper, **options) as stranger:
        (child,) = stranger.get_children(node)
        with pytest.raises(NoAuthError):
            attack(stranger, node, child)
        assert stranger.get_children(cluster.comets) == ["node1"]
        assert stranger.get(f"{node}/{child}")[0].startswith(b'{"rpc":["a:6970"]')


def test_message_nodes_are_guarded_as_comets_are(cluster: Cluster, zookeeper: ZooKeeperServer) -> None:
    cluster.join(M, **OURS)
    with client(zookeeper) as stranger:
        (child,) = stranger.get_children(cluster.messages)
        with pytest.raises(NoAuthError):
            stranger.delete(f"{cluster.messages}/{child}")


def test_strangers_read_only_where_they_may(cluster: Cluster, zookeeper: ZooKeeperServer) -> None:
    cluster.join(A, **OURS, readable=False)
    with client(zookeeper) as stranger, pytest.raises(NoAuthError):
        stranger.get_children(cluster.comets)


@pytest.mark.parametrize("readable", [True, False])
def test_those_of_the_user_see_and_change_all_as_ever(cluster: Cluster, readable: bool) -> None:
    web = cluster.join(**OURS, readable=readable)
    comet = cluster.join(A, **OURS, readable=readable)
    cluster.join(M, **OURS, readable=readable)
    eventually(sees(web, [A], [M]))
    cluster.run(comet.announce, A._replace(weight=9), "weight")
    eventually(lambda: [info.weight for info in web.view.comets] == [9])
    cluster.run(comet.stop)
    cluster.join(B, **OURS, readable=readable)
    eventually(sees(web, [B], [M]))


def test_what_was_there_before_there_was_a_user_is_taken_over(cluster: Cluster, zookeeper: ZooKeeperServer) -> None:
    old = cluster.join(A)
    new = cluster.join(STANDBY, **OURS)
    for coordination in (old, new):
        eventually(sees(coordination, [A, STANDBY], []))
    node = f"{cluster.comets}/node1"
    with client(zookeeper) as stranger:
        for path in (node, cluster.comets):
            with pytest.raises(NoAuthError):
                stranger.create(f"{path}/", b"", sequence=True)
    cluster.run(old.stop)
    eventually(sees(new, [STANDBY], []))


def test_every_child_is_taken_over(cluster: Cluster, zookeeper: ZooKeeperServer) -> None:
    """Those of other nodes too, and those who come later without the user, or are web nodes, which register nothing."""
    cluster.join(A)
    cluster.join(M)
    web = cluster.join(**OURS)
    eventually(sees(web, [A], [M]))
    cluster.join(STANDBY, **OURS)
    with client(zookeeper) as stranger:
        node = f"{cluster.comets}/node1"
        (message,) = stranger.get_children(cluster.messages)
        for path in (*(f"{node}/{child}" for child in stranger.get_children(node)), f"{cluster.messages}/{message}"):
            with pytest.raises(NoAuthError):
                stranger.set(path, b"{}")
        with pytest.raises(NoAuthError):
            stranger.create(f"{node}/", b"", sequence=True)


def test_what_belongs_to_somebody_else_is_not_believed(
    cluster: Cluster, zookeeper: ZooKeeperServer, logged: Logged
) -> None:
    with client(zookeeper, auth_data=[("digest", "evil:evil")]) as stranger:
        for path in (f"{cluster.comets}/node7/", f"{cluster.messages}/"):
            evil = comet_data(NodeInfo("evil", 0, ("evil:1",)))
            stranger.ensure_path(path[:-1])
            stranger.create(path, evil, CREATOR_ALL_ACL + READ_ACL_UNSAFE, True, True)
        web = cluster.join(A, **OURS)
        cluster.join(M, **OURS)
        eventually(sees(web, [A], [M]))
        assert len(logged.lines("is skipped: it belongs to another [zookeeper] user")) == 4, "two for each process"


@pytest.mark.parametrize("other", [{}, {"user": "gopush", "secret": "guessed"}])
def test_who_is_not_of_the_user_does_not_start(cluster: Cluster, other: dict[str, Any]) -> None:
    comet = cluster.join(A, **OURS)
    for info in (B, M):
        with pytest.raises(StartError, match=r"belongs to another \[zookeeper\] user"):
            cluster.join(info, **other)
        cluster.join(M, **OURS) if info is B else None
    assert ids(comet.view)[0] == ["a:6970"]


def test_who_may_not_even_read_says_so_once(cluster: Cluster, logged: Logged) -> None:
    cluster.join(A, **OURS, readable=False)
    cluster.join()
    eventually(lambda: logged.lines("belongs to another [zookeeper] user"))
    assert len(logged.lines("belongs to another")) == 1


def test_a_dead_server_of_a_quorum_is_passed_over(in_reactor: InReactor, zookeeper: ZooKeeperServer) -> None:
    cluster = Cluster(in_reactor, f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}", zookeeper.address)
    try:
        comet = cluster.join(A, **OURS)
        eventually(sees(comet, [A], []))
    finally:
        cluster.close()


@pytest.mark.parametrize("wrong", [{"user": "gopush"}, {"secret": "x"}, {"user": "go:push", "secret": "x"}])
def test_a_user_has_a_secret_and_no_colon(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"\[zookeeper\] user and secret"):
        ZooKeeperSettings(**wrong)  # type: ignore[arg-type]
