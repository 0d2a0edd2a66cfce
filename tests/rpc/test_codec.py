"""Batches as bytes: the round trip of every call, and whatever else may come in."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gopush.feed import FeedItem, FeedRequest
from gopush.model import Append, Appended, Forward, Head, Message, Page, Push, Pushed, Read, Token, TokenState
from gopush.reports import Backup, BusyKey, Presence, SlowConsumer, Status
from gopush.rpc.codec import (
    CHUNK_BYTES,
    COMET_CALLS,
    MESSAGE_CALLS,
    VERSION,
    BatchError,
    CallFormat,
    Packer,
    pack,
    unpack,
)

texts = st.text(max_size=20)
blobs = st.binary(max_size=50)
mids = st.integers(-(2**63), 2**63 - 1)
numbers = st.integers(0, 2**32)
pushes = st.builds(Push, texts, blobs, numbers, texts, numbers, st.floats(allow_nan=False) | numbers)
heads = st.builds(Head, mids, mids)
messages = st.builds(Message, mids, blobs)
tokens = st.builds(Token, blobs, numbers)
nothing = st.none()

VALUES: dict[str, tuple[list[st.SearchStrategy[Any]], st.SearchStrategy[Any]]] = {
    "append": (
        [st.lists(st.builds(Append, pushes, mids))],
        st.lists(st.builds(Appended, numbers, mids, mids, st.booleans())),
    ),
    "read": (
        [st.lists(st.builds(Read, texts, mids, numbers, numbers))],
        st.lists(st.builds(Page, st.lists(messages), heads, st.booleans())),
    ),
    "heads": ([st.lists(texts)], st.lists(st.none() | heads)),
    "delete": ([texts], nothing),
    "create_token": ([texts, tokens], nothing),
    "revoke_token": ([texts, blobs], st.booleans()),
    "tokens": ([texts], st.lists(tokens)),
    "check_token": ([texts, blobs], st.builds(TokenState, st.booleans(), st.booleans())),
    "backup": ([texts, texts], st.builds(Backup, texts, numbers, numbers, texts)),
    "push": ([st.lists(pushes)], st.lists(st.builds(Pushed, numbers, mids))),
    "notice": ([st.lists(st.builds(Forward, texts, mids, mids, blobs | nothing, numbers))], nothing),
    "close": ([st.lists(texts)], st.lists(numbers)),
    "subscribers": ([st.lists(texts)], st.lists(numbers)),
    "presence": (
        [st.lists(texts)],
        st.lists(
            st.builds(Presence, numbers, numbers | nothing, st.lists(st.tuples(texts, numbers), max_size=3).map(tuple))
        ),
    ),
    "slowest": (
        [numbers],
        st.lists(st.builds(SlowConsumer, texts, texts, texts, numbers, numbers, st.floats(allow_nan=False) | numbers)),
    ),
    "keys": (
        [texts, numbers],
        st.lists(st.builds(BusyKey, texts, numbers, st.floats(allow_nan=False) | numbers)),
    ),
    "feed": (
        [st.lists(st.builds(FeedRequest, numbers, texts, texts, mids | nothing)), *[st.lists(numbers)] * 2],
        nothing,
    ),
    "feed_next": ([], st.lists(st.builds(FeedItem, st.lists(numbers).map(tuple), blobs))),
    "identity": ([], texts),
    "ping": ([], nothing),
    "status": ([], st.builds(Status, texts, numbers, *[numbers | nothing] * 3)),
    "set_weight": ([numbers], nothing),
    "drain": ([st.booleans()], nothing),
}
CALLS: dict[str, CallFormat] = {**MESSAGE_CALLS, **COMET_CALLS}


def same(left: Any, right: Any) -> bool:
    """Equal, in types too: a NamedTuple equals any tuple."""
    if type(left) is not type(right):
        return False
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def test_every_call_has_values_here() -> None:
    assert VALUES.keys() == CALLS.keys()


@pytest.mark.parametrize("name", sorted(CALLS))
@given(data=st.data())
def test_round_trip(name: str, data: st.DataObject) -> None:
    arguments, answer = VALUES[name]
    given_arguments = [data.draw(argument) for argument in arguments]
    given_answer = data.draw(answer)
    assert same(unpack(pack(given_arguments), CALLS[name].read_arguments), given_arguments)
    assert same(unpack(pack(given_answer), CALLS[name].answer), given_answer)


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 100, CHUNK_BYTES, 2**20, 4 * 2**20, 16 * 2**20])
def test_bodies_of_any_size_pass_in_chunks(size: int) -> None:
    push = Push("k", bytes(size), 0, "", 60, 1.5)
    chunks = pack([[push]])
    assert max(map(len, chunks)) <= CHUNK_BYTES <= 512 * 1024
    assert unpack(chunks, COMET_CALLS["push"].read_arguments) == [[push]]


def test_fields_and_arguments_of_a_newer_node_are_dropped() -> None:
    """protocol.md leaves the format to us: within a version, newer nodes only add at the end."""
    rows = [("key", 16, 0, b"{}", 1, "new field")]
    assert unpack(pack((rows, "new argument")), COMET_CALLS["notice"].read_arguments) == [
        [Forward("key", 16, 0, b"{}", 1)]
    ]


def test_an_unknown_version_is_named() -> None:
    with pytest.raises(BatchError, match=f"format 99, this node reads {VERSION}"):
        unpack([msgpack.packb((99, "what may come"))], COMET_CALLS["push"].read_arguments)


@pytest.mark.parametrize(
    "chunks",
    [
        None,
        b"bytes",
        [],
        [b""],
        ["text"],
        [b"\xc1"],
        [msgpack.packb(VERSION)],
        [msgpack.packb([VERSION])],
        [msgpack.packb([])],
        [msgpack.packb([VERSION, [["k"]]])],
        [msgpack.packb([VERSION, []])],
        [msgpack.packb([VERSION, [[["key", b"", "0", "", 60, 1.0]]]])],
        [msgpack.packb([VERSION, [[["key", b"", 0, "", 60]]]])],
        [msgpack.packb([VERSION, [[5]]])],
        [msgpack.packb([VERSION, [{"a": 1}]])],
        [msgpack.packb([VERSION, [[]]]) + b"more"],
        [msgpack.packb([VERSION, [[]]])[:-1]],
        [b"\xdd\xff\xff\xff\xff"],
        [b"\x91" * 5000],
        [msgpack.packb([VERSION, [["\ud800"]]], unicode_errors="surrogatepass")],
    ],
)
def test_malformed_batches_are_refused(chunks: object) -> None:
    with pytest.raises(BatchError):
        unpack(chunks, COMET_CALLS["push"].read_arguments)


@pytest.mark.parametrize(
    "row", [((), b"", 1)[:1], (("1",), b""), ((1, None), b""), ((1.0,), b""), ((1,), "text"), (1, b"")]
)
def test_numbers_of_subscriptions_are_numbers(row: Any) -> None:
    with pytest.raises(BatchError):
        unpack(pack([row]), COMET_CALLS["feed_next"].answer)


@given(st.binary(max_size=200), st.sampled_from(sorted(CALLS)))
def test_any_bytes_give_a_value_or_a_batch_error(data: bytes, name: str) -> None:
    for read in (CALLS[name].read_arguments, CALLS[name].answer):
        for chunks in ([data], [msgpack.packb(VERSION), data], [b"\x92" + msgpack.packb(VERSION), data]):
            with suppress(BatchError):
                unpack(chunks, read)


def test_a_lying_length_claims_no_memory() -> None:
    import tracemalloc

    hostile = b"\x92\x01" + b"\xdd\x00\x01\x86\x00" * 400
    tracemalloc.start()
    with pytest.raises(BatchError):
        unpack([hostile], COMET_CALLS["push"].read_arguments)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * 2**20


@pytest.mark.parametrize("value", [object(), 2**70, "\ud800", [{1: object()}]])
def test_what_cannot_be_packed_is_named(value: object) -> None:
    with pytest.raises(BatchError, match="cannot be packed"):
        pack(value)


def test_a_batch_after_one_that_cannot_be_packed_is_whole() -> None:
    with pytest.raises(BatchError):
        pack((1, b"x" * 1000, object()))
    assert pack((2,)) == [msgpack.packb((VERSION, (2,)))]


def test_small_values_share_a_buffer_and_no_large_one_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    made, whole = [], msgpack.Packer

    def make(**options: Any) -> Any:
        made.append(options)
        return whole(**options)

    monkeypatch.setattr(msgpack, "Packer", make)
    packer = Packer(use_bin_type=False)
    for _ in range(100):
        assert packer.pack([b"a"]) == b"\x91\xa1a"
    assert len(made) == 1
    packer.pack(b"x" * (CHUNK_BYTES + 1))
    assert packer.pack([b"a"]) == b"\x91\xa1a"
    assert made == [{"use_bin_type": False}] * 2


def test_too_much_for_one_batch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gopush.rpc.codec.MAX_BATCH_BYTES", 1000)
    with pytest.raises(BatchError, match="too many"):
        pack(bytes(1001))
    with pytest.raises(BatchError, match="too many"):
        unpack([bytes(600), bytes(600)], COMET_CALLS["push"].read_arguments)
