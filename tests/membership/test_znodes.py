"""protocol.md, section 7: what live processes write into ZooKeeper."""

from __future__ import annotations

import pytest

from gopush.errors import StartError
from gopush.membership.znodes import comet_data, content, message_data, read_comet, read_message
from gopush.model import NodeInfo

COMET = NodeInfo("node1", 3, ("h:6970",), ("h:6969", "g:6969"), ("h:6968",), 2)
MESSAGE = NodeInfo("h:8070", 4, ("h:8070",), weight=3)


def test_the_data_of_a_comet() -> None:
    """protocol.md, section 7: {"rpc":["host:port"],"tcp":["host:port"],"ws":["host:port"],"weight":1}"""
    assert comet_data(COMET) == b'{"rpc":["h:6970"],"tcp":["h:6969","g:6969"],"ws":["h:6968"],"weight":2}'
    assert read_comet("node1", "0000000003", comet_data(COMET)) == COMET


def test_the_data_of_a_message_node() -> None:
    """protocol.md, section 7: {"rpc":["host:port"],"weight":1}"""
    assert message_data(MESSAGE) == b'{"rpc":["h:8070"],"weight":3}'
    assert read_message("0000000004", message_data(MESSAGE)) == MESSAGE


@pytest.mark.parametrize("comet", [True, False])
def test_what_nobody_could_read_is_not_written(comet: bool) -> None:
    info = COMET if comet else MESSAGE
    assert content(comet, info) == (comet_data(info) if comet else message_data(info))
    with pytest.raises(StartError, match=r"^embedded cannot be registered, .*: holds 'embedded', which is not host"):
        content(comet, info._replace(rpc=("embedded",)))


def test_stores_are_named_where_there_are_any() -> None:
    info = MESSAGE._replace(stores=(("a", 1), ("b", 2)))
    assert message_data(info) == b'{"rpc":["h:8070"],"weight":3,"stores":{"a":1,"b":2}}'
    assert read_message("0000000004", message_data(info)) == info
    info = info._replace(store="c")
    assert message_data(info) == b'{"rpc":["h:8070"],"weight":3,"stores":{"a":1,"b":2},"store":"c"}'
    assert read_message("0000000004", message_data(info)) == info


def test_what_is_missing_has_defaults_and_what_is_unknown_is_ignored() -> None:
    info = read_comet("n", "x-0000000001", b'{"rpc":["h:1"],"zone":{"a":[1]}}')
    assert info == NodeInfo("n", 1, ("h:1",))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"null",
        b"[]",
        b"{}",
        b'{"rpc":[]}',
        b'{"rpc":"h:1"}',
        b'{"rpc":[1]}',
        b'{"rpc":["h"]}',
        b'{"rpc":["h:1,g:1"]}',
        b'{"rpc":["h:99999"]}',
        b'{"rpc":["h:1"],"weight":0}',
        b'{"rpc":["h:1"],"weight":-1}',
        b'{"rpc":["h:1"],"weight":1000000}',
        b'{"rpc":["h:1"],"weight":true}',
        b'{"rpc":["h:1"],"weight":"1"}',
        b"[" * 100_000,
    ],
)
def test_malformed_data_raise_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (any words will do)
        read_comet("n", "0000000001", data)
    with pytest.raises(ValueError):  # noqa: PT011
        read_message("0000000001", data)


@pytest.mark.parametrize("data", [b'{"rpc":["h:1"],"tcp":"h:1"}', b'{"rpc":["h:1"],"ws":[""]}'])
def test_malformed_addresses_raise_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="addresses"):
        read_comet("n", "0000000001", data)


@pytest.mark.parametrize("data", [b'{"rpc":["h:1"],"stores":["a"]}', b'{"rpc":["h:1"],"stores":{"a":0}}'])
def test_malformed_stores_raise_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"stores|weight"):
        read_message("0000000001", data)


@pytest.mark.parametrize("name", ["", "lock", "000000001", "00000000x1"])
def test_a_name_without_a_sequence_number_raises_a_value_error(name: str) -> None:
    with pytest.raises(ValueError, match="sequence"):
        read_comet("n", name, comet_data(COMET))


def test_draining_is_only_written_where_it_is_so() -> None:
    assert b"draining" not in comet_data(COMET)
    assert b"draining" not in message_data(MESSAGE)
    comet, message = COMET._replace(draining=True), MESSAGE._replace(draining=True)
    assert read_comet("node1", "0000000003", comet_data(comet)) == comet
    assert read_message("0000000004", message_data(message)) == message
