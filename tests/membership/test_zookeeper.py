"""Coordination through a real ZooKeeper (protocol.md, section 7), whatever happens to it or to the processes."""

from __future__ import annotations

import hashlib
import re
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kazoo.client import KazooClient
from twisted.internet.defer import succeed
from twisted.internet.task import LoopingCall

from gopush.errors import StartError
from gopush.hashing import HashRing
from gopush.membership.session import ZooKeeperSession
from gopush.membership.view import Coordination, View
from gopush.membership.znodes import comet_data, message_data
from gopush.membership.zookeeper import ZooKeeperCoordination
from gopush.model import NodeInfo
from gopush.rpc.settings import ZooKeeperSettings
from tests.conftest import InReactor, reactor
from tests.fixtures import Logged, eventually, lines_logged
from tests.servers.zookeeper import ZooKeeperServer

SESSION_SECONDS = 4.0

A = NodeInfo("node1", 0, ("a:6970",), ("a:6969",), ("a:6968",))
STANDBY = NodeInfo("node1", 0, ("s:6970",), ("s:6969",), ("s:6968",))
B = NodeInfo("node2", 0, ("b:6970",), ("b:6969",), ("b:6968",), 3)
M = NodeInfo("m:8070", 0, ("m:8070",), stores=(("one", 1), ("two", 2)))

OTHER_PROCESS = """
import sys
from twisted.internet import reactor
from gopush.model import NodeInfo
from gopush.rpc.settings import ZooKeeperSettings
from gopush.membership.zookeeper import ZooKeeperCoordination
hosts, comets, messages, node, rpc = sys.argv[1:]
coordination = ZooKeeperCoordination(reactor, ZooKeeperSettings((hosts,), 4.0, comets, messages))
coordination.start()
coordination.register_comet(NodeInfo(node, 0, (rpc,))).addCallback(lambda _: print("registered", flush=True))
reactor.run()
"""


class Cluster:
    """Processes that share a corner of a ZooKeeper; each is a coordination in the reactor's thread."""

    def __init__(self, in_reactor: InReactor, *hosts: str) -> None:
        self.run = in_reactor
        self.hosts = hosts
        corner = f"/test-{uuid.uuid4().hex}"
        self.comets, self.messages = f"{corner}/comet", f"{corner}/message"
        self.joined: list[ZooKeeperCoordination] = []
        self.views: list[tuple[Coordination, View]] = []
        self.children: list[subprocess.Popen[str]] = []

    def join(self, info: NodeInfo | None = None, **settings: Any) -> ZooKeeperCoordination:
        """A new process; with `info` it registers, as a comet unless its address ends in 8070."""
        described = {"session_timeout": SESSION_SECONDS, "settle": 0.5, **settings}
        paths: dict[str, Any] = {"comet_path": self.comets, "message_path": self.messages}
        coordination = ZooKeeperCoordination(reactor, ZooKeeperSettings(hosts=self.hosts, **paths, **described))
        coordination.watch(lambda view: self.views.append((coordination, view)))
        self.joined.append(coordination)
        self.run(coordination.start)
        if info is not None:
            self.run(self.register(coordination, info))
        return coordination

    def register(self, coordination: Coordination, info: NodeInfo) -> Callable[[], Any]:
        kind = coordination.register_message if info.id.endswith("8070") else coordination.register_comet
        return lambda: kind(info)

    def other_process(self, info: NodeInfo) -> subprocess.Popen[str]:
        """A registered comet that can be killed."""
        arguments = [self.hosts[0], self.comets, self.messages, info.node, info.id]
        command = [sys.executable, "-c", OTHER_PROCESS, *arguments]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.children.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == "registered\n"
        return child

    def close(self) -> None:
        for coordination in self.joined:
            self.run(coordination.stop)
        for child in self.children:
            child.kill()
            child.communicate()


def ids(view: View) -> tuple[list[str], list[str]]:
    """The addresses of a view's comets and message nodes."""
    return [info.id for info in view.comets], [info.id for info in view.messages]


def sees(coordination: Coordination, comets: list[NodeInfo], messages: list[NodeInfo]) -> Callable[[], bool]:
    wanted = [info.id for info in comets], [info.id for info in messages]
    return lambda: ids(coordination.view) == wanted


@pytest.fixture
def cluster(in_reactor: InReactor, zookeeper: ZooKeeperServer) -> Iterator[Cluster]:
    cluster = Cluster(in_reactor, zookeeper.address)
    yield cluster
    cluster.close()


@pytest.fixture
def own_zookeeper() -> Iterator[ZooKeeperServer]:
    """A ZooKeeper that the test may kill; not started."""
    server = ZooKeeperServer()
    yield server
    server.stop()


@pytest.fixture
def own_cluster(in_reactor: InReactor, own_zookeeper: ZooKeeperServer) -> Iterator[Cluster]:
    cluster = Cluster(in_reactor, own_zookeeper.address)
    yield cluster
    cluster.close()


@pytest.fixture
def znodes(zookeeper: ZooKeeperServer) -> Iterator[Any]:
    """An operator's look at the shared ZooKeeper."""
    client = KazooClient(zookeeper.address)
    client.start()
    yield client
    client.stop()
    client.close()


def test_the_layout_of_comets(cluster: Cluster, znodes: Any) -> None:
    """protocol.md, section 7: a persistent znode a node, an ephemeral sequential child a live process."""
    cluster.join(A)
    assert znodes.get_children(cluster.comets) == ["node1"]
    assert znodes.exists(f"{cluster.comets}/node1").ephemeralOwner == 0
    assert znodes.get_children(f"{cluster.comets}/node1") == ["0000000000"]
    data, stat = znodes.get(f"{cluster.comets}/node1/0000000000")
    assert data == b'{"rpc":["a:6970"],"tcp":["a:6969"],"ws":["a:6968"],"weight":1}'
    assert stat.ephemeralOwner != 0


def test_the_layout_of_message_nodes(cluster: Cluster, znodes: Any) -> None:
    """protocol.md, section 7: one ephemeral sequential child per live message node."""
    cluster.join(M._replace(stores=()))
    assert znodes.get_children(cluster.messages) == ["0000000000"]
    data, stat = znodes.get(f"{cluster.messages}/0000000000")
    assert data == b'{"rpc":["m:8070"],"weight":1}'
    assert stat.ephemeralOwner != 0


def test_all_see_all(cluster: Cluster) -> None:
    web = cluster.join()
    everybody = [cluster.join(A), cluster.join(B), cluster.join(M), web]
    for coordination in everybody:
        eventually(sees(coordination, [A, B], [M]))
        assert coordination.connected
    assert web.view.comets == (A, B)
    assert web.view.messages == (M,)
    assert web.view.owner("Terry-Mao") in (A, B)


def test_the_lowest_sequence_number_is_active(cluster: Cluster) -> None:
    """protocol.md, section 7: the lowest sequence number is the active one, the others are its standbys."""
    web = cluster.join()
    with lines_logged(lambda line: " of node1" in line) as lines:
        active = cluster.join(A)
        cluster.join(STANDBY)
        eventually(sees(web, [A, STANDBY], []))
        assert [info.id for info in web.view.active] == [A.id]
        eventually(lambda: len(lines) == 1)
        cluster.run(active.stop)
        eventually(sees(web, [STANDBY], []))
        assert [info.id for info in web.view.active] == [STANDBY.id]
        eventually(lambda: len(lines) == 2)
    assert lines[0].startswith(f"standby of node1, whose active process is {A.id}: ")
    assert lines[1].startswith("active process of node1 now")


def test_a_process_may_say_that_it_drains(cluster: Cluster) -> None:
    leaving, staying = cluster.join(A), cluster.join(B)
    eventually(sees(staying, [A, B], []))
    for draining in (True, False):
        cluster.run(leaving.announce, A._replace(draining=draining), "draining")
        eventually(lambda: staying.view.comets[0].draining is draining)  # noqa: B023
        eventually(lambda: leaving.view == staying.view)
    assert [info.sequence for info in staying.view.comets] == [0, 0]


def test_what_an_operator_writes_into_a_znode_holds(cluster: Cluster, znodes: Any) -> None:
    """protocol.md, section 7: it is seen at once, and holds until the process registers anew."""
    coordination, staying = cluster.join(A), cluster.join(B)
    eventually(sees(staying, [A, B], []))
    znodes.set(f"{cluster.comets}/node1/0000000000", comet_data(A._replace(weight=7)))
    for one in (coordination, staying):
        eventually(lambda: one.view.comets[0].weight == 7)  # noqa: B023
    cluster.join(M)
    eventually(sees(staying, [A, B], [M]))
    assert staying.view.comets[0].weight == 7
    znodes.delete(f"{cluster.comets}/node1/0000000000")
    for one in (coordination, staying):
        eventually(lambda: A._replace(sequence=1) in one.view.comets)  # noqa: B023


def test_an_administrator_changes_what_an_operator_wrote_and_leaves_the_rest(cluster: Cluster, znodes: Any) -> None:
    """protocol.md, section 7, and section 10: `gopush undrain` is no idle word where an operator drained it."""
    coordination, path = cluster.join(A), f"{cluster.comets}/node1/0000000000"

    def announced(info: NodeInfo, *changed: str) -> NodeInfo:
        cluster.run(coordination.announce, info, *changed)
        (seen,) = coordination.view.comets
        return seen

    def written(info: NodeInfo) -> None:
        znodes.set(path, comet_data(info))
        eventually(lambda: coordination.view.comets == (info,))

    drained = A._replace(draining=True)
    written(drained._replace(weight=7))
    assert announced(A, "draining") == A._replace(weight=7)
    assert announced(drained, "draining") == drained._replace(weight=7)
    assert announced(A, "draining") == A._replace(weight=7)
    assert announced(A, "weight") == A
    written(A._replace(weight=9))
    assert announced(drained, "draining") == drained._replace(weight=9)
    znodes.delete(path)
    eventually(lambda: coordination.view.comets == (drained._replace(sequence=1),))


class Hashes:
    """Counts the SHA-1s of gopush.hashing, in each turn of the reactor."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.turns = [0]
        counted = self

        class Sha1:
            def __init__(self, data: bytes = b"", begun: Any = None) -> None:
                counted.turns[-1] += 1
                self._begun = begun or hashlib.sha1(data)
                self.update, self.digest = self._begun.update, self._begun.digest

            def copy(self) -> Sha1:
                return Sha1(begun=self._begun.copy())

        monkeypatch.setattr("gopush.hashing.sha1", Sha1)

    def next_turn(self) -> None:
        self.turns.append(0)


def test_a_change_of_the_cluster_holds_nobody_up(
    cluster: Cluster, znodes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ring is computed once, a little in each turn, beside the old view; what is no change of it costs nothing."""
    nodes = [NodeInfo(f"big{i}", 0, (f"big{i}:6970",), weight=60) for i in range(6)]
    for info in nodes:
        path = f"{cluster.comets}/{info.node}/"
        znodes.create(path, comet_data(info), sequence=True, ephemeral=True, makepath=True)
    hashes = Hashes(monkeypatch)
    turns = LoopingCall(hashes.next_turn)
    cluster.run(lambda: turns.start(0) and None)
    try:
        web = cluster.join()
        eventually(sees(web, nodes, []))
        assert max(hashes.turns) <= 4096
        assert len(web.view.active) == 6
        computed = sum(hashes.turns)
        znodes.create(f"{cluster.messages}/", message_data(M), sequence=True, ephemeral=True, makepath=True)
        eventually(sees(web, nodes, [M]))
        assert sum(hashes.turns) - computed <= 3 * 255 + 3, "the stores, and nothing of the comets anew"
        assert max(hashes.turns) <= 4096
    finally:
        cluster.run(turns.stop)
    ring = HashRing({info.node: 60 for info in nodes})
    for key in (f"key-{i}" for i in range(200)):
        assert web.view.owner(key) == next(info for info in nodes if info.node == ring.node_of(key))


def test_what_was_not_reported_is_found_once_in_a_while(
    cluster: Cluster, znodes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watch that is lost, for whatever reason, hides a change for a minute at most."""
    monkeypatch.setattr("gopush.membership.zookeeper.FULL_SECONDS", 1.0, raising=False)
    monkeypatch.setattr(ZooKeeperSession, "_reported", lambda *_: None)
    web = cluster.join(A)
    eventually(sees(web, [A], []))
    znodes.set(f"{cluster.comets}/node1/0000000000", comet_data(A._replace(weight=7)))
    eventually(lambda: web.view.comets[0].weight == 7)


def test_announcing_waits_for_nothing_where_there_is_nobody_to_tell(cluster: Cluster) -> None:
    web = cluster.join()
    cluster.run(web.announce, A, "weight")


def test_who_stops_leaves_at_once(cluster: Cluster) -> None:
    leaving, staying = cluster.join(A), cluster.join(B)
    eventually(sees(staying, [A, B], []))
    cluster.run(leaving.stop)
    assert not leaving.connected
    eventually(sees(staying, [B], []), seconds=SESSION_SECONDS - 0.5)


def test_a_killed_process_is_missed(cluster: Cluster) -> None:
    child = cluster.other_process(A)
    web = cluster.join(B)
    eventually(sees(web, [A, B], []))
    child.kill()
    eventually(sees(web, [B], []))


def test_a_killed_process_that_is_back_deletes_its_ghost(cluster: Cluster, znodes: Any) -> None:
    cluster.other_process(A).kill()
    cluster.join(B)
    cluster.join(A)
    assert znodes.get_children(f"{cluster.comets}/node1") == ["0000000001"]


def test_who_reaches_itself_at_a_contested_address_deletes_the_others(cluster: Cluster, znodes: Any) -> None:
    cluster.other_process(A).kill()
    answers: list[bool | None] = [None, True]
    back = cluster.join()
    cluster.run(back.contest, lambda: succeed(answers.pop(0)), pytest.fail)
    cluster.run(cluster.register(back, A))
    assert answers == []
    assert znodes.get_children(f"{cluster.comets}/node1") == ["0000000001"]


def test_who_reaches_another_process_at_its_address_stops(cluster: Cluster, znodes: Any) -> None:
    """Whether it comes late, or finds out later; the other one's registration stays."""
    first, second = cluster.join(A), cluster.join()
    refused: list[StartError] = []
    cluster.run(second.contest, lambda: succeed(False), refused.append)
    with pytest.raises(StartError, match=r"rpc\.advertise: a:6970 leads to another process"):
        cluster.run(cluster.register(second, A))
    assert refused == []
    assert znodes.get_children(f"{cluster.comets}/node1") == ["0000000000"]
    cluster.run(first.contest, lambda: succeed(False), refused.append)
    znodes.create(f"{cluster.comets}/node1/", comet_data(A), sequence=True, ephemeral=True)
    eventually(lambda: refused)
    assert len(refused) == 1


def test_a_process_leaves_those_of_other_addresses_alone(cluster: Cluster, znodes: Any) -> None:
    cluster.other_process(STANDBY)
    cluster.join(A)
    assert len(znodes.get_children(f"{cluster.comets}/node1")) == 2


def test_a_process_that_loses_its_znode_registers_again(cluster: Cluster, znodes: Any) -> None:
    coordination = cluster.join(A)
    cluster.join(B)
    eventually(sees(coordination, [A, B], []))
    znodes.delete(f"{cluster.comets}/node1/0000000000")
    eventually(lambda: znodes.get_children(f"{cluster.comets}/node1") == ["0000000001"])
    eventually(lambda: A._replace(sequence=1) in coordination.view.comets)
    assert all(len(view.active) == 2 for one, view in cluster.views[2:] if one is coordination)


def test_malformed_znodes_are_skipped_with_one_line(cluster: Cluster, znodes: Any, logged: Logged) -> None:
    znodes.create(f"{cluster.comets}/node1/", b"garbage", sequence=True, ephemeral=True, makepath=True)
    znodes.create(f"{cluster.comets}/node3/lock", b"", makepath=True)
    znodes.create(f"{cluster.messages}/", b'{"rpc":[]}', sequence=True, ephemeral=True, makepath=True)
    web = cluster.join(A)
    cluster.join(B)
    eventually(sees(web, [A, B], []))
    for path in ("node1/0000000000", "node3/lock", "message/0000000000"):
        assert len([line for line in logged.lines("is skipped") if path in line]) == 2, "one for each process"


def test_persistent_registrations_are_of_no_process(
    cluster: Cluster, znodes: Any, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a copied tree has them: they stay for ever. One line says so, however often all is read anew."""
    monkeypatch.setattr("gopush.membership.zookeeper.FULL_SECONDS", 1.0)
    stranger = message_data(M._replace(rpc=("n:8070",), stores=(("one", 1),)))
    for path, data in ((f"{cluster.comets}/node2/", comet_data(B)), (f"{cluster.messages}/", stranger)):
        znodes.create(path, data, sequence=True, makepath=True)
    web = cluster.join(A)
    cluster.run(cluster.register(cluster.join(), M))
    eventually(sees(web, [A], [M]))
    znodes.set(f"{cluster.comets}/node2/0000000000", comet_data(B._replace(weight=2)))
    znodes.create(f"{cluster.comets}/node3/", comet_data(STANDBY), sequence=True, ephemeral=True, makepath=True)
    eventually(lambda: len(web.view.comets) == 2)
    for path in ("node2/0000000000", "message/0000000000"):
        assert len([line for line in logged.lines("is skipped: it is persistent") if path in line]) == 2


def test_unknown_fields_are_left_alone(cluster: Cluster, znodes: Any) -> None:
    data = b'{"rpc":["z:1"],"zone":"eu","weight":2}'
    znodes.create(f"{cluster.comets}/node9/", data, sequence=True, ephemeral=True, makepath=True)
    web = cluster.join()
    eventually(lambda: web.view.comets == (NodeInfo("node9", 0, ("z:1",), weight=2),))


def test_message_nodes_must_have_the_same_stores(cluster: Cluster, znodes: Any) -> None:
    cluster.join(M)
    other = cluster.join()
    stranger = NodeInfo("n:8070", 0, ("n:8070",), stores=(("one", 1),))
    with pytest.raises(StartError, match=r"one:1, differs .* m:8070, one:1,two:2"):
        cluster.run(cluster.register(other, stranger))
    assert len(znodes.get_children(cluster.messages)) == 1
    cluster.run(cluster.register(other, stranger._replace(stores=(("two", 2), ("one", 1)))))
    assert len(znodes.get_children(cluster.messages)) == 2


def test_a_message_node_that_is_back_may_have_other_stores(cluster: Cluster, znodes: Any) -> None:
    """What its own ghost had does not count."""
    data = b'{"rpc":["m:8070"],"weight":1,"stores":{"one":1}}'
    znodes.create(f"{cluster.messages}/", data, sequence=True, ephemeral=True, makepath=True)
    back = cluster.join(M)
    eventually(lambda: back.view.messages == (M._replace(sequence=1),))


def test_several_addresses_may_be_listed(in_reactor: InReactor, zookeeper: ZooKeeperServer) -> None:
    """Of an ensemble, any one that answers will do."""
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        cluster = Cluster(in_reactor, f"127.0.0.1:{dead.getsockname()[1]}", zookeeper.address)
        web = cluster.join(A)
        eventually(sees(web, [A], []))
        cluster.close()


def test_zookeeper_may_come_later(own_cluster: Cluster, own_zookeeper: ZooKeeperServer, logged: Logged) -> None:
    web = own_cluster.join(session_timeout=30.0)
    registered: list[None] = []
    own_cluster.run(lambda: web.register_comet(A).addCallback(registered.append) and None)
    eventually(lambda: logged.lines("cannot be reached"))
    assert not web.connected
    assert registered == []
    own_zookeeper.start()
    eventually(lambda: registered)
    eventually(sees(web, [A], []))
    assert web.connected
    assert len(logged.lines()) == 1


def test_that_there_was_no_answer_in_time_is_said_once(
    cluster: Cluster, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ZooKeeper can be reached."""
    monkeypatch.setattr("gopush.membership.session.JOB_SECONDS", 0.0)
    monkeypatch.setattr("gopush.membership.zookeeper.JOB_SECONDS", 0.0)
    monkeypatch.setattr("gopush.membership.zookeeper.PATIENCE_SECONDS", 1.0)
    web = cluster.join()
    eventually(lambda: logged.lines("no answer within"))
    time.sleep(2)
    (line,) = logged.lines()
    assert "no answer within 0 s; trying again" in line
    monkeypatch.undo()
    eventually(lambda: web.connected)


def test_names_of_nodes_that_nobody_uses_are_deleted(cluster: Cluster, znodes: Any, zookeeper: ZooKeeperServer) -> None:
    """As docs/operations.md says."""
    document = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    (script,) = re.findall(
        r"^python3 - localhost:2181 /gopush-cluster-comet <<'END'\n(.*?)^END$", document, re.M | re.S
    )
    web = cluster.join(A)
    eventually(sees(web, [A], []))
    for name in ("10.0.0.1-6970", "10.0.0.2-6970"):
        znodes.create(f"{cluster.comets}/{name}")
    subprocess.run([sys.executable, "-", zookeeper.address, cluster.comets], input=script, text=True, check=True)
    assert znodes.get_children(cluster.comets) == ["node1"]
    eventually(sees(web, [A], []))


@pytest.mark.parametrize("wrong", [socket.gaierror("unknown"), UnicodeError("label empty or too long"), OSError("no")])
def test_a_name_that_does_not_resolve_yet(
    in_reactor: InReactor, zookeeper: ZooKeeperServer, monkeypatch: pytest.MonkeyPatch, wrong: Exception
) -> None:
    """kazoo gives up for good on such a name; we do not."""
    resolve = socket.getaddrinfo
    known: list[str] = []

    def lookup(host: Any, *args: Any) -> Any:
        if host != "zk.example.org":
            return resolve(host, *args)
        if not known:
            raise wrong
        return resolve("127.0.0.1", *args)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    cluster = Cluster(in_reactor, f"zk.example.org:{zookeeper.port}")
    web = cluster.join(session_timeout=1.0)
    own_view: list[None] = []
    cluster.run(lambda: web.register_comet(A).addCallback(own_view.append) and None)
    time.sleep(0.5)
    assert not web.connected
    known.append("now")
    eventually(lambda: own_view)
    cluster.close()


@pytest.mark.parametrize("name", ["zk..example", "z" * 64 + ".example"])
def test_a_name_that_cannot_be_is_passed_over(in_reactor: InReactor, zookeeper: ZooKeeperServer, name: str) -> None:
    cluster = Cluster(in_reactor, f"{name}:2181", zookeeper.address)
    web = cluster.join(A)
    eventually(sees(web, [A], []))
    cluster.close()


def test_zookeeper_restarts(own_cluster: Cluster, own_zookeeper: ZooKeeperServer, logged: Logged) -> None:
    """A lost ZooKeeper changes no view; when it is back, all goes on."""
    own_zookeeper.start()
    web, comet = own_cluster.join(), own_cluster.join(A)
    own_cluster.join(M)
    eventually(sees(web, [A], [M]))
    own_zookeeper.kill()
    eventually(lambda: not web.connected and not comet.connected)
    assert ids(web.view) == ([A.id], [M.id])
    own_zookeeper.start()
    eventually(lambda: all(one.connected for one in own_cluster.joined))
    own_cluster.join(B)
    eventually(sees(web, [A, B], [M]))
    assert len(logged.lines("lost; going on with the last view")) == 3
    assert logged.tracebacks() == []


def test_a_connection_that_breaks_again_and_again_is_said_once(cluster: Cluster) -> None:
    with lines_logged(lambda line: line.startswith("ZooKeeper at ")) as lines:
        web: Any = cluster.join(A)
        eventually(sees(web, [A], []))
        for _ in range(5):
            cluster.run(web._state_changed, False)
            assert not web.connected
            cluster.run(web._state_changed, True)
            eventually(lambda: web.connected)
        assert [line.partition(web._name)[2] for line in lines] == [
            " connected",
            " lost; going on with the last view",
            " connected",
        ]


def test_who_was_missing_when_zookeeper_was_lost_stays_until_that_is_seen_again(
    own_cluster: Cluster, own_zookeeper: ZooKeeperServer
) -> None:
    """It was not missing for `settle` seconds as far as anybody knows."""
    own_zookeeper.start()
    web, leaving = own_cluster.join(settle=3.0), own_cluster.join(B)
    own_cluster.join(A)
    eventually(sees(web, [A, B], []))
    own_cluster.run(leaving.stop)
    eventually(lambda: web._debouncer.due is not None)
    own_zookeeper.kill()
    eventually(lambda: not web.connected)
    time.sleep(4)
    assert sees(web, [A, B], [])()
    own_zookeeper.start()
    eventually(sees(web, [A], []))


def test_zookeeper_comes_back_empty(own_cluster: Cluster, own_zookeeper: ZooKeeperServer, logged: Logged) -> None:
    """All register anew, paths included, and nobody's view loses a node or changes a role meanwhile.

    The active process of node1 notices last that its session is dead.
    """
    own_zookeeper.start()
    old = [own_cluster.join(), own_cluster.join(A, session_timeout=SESSION_SECONDS + 1)]
    old += [own_cluster.join(info) for info in (STANDBY, B, M)]
    eventually(lambda: all(ids(one.view) == ([A.id, STANDBY.id, B.id], [M.id]) for one in old))
    own_cluster.views.clear()
    own_zookeeper.kill()
    own_zookeeper.forget()
    own_zookeeper.start()
    late = own_cluster.join()
    eventually(sees(late, [A, STANDBY, B], [M]), seconds=40)
    eventually(lambda: all(one.connected and one.view == late.view for one in old))
    for coordination, view in own_cluster.views:
        assert coordination is late or {info.id for info in view.active} == {A.id, B.id}
        assert coordination is late or ids(view)[1] == [M.id]
    assert logged.tracebacks() == []


def test_a_frozen_zookeeper_holds_nobody_up(own_cluster: Cluster, own_zookeeper: ZooKeeperServer) -> None:
    own_zookeeper.start()
    web, comet, leaving = own_cluster.join(), own_cluster.join(A), own_cluster.join(B)
    eventually(sees(web, [A, B], []))
    own_zookeeper.freeze()
    own_cluster.run(leaving.announce, B._replace(draining=True), "draining")
    own_cluster.run(leaving.stop)
    eventually(lambda: not web.connected and not comet.connected)
    assert ids(web.view) == ([A.id, B.id], [])
    own_zookeeper.thaw()
    eventually(lambda: web.connected and comet.connected)
    eventually(sees(web, [A], []))


def test_stopping_before_starting_and_twice_is_fine(cluster: Cluster) -> None:
    never = ZooKeeperCoordination(reactor, ZooKeeperSettings())
    cluster.run(never.stop)
    once = cluster.join(A)
    cluster.run(once.stop)
    cluster.run(once.stop)


BOTH = A._replace(weight=1)
KEEPER = NodeInfo("a:6970", 0, ("a:6970",), stores=(("one", 1), ("two", 2)))


def be_both(cluster: Cluster, coordination: ZooKeeperCoordination) -> None:
    """Register as a message node and as a comet, at one address."""
    cluster.run(coordination.register_message, KEEPER)
    cluster.run(coordination.register_comet, BOTH)


def test_a_process_may_be_a_comet_and_a_message_node(cluster: Cluster) -> None:
    """protocol.md, section 7: with one address in both."""
    both, other = cluster.join(), cluster.join(B)
    be_both(cluster, both)
    eventually(sees(other, [BOTH, B], [KEEPER]))
    eventually(sees(both, [BOTH, B], [KEEPER]))
    for info in (BOTH, KEEPER):
        cluster.run(both.announce, info._replace(draining=True), "draining")
        eventually(lambda: [one.node for one in drained(other)] == [BOTH.node, KEEPER.node][: len(drained(other))])
    assert len(eventually(lambda: len(drained(other)) == 2 and drained(other))) == 2


def drained(coordination: ZooKeeperCoordination) -> list[NodeInfo]:
    view = coordination.view
    return [info for info in (*view.comets, *view.messages) if info.draining]


def test_it_deletes_what_both_of_its_earlier_lives_left_and_nothing_else(cluster: Cluster, znodes: Any) -> None:
    """Ghosts are known by their address, at which it has two registrations of its own."""
    znodes.ensure_path(f"{cluster.comets}/node1")
    znodes.ensure_path(cluster.messages)
    for path, data in ((f"{cluster.comets}/node1/", comet_data(A)), (f"{cluster.messages}/", message_data(KEEPER))):
        znodes.create(path, data, sequence=True, ephemeral=True)
    back, other = cluster.join(), cluster.join(B)
    be_both(cluster, back)
    assert znodes.get_children(f"{cluster.comets}/node1") == ["0000000001"]
    assert znodes.get_children(cluster.messages) == ["0000000001"]
    eventually(sees(other, [A, B], [KEEPER]))


@pytest.mark.parametrize("lost", ["comet", "message"])
def test_it_registers_again_whichever_znode_it_loses(cluster: Cluster, znodes: Any, lost: str) -> None:
    """And keeps the other one."""
    both = cluster.join()
    be_both(cluster, both)
    eventually(sees(both, [A], [KEEPER]))
    path, kept = f"{cluster.comets}/node1", cluster.messages
    if lost == "message":
        path, kept = kept, path
    znodes.delete(f"{path}/0000000000")
    eventually(lambda: znodes.get_children(path) == ["0000000001"])
    assert znodes.get_children(kept) == ["0000000000"]
    assert ids(both.view) == ([A.id], [KEEPER.id])


def test_a_message_node_that_is_refused_takes_no_comet_with_it(cluster: Cluster, znodes: Any) -> None:
    cluster.join(M._replace(stores=(("other", 1),)))
    both = cluster.join()
    cluster.run(both.register_comet, A)
    with pytest.raises(StartError, match="differs from that of the live message node"):
        cluster.run(both.register_message, KEEPER)
    assert znodes.get_children(f"{cluster.comets}/node1") == ["0000000000"]
    assert len(znodes.get_children(cluster.messages)) == 1
    cluster.run(both.announce, A._replace(weight=2), "weight")
    eventually(lambda: [info.weight for info in both.view.comets] == [2])
