"""The load on a cluster: publishers, subscribers of all kinds, and somebody who looks up."""

from __future__ import annotations

import asyncio
import time

from tests.chaos.cluster import Cluster
from tests.chaos.lookups import Lookups
from tests.chaos.publisher import Publisher, Push
from tests.chaos.subscriber import Subscriber
from tests.chaos.verdict import SLOW_SECONDS, Outcome, judge, missing
from tests.chaos.wire import BrokenError, Http, UnreachableError

KEYS = 100
SUBSCRIBERS_PER_KEY = 2
PUBLISHERS = 24
RATE = 300
JOIN_SECONDS = 30.0
SETTLE_SECONDS = 60.0


class Load:
    """Runs from start() to finish()."""

    def __init__(self, cluster: Cluster, seed: str, rate: int = RATE) -> None:
        self.leaving: list[float] = []
        """How long each process that was asked to end took."""
        self.settled_at: float | None = None
        """From when on no answer should be slow, as all know what has failed."""
        self._cluster = cluster
        keys = [f"key-{number}" for number in range(KEYS)]
        self._keys = keys
        self.publishers = [
            Publisher(f"p{number}", keys, PUBLISHERS / rate, self._admin, seed, cluster.hung)
            for number in range(PUBLISHERS)
        ]
        self.subscribers = [
            Subscriber(
                key,
                websocket=bool((number + copy) % 2),
                resumes=bool((number // 2 + copy) % 2),
                alert=bool((number // 4 + copy) % 2),
                webs=self._public,
                seed=seed,
            )
            for number, key in enumerate(keys)
            for copy in range(SUBSCRIBERS_PER_KEY)
        ]
        self._lookups = Lookups(keys[:8], self._public, cluster.dead_at)
        self._stop = asyncio.Event()
        self._publishing: list[asyncio.Task[None]] = []
        self._others: list[asyncio.Task[None]] = []

    @property
    def pushes(self) -> list[Push]:
        """All pushes so far."""
        return [push for publisher in self.publishers for push in publisher.pushes]

    async def start(self) -> None:
        """Subscribe all, then begin to push."""
        self._others = [asyncio.create_task(subscriber.run()) for subscriber in self.subscribers]
        until = time.monotonic() + JOIN_SECONDS
        while not all(subscriber.joined for subscriber in self.subscribers):
            if time.monotonic() > until:
                raise RuntimeError("the subscribers do not get in")
            await asyncio.sleep(0.1)
        self._others.append(asyncio.create_task(self._lookups.run()))
        self._publishing = [asyncio.create_task(publisher.run(self._stop)) for publisher in self.publishers]

    async def finish(self) -> Outcome:
        """See the last pushes through, give the subscribers time to get all, and judge."""
        self._stop.set()
        await asyncio.gather(*self._publishing)
        until = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < until:
            if not missing(self.pushes, self.subscribers) and all(one.joined for one in self.subscribers):
                break
            await asyncio.sleep(0.2)
        logs = {key: await self._log(key) for key in self._keys}
        for task in self._others:
            if task.done():
                task.result()  # a mistake of this program
            task.cancel()
        outcome = judge(self.pushes, self.subscribers, logs)
        outcome.named_dead = self._lookups.longest
        if (since := self.settled_at) is not None:
            outcome.slow = sum(push.sent > since and push.longest_answer > SLOW_SECONDS for push in self.pushes)
        outcome.leaving = max(self.leaving, default=0.0)
        return outcome

    async def _log(self, key: str) -> dict[str, int]:
        """What a key's log holds: mids by ids."""
        while True:
            for web in self._public():
                http = Http(web)
                try:
                    answer = await http.call("GET", "/1/msg/get", {"k": key, "m": 0}, b"", 10.0)
                except (UnreachableError, BrokenError):
                    continue
                finally:
                    http.close()
                if answer["ret"] == 0:
                    return {one["msg"]["id"]: one["mid"] for one in answer.get("data", {}).get("msgs", [])}
            await asyncio.sleep(0.2)

    def _admin(self) -> list[str]:
        return [web.address("admin") for web in self._cluster.webs]

    def _public(self) -> list[str]:
        return [web.address("http") for web in self._cluster.webs]
