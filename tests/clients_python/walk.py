"""Takes a generator's steps by hand: no sockets, a clock that moves with pauses alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gopush_client.steps import Pause, Step, Steps


class Walk:
    """`answer` gives what each step gives, or raises; what it gives for a pause is ignored, and time passes."""

    def __init__(self, answer: Callable[[Step], Any]) -> None:
        self.now = 1000.0
        self.taken: list[Step] = []
        self._answer = answer

    def clock(self) -> float:
        return self.now

    def run(self, steps: Steps[Any]) -> Any:
        """What the generator returns."""
        result: Any = None
        wrong: OSError | None = None
        while True:
            try:
                step = steps.throw(wrong) if wrong is not None else steps.send(result)
            except StopIteration as end:
                return end.value
            self.taken.append(step)
            result = wrong = None
            try:
                result = self._answer(step)
            except OSError as failed:
                wrong = failed
            if isinstance(step, Pause):
                self.now += step.seconds

    def of(self, kind: type) -> list[Any]:
        """The steps of a kind that were taken."""
        return [step for step in self.taken if isinstance(step, kind)]
