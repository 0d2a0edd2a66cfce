"""The garbage collector, for a process with many objects that live long.

A full collection looks at every object: with 20,000 connections that is a pause which clients see. So what was there at
the start is not looked at any more, and neither is what made a full collection take too long. That is safe because the
connections of subscribers, the only things that there are so many of, leave no reference cycles behind.
"""

from __future__ import annotations

import gc
import time

from gopush.stats.histogram import Histogram

THRESHOLDS = 2000, 10, 2
PAUSE_SECONDS = 0.005


class Collector:
    """Hears of each collection, and freezes what survived a long one."""

    def __init__(self) -> None:
        self.longest = 0.0
        """The longest collection so far, in seconds."""
        self.pauses = [Histogram() for _ in THRESHOLDS]
        """How long the collections of each generation took, in seconds."""
        self._began = 0.0

    def freeze(self) -> None:
        """Freeze all objects allocated so far. Once, when the process is about to work."""
        gc.collect()
        gc.freeze()
        gc.set_threshold(*THRESHOLDS)
        gc.callbacks.append(self.collected)

    def collected(self, phase: str, info: dict[str, int]) -> None:
        """See gc.callbacks."""
        if phase == "start":
            self._began = time.perf_counter()
            return
        took = time.perf_counter() - self._began
        self.longest = max(self.longest, took)
        self.pauses[info["generation"]].observe(took)
        if info["generation"] == 2 and took > PAUSE_SECONDS:
            gc.freeze()


collector = Collector()
"""Of this process."""
