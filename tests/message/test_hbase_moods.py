"""What HBase does only now and then, and what is said of it: by a table in memory behind a Thrift server."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

import pytest
from twisted.internet.defer import Deferred

from gopush.client import cli
from gopush.errors import RET_INTERNAL, RET_OK, UnavailableError
from gopush.message.hbase.connection import PROBE_BYTES
from gopush.message.hbase.row import row_key
from gopush.message.hbase.settings import HBaseSettings
from gopush.message.hbase.store import TOUCH_PURGES, HBaseStore
from gopush.message.store import StoreSettings
from gopush.model import Head, Page
from tests.conftest import InReactor, reactor
from tests.fixtures import lines_logged
from tests.message.conftest import eventually
from tests.message.subject import Subject
from tests.servers import free_port
from tests.servers.thrift_table import LARGE, ThriftTable

Open = Callable[..., Subject]


@pytest.fixture
def table() -> Iterator[ThriftTable]:
    with ThriftTable() as server:
        yield server


@pytest.fixture
def open_at(in_reactor: InReactor) -> Iterator[Open]:
    """Open a store at these Thrift servers."""
    opened: list[Subject] = []

    def open_one(*addresses: str, timeout: float = 0.3, ahead: float = 0.0) -> Subject:
        """By how much the clock of its process is `ahead`."""
        settings = HBaseSettings(addresses, timeout=timeout)
        with clock_ahead(ahead) as clock:
            subject = Subject("hbase", in_reactor, lambda: HBaseStore(StoreSettings(), settings, reactor, clock), None)
        opened.append(subject)
        return subject

    yield open_one
    for subject in opened:
        subject.close()


@contextmanager
def clock_ahead(seconds: float) -> Iterator[Callable[[], float]]:
    """Gives a clock that is so far ahead; what looks at HBase's meanwhile goes by it."""

    def clock() -> float:
        return real() + seconds

    real = time.time
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gopush.message.hbase.clock.time.time", clock)
        yield clock


def logged() -> AbstractContextManager[list[str]]:
    """What is logged of HBase meanwhile."""
    return lines_logged(lambda line: line.startswith("HBase: "))


def test_appends_that_fail_are_named_once(open_at: Open, table: ThriftTable) -> None:
    subject = open_at(table.address)
    assert subject.push().ret == RET_OK
    table.says = "gopush is disabled."
    with logged() as lines:
        assert [subject.push().ret for _ in range(3)] == [RET_INTERNAL] * 3
        warned = [line for line in lines if "is disabled." not in line]
        assert len(warned) == 1
        assert warned[0].startswith("HBase: appends fail: ")
        assert "HBase does not serve the table (is it disabled, or dropped?)" in warned[0]
        table.says = None
        assert subject.push().ret == RET_OK
        assert lines[-1] == "HBase: all is well again"


def test_appends_that_fail_are_named_while_another_thrift_server_is_down(open_at: Open, table: ThriftTable) -> None:
    with lines_logged(lambda line: "cannot be reached" in line) as lines:
        subject = open_at(table.address, f"127.0.0.1:{free_port()}")
        eventually(lambda: lines, 5.0)
    table.says = "gopush is disabled."
    with logged() as lines:
        assert subject.push().ret == RET_INTERNAL
        assert any(line.startswith("HBase: appends fail: ") for line in lines)


def test_an_answer_without_all_rows_fails_its_calls_alone(open_at: Open, table: ThriftTable) -> None:
    """They waited for ever, and so did all that came after them for the same key."""
    subject = open_at(table.address)
    assert subject.push().ret == RET_OK
    table.lacks = True
    assert subject.push().ret == RET_INTERNAL
    with pytest.raises(UnavailableError, match="does not speak of all rows"):
        subject.head()
    table.lacks = False
    assert subject.push().ret == RET_OK


def test_a_head_that_cannot_be_read_fails_no_other(open_at: Open, table: ThriftTable) -> None:
    """It is in a region that is away. A single one fails."""
    near, far = sorted(("k", "l"), key=lambda key: row_key("gopush:", key))
    table.starts = [b"", row_key("gopush:", far)]
    subject = open_at(table.address)
    table.away = row_key("gopush:", far)
    assert subject.heads([far, near]) == [None, Head(0, 0)]
    with pytest.raises(UnavailableError, match="NotServingRegionException"):
        subject.heads([far])


def test_a_message_whose_body_hbase_let_go_of_is_left_out(open_at: Open, table: ThriftTable) -> None:
    """It was pushed by a clock that was ahead, and is right again: the head names it for hours."""
    subject = open_at(table.address)
    for body in (b"1", b"2", b"3", b"4"):
        subject.push(body=body)
    cells = table.cells[row_key("gopush:", "k")]
    del cells[(b"m", b"s0")]
    del cells[(b"m", b"s2")]
    assert subject.bodies() == [b"2", b"4"]
    assert subject.page(limit=1).more
    assert [message.body for message in subject.page(limit=1).messages] == [b"2"]


def test_a_key_whose_messages_are_all_gone_is_looked_at_twice(open_at: Open, table: ThriftTable) -> None:
    subject = open_at(table.address)
    subject.push()
    del table.cells[row_key("gopush:", "k")][(b"m", b"s0")]
    table.asked.clear()
    assert subject.page() == Page([], subject.head(), False)
    assert len(table.asked) <= 4


@pytest.mark.parametrize("ahead", [-700.0, 700.0])
def test_nodes_whose_clocks_differ_see_and_keep_the_same(open_at: Open, table: ThriftTable, ahead: float) -> None:
    right, wrong = open_at(table.address), open_at(table.address, ahead=ahead)
    bodies = [b"%d" % number for number in range(20)]
    for body in bodies:
        assert right.push(body=body).ret == RET_OK
    assert wrong.bodies() == bodies
    assert wrong.push(body=b"20").ret == RET_OK
    for subject in (right, wrong):
        assert subject.bodies() == [*bodies[1:], b"20"]
        assert subject.head().trimmed > 0


def test_a_clock_that_differs_is_named(open_at: Open, table: ThriftTable) -> None:
    """One line when it begins and one when it ends; the figure is in the metrics."""
    subject = open_at(table.address)
    with logged() as lines:
        table.ahead = 10.0
        for _ in range(2 * TOUCH_PURGES):
            subject.purge()
        assert lines == ["HBase: its clock is 10.0 s ahead of this process's (run NTP: pushes have a deadline)"]
        assert 9 < subject.store.numbers["hbase"].skew < 11
        table.says = "gopush is disabled."
        subject.push()
        assert any(line.startswith("HBase: appends fail: ") for line in lines)
        table.says, table.ahead = None, 0.0
        assert subject.push(deadline=time.time() + 60).ret == RET_OK
        for _ in range(TOUCH_PURGES):
            subject.purge()
        assert lines[-1] == "HBase: all is well again"
        assert subject.store.numbers["hbase"].skew == pytest.approx(0, abs=0.3)


def test_before_the_clock_of_hbase_is_known_nothing_is_read_or_written(open_at: Open, table: ThriftTable) -> None:
    table.says = "gopush is disabled."
    subject = open_at(table.address)
    table.says = None
    assert subject.push().ret == RET_INTERNAL
    with pytest.raises(UnavailableError, match="HBase's clock is not known yet"):
        subject.page()
    assert "checkAndMutate" not in table.asked
    subject.purge()
    assert subject.push().ret == RET_OK
    assert len(subject.read()) == 1


def test_a_large_answer_may_be_longer_on_its_way_than_a_server_may_be_silent(open_at: Open, table: ThriftTable) -> None:
    subject = open_at(table.address, timeout=1.0)
    body = b"x" * LARGE
    assert subject.push(body=body).ret == RET_OK
    table.seconds = 1.4
    with logged() as lines:
        assert subject.bodies() == [body]
        assert lines == []


def test_the_list_of_a_tables_regions_may_be_large(
    open_at: Open, table: ThriftTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Larger than a stranger's first answer."""
    monkeypatch.setattr("gopush.message.hbase.connection._Connection.MAX_LENGTH", 10_000)
    table.starts += [b"%03d" % number for number in range(500)]
    with logged() as lines:
        assert open_at(table.address).push().ret == RET_OK
        assert lines == []


def test_an_answer_that_comes_too_slowly_is_given_up(
    open_at: Open, table: ThriftTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gopush.message.hbase.connection.OLDEST_SECONDS", 1.0)
    subject = open_at(table.address)
    assert subject.push(body=b"x" * LARGE).ret == RET_OK
    table.seconds = 2.5
    with logged() as lines:
        with pytest.raises(UnavailableError):
            subject.read()
        eventually(lambda: lines, 2.0)
        assert lines == [f"HBase: Thrift server {table.address}: no answer within 1 s"]


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (PROBE_BYTES, "no answer within 0.5 s"),
        (PROBE_BYTES + 1, "an answer is too large, or it is no Thrift server's"),
    ],
)
def test_who_begins_an_answer_and_goes_on_for_ever_is_left(
    open_at: Open, monkeypatch: pytest.MonkeyPatch, size: int, said: str
) -> None:
    monkeypatch.setattr("gopush.message.hbase.connection.PROBE_SECONDS", 0.5)
    with dripping(size) as address, logged() as lines:
        open_at(address)
        assert lines == [f"HBase: Thrift server {address}: {said}"]


def test_a_clean_stop_warns_of_nothing(open_at: Open, table: ThriftTable) -> None:
    subject = open_at(table.address)
    assert subject.push().ret == RET_OK
    with logged() as lines:
        subject.close()
        assert lines == []


def test_one_that_is_stopped_while_it_connects_says_nothing(in_reactor: InReactor, table: ThriftTable) -> None:
    def start_and_stop() -> Deferred[None]:
        store.start()
        return store.stop()

    with lines_logged(lambda line: "HBase" in line) as lines:
        store: HBaseStore = in_reactor(HBaseStore, StoreSettings(), HBaseSettings((table.address,)), reactor)
        in_reactor(start_and_stop)
        assert lines == []


@contextmanager
def dripping(size: int) -> Iterator[str]:
    """Who begins an answer of this size to all that is asked, and adds a byte now and then; gives its address."""

    def drip(client: socket.socket) -> None:
        with suppress(OSError), client:
            client.sendall(size.to_bytes(4, "big"))
            while True:
                client.sendall(b"x")
                time.sleep(0.05)

    def drip_all() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=drip, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=drip_all, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """Who says this to all that is asked, and closes the connection; gives its address."""

    def answer_all() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                client.recv(65536)
                client.sendall(answer)
                client.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer_all, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"-ERR unknown command\r\n", b"\0\0\0\1\0", b"\0\0\0\0"]
)
def test_create_names_what_is_no_thrift_server(answer: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    with answering(answer) as address:
        assert cli.main(["hbase", "create", "--thrift", address]) == 3
    assert capfd.readouterr().err == f"gopush: what answers at {address} is no Thrift2 server (framed)\n"


@pytest.mark.parametrize("answer", [b"", b"\0\0", b"\0\0\0\x64\x80\1\0\2"])
def test_create_says_where_the_connection_was_closed(answer: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    with answering(answer) as address:
        assert cli.main(["hbase", "create", "--thrift", address]) == 1
    said = f"gopush: the Thrift server at {address} does not answer: it closed the connection\n"
    assert capfd.readouterr().err == said


@pytest.mark.parametrize("said", ["NamespaceNotFoundException", "CallTimeoutException"])
def test_create_of_several_regions_says_what_hbase_says(
    table: ThriftTable, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], said: str
) -> None:
    """The shell would get the same."""
    monkeypatch.setattr("gopush.message.hbase.create.split_frames", lambda message, _: [message])
    table.says = f"org.apache.hadoop.hbase.{said}: nons"
    assert cli.main(["hbase", "create", "--thrift", table.address, "--regions", "3"]) == 1
    assert capfd.readouterr().err == f"gopush: HBase at {table.address}: {said}\n"


def test_create_gives_the_shells_line_where_the_server_takes_no_starts(
    table: ThriftTable, capfd: pytest.CaptureFixture[str]
) -> None:
    """As all types but threadpool: it closes the connection, and goes on."""
    assert cli.main(["hbase", "create", "--thrift", table.address, "--regions", "3"]) == 3
    assert "HBase's shell can:\ncreate 'gopush', {NAME => 'm'}" in capfd.readouterr().err


def test_create_gives_no_line_where_nobody_goes_on(capfd: pytest.CaptureFixture[str]) -> None:
    with answering(b"") as address:
        assert cli.main(["hbase", "create", "--thrift", address, "--regions", "3"]) == 1
    assert "HBase's shell" not in capfd.readouterr().err
