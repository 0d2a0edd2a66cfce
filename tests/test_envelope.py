"""protocol.md, section 3: a message in both forms. How they travel is tests/comet/test_formats.py."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from gopush.model import Message, json_string, old_json, raw_json


def test_key_order_and_no_extra_blanks() -> None:
    message = Message(17000000000000000, b'{"a":1}')
    assert raw_json(message) == b'{"msg":{"a":1},"mid":17000000000000000,"gid":0}'
    assert old_json(message) == b'{"msg":"{\\"a\\":1}","mid":17000000000000000,"gid":0}'


def test_line_breaks_between_tokens_go_and_other_blanks_may_stay() -> None:
    assert raw_json(Message(16, b"\r\n[1,\n\t2 ]\n")) == b'{"msg":[1,\t2 ],"mid":16,"gid":0}'


def test_the_old_form_keeps_the_text_byte_for_byte() -> None:
    assert old_json(Message(16, b" [1,\n\t2 ]\r\n")) == b'{"msg":" [1,\\n\\t2 ]\\r\\n","mid":16,"gid":0}'


def test_an_empty_text_has_both_forms() -> None:
    assert raw_json(Message(16, b'""')) == b'{"msg":"","mid":16,"gid":0}'
    assert old_json(Message(16, b'""')) == b'{"msg":"\\"\\"","mid":16,"gid":0}'


@given(st.text())
def test_a_json_string_is_one_line_and_reads_back(text: str) -> None:
    encoded = json_string(text)
    assert json.loads(encoded) == text
    assert b"\n" not in encoded
    assert b"\r" not in encoded
