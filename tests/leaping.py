"""A clock for whatever is tested in a real reactor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.conftest import reactor


class LeapingClock:
    """The reactor calls, but deadlines are seen on a clock that only tests put on."""

    def __init__(self) -> None:
        self.now = float(reactor.seconds())

    def seconds(self) -> float:
        return self.now

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kwargs: object) -> Any:
        return reactor.callLater(delay, callable, *args, **kwargs)
