"""The garbage collector's habits, and malloc's."""

from __future__ import annotations

import ctypes
import gc
import time

from gopush.stats.histogram import Histogram

_M_MMAP_THRESHOLD = -3  # malloc.h
_LARGE_BYTES = 128 << 10

THRESHOLDS = 10000, 2, 1
PAUSE_SECONDS = 0.005


class Collector:
    """Hears of each collection, and freezes what survived a long one.

    A full collection looks at every object: with 20,000 connections clients notice that pause. So this freezes what was
    there at the start, and what made a full collection take too long. That is safe because what comes in such numbers,
    connections and whoever waits on them, leaves no reference cycles behind (http/test_cycles.py, web/test_polls.py).
    """

    def __init__(self) -> None:
        self.pauses = [Histogram() for _ in THRESHOLDS]
        """How long the collections of each generation took, in seconds."""
        self._began = 0.0

    def freeze(self) -> None:
        """Freeze all objects allocated so far. Once, when the process is about to work."""
        _give_back_large_memory()
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
        self.pauses[info["generation"]].observe(took)
        if info["generation"] == 2 and took > PAUSE_SECONDS:
            gc.freeze()


def _give_back_large_memory() -> None:
    """Have glibc return the memory of large messages to the system as they are freed.

    It does from 128 KiB on, but raises that bound to the size of whatever is freed (mallopt(3)): after a few clients
    that read 4 MiB slowly the process would stay as large as it was then.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


collector = Collector()
"""Of this process."""
