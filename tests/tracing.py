"""Runs twistd and notes which functions of gopush it enters: from one SIGUSR2 to the next one.

`python -m tests.tracing FILE ARGUMENTS`: FILE gets the functions, in the order in which they were first entered, as a
JSON list of pairs: the path below the package, and the qualified name.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import gopush

PACKAGE = str(Path(gopush.__file__).parent) + os.sep


class Tracer:
    """Notes every call of a function of gopush, comprehensions, lambdas and class bodies not counted."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._entered: dict[CodeType, None] | None = None

    def asked(self, *_: object) -> None:
        """Begin or end between two turns of the reactor: what has begun is noted to its end."""
        from twisted.internet import reactor

        call_later: Any = reactor
        call_later.callFromThread(self._toggle)

    def _toggle(self) -> None:
        if self._entered is None:
            self._entered = {}
            sys.setprofile(self._note)
            self._file.with_suffix(".begun").touch()
            return
        sys.setprofile(None)
        functions = [
            (code.co_filename.removeprefix(PACKAGE), code.co_qualname)
            for code in self._entered
            if code.co_filename.startswith(PACKAGE) and not code.co_name.startswith("<")
        ]
        self._entered = None
        written = self._file.with_suffix(".part")
        written.write_text(json.dumps(functions))
        written.rename(self._file)

    def _note(self, frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and self._entered is not None:
            self._entered.setdefault(frame.f_code)


def main() -> None:
    """Be twistd, with a tracer."""
    tracer = Tracer(Path(sys.argv[1]))
    signal.signal(signal.SIGUSR2, tracer.asked)
    sys.argv[1:2] = []
    from twisted.scripts.twistd import run

    run()


if __name__ == "__main__":
    main()
