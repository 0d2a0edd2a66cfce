"""What a command reads and writes. A closed stream or a full disk is one line; a reader that has seen enough is none,
unless there is an outcome to tell of.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from gopush.errors import GopushError, ParameterError

WRONG_USAGE = 2
MOST_STDIN_BYTES = 1 << 30
"""No store keeps a message of this size, whatever `[http] body.size` allows."""
PIECE_BYTES = 1 << 20
ACTING = re.compile(r"[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Controls, ends of lines and marks of directions that JSON may hold as they are, within its strings alone."""


class OutputError(GopushError):
    """The output cannot be written."""


class NoReaderError(OutputError):
    """Nobody reads it any more: its reader has seen enough."""


def read_stdin() -> bytes:
    """All of stdin. Raises ParameterError. Where it does not end within reason, the command does."""
    if sys.stdin is None:
        raise ParameterError("stdin is closed")
    try:
        found = b"".join(_pieces(sys.stdin.buffer))
    except OSError as wrong:
        raise ParameterError(f"stdin cannot be read: {wrong.strerror}") from None
    if len(found) == MOST_STDIN_BYTES:
        tell(f"stdin has {MOST_STDIN_BYTES:,} bytes or more: no message is so large")
        raise SystemExit(WRONG_USAGE)
    return found


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    """A read makes room for all that it asks for; a short one has met the end, which a terminal tells of once."""
    left = MOST_STDIN_BYTES
    while left:
        size = min(left, PIECE_BYTES)
        piece = file.read(size)
        yield piece
        left = left - size if len(piece) == size else 0


def check_stdout() -> None:
    """Raise OutputError where there is none."""
    if sys.stdout is None:
        raise OutputError("stdout is closed")


def write(words: object, end: str = "\n") -> None:
    """Write words, or bytes as they are. Raises OutputError."""
    check_stdout()
    content = words if isinstance(words, bytes) else str(words).encode(errors="surrogateescape")
    with writing():
        sys.stdout.buffer.write(content + end.encode())
        sys.stdout.buffer.flush()


def write_message(message: bytes) -> None:
    """Write JSON as it is; to a terminal with escapes for what acts there, or turns around what one reads: it means the
    same. Raises OutputError.
    """
    check_stdout()
    if sys.stdout.isatty():
        text = message.decode(errors="surrogateescape")
        message = ACTING.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode(errors="surrogateescape")
    write(message)


def write_outcome(words: object, done: str) -> None:
    """Write what a command that has `done` its work tells of it: where that fails it has worked all the same."""
    try:
        write(words)
    except OutputError as wrong:
        tell(f"{done}, but {wrong}")


@contextmanager
def writing() -> Iterator[None]:
    """Around what writes to stdout: raises OutputError."""
    try:
        yield
    except OSError as wrong:
        # At the exit nothing is flushed: the rest could not be written then either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        refused = NoReaderError if isinstance(wrong, BrokenPipeError) else OutputError
        raise refused(f"stdout cannot be written: {wrong.strerror}") from None


def tell(words: str) -> None:
    """A line for the person, on stderr."""
    if sys.stderr is not None:
        with suppress(OSError):
            print(f"gopush: {words}", file=sys.stderr, flush=True)
