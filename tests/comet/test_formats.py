"""protocol.md, section 3, as TCP clients read it: exact bytes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gopush.model import TCP_OLD, TCP_RAW, Message

MID = 17000000000000000


@pytest.mark.parametrize(
    ("body", "msg"),
    [
        (b"1", b"1"),
        (b'{"a": 1}', b'{"a": 1}'),
        (b'{"a":\r\n  1,\n"b":[ ]}\n', b'{"a":  1,"b":[ ]}'),
        (b'"\\r\\n"', b'"\\r\\n"'),
        (b'{"a":1,"a":2,"":3}', b'{"a":1,"a":2,"":3}'),
        (b"1e400", b"1e400"),
        (b"123456789012345678901234567890", b"123456789012345678901234567890"),
        (b"1.10", b"1.10"),
        ('"ü日本😀\u2028"'.encode(), '"ü日本😀\u2028"'.encode()),
        (b'"\\ud800"', b'"\\ud800"'),
        (b'"\\/<>&"', b'"\\/<>&"'),
        (b"null", b"null"),
        (b'""', b'""'),
    ],
)
def test_raw(body: bytes, msg: bytes) -> None:
    """The pushed JSON is passed on unchanged in meaning; line breaks between tokens go."""
    line = b'{"msg":' + msg + b',"mid":17000000000000000,"gid":0}'
    assert TCP_RAW.message(Message(MID, body)) == b"$%d\r\n%b\r\n" % (len(line), line)


@pytest.mark.parametrize(
    ("body", "msg"),
    [
        (b"1", b'"1"'),
        (b'{"a": "b"}', b'"{\\"a\\": \\"b\\"}"'),
        (b' {"a":\r\n\t1} \n', b'" {\\"a\\":\\r\\n\\t1} \\n"'),
        (b'"a\\nb"', b'"\\"a\\\\nb\\""'),
        (b'"\\u0041\\\\"', b'"\\"\\\\u0041\\\\\\\\\\""'),
        ('"ü日本😀"'.encode(), '"\\"ü日本😀\\""'.encode()),
        (b'""', b'"\\"\\""'),
        ('"\u2028\x7f"'.encode(), '"\\"\u2028\x7f\\""'.encode()),
    ],
)
def test_old(body: bytes, msg: bytes) -> None:
    """A client that gave no version gets `msg` as a JSON string holding the pushed text, byte for byte."""
    line = b'{"msg":' + msg + b',"mid":17000000000000000,"gid":0}'
    assert TCP_OLD.message(Message(MID, body)) == b"$%d\r\n%b\r\n" % (len(line), line)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(JSON_VALUES, st.sampled_from([None, 1, 2]), st.booleans())
def test_both_forms_are_one_line_of_json_with_the_same_meaning(value: object, indent: int | None, ascii: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii)
    try:
        body = text.encode()
    except UnicodeEncodeError:
        return  # a lone surrogate is no UTF-8: such a body is refused at the door
    for format, read in ((TCP_RAW, lambda msg: msg), (TCP_OLD, json.loads)):
        head, _, rest = format.message(Message(MID, body)).partition(b"\r\n")
        line = rest[:-2]
        assert rest[-2:] == b"\r\n"
        assert head == b"$%d" % len(line)
        assert b"\n" not in line
        assert b"\r" not in line
        message = json.loads(line)
        assert list(message) == ["msg", "mid", "gid"]
        assert read(message["msg"]) == value
        assert (message["mid"], message["gid"]) == (MID, 0)
    assert json.loads(line)["msg"] == text


def test_replies_are_sent_as_they_are() -> None:
    assert TCP_RAW.reply(b"+h\r\n") == TCP_OLD.reply(b"+h\r\n") == b"+h\r\n"
