"""The options of the store in HBase."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gopush.config.schema import Section
from gopush.config.values import addresses, count, duration, switch, text

MOST_MESSAGES = 1000
"""Messages that a key may keep: each append writes what the head says of all of them."""

TRY_PARTS, PARTS = 2, 3
"""For how many times `timeout` a call to the store is tried, and how long it takes at most, the fence included."""


_TABLE = re.compile(r"\w[\w.-]*(:\w[\w.-]*)?", re.ASCII)

_hbase = Section("hbase")


def table_name(value: str) -> str:
    """A name that HBase lets a table have."""
    if not _TABLE.fullmatch(value):
        raise ValueError("is no name of a table (letters, digits, _ . and -; a namespace may stand before a colon)")
    return value


def _servers(value: str) -> tuple[str, ...]:
    return addresses(value, "thrift1.example.org:9090")


@dataclass(frozen=True)
class HBaseSettings:
    """Section [hbase]."""

    thrift: tuple[str, ...] = _hbase(
        "thrift", "localhost:9090", _servers, "the Thrift2 servers (framed), host:port, separated by commas"
    )
    table: str = _hbase("table", "gopush", table_name, "the table; a namespace may stand before it: push:gopush")
    prefix: str = _hbase(
        "prefix",
        "gopush:",
        text,
        "how the row of every key begins, after its hash; where systems share a table, none begins with another one",
    )
    timeout: float = _hbase(
        "timeout",
        "300ms",
        duration,
        "how long a Thrift server may take to answer a call: longer than its own limits, a third of [rpc] timeout",
    )
    connections: int = _hbase(
        "connections", "4", count(1, 100), "connections to each Thrift server for appends, and as many for reads"
    )
    tls: bool = _hbase("tls", "no", switch, "whether to reach the Thrift servers over TLS")
    tls_authorities: str = _hbase("tls.ca", "", text, "the file of their CA; empty: the CAs of the system")
    tls_certificate: str = _hbase("tls.cert", "", text, "the file of this process's certificate, if they ask for one")
    tls_key: str = _hbase("tls.key", "", text, "the file of its key")

    def __post_init__(self) -> None:
        if not self.thrift:
            raise ValueError("[hbase] thrift: names no Thrift server (try localhost:9090)")
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ValueError("[hbase] tls.cert and tls.key: set both, or none")

    def check(self, store: int, call_timeout: float) -> None:
        """Raise ValueError where the other settings of a message node do not go with a store in HBase."""
        if store > MOST_MESSAGES:
            raise ValueError(f"[storage] store: a key keeps at most {MOST_MESSAGES} messages in HBase, not {store}")
        if self.timeout * PARTS >= call_timeout:
            raise ValueError(
                f"[hbase] timeout: {PARTS} times {self.timeout:g} s is not below [rpc] timeout, {call_timeout:g} s:"
                " nobody would wait for the answer"
            )
