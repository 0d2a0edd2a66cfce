"""`gopush bench`: its options, how far it is, and what came out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import suppress

from gopush.client import options
from gopush.client.output import NoReaderError, check_stdout, write
from gopush.errors import UnavailableError

OPTIONS = (
    # name, least, most, default, meaning
    ("keys", 1, 10_000, 10, "keys, made for this"),
    ("subscribers", 1, 10_000, 10, "subscribers of each key"),
    ("seconds", 1, 3600, 10, "for how long to push"),
    ("size", 64, 1 << 20, 100, "bytes of a message"),
    ("rate", 0, 1_000_000, 100, "pushes a second in all; 0: as fast as gopush answers"),
    ("pushers", 1, 1000, 8, "connections that push, each one message after another"),
)
WIDTH = 78


def add_options(parser: argparse.ArgumentParser) -> None:
    """What it takes besides the options of `gopush push`."""
    options.add_web(parser)
    options.add_comet_tls(parser)
    parser.add_argument("--auth", action="store_true", help="make a token for each key, where subscribers need one")
    for name, least, most, default, meaning in OPTIONS:
        help = f"{meaning} (default: {default})"
        parser.add_argument(f"--{name}", type=_whole(least, most), default=default, metavar="N", help=help)


def run(asked: argparse.Namespace) -> None:
    """Do it, and write the report. Raises UnavailableError also where anything failed, or a delivery was lost."""
    from gopush.client.load import Runner

    check_stdout()
    numbers = {name: getattr(asked, name) for name, *_ in OPTIONS}
    runner = Runner(
        options.web(asked),
        options.admin(asked),
        auth=asked.auth,
        comet_tls=asked.comet_tls,
        progress=_progress,
        **numbers,
    )
    try:
        runner.run()
    finally:
        if runner.began:
            _progress("")
            with suppress(NoReaderError):  # what was lost is an error all the same
                write("\n".join(runner.figures.report(runner.pushed_for)))
    if wrong := runner.figures.wrong():
        raise UnavailableError(wrong)


def _progress(words: str) -> None:
    """On a terminal write one line that changes, and "" removes it; else a line each time."""
    with suppress(OSError):
        if sys.stderr is not None and sys.stderr.isatty():
            print(f"\r{words:<{WIDTH}}\r{words}", end="", file=sys.stderr, flush=True)
        elif sys.stderr is not None and words:
            print(f"gopush: {words}", file=sys.stderr, flush=True)


def _whole(least: int, most: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not (value.isdecimal() and least <= int(value) <= most):
            raise argparse.ArgumentTypeError(f"{value!r} is no number from {least} to {most}")
        return int(value)

    return parse
