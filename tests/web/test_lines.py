"""The lines of a bulk call: a quick look at a line says what a scan of it says, or nothing."""

from __future__ import annotations

import json
from itertools import permutations
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gopush.errors import ParameterError
from gopush.web import lines
from gopush.web.params import PublishRequest

BLANKS = st.text(" \t\r\n", max_size=2)
NAMES = st.sampled_from(["k", "m", "expire", "id", "other", "\\u006b", ""])
TEXTS = st.sampled_from(['"a"', '"\u00fc"', '""', '"a\\"b"', '"\x01"', '"' + "k" * 256 + '"'])
VALUES = st.one_of(
    TEXTS,
    st.sampled_from(
        ["0", "600", "007", "-1", "1e3", "1.5", "null", "true", '"600"', "[1,", "NaN", "[" * 2000 + "]" * 2000]
    ),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=6,
    ).map(json.dumps),
)


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Mostly lines as they should be, in any order of their members and with blanks anywhere."""
    usual = [("k", '"a"'), ("m", draw(VALUES)), ("expire", "600"), ("id", '"i"')]
    chosen = draw(st.permutations(usual)) + draw(st.lists(st.tuples(NAMES, VALUES), max_size=2))
    chosen = chosen[draw(st.integers(0, 1)) :]
    blank = [draw(BLANKS) for _ in range(6)]
    members = [f'{blank[0]}"{name}"{blank[1]}:{blank[2]}{value}{blank[3]}' for name, value in chosen]
    return blank[4] + "{" + ",".join(members) + "}" + draw(st.sampled_from(["", "", blank[5], "x", ","]))


def said(read: Any, text: str) -> object:
    """What a way to read says, or that it refuses."""
    try:
        return read(text, 600)
    except ParameterError:
        return ParameterError


@given(texts())
@example('{"k":"a","expire":600,"m":1}')
@example('{"m":1,"k":"a","expire":600,"k":"b"}')
@example('{"m":1,"m":2,"k":"a","expire":600}')
@example('{"k":"a","expire":600,"m":1,"k":""}')
@example('{"k":"a","expire":600,"m":1,"id":""}')
@example('{"k":"a","expire":600,"m":1,"id":null}')
def test_the_quick_look_says_what_the_scan_says(text: str) -> None:
    looked = said(lines._look, text)
    assert looked is None or looked == said(lines._scan, text)


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
@pytest.mark.parametrize("order", list(permutations(["k", "m", "expire", "id"])))
def test_common_lines_need_no_more_than_a_look(order: tuple[str, ...], separators: tuple[str, str]) -> None:
    values = {"k": "\u00fc", "m": {"a": [1, "\u00fc"]}, "expire": 600, "id": "i"}
    text = json.dumps({name: values[name] for name in order}, ensure_ascii=False, separators=separators)
    body = json.dumps(values["m"], ensure_ascii=False, separators=separators).encode()
    assert lines._look(text, 600) == PublishRequest("\u00fc", body, 600, "i")
