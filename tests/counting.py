"""What a parser costs in steps, whatever the machine: those of a backtracking matcher, and of the interpreter."""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from re import _constants as names  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

Instruction = tuple[Any, ...]


class Counting:
    """A compiled pattern that counts the steps of its matches, as a matcher that backtracks takes them."""

    def __init__(self, pattern: re.Pattern[Any]) -> None:
        self.steps = 0
        self._pattern = pattern
        self._program: list[Instruction] = []
        self._compile(parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE if _is_bytes(pattern) else 0))
        self._program.append(("match",))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pattern, name)

    def match(self, text: Any, start: int = 0) -> Any:
        self.run(text, start)
        return self._pattern.match(text, start)

    def fullmatch(self, text: Any, start: int = 0, end: int = sys.maxsize) -> Any:
        self.run(text, start, end, full=True)
        return self._pattern.fullmatch(text, start, end)

    def search(self, text: Any) -> Any:
        self._everywhere(text, first=True)
        return self._pattern.search(text)

    def findall(self, text: Any) -> Any:
        self._everywhere(text, first=False)
        return self._pattern.findall(text)

    def sub(self, by: Any, text: Any, *count: int) -> Any:
        self._everywhere(text, first=bool(count))
        return self._pattern.sub(by, text, *count)

    def _everywhere(self, text: Any, first: bool) -> None:
        at = 0
        while at <= len(text):
            end = self.run(text, at)
            if end is not None and first:
                return
            at = at + 1 if end is None else max(end, at + 1)

    def run(self, text: Any, start: int = 0, end: int = sys.maxsize, full: bool = False) -> int | None:
        """Count the steps of one attempt at `start`; where it ends."""
        codes = _codes_of(text)
        found, steps = _run(self._program, codes, start, min(end, len(codes)), full)
        self.steps += steps
        return found

    def _compile(self, tree: Any) -> None:
        for kind, argument in tree:
            self._one(kind, argument)

    def _one(self, kind: Any, argument: Any) -> None:
        program = self._program
        if kind in (names.LITERAL, names.NOT_LITERAL, names.IN, names.ANY):
            program.append(("char", _accepts(kind, argument)))
        elif kind is names.SUBPATTERN:
            self._compile(argument[-1])
        elif kind in (names.MAX_REPEAT, names.MIN_REPEAT):
            self._repeat(argument, kind is names.MAX_REPEAT)
        elif kind is names.BRANCH:
            self._branch(argument[1])
        elif kind in (names.ASSERT, names.ASSERT_NOT):
            inner = Counting.__new__(Counting)
            inner._program = []
            inner._compile(argument[1])
            program.append(("look", argument[0], kind is names.ASSERT, [*inner._program, ("match",)]))
        elif kind is names.POSSESSIVE_REPEAT:
            inner = Counting.__new__(Counting)
            inner._program = []
            inner._repeat(argument, True)
            program.append(("atomic", [*inner._program, ("match",)]))
        elif kind is names.AT:
            program.append(("at", argument))
        else:
            raise NotImplementedError(kind)

    def _repeat(self, argument: Any, greedy: bool) -> None:
        (least, most, body), program = argument, self._program
        for _ in range(least):
            self._compile(body)
        if most == names.MAXREPEAT:
            start = len(program)
            program.append(())
            self._compile(body)
            program.append(("jump", start))
            program[start] = ("split", start + 1, len(program)) if greedy else ("split", len(program), start + 1)
            return
        splits = []
        for _ in range(most - least):
            splits.append(len(program))
            program.append(())
            self._compile(body)
        for split in splits:
            program[split] = ("split", split + 1, len(program)) if greedy else ("split", len(program), split + 1)

    def _branch(self, ways: Any) -> None:
        program, ends = self._program, []
        for way in ways[:-1]:
            split = len(program)
            program.append(())
            self._compile(way)
            ends.append(len(program))
            program.append(())
            program[split] = ("split", split + 1, len(program))
        self._compile(ways[-1])
        for end in ends:
            program[end] = ("jump", len(program))


def _is_bytes(pattern: re.Pattern[Any]) -> bool:
    return isinstance(pattern.pattern, bytes)


@lru_cache(4)
def _codes_of(text: Any) -> Any:
    return text if isinstance(text, bytes) else [ord(char) for char in text]


def _run(program: list[Instruction], codes: Any, start: int, end: int, full: bool) -> tuple[int | None, int]:
    waiting, steps = [(0, start)], 0
    while waiting:
        pc, at = waiting.pop()
        while True:
            steps += 1
            kind, *arguments = program[pc]
            if kind == "char" and at < end and arguments[0](codes[at]):
                pc, at = pc + 1, at + 1
            elif kind == "jump":
                pc = arguments[0]
            elif kind == "split":
                waiting.append((arguments[1], at))
                pc = arguments[0]
            elif kind == "look":
                way, wanted, inner = arguments
                found, more = _run(inner, codes, at if way > 0 else at - 1, end, False) if at + way >= 0 else (None, 0)
                steps += more
                if (found is not None) is not wanted:
                    break
                pc += 1
            elif kind == "atomic":
                found, more = _run(arguments[0], codes, at, end, False)
                steps += more
                if found is None:
                    break
                pc, at = pc + 1, found
            elif kind == "at" and (at == 0 if "BEGINNING" in str(arguments[0]) else at >= end):
                pc += 1
            elif kind == "match" and (not full or at == end):
                return at, steps
            else:
                break
    return None, steps


def _accepts(kind: Any, argument: Any) -> Callable[[int], bool]:
    if kind is names.LITERAL:
        return lambda code: code == argument
    if kind is names.NOT_LITERAL:
        return lambda code: code != argument
    if kind is names.ANY:
        return lambda code: code != 10
    negated = bool(argument and argument[0][0] is names.NEGATE)
    codes = frozenset(_codes(argument))
    return lambda code: (code in codes) is not negated


def _codes(items: Any) -> Iterator[int]:
    for kind, argument in items:
        if kind is names.LITERAL:
            yield argument
        elif kind is names.RANGE:
            yield from range(argument[0], min(argument[1], 0x2FF) + 1)
        elif kind is names.CATEGORY:
            sign = {"DIGIT": r"\d", "SPACE": r"\s", "WORD": r"\w"}[str(argument).rpartition("_")[2]]
            yield from (code for code in range(0x300) if re.match(sign, chr(code)))


def interpreted(function: Callable[[], object]) -> int:
    """How many instructions of the interpreter a call takes."""
    steps = 0

    def trace(frame: Any, event: str, _: object) -> Any:
        nonlocal steps
        if "tests" in frame.f_code.co_filename:  # what counts, does not
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        steps += event == "opcode"
        return trace

    before, collects = sys.gettrace(), gc.isenabled()
    # Others have it call functions of theirs: these would count, and end the trace where the stack is full.
    gc.disable()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
        if collects:
            gc.enable()
    return steps


def pumped(pattern: re.Pattern[Any], times: int) -> Iterator[Any]:
    """Texts that a pattern may find hard: one that it takes, with a character in it repeated, with and without an end
    that it does not take."""
    is_bytes = _is_bytes(pattern)
    tree = parser.parse(pattern.pattern, 0)
    example = list(_example(tree))
    letters = sorted({*example, *map(ord, ' a0"\\'), 0})
    for at in range(len(example) + 1):
        for letter in {*example[max(0, at - 1) : at + 1], *map(ord, " a0")}:
            middle = [*example[:at], *[letter] * times]
            for rest in ([], example[at:], [*example[at:], 35], *([other] for other in letters[:3])):
                codes = [*middle, *rest]
                yield bytes(codes) if is_bytes else "".join(map(chr, codes))


def _example(tree: Any) -> Iterator[int]:
    for kind, argument in tree:
        if kind is names.LITERAL:
            yield argument
        elif kind in (names.NOT_LITERAL, names.ANY, names.IN):
            accepts = _accepts(kind, argument)
            yield next(code for code in (*range(97, 123), *range(32, 256), *range(32)) if accepts(code))
        elif kind is names.SUBPATTERN:
            yield from _example(argument[-1])
        elif kind in (names.MAX_REPEAT, names.MIN_REPEAT):
            for _ in range(max(1, argument[0])):
                yield from _example(argument[2])
        elif kind is names.BRANCH:
            yield from _example(argument[1][0])
