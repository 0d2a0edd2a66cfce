"""Devices that come back by themselves: look up, subscribe, catch up, and again when the connection ends."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from tests.chaos.wire import BrokenError, Device, Http, TcpDevice, UnreachableError, WebSocketDevice, within

AGAIN_SECONDS = (0.05, 0.25)
JOIN_SECONDS = 6.0
FETCH_SECONDS = 5.0
BEAT_SECONDS = {True: 2.5, False: 25.0}
SILENCE_SECONDS = {True: 6.0, False: 40.0}


@dataclass
class Faults:
    """What must not happen to a subscriber."""

    duplicated_mids: int = 0
    duplicated_ids: int = 0
    out_of_order: int = 0
    gaps: int = 0
    refused: int = 0


class Subscriber:
    """One device. `resumes`: it says where it was; else it fetches what it missed once it is subscribed.

    `alert`: it beats every few seconds and leaves a comet that does not answer; else it trusts the connection.
    """

    def __init__(
        self, key: str, *, websocket: bool, resumes: bool, alert: bool, webs: Callable[[], list[str]], seed: str
    ) -> None:
        """`webs` gives the public addresses of the web nodes that there are now."""
        self.key = key
        self.seen: dict[str, tuple[int, float]] = {}
        """The mid and the time of each message, by its id."""
        self.faults = Faults()
        self.away: list[tuple[float, float]] = []
        """From when to when it was without a subscription, the first time excluded."""
        self.moved: list[float] = []
        """When it was told to look up again (-n)."""
        self._websocket = websocket
        self._resumes = resumes
        self._alert = alert
        self._webs = webs
        self._random = random.Random(f"{seed} {key} {websocket} {resumes}")
        self._last = 0
        self._fetched = 0
        self._left: float | None = 0.0
        self._live = 0
        self._http: dict[str, Http] = {}
        self._early: list[tuple[int, str]] | None = None

    @property
    def joined(self) -> bool:
        """Whether it is subscribed now, or was and has not noticed the end."""
        return self._left is None

    async def run(self) -> None:
        """For ever."""
        self._left = time.monotonic()
        started = False
        while True:
            try:
                device = await self._join(await self._look_up())
                if started and self._left is not None:
                    self.away.append((self._left, time.monotonic()))
                started, self._left = True, None
                try:
                    await self._listen(device)
                finally:
                    device.close()
            except (UnreachableError, BrokenError, TimeoutError):
                self._left = self._left or time.monotonic()
            await asyncio.sleep(self._random.uniform(*AGAIN_SECONDS))

    async def _web(self, path: str, query: dict[str, object], patience: float) -> dict[str, object]:
        """Ask any web node, and at once the next one where it is unreachable."""
        webs = self._webs()
        for address in self._random.sample(webs, len(webs)):
            http = self._http.setdefault(address, Http(address))
            with suppress(UnreachableError):
                answer = await http.call("GET", path, query, b"", patience)
                break
        else:
            raise UnreachableError(f"{path}: none of {webs}")
        if answer["ret"] != 0:
            raise BrokenError(f"{path}: {answer['ret']}")
        data: dict[str, object] = answer.get("data", {})
        return data

    async def _look_up(self) -> str:
        query: dict[str, object] = {"k": self.key, "p": 1 if self._websocket else 2}
        return str((await self._web("/1/server/get", query, FETCH_SECONDS))["server"])

    async def _join(self, address: str) -> Device:
        opens = WebSocketDevice.open if self._websocket else TcpDevice.open
        device: Device = await opens(address, self.key, self._last if self._resumes else None)
        try:
            reply = await within(device.receive(), JOIN_SECONDS)
            if reply != b"+h":
                self.faults.refused += reply != b"-n"
                raise BrokenError(repr(reply))
        except (BrokenError, TimeoutError):
            device.close()
            raise
        return device

    async def _listen(self, device: Device) -> None:
        fetching = None
        if not self._resumes:
            self._early = []
            fetching = asyncio.create_task(self._fetch())
        beating = asyncio.create_task(self._beat(device))
        self._live = 0
        try:
            while True:
                frame = await within(device.receive(), SILENCE_SECONDS[self._alert])
                if frame[:1] == b"{":
                    self._take(frame)
                elif frame == b"+g":
                    self.faults.gaps += 1
                elif frame == b"-n":
                    self.moved.append(time.monotonic())
        finally:
            beating.cancel()
            if fetching is not None:
                fetching.cancel()
                self._early = None

    async def _beat(self, device: Device) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS[self._alert])
            device.beat()

    async def _fetch(self) -> None:
        """The plain way: what was missed; what comes live meanwhile waits."""
        while True:
            try:
                missed = await self._web("/1/msg/get", {"k": self.key, "m": self._last}, FETCH_SECONDS)
                break
            except (UnreachableError, BrokenError):
                await asyncio.sleep(self._random.uniform(*AGAIN_SECONDS))
        messages: list[dict[str, object]] = missed.get("msgs", [])  # type: ignore[assignment]
        for message in messages:
            self._note(int(str(message["mid"])), message["msg"]["id"])  # type: ignore[index]
        self._fetched = self._last
        early, self._early = self._early or [], None
        for mid, id in early:
            self._note_live(mid, id)

    def _take(self, frame: bytes) -> None:
        message = json.loads(frame)
        mid, id = message["mid"], message["msg"]["id"]
        if mid <= self._live:
            self.faults.out_of_order += 1
        self._live = mid
        if self._early is None:
            self._note_live(mid, id)
        else:
            self._early.append((mid, id))

    def _note_live(self, mid: int, id: str) -> None:
        """What was fetched may come live as well, also after the answer: every client drops that."""
        if mid > self._fetched:
            self._note(mid, id)

    def _note(self, mid: int, id: str) -> None:
        if id in self.seen:
            if self.seen[id][0] == mid:
                self.faults.duplicated_mids += 1
            else:
                self.faults.duplicated_ids += 1
            return
        self.seen[id] = (mid, time.monotonic())
        if mid <= self._last:
            self.faults.out_of_order += 1
        self._last = max(self._last, mid)
