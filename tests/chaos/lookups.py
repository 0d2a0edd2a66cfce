"""Somebody who looks up keys all the time, to learn how long a dead comet is still named."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from tests.chaos.wire import BrokenError, Http, UnreachableError

PAUSE_SECONDS = 0.1
PATIENCE_SECONDS = 2.0


class Lookups:
    """Asks every web node for a few keys. `dead_at` gives since when nobody is at an address."""

    def __init__(
        self, keys: Sequence[str], webs: Callable[[], list[str]], dead_at: Callable[[str], float | None]
    ) -> None:
        self.longest = 0.0
        """How long a dead comet was named at most, in seconds."""
        self.asked = 0
        self._keys = keys
        self._webs = webs
        self._dead_at = dead_at
        self._http: dict[str, Http] = {}

    async def run(self) -> None:
        """For ever."""
        while True:
            for web in self._webs():
                for key in self._keys:
                    await self._ask(web, key)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _ask(self, web: str, key: str) -> None:
        asked = time.monotonic()
        http = self._http.setdefault(web, Http(web))
        try:
            answer = await http.call("GET", "/1/server/get", {"k": key, "p": 2}, b"", PATIENCE_SECONDS)
        except (UnreachableError, BrokenError):
            return
        self.asked += 1
        died = self._dead_at(answer["data"]["server"]) if answer["ret"] == 0 else None
        if died is not None:
            self.longest = max(self.longest, asked - died)
