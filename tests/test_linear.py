"""What a stranger sends is parsed in time that grows as its size does: counted in steps, not by a clock."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest

import gopush
from gopush import model
from gopush.comet import codec, handshake
from gopush.errors import ParameterError
from gopush.web import params
from tests.counting import Counting, interpreted, pumped

KIB = 1024
SIZES = 1 * KIB, 2 * KIB, 4 * KIB, 8 * KIB
HEAD = b"GET /sub HTTP/1.1\r\nHost: a\r\n"


def growth(steps: list[int]) -> float:
    """How often more steps twice the size takes, at worst: 2 where they grow as the size does, 4 with its square. The
    first doubling may pass a threshold: from some depth on, JSON is walked and not scanned."""
    return max(after / before for before, after in pairwise(steps[1:]))


def count(monkeypatch: pytest.MonkeyPatch, module: Any, parse: Callable[..., object], *given: Any) -> int:
    """The steps of a parser, with those of its module's patterns and of the JSON scanner."""
    with monkeypatch.context() as patch:
        patterns = []
        for name, value in list(vars(module).items()):
            if isinstance(value, re.Pattern):
                patterns.append(Counting(value))
                patch.setattr(module, name, patterns[-1])
        scanned = [0]
        if hasattr(module, "_scan"):
            patch.setattr(module, "_scan", _counted(module._scan, scanned))
        steps = interpreted(lambda: _parsed(parse, *given))
        return steps + sum(pattern.steps for pattern in patterns) + scanned[0]


def _parsed(parse: Callable[..., object], *given: Any) -> None:
    with suppress(ParameterError, handshake.HandshakeError):
        parse(*given)


def _counted(
    scan: Callable[[str, int], tuple[Any, int]], scanned: list[int], at_most: float = float("inf")
) -> Callable[[str, int], Any]:
    """The scanner: it has seen all up to where it stops, or up to the bracket that is nested too deeply for it."""

    def counted(text: str, at: int) -> tuple[Any, int]:
        assert scanned[0] <= at_most
        try:
            found = scan(text, at)
        except RecursionError:
            depth, end = 0, at
            while depth < 900 and end < len(text):
                depth += (text[end] in "[{") - (text[end] in "]}")
                end += 1
            scanned[0] += end - at
            raise
        scanned[0] += found[1] - at
        return found

    return counted


def of_size(start: bytes, filling: bytes, end: bytes = b"") -> Callable[[int], bytes]:
    return lambda size: start + filling * ((size - len(start) - len(end)) // len(filling)) + end


HANDSHAKES = {
    "blanks in a value": of_size(HEAD + b"X: a", b" ", b"b\r\n\r\n"),
    "blanks before a value": of_size(HEAD + b"X:", b" ", b"b\r\n\r\n"),
    "tabs and blanks": of_size(HEAD + b"X:", b"\t ", b"b\r\n\r\n"),
    "short fields": of_size(HEAD, b"a:\r\n", b"\r\n"),
    "short fields that end wrong": of_size(HEAD, b"a:\r\n", b"\x01\r\n\r\n"),
    "a list": of_size(HEAD + b"Connection: ", b",", b"\r\n\r\n"),
    "an authority": of_size(b"GET a://", b"x", b"# HTTP/1.1\r\n\r\n"),
    "a scheme": of_size(b"GET ", b"a", b" HTTP/1.1\r\n\r\n"),
    "schemes": of_size(b"GET ", b"a://", b" HTTP/1.1\r\n\r\n"),
    "a target without an end": of_size(b"GET /", b"%", b"\x00\r\n\r\n"),
    "a path of escapes": of_size(b"GET /", b"%73", b" HTTP/1.1\r\n\r\n"),
    "a method": of_size(b"G", b"E", b"\r\n\r\n"),
    "a name without an end": of_size(HEAD, b"x", b"\r\n\r\n"),
    "no end": of_size(HEAD, b"x: y\r\n"),
}
LIMIT = handshake.MAX_HEAD_BYTES


@pytest.mark.parametrize("name", HANDSHAKES)
def test_opening_handshakes(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """protocol.md, section 2. The old one took a second for 8 KB of blanks, or of an authority."""
    steps = [count(monkeypatch, handshake, handshake.read, HANDSHAKES[name](min(size, LIMIT))) for size in SIZES]
    assert growth(steps) < 2.5


def argument(data: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(data), data)


REQUESTS: dict[str, Callable[[int], bytes]] = {
    "a long line": of_size(b"", b"x"),
    "many lines": of_size(b"*3\r\n$3\r\nsub\r\n", b"\n"),
    "arguments": of_size(b"*6\r\n", b"$0\r\n\r\n"),
    "a token": lambda size: b"*4\r\n" + b"".join(map(argument, (b"sub", b"k", b"30", b"t" * (size // 2)))),
    "digits": of_size(b"*3\r\n$3\r\nsub\r\n$1\r\nk\r\n$", b"0"),
}


def in_lines(data: bytes) -> None:
    request = codec.SubRequest()
    for line in data.split(b"\n"):
        if not request.begins(line) or request.take(line) is not None:
            return


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("read", [codec.whole, in_lines])
def test_tcp_requests(monkeypatch: pytest.MonkeyPatch, name: str, read: Callable[[bytes], object]) -> None:
    steps = [count(monkeypatch, codec, read, REQUESTS[name](size)) for size in SIZES]
    assert growth(steps) < 2.5


@pytest.mark.parametrize("letter", ["0", "9", "+", "٣", "\x00", "k"])
def test_parameters_of_a_subscription(monkeypatch: pytest.MonkeyPatch, letter: str) -> None:
    for at in range(5):
        steps = []
        for size in SIZES:
            values = ["k", "30", "t", "1", "16"]
            values[at] = letter * size
            steps.append(count(monkeypatch, model, model.subscribe, *values))
        assert growth(steps) < 2.5


def level(size: int, wide: str, levels: int = 1100) -> str:
    """JSON of so many levels, in each of which something wide stands before the next one."""
    return ("[" + wide * (size // len(wide))) * levels + "1" + "]" * levels


def checked(text: str) -> None:
    params.check_json(text.encode())


JSON: dict[str, Callable[[int], str]] = {
    "blanks": lambda size: " " * size,
    "blanks in an object": lambda size: '{"a":1' + " " * size + "x",
    "blanks behind a name": lambda size: '{"a"' + " " * size + "x",
    "names": lambda size: "{" + '"a":1,' * (size // 6) + "}",
    "a name without an end": lambda size: '{"' + "a" * size,
    "names with escapes": lambda size: "{" + '"\\n":1 ,' * (size // 8) + "}",
    "levels": lambda size: "[" * size + "]" * size,
    "objects in levels": lambda size: '{"a":' * size + "1" + "}" * size,
    "wide levels": lambda size: level(size // 256, "[],"),
    "levels of numbers": lambda size: level(size // 256, "1,"),
    "levels of objects": lambda size: level(size // 256, '{"a":1},'),
}


@pytest.mark.parametrize("name", JSON)
def test_pushed_json(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    texts = [JSON[name](size) for size in SIZES]
    for parse in (checked, params.properties):
        steps = [count(monkeypatch, params, parse, text) for text in texts]
        assert growth(steps) < 2.5


def test_json_that_is_deep_and_wide_is_scanned_a_few_times_and_not_hundreds(monkeypatch: pytest.MonkeyPatch) -> None:
    """1.2 MB of it held the reactor for 16 seconds: each level had the scanner look at a thousand levels in vain."""
    text, scanned = level(300, "[],"), [0]
    monkeypatch.setattr(params, "_scan", _counted(params._scan, scanned, at_most=8 * len(text)))
    _parsed(checked, text)
    assert scanned[0] <= 8 * len(text)
    params.check_json(level(30, "[],").encode())  # what is good stays so


# --- the kind: every pattern of gopush ---


def patterns() -> Iterator[tuple[str, re.Pattern[Any]]]:
    for module in pkgutil.walk_packages(gopush.__path__, "gopush."):
        if module.name.rpartition(".")[2] == "__main__" or module.name.startswith("gopush.client"):
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, re.Pattern):
                yield f"{module.name}.{name}", value


PATTERNS = dict(patterns())
READ_BY_OPERATORS = {"gopush.message.redis.settings._SOURCE", "gopush.net.tls._PEM"}
"""Patterns for what stands in our own files."""


@pytest.mark.parametrize("name", sorted(PATTERNS.keys() - READ_BY_OPERATORS))
def test_no_pattern_takes_more_than_linear_time(name: str) -> None:
    """A pattern's text with any of its characters repeated, however it ends."""
    steps: list[list[int]] = []
    for times in (20, 40, 80):
        counting = Counting(PATTERNS[name])
        taken = []
        for text in pumped(PATTERNS[name], times):
            counting.steps = 0
            counting.run(text, full=True)
            taken.append(counting.steps)
        steps.append(taken)
    for few, more, most in zip(*steps, strict=True):
        assert most - more < 2.5 * max(more - few, 1) + 50


@pytest.mark.parametrize(
    "pattern", [rb"([^:]+):[ \t]*(.*?)[ \t]*\r\n", rb"(?:[A-Za-z]+://[^/?#]*)?([^?#]*)(?:\?([^#]*))?", rb"a+a+b"]
)
def test_patterns_that_take_more_are_found(monkeypatch: pytest.MonkeyPatch, pattern: Any) -> None:
    """The first two were those of the opening handshake."""
    monkeypatch.setitem(PATTERNS, "bad", re.compile(pattern))
    with pytest.raises(AssertionError):
        test_no_pattern_takes_more_than_linear_time("bad")
