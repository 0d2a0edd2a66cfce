"""What is written into a stream, read by the HTML standard's own words (tests/event_source.py)."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gopush.event_stream import COMMENT, GAP_EVENT, event, event_format, opening, refusal
from gopush.model import GAP, HEARTBEAT, Message
from gopush.net.http.request import chunk
from tests.event_source import Event, Parser

WIDE = st.text(st.characters(blacklist_categories=["Cs"]) | st.sampled_from("\r\n\0:\ufeff\u2028\u0085 "), max_size=30)


def parsed(*pieces: bytes) -> tuple[list[Event], Parser]:
    parser = Parser()
    return [event for piece in pieces for event in parser.feed(piece)], parser


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: a\n\n", [("message", "a", "")]),
        (b"\xef\xbb\xbfdata: a\n\n", [("message", "a", "")]),
        (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata:b\n\n", [("message", "b", "")]),
        (b"data: a\r\n\r\ndata: b\r\rdata: c\n\n", [("message", "a", ""), ("message", "b", ""), ("message", "c", "")]),
        (b"data: a\rdata:  b\n\n", [("message", "a\n b", "")]),
        (b"data\n\n", [("message", "", "")]),
        (b"data: a\n", []),
        (b"event: x\n\ndata: a\n\n", [("message", "a", "")]),
        (b"event: x\ndata: a\n\n", [("x", "a", "")]),
        (b"id: 1\n\ndata: a\n\n", [("message", "a", "1")]),
        (b"id: 1\nid: 2\0\ndata: a\n\n", [("message", "a", "1")]),
        (b"id: 1\ndata: a\n\nid\ndata: b\n\n", [("message", "a", "1"), ("message", "b", "")]),
        (b": data: a\nretry: 5x\nDATA: a\ndata : b\n\n", []),
    ],
)
def test_the_reader_is_strict(stream: bytes, expected: list[tuple[str, str, str]]) -> None:
    """However it is cut: also between CR and LF, and within a character."""
    for cut in range(len(stream) + 1):
        assert parsed(stream[:cut], stream[cut:])[0] == expected


def test_retry_is_of_digits_alone() -> None:
    for text, expected in ((b"1500", 1500), (b"15a", None), (b"", None), (b"-1", None), ("٣".encode(), None)):
        assert parsed(b"retry: %b\n\n" % text)[1].retry_ms == expected


def test_a_stream_begins_with_an_id_that_is_no_event() -> None:
    events, parser = parsed(opening(1234, 17_000_000_000_000_000))
    assert events == []
    assert (parser.retry_ms, parser.last_id) == (1234, "17000000000000000")
    events, parser = parsed(opening(1, 0), opening(2, None))
    assert (events, parser.retry_ms, parser.last_id) == ([], 2, "0")


@given(
    st.recursive(
        st.none() | st.booleans() | WIDE | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(WIDE, inner)
    )
)
def test_any_json_is_one_event(value: object) -> None:
    """protocol.md, section 3: line breaks can stand between tokens alone, and go."""
    body = json.dumps(value, indent="\r\n", ensure_ascii=False).encode()
    (found,), _ = parsed(event(Message(32, body)))
    assert (found.type, found.id) == ("message", "32")
    assert json.loads(found.data) == {"msg": value, "mid": 32, "gid": 0}


def test_comments_gaps_and_refusals() -> None:
    events, parser = parsed(opening(1, 16), COMMENT, event(Message(32, b"1")), COMMENT, GAP_EVENT, refusal('a"b'))
    assert events == [
        ("message", '{"msg":1,"mid":32,"gid":0}', "32"),
        ("gap", "{}", "32"),
        ("refused", '{"reason":"a\\"b"}', "32"),
    ]
    assert parser.comments == 2


def test_each_message_is_framed_for_itself() -> None:
    format = event_format(chunk)
    assert format.message(Message(16, b"1")) == b"29\r\nid: 16\ndata: {" + b'"msg":1,"mid":16,"gid":0}\n\n\r\n'
    assert format.reply(GAP) == chunk(GAP_EVENT)
    assert format.reply(HEARTBEAT) == HEARTBEAT
