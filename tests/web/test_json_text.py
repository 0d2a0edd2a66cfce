"""What counts as JSON, and that no byte of it changes."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gopush.errors import ParameterError
from gopush.web import params

VALID = [
    b"{}",
    b"[]",
    b" \t\r\n{ } \n",
    b"0",
    b"-0",
    b"1e400",
    b"-1.5E-7",
    b"9" * 30,
    b"7" * 10_000,
    b"1." + b"3" * 10_000,
    b'""',
    b'"\\ud800"',
    b'"\\uDC00\\n\\/"',
    b'"\x7f\xc2\x80"',
    b'{"a":1,"a":2}',
    b'{"":null}',
    b"[" * 100_000 + b"]" * 100_000,
    b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    b'[{"a":[1,2,{}],"b":"]}"},' * 2_000 + b"0" + b"]" * 2_000,
    b"[ " * 2_000 + b"1 , [ ] , 2" + b" ]" * 2_000 + b"\n",
    b'{"a" : 1 , "b" : [ ' * 2_000 + b'"x"' + b' ] , "c" : { } } ' * 2_000,
    "\U0001f600".join(['"', '"']).encode(),
]
INVALID = [
    b"",
    b" ",
    b"\xef\xbb\xbf{}",
    b"\xff",
    b'"\xed\xa0\x80"',
    b'"\xc0\x80"',
    b"NaN",
    b"[Infinity]",
    b"-Infinity",
    b'"a\nb"',
    b'"a\x00b"',
    b"'a'",
    b"{a:1}",
    b'{"a"}',
    b'{"a":}',
    b'{"a":1,}',
    b"[1,]",
    b"[,1]",
    b"[1 2]",
    b"01",
    b"1.",
    b".5",
    b"+1",
    b"1e",
    b"- 1",
    b"1 2",
    b"{}{}",
    b"tru",
    b"True",
    b'"\\x"',
    b'"\\u12"',
    b'"\\u 123"',
    b'"abc',
    b"\xc2\xa0{}",
    b"\x0b1",
    "\u0661".encode(),
    b"[" * 100_000,
    b"[" * 100_000 + b"]" * 99_999,
    b"[" * 100_000 + b"]" * 100_001,
    b"[" * 100_000 + b"," + b"]" * 100_000,
    b"[" * 100_000 + b"1,]" + b"]" * 99_999,
    b"[" * 100_000 + b"]" * 99_999 + b"}",
    b'{"a":' * 100_000 + b"}" * 100_000,
    b'[{"a":' * 2_000 + b"NaN" + b"}]" * 2_000,
    b"[1,2" * 2_000 + b"]" * 2_000,
    b'{"a":1 ' * 2_000 + b"}" * 2_000,
]


@pytest.mark.parametrize("body", VALID, ids=lambda body: repr(body[:20]))
def test_valid_json_is_valid_whatever_its_size(body: bytes) -> None:
    """protocol.md, section 3: "Valid JSON is valid whatever its size"."""
    params.check_json(body)


@pytest.mark.parametrize("body", INVALID, ids=lambda body: repr(body[:20]))
def test_what_is_not_json_in_utf8_is_refused(body: bytes) -> None:
    """protocol.md, section 5: "a body that is not JSON (UTF-8) is 65534"."""
    with pytest.raises(ParameterError):
        params.check_json(body)


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b'{"a":1,"b":x}', "at character 11"),
        (b'{"a":1 "b":2}', "at character 7"),
        ('{"\xe9":"\\q"}'.encode(), "at character 6"),
        (b'{"a":1} x', "at character 8"),
        (b'{"a\\q":1}', "at character 3"),
        (b'{"a":tru}', "at character 5"),
        (b'{"a":NaN}', "it holds NaN"),
        (b'{"a":' + b"[" * 5_000 + b"x", "at character 5005"),
        (b'{"a":' + b"[" * 5_000 + b'"\\q"', "at character 5006"),
        (b'{"a":' + b"[" * 5_000 + b"-Infinity", "it holds -Infinity"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_what_is_wrong_is_said_with_its_place(body: bytes, where: str) -> None:
    for check in (params.check_json, lambda body: params.properties(body.decode())):
        with pytest.raises(ParameterError, match=re.escape(f"is not JSON ({where})")):
            check(body)


def _is_json(text: str) -> bool:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        json.loads(text, parse_constant=refuse)
    except ValueError:
        return False
    return True


def _accepts(text: str) -> bool:
    try:
        params.check_json(text.encode())
    except ParameterError:
        return False
    return True


NESTED = 1_500
FRAGMENTS = st.lists(
    st.sampled_from(
        ["[", "]", "{", "}", ",", ":", '"a"', '"\\u00e9"', '"', "1", "-1.5e3", "0", "true", "null", " ", "\n", "x", "é"]
    ),
    max_size=12,
).map("".join)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(FRAGMENTS)
@example("[1,{}]")
def test_the_same_texts_pass_as_in_the_standard_library(text: str) -> None:
    assert _accepts(text) == _is_json(text)


@given(FRAGMENTS)
@example('[[],{"a":[]}]')
@example("")
def test_the_walk_for_deep_texts_agrees_with_the_scanner(text: str) -> None:
    deep = "[" * NESTED + text + "]" * NESTED
    shallow = "[[" + text + "]]"
    if not text.strip().startswith("]"):  # what closes more than it opens would find another match in the deep one
        assert _accepts(deep) == _is_json(shallow)


@given(VALUES, st.sampled_from([None, 1]), st.booleans())
def test_what_the_standard_library_writes_passes_at_any_depth(value: object, indent: int | None, ascii: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii)
    assert _accepts(text)
    assert _accepts("[" * NESTED + text + "]" * NESTED)
    assert not _accepts("[" * NESTED + text + "]" * (NESTED - 1))


def test_properties_come_as_they_are_written() -> None:
    deep = "[" * 5_000 + "]" * 5_000
    text = f' {{ "k" : "a\\u0062" ,"m": {{"n": 1.0e0 , "n":12345678901234567890 }},"d":{deep} }} '
    found = params.properties(text)
    assert list(found) == ["k", "m", "d"]
    assert found["k"].value == "ab"
    assert found["m"].of(text) == '{"n": 1.0e0 , "n":12345678901234567890 }'
    assert found["d"].of(text) == deep


def test_of_a_name_that_comes_again_the_last_one_counts() -> None:
    assert params.properties('{"a":1,"b":"x" , "a" : "y"}')["a"].value == "y"


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "1", "{", "{,}", '{"a', '{"a"', '{"a":1', '{"a":}', '{"a":1,}', '{"a":1}x', '{"a":NaN}'),
        *("{1:2}", '{"a" 1}', '{"a":1 "b":2}', '{"a\n":1}'),
    ],
)
def test_properties_of_what_is_no_object(text: str) -> None:
    with pytest.raises(ParameterError):
        params.properties(text)


def test_an_empty_object_has_no_properties() -> None:
    assert params.properties(" { } ") == {}


def test_an_object_has_at_most_a_thousand_properties() -> None:
    """protocol.md, section 5. Each is looked at by itself, and nobody else is served meanwhile."""
    members = [f'"{number}":{number}' for number in range(1001)]
    assert len(params.properties(f"{{{','.join(members[:1000])}}}")) == 1000
    for many in (members, ['"a":1'] * 1001):
        with pytest.raises(ParameterError, match="has more than 1000 members"):
            params.properties(f"{{{','.join(many)}}}")


KIB = "[" + "[]," * 341 + "[]]"  # 1,027 characters


@pytest.mark.parametrize(
    ("text", "good"),
    [
        (f'{{"a":[{",".join([KIB] * 60)}],"b":1}}', True),
        (f'{{"a":[{",".join([KIB] * 70)}],"b":1}}', False),
        (f'{{"a":{{"x":[{",".join([KIB] * 70)}]}}}}', False),
        (f'{{{",".join([f""""{n}":{KIB}""" for n in range(60)])}}}', True),
        (f'{{{",".join([f""""{n}":{KIB}""" for n in range(70)])}}}', False),
        (f'{{"a":"{KIB * 70}","b":{"1" * 70_000}}}', True),
        (f'{{"m":[{",".join([KIB] * 70)}],"b":[]}}', True),
        (json.dumps({"k": ["\\x" * 99] * 1000, "b": 1}, indent=1), True),
        (json.dumps({"k": ["x" * 99] * 1002}), False),
        (json.dumps({"k": ["x" * 99] * 1000 + [[]]}), False),
        (json.dumps({"a": ["x" * 99] * 1000, "k": ["x" * 99] * 1000}), True),
    ],
    ids=range(11),
)
def test_only_the_message_and_lists_of_strings_are_large(text: str, good: bool) -> None:
    """protocol.md, section 5. The scanner takes two seconds for 16 MiB of lists and objects; none for strings."""
    if good:
        assert {name: found.of(text) for name, found in params.properties(text, message="m", strings=1000).items()}
    else:
        with pytest.raises(ParameterError, match="holds too much there: only a list of at most 1000 strings may"):
            params.properties(text, message="m", strings=1000)


@pytest.mark.parametrize(
    "hostile",
    [
        b"[" * 2_000_000 + b"]" * 2_000_000,
        b"[" + b",".join([b"[" * 20_000 + b"]" * 20_000] * 20) + b"]",
        b"{" + b",".join([b'"a":' + b"[" * 90_000 + b"]" * 90_000] * 20) + b"}",
    ],
)
def test_depth_is_taken_up_to_a_bound(hostile: bytes) -> None:
    """What is deep is walked slowly; nobody else is served meanwhile, so the walk is bounded, not only the body."""
    params.check_json(b"[" * 90_000 + b"]" * 90_000)
    with pytest.raises(ParameterError, match="too deeply"):
        params.check_json(hostile)
    with pytest.raises(ParameterError):
        params.properties(hostile.decode())
