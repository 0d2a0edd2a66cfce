"""What only the store in HBase does: many writers, lost answers, late writes, its table."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gopush.client import cli
from gopush.config.schema import load
from gopush.errors import RET_INTERNAL, RET_OK, SettingsError, StartError
from gopush.message.hbase.row import row_key
from gopush.message.hbase.settings import HBaseSettings
from gopush.message.hbase.store import HBaseStore
from gopush.message.settings import MessageSettings
from gopush.message.store import StoreSettings
from gopush.model import Appended, Head, Read
from tests.conftest import reactor
from tests.message.conftest import eventually
from tests.message.subject import Subject
from tests.servers import free_port
from tests.servers.hbase import ThriftServer
from tests.servers.thrift_proxy import ThriftProxy

Open = Callable[..., Subject]
REFUSED = Appended(RET_INTERNAL, 0, 0, False)
BARE = "import sys; sys.modules['thriftpy2'] = None; sys.argv[0] = 'gopush'; "
CHECK = f"{BARE}from gopush.client.cli import main; sys.exit(main())", "check", "-c", "message.ini"
START = f"{BARE}from twisted.scripts.twistd import run; run()", "-n", "--pidfile=", "message", "-c", "message.ini"


@pytest.fixture
def prefix() -> str:
    """What nobody has used before."""
    return f"{uuid.uuid4().hex}:"


@pytest.fixture
def open_at(in_reactor: Any, prefix: str) -> Iterator[Open]:
    """Open a store at these Thrift servers ("host:port"): a message node's. All that one test opens are one store."""
    opened: list[Subject] = []

    def open_one(*addresses: str, timeout: float = 5.0, store: int = 20, **more: Any) -> Subject:
        settings = HBaseSettings(addresses, **{"table": "gopush", "prefix": prefix, "timeout": timeout, **more})
        subject = Subject("hbase", in_reactor, lambda: HBaseStore(StoreSettings(store), settings, reactor), None)
        opened.append(subject)
        return subject

    yield open_one
    for subject in opened:
        subject.close()


def test_two_nodes_that_append_to_the_same_keys_make_one_chain_a_key(open_at: Open, thrift: ThriftServer) -> None:
    """Delivery rule 2: whichever message node took part. 10,000 appends; nothing is lost, nothing comes twice."""
    nodes = [open_at(thrift.address, store=1000, timeout=20.0) for _ in range(2)]
    keys = [f"k{n}" for n in range(5)]
    answers: dict[str, list[Appended]] = {key: [] for key in keys}

    def write(node: int, key: str) -> None:
        for batch in range(10):
            items = [
                nodes[node].item(key, b"x", id=f"{node}-{batch}-{n}", deadline=time.time() + 600) for n in range(100)
            ]
            answers[key] += nodes[node].append(*items)

    writers = [threading.Thread(target=write, args=(node, key)) for node in range(2) for key in keys]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    for key in keys:
        assert len(answers[key]) == 2000
        assert all(answer.ret == RET_OK and not answer.repeat for answer in answers[key])
        chain = sorted(answers[key], key=lambda answer: answer.mid)
        assert [answer.previous for answer in chain] == [0, *(answer.mid for answer in chain[:-1])]
        assert nodes[0].head(key) == Head(chain[-1].mid, chain[-1001].mid)
        assert [message.mid for message in nodes[1].read(key)] == [answer.mid for answer in chain[-1000:]]


def test_an_answer_that_is_lost_is_found_in_the_row(open_at: Open, thrift: ThriftServer) -> None:
    with ThriftProxy(thrift.port) as proxy:
        subject = open_at(proxy.address, timeout=1.5)
        first = subject.push(body=b"first")
        for id in ("", "a"):
            proxy.lose("checkAndMutate")
            second = subject.push(body=b"second", id=id)
            assert proxy.landed.acquire(timeout=10)
            assert second == Appended(RET_OK, second.mid, first.mid, False)
            first = second
        assert subject.bodies() == [b"first", b"second", b"second"]


@pytest.mark.parametrize("id", ["", "a"])
def test_what_is_late_is_not_stored_beside_its_repeat(open_at: Open, thrift: ThriftServer, id: str) -> None:
    """A check that times out may still land: it finds the stamp of the one that was sent after it."""
    with ThriftProxy(thrift.port) as proxy:
        subject = open_at(proxy.address, timeout=1.5)
        for _ in range(2):  # the row is new, then it is not
            head = subject.head()
            proxy.hold("checkAndMutate", 1)
            answer = subject.push(id=id and f"{id}{head.last}")
            assert answer == Appended(RET_OK, answer.mid, head.last, False)
            proxy.release()
            assert proxy.landed.acquire(timeout=20)
            assert subject.head().last == answer.mid
        assert len(subject.read()) == 2


def test_what_was_refused_is_never_stored_later(open_at: Open, thrift: ThriftServer) -> None:
    """Delivery rule 6: before 65535 is answered, a new stamp fences off what may still land."""
    with ThriftProxy(thrift.port) as proxy:
        subject = open_at(proxy.address, timeout=1.5)
        before = 0
        for _ in range(2):
            proxy.hold("checkAndMutate", 2)
            began = time.monotonic()
            assert subject.push(body=b"late", id="late") == REFUSED
            assert time.monotonic() < began + 3 * 1.5 + 5
            proxy.release()
            assert proxy.landed.acquire(timeout=20)
            assert proxy.landed.acquire(timeout=20)
            assert subject.head().last == before
            assert b"late" not in subject.bodies()
            before = subject.push(body=b"before").mid
        assert subject.bodies() == [b"before", b"before"]


def test_a_repeat_through_another_node_is_known(open_at: Open, thrift: ThriftServer) -> None:
    first, second = (open_at(thrift.address) for _ in range(2))
    answer = first.push(id="a")
    assert second.push(id="a") == answer._replace(repeat=True)
    assert len(second.read()) == 1


def test_one_stuck_connection_leaves_the_others_their_work(open_at: Open, thrift: ThriftServer) -> None:
    with ThriftProxy(thrift.port) as proxy:
        subject = open_at(proxy.address, timeout=20.0)
        subject.append(*[subject.item(f"{n}") for n in range(50)])
        proxy.hold("checkAndMutate", 1)
        pushing = threading.Thread(target=subject.push, args=("stuck",))
        pushing.start()
        assert proxy.held.acquire(timeout=30)
        began = time.monotonic()
        assert all(subject.push(f"{n}").ret == RET_OK for n in range(10))
        assert time.monotonic() < began + 15
        assert pushing.is_alive()
        proxy.close_all()
        pushing.join(60)
        assert not pushing.is_alive()


def test_an_idle_connection_that_was_closed_costs_no_push(open_at: Open, thrift: ThriftServer) -> None:
    with ThriftProxy(thrift.port) as proxy:
        subject = open_at(proxy.address, timeout=5.0)
        for _ in range(5):
            proxy.close_all()
            assert subject.push().ret == RET_OK
        assert len(subject.read()) == 5


def test_a_message_that_hbase_would_refuse_is_refused(open_at: Open, thrift: ThriftServer) -> None:
    subject = open_at(thrift.address, timeout=10.0)
    answers = subject.append(subject.item(body=b"x" * 10_000_001), subject.item(body=b"x" * 10_000_000), subject.item())
    assert [answer.ret for answer in answers] == [RET_INTERNAL, RET_OK, RET_OK]
    assert [len(body) for body in subject.bodies()] == [10_000_000, 1]


def test_deleted_bodies_are_overwritten_and_slots_taken_again(open_at: Open, thrift: ThriftServer, prefix: str) -> None:
    subject = open_at(thrift.address, store=3)
    subject.append(*[subject.item(body=b"secret")] * 5)
    subject.delete()
    assert b"secret" not in b"".join(thrift.cells(row_key(prefix, "k")).values())
    subject.append(*[subject.item(body=b"%d" % n) for n in range(4)])
    assert subject.bodies() == [b"1", b"2", b"3"]
    slots = [name for name in thrift.cells(row_key(prefix, "k")) if name.startswith("m:s")]
    assert sorted(slots) == ["m:s0", "m:s1", "m:s2"]


def test_ids_by_the_thousand_on_one_key(open_at: Open, thrift: ThriftServer) -> None:
    subject = open_at(thrift.address, timeout=20.0)
    for batch in range(5):
        subject.append(*[subject.item(id=f"{batch}-{n}", deadline=time.time() + 600) for n in range(1000)])
    assert subject.push(id="0-0").repeat
    assert not subject.push(id="new").repeat


def test_a_table_that_is_not_there_or_is_another_is_reported_at_the_start(open_at: Open, thrift: ThriftServer) -> None:
    with pytest.raises(StartError, match=r"^HBase: there is no table nosuch \(gopush hbase create"):
        open_at(thrift.address, table="nosuch")
    another = f"another{time.time_ns()}"
    thrift.create(another, "m", "x")
    with pytest.raises(
        StartError, match=f"the table {another} is not one that gopush made.*NoSuchColumnFamilyException"
    ):
        open_at(thrift.address, table=another)


def test_without_a_server_it_starts_and_refuses_until_there_is_one(open_at: Open, thrift: ThriftServer) -> None:
    with ThriftProxy(thrift.port) as proxy:
        proxy.close_all(for_good=True)
        subject = open_at(proxy.address, timeout=1.0)
        assert subject.push() == REFUSED
        proxy.open_again()
        assert eventually(lambda: subject.push().ret == RET_OK)


def test_create_makes_the_table_and_its_regions(thrift: ThriftServer, capfd: pytest.CaptureFixture[str]) -> None:
    made, other = f"made{time.time_ns()}", f"other{time.time_ns()}"
    command = ["hbase", "create", "--thrift", thrift.address, "--table", made, "--regions", "16"]
    assert cli.main(command) == 0
    assert capfd.readouterr().out == f"the table {made} is made, regions: 16\n"
    assert thrift.region_starts(made) == [b"", *(bytes([n << 4, 0, 0, 0]) for n in range(1, 16))]
    assert cli.main(command) == 0
    assert capfd.readouterr().out == f"the table {made} is there already\n"
    thrift.create(other, "x")
    assert cli.main(["hbase", "create", "--thrift", thrift.address, "--table", other]) == 3
    assert "lacks families that the store needs: i, m, t" in capfd.readouterr().err
    assert cli.main(["hbase", "create", "--thrift", f"127.0.0.1:{free_port()}"]) == 1


def test_keys_of_several_regions_are_read_and_written_in_one_batch(open_at: Open, thrift: ThriftServer) -> None:
    assert cli.main(["hbase", "create", "--thrift", thrift.address, "--table", "wide", "--regions", "4"]) == 0
    subject = open_at(thrift.address, table="wide")
    keys = [f"k{n}" for n in range(200)]
    answers = subject.append(*[subject.item(key, key.encode()) for key in keys])
    assert all(answer.ret == RET_OK for answer in answers)
    assert [page.messages[0].body for page in subject.reads([Read(key, 0, 9) for key in keys])] == [
        key.encode() for key in keys
    ]


@pytest.mark.parametrize(
    ("lines", "wrong"),
    [
        ("store = 1001", "[storage] store: a key keeps at most 1000 messages in HBase, not 1001"),
        ("[hbase]\ntimeout = 1s", "[hbase] timeout: 3 times 1 s is not below [rpc] timeout, 1 s"),
        ("[hbase]\ntable = bad!name", "[hbase] table: 'bad!name' is no name of a table"),
        ("[hbase]\nthrift =", "[hbase] thrift: names no Thrift server (try localhost:9090)"),
    ],
)
def test_settings_that_do_not_go_with_hbase(tmp_path: Path, lines: str, wrong: str) -> None:
    path = tmp_path / "message.ini"
    path.write_text(f"[storage]\ntype = hbase\n{lines}\n")
    with pytest.raises(SettingsError) as caught:
        load(MessageSettings, path)
    assert str(caught.value).startswith(f"{path}: {wrong}")


@pytest.mark.parametrize("command", [CHECK, START])
def test_without_the_extra_a_line_says_what_to_install(tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "message.ini").write_text("[storage]\ntype = hbase\n")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run(
        [sys.executable, "-c", *command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode != 0
    line = "message.ini: [storage] type: 'hbase' needs thriftpy2, which is not installed (pip install 'gopush[hbase]')"
    assert [line in said for said in ended.stderr.splitlines()] == [True]
