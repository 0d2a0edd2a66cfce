"""Publishers that take no for an answer only once: what was refused or is unknown is repeated elsewhere with its id."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.chaos.wire import BrokenError, Http, UnreachableError

EXPIRE_SECONDS = 600
UNKEPT_SHARE = 0.05
PATIENCE_SECONDS = 10.0
GIVE_UP_SECONDS = 40.0
"""Well before web forgets the id (60 s): a repeat after that would be a second message."""

AGAIN_SECONDS = 0.1


@dataclass
class Push:
    """One message, and how it went. Times are those of time.monotonic(); `mid` 0: never acknowledged."""

    id: str
    key: str
    kept: bool
    sent: float
    acknowledged: float = 0.0
    mid: int = 0
    refused: list[tuple[float, int]] = field(default_factory=list)
    """When the attempts that were answered with another ret than 0 began, and that ret."""

    unknown: int = 0
    """How many attempts broke."""

    longest_answer: float = 0.0

    @property
    def refusal(self) -> float:
        """For how long the cluster said no, in seconds: until it said yes, or the publisher gave up."""
        return (self.acknowledged or self.sent + GIVE_UP_SECONDS) - self.refused[0][0] if self.refused else 0.0


class Publisher:
    """Pushes one message after the other to keys of chance, one every `pause` seconds at most."""

    def __init__(
        self,
        name: str,
        keys: Sequence[str],
        pause: float,
        webs: Callable[[], list[str]],
        seed: str,
        hung: Callable[[str, float], bool] = lambda _, __: False,
    ) -> None:
        """`webs` gives the admin addresses that there are now; `hung`: whether one stood still since then: its answers
        are waited for, and not judged."""
        self.pushes: list[Push] = []
        self._name = name
        self._keys = keys
        self._pause = pause
        self._webs = webs
        self._hung = hung
        self._random = random.Random(f"{seed} {name}")
        self._connections: dict[str, Http] = {}
        self._web = self._random.choice(webs())

    async def run(self, stop: asyncio.Event) -> None:
        """Push until `stop`, and then see the last push through."""
        due = time.monotonic() + self._random.random() * self._pause
        while not stop.is_set():
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due = max(due, time.monotonic() - self._pause) + self._pause
            kept = self._random.random() >= UNKEPT_SHARE
            await self.push(self._random.choice(self._keys), kept=kept)
        for connection in self._connections.values():
            connection.close()

    async def push(self, key: str, *, kept: bool) -> None:
        """Push one message, until it is acknowledged or makes no sense any more."""
        push = Push(f"{self._name}-{len(self.pushes)}", key, kept, time.monotonic())
        self.pushes.append(push)
        while not push.mid and time.monotonic() < push.sent + GIVE_UP_SECONDS:
            await self._attempt(push)
            if not push.mid:
                self._web = self._random.choice([web for web in self._webs() if web != self._web] or [self._web])
                await asyncio.sleep(AGAIN_SECONDS)

    async def _attempt(self, push: Push) -> None:
        connection = self._connections.setdefault(self._web, Http(self._web))
        query = {"key": push.key, "expire": EXPIRE_SECONDS if push.kept else 0, "id": push.id, "mid": 1}
        body = json.dumps({"id": push.id, "padding": "x" * 60}).encode()
        began = time.monotonic()
        try:
            answer = await connection.call("POST", "/1/admin/push/private", query, body, PATIENCE_SECONDS)
        except UnreachableError:
            return
        except BrokenError:
            push.unknown += 1
            answer = None
        hung = self._hung(self._web, began)
        if not hung:
            push.longest_answer = max(push.longest_answer, time.monotonic() - began)
        if answer is None:
            return
        if answer["ret"] == 0:
            push.acknowledged, push.mid = time.monotonic(), answer["data"]["mid"]
        elif hung:
            push.unknown += 1
        else:
            push.refused.append((began, answer["ret"]))
