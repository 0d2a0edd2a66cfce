"""The log, for event streams and waiting reads that no comet serves: it cannot be reached, or there is none.

As a comet does that hears nothing, web looks where the logs of their keys end, many in one call, and reads those that
are ahead: once for all that are at the same place.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import islice
from math import inf
from typing import Protocol

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.logger import Logger

from gopush.errors import UnavailableError
from gopush.model import Format, Head, Page
from gopush.net.clock import Clock, repeating
from gopush.routing.messages import Messages
from gopush.web.counters import WebCounters

LOOK_SECONDS = 0.5
PATIENCE_SECONDS = 0.5
"""How long one may be on its way to a comet before its log is read here."""
READ_SECONDS = 2.0
"""How often, from then on."""
CUT_OFF_SECONDS = 10.0
"""Those whose log could not be read for so long are told so: another web node may reach what this one does not."""
CALM_SECONDS = 60.0
"""The log says that this is over once nobody has been without a comet for so long, because waiting reads follow each
other; or at once, if a comet has accepted one since."""
READ_PER_SECOND = 10_000
MOST_READS = 128
"""Reads that may be under way at once: other reads of this process wait behind no more than these."""

log = Logger()


class LogFollower(Protocol):
    """Who is served from the log."""

    key: str
    format: Format

    def after(self) -> int | None:
        """The mid after which it wants to read; None: it has no use for messages just now."""

    def reads(self) -> bool:
        """Its log has something new. True: it reads that itself; False: LogReader is to read it."""

    def read_on(self, page: Page, frames: bytes) -> None:
        """This comes next; `frames`: the page's messages in its format."""

    def cut_off(self) -> None:
        """Neither a comet nor the log has been reached for a while."""


class LogReader:
    """Reads for those that were added."""

    def __init__(self, clock: Clock, messages: Messages, counters: WebCounters) -> None:
        self._clock = clock
        self._messages = messages
        self._counters = counters
        self._due: dict[LogFollower, float] = {}
        self._unserved: dict[LogFollower, float] = {}
        """Those that wait, and when the log was last known up to their place."""
        self._reading: set[tuple[str, int]] = set()
        self._room = DeferredSemaphore(MOST_READS)
        self._looking = repeating(self._look, clock)
        self._logged = False
        self._unserved_at = -inf
        """When there was one last; -inf: a comet has accepted one since."""

    @property
    def unserved(self) -> int:
        """How many that want messages have waited for longer than it takes to reach a comet."""
        return len(self._unserved)

    def add(self, follower: LogFollower) -> None:
        """No comet serves it."""
        if follower not in self._due:
            self._due[follower] = self._clock.seconds() + PATIENCE_SECONDS
            if not self._looking.running:
                self._looking.start(LOOK_SECONDS, now=False)

    def accepted(self, follower: LogFollower) -> None:
        """A comet serves it."""
        if follower in self._unserved:
            self._unserved_at = -inf
        self.discard(follower)

    def discard(self, follower: LogFollower) -> None:
        """It is over."""
        self._due.pop(follower, None)
        self._unserved.pop(follower, None)

    def _look(self) -> None:
        now = self._clock.seconds()
        most = int(READ_PER_SECOND * LOOK_SECONDS)
        due = list(islice((follower for follower, at in self._due.items() if at <= now), most))
        self._log(now, any(follower in self._unserved for follower in due))
        wanted: dict[str, list[LogFollower]] = {}
        for follower in due:
            del self._due[follower]  # to the end: whoever was not looked at is first next time
            self._due[follower] = now + READ_SECONDS
            if follower.after() is None:
                self._unserved.pop(follower, None)
            else:
                self._unserved.setdefault(follower, now)
                wanted.setdefault(follower.key, []).append(follower)
        self._messages.heads(list(wanted), partial(self._compare, list(wanted.items())))
        if not (self._due or self._logged):
            self._looking.stop()

    def _log(self, now: float, lasting: bool) -> None:
        if self._unserved:
            self._unserved_at = now
        if lasting and not self._logged:
            self._logged = True
            log.warn(
                "{count} event streams and waiting reads have no comet that can be reached; this process reads the log "
                "for them, every {seconds:g} s",
                count=self.unserved,
                seconds=READ_SECONDS,
            )
        elif self._logged and now - self._unserved_at >= CALM_SECONDS:
            self._logged = False
            log.info("no event stream or waiting read is without a comet any more")

    def _compare(
        self,
        wanted: Sequence[tuple[str, list[LogFollower]]],
        indexes: Sequence[int],
        heads: Sequence[Head | None] | UnavailableError,
    ) -> None:
        if isinstance(heads, UnavailableError):
            self._cut_off([follower for index in indexes for follower in wanted[index][1]])
            return
        for index, head in zip(indexes, heads, strict=True):
            key, followers = wanted[index]
            if head is None:
                self._cut_off(followers)
                continue
            behind: dict[int, list[LogFollower]] = {}
            for follower in followers:
                after = follower.after()
                if after is not None and after >= head.last:
                    self._renew([follower])
                elif after is not None and not follower.reads():
                    behind.setdefault(after, []).append(follower)
            for after, some in behind.items():
                if (key, after) not in self._reading:
                    Deferred.fromCoroutine(self._read(key, after, some)).addErrback(
                        lambda failure: log.failure("passing on what was read from the log failed", failure)
                    )

    def _renew(self, followers: Sequence[LogFollower]) -> None:
        now = self._clock.seconds()
        self._unserved.update((follower, now) for follower in followers if follower in self._unserved)

    def _cut_off(self, followers: Sequence[LogFollower]) -> None:
        longest = self._clock.seconds() - CUT_OFF_SECONDS
        for follower in followers:
            if self._unserved.get(follower, longest) < longest:
                follower.cut_off()

    async def _read(self, key: str, after: int, followers: Sequence[LogFollower]) -> None:
        """Page by page, as long as there is somebody who has read all that came before, and is served by no comet."""
        place = key, after
        self._reading.add(place)
        await self._room.acquire()
        try:
            more = True
            while more:
                page = await self._messages.read(key, after)
                self._counters.log_reads += 1
                followers = [one for one in followers if one in self._due and one.after() == after]
                self._renew(followers)
                _pass_on(page, followers)
                more = page.more and bool(page.messages and followers)
                after = page.messages[-1].mid if page.messages else after
        except UnavailableError:
            self._cut_off(followers)
        finally:
            self._reading.discard(place)
            self._room.release()


def _pass_on(page: Page, followers: Sequence[LogFollower]) -> None:
    frames = {format: b"".join(map(format.message, page.messages)) for format in {one.format for one in followers}}
    for follower in followers:
        follower.read_on(page, frames[follower.format])
