"""What HBase does only now and then, and what is said of it: by a table in memory behind a Thrift server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from twisted.logger import formatEvent, globalLogPublisher

from gopush.errors import RET_INTERNAL, RET_OK
from gopush.message.hbase.settings import HBaseSettings
from gopush.message.hbase.store import HBaseStore
from gopush.message.store import StoreSettings
from tests.conftest import InReactor, reactor
from tests.message.subject import Subject
from tests.servers.thrift_table import ThriftTable

Open = Callable[..., Subject]


@pytest.fixture
def table() -> Iterator[ThriftTable]:
    with ThriftTable() as server:
        yield server


@pytest.fixture
def open_at(in_reactor: InReactor) -> Iterator[Open]:
    """Open a store at this Thrift server."""
    opened: list[Subject] = []

    def open_one(address: str, timeout: float = 0.3) -> Subject:
        settings = HBaseSettings((address,), timeout=timeout)
        subject = Subject("hbase", in_reactor, lambda: HBaseStore(StoreSettings(), settings, reactor), None)
        opened.append(subject)
        return subject

    yield open_one
    for subject in opened:
        subject.close()


@contextmanager
def logged() -> Iterator[list[str]]:
    """What is logged of HBase meanwhile."""
    lines: list[str] = []

    def observe(event: Any) -> None:
        line = formatEvent(event)
        if line.startswith("HBase: "):
            lines.append(line)

    observer: Any = observe
    globalLogPublisher.addObserver(observer)
    try:
        yield lines
    finally:
        globalLogPublisher.removeObserver(observer)


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
