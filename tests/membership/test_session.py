"""What a session asks ZooKeeper, and how much at a time."""

from __future__ import annotations

import socket
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from kazoo.exceptions import NoNodeError
from kazoo.protocol.states import KazooState
from kazoo.security import make_digest_acl

from gopush.membership.connection import AT_ONCE, Connector, Reasons
from gopush.membership.session import JOB_SECONDS, SlowReadError, ZooKeeperSession
from gopush.membership.znodes import Registration, comet_data
from gopush.model import NodeInfo
from gopush.rpc.settings import ZooKeeperSettings

SETTINGS = ZooKeeperSettings(("localhost:2181",))
COMETS, MESSAGES = SETTINGS.comet_path, SETTINGS.message_path
A = NodeInfo("name7", 0, ("a:6970",), ("a:6969",))
ME = 17
OWN = [make_digest_acl("us", "secret", all=True)]


class Event(NamedTuple):
    path: str


class Stat(NamedTuple):
    ephemeralOwner: int
    czxid: int


class Answer:
    """A result: what ZooKeeper knew when it was asked."""

    def __init__(self, kazoo: Kazoo, value: Any) -> None:
        self.kazoo, self.value = kazoo, value
        kazoo.under_way += 1
        kazoo.most = max(kazoo.most, kazoo.under_way)

    def get(self, timeout: float) -> Any:
        self.kazoo.under_way -= 1
        self.kazoo.now += self.kazoo.takes
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


class Kazoo:
    """ZooKeeper, and the client: each answer `takes` so many seconds; reports come when the test says so."""

    def __init__(self, names: int) -> None:
        self.children: dict[str, list[str]] = {COMETS: [f"name{i}" for i in range(names)], MESSAGES: []}
        self.children |= {f"{COMETS}/name{i}": [] for i in range(names)}
        self.contents: dict[str, bytes] = {}
        self.client_id = (ME, b"")
        self.asked: Counter[str] = Counter()
        self.now = self.takes = 0.0
        self.under_way = self.most = 0

    def get_children_async(self, path: str, watch: Any) -> Answer:
        self.asked[path] += 1
        return Answer(self, list(self.children[path]) if path in self.children else NoNodeError())

    def get_async(self, path: str, watch: Any) -> Answer:
        return Answer(self, (self.contents[path], Stat(ME, 1)) if path in self.contents else NoNodeError())

    def get_acls_async(self, path: str) -> Answer:
        self.asked[f"owner of {path}"] += 1
        return Answer(self, (OWN, Stat(ME, 1)))

    def set_acls_async(self, path: str, acls: object) -> Answer:
        raise AssertionError("all is ours")

    def ensure_path_async(self, path: str) -> Answer:
        return Answer(self, path)

    def create_async(self, path: str, value: bytes, **_: Any) -> Answer:
        self.add(path.rstrip("/"), value)
        return Answer(self, path)

    def add(self, path: str, value: bytes) -> None:
        self.children[path].append("0000000000")
        self.contents[f"{path}/0000000000"] = value


@pytest.fixture
def kazoo(monkeypatch: pytest.MonkeyPatch) -> Kazoo:
    kazoo = Kazoo(1000)
    monkeypatch.setattr("gopush.membership.session.time", SimpleNamespace(monotonic=lambda: kazoo.now))
    return kazoo


def made(kazoo: Kazoo, settings: ZooKeeperSettings = SETTINGS) -> ZooKeeperSession:
    made = ZooKeeperSession(settings, lambda up: None, lambda event: None)
    made._client = kazoo
    return made


def seen(session: ZooKeeperSession, *wanted: Registration) -> list[str]:
    return [registered.info.id for registered in session.refresh(wanted, True).registrations]


def test_a_change_costs_a_look_at_the_name_that_changed(kazoo: Kazoo) -> None:
    """However many names nodes have left behind."""
    session = made(kazoo)
    assert seen(session) == []
    kazoo.asked.clear()
    kazoo.add(f"{COMETS}/name7", comet_data(A))
    session._reported(Event(f"{COMETS}/name7"))
    assert seen(session) == [A.id]
    assert kazoo.asked == {COMETS: 1, MESSAGES: 1, f"{COMETS}/name7": 1}


def test_what_it_registers_it_finds_before_that_is_reported(kazoo: Kazoo) -> None:
    session = made(kazoo)
    assert seen(session) == []
    assert seen(session, Registration(True, A, True)) == [A.id]


def test_a_name_that_has_gone_and_is_back_is_looked_at(kazoo: Kazoo) -> None:
    session = made(kazoo)
    below = kazoo.children.pop(f"{COMETS}/name7")
    assert seen(session) == []
    kazoo.children[f"{COMETS}/name7"] = below
    kazoo.add(f"{COMETS}/name7", comet_data(A))
    assert seen(session) == [A.id]


def test_to_read_anew_is_to_look_at_all_names(kazoo: Kazoo) -> None:
    session = made(kazoo)
    assert seen(session) == []
    kazoo.add(f"{COMETS}/name7", comet_data(A))
    assert seen(session) == []
    session.forget()
    assert seen(session) == [A.id]


def test_few_questions_are_under_way_at_a_time(kazoo: Kazoo) -> None:
    assert seen(made(kazoo)) == []
    assert kazoo.most == AT_ONCE


def test_more_than_a_job_can_read_takes_several(kazoo: Kazoo) -> None:
    """And each of them ends in time."""
    kazoo.takes = JOB_SECONDS / 400
    kazoo.add(f"{COMETS}/name7", comet_data(A))
    session = made(kazoo)
    for _ in range(2):
        began = kazoo.now
        with pytest.raises(SlowReadError, match=f"too short to read all, {COMETS} with 1000 names"):
            session.refresh((), True)
        assert kazoo.now - began < JOB_SECONDS + 2 * kazoo.takes
    assert seen(session) == [A.id]


def test_so_does_the_look_whose_they_are(kazoo: Kazoo) -> None:
    """Where there is a [zookeeper] user: a job goes on where the last one stopped, or none would ever end."""
    kazoo.takes = JOB_SECONDS / 400
    kazoo.add(f"{COMETS}/name7", comet_data(A))
    session = made(kazoo, replace(SETTINGS, user="us", secret="secret"))
    for _ in range(5):
        with pytest.raises(SlowReadError):
            session.refresh((), True)
    assert seen(session) == [A.id]
    assert kazoo.asked[f"owner of {COMETS}/name7"] == 1


def test_the_reason_is_that_of_the_last_attempt() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        where = f"127.0.0.1:{mute.getsockname()[1]}"
        connector = Connector(ZooKeeperSettings((where,)))
        connector.create_connection(("127.0.0.1", 1)).close()
        assert connector.wrong == f"{where}: accepts connections, and does not answer"
    with pytest.raises(OSError, match="Connection refused"):
        connector.create_connection(("127.0.0.1", 1))
    assert connector.wrong == f"{where}: Connection refused"


def test_a_session_that_is_there_has_no_reason() -> None:
    """Nor has it one left when it is lost."""
    session = ZooKeeperSession(SETTINGS, lambda up: None, lambda _: None)
    session._connector.wrong = "localhost: Connection refused"
    assert session.wrong == "localhost: Connection refused"
    for state in (KazooState.CONNECTED, KazooState.SUSPENDED):
        session._state_changed(state, lambda up: None)
        assert session.wrong == ""


def test_what_an_attempt_waits_for_is_known_while_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line says it before the attempt ends; but what one has met stands until another one has met something."""
    connector: Any = Connector(ZooKeeperSettings(("zk:2181",)))
    known: list[str] = []

    def connect(*_: Any) -> Any:
        known.append(connector.wrong)
        return SimpleNamespace(setsockopt=lambda *_: None)

    def shake_hands(*_: Any) -> None:
        known.append(connector.wrong)
        raise outcomes.pop(0)

    outcomes: list[Exception] = [TimeoutError("The handshake operation timed out"), OSError("certificate has expired")]
    monkeypatch.setattr(socket, "create_connection", connect)
    connector._tls = SimpleNamespace(wrap=shake_hands)
    silent = "zk:2181: accepts connections, and does not answer"
    for wrong in (silent, "zk:2181: certificate has expired"):
        with pytest.raises(OSError, match=wrong):
            connector.create_connection(("127.0.0.1", 1))
        assert connector.wrong == wrong
    assert known == ["zk:2181: does not answer", silent, silent, silent]


def test_a_reason_is_new_once_and_another_one_where_it_stays() -> None:
    reasons = Reasons()
    looks = ["refused", "refused", "silent", "refused", "expired", "expired", "expired", "refused", "refused"]
    assert [reason for reason in looks if reasons.is_new(reason)] == ["refused", "expired"]
    reasons.clear()
    assert reasons.is_new("refused")
