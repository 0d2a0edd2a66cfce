"""A subscription that goes on when a comet dies, leaves or sends it away: looked up anew, and resumed. Where that takes
long, what it waits for is read from the log meanwhile (log_reader.py).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import succeed

from gopush.feed import VERSION, Feed, Subscription, Write
from gopush.membership.view import Coordination
from gopush.model import REFUSE_NODE, Format, Page, Subscribe
from gopush.net.clock import Clock, cancel
from gopush.reports import Lag
from gopush.web.log_reader import LogReader

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 10.0
STANDS_SECONDS = 5.0
"""A follower that was subscribed for so long begins anew with short pauses."""
SPREAD_SECONDS = 1.0
"""After a change of the view, or where a comet is reached again, those that wait try again within that time: not all at
once.
"""


@dataclass(eq=False, repr=False)
class Followers:
    """What all followers of a process have in common. `feeds`: the nearest first; `chance`: random, from 0 to 1."""

    clock: Clock
    coordination: Coordination
    feeds: Sequence[Feed]
    log_reader: LogReader
    chance: Callable[[], float]
    paused: dict[Follower, Any] = field(default_factory=dict, init=False)
    """The followers that wait to try again, and their timer."""

    def __post_init__(self) -> None:
        self.coordination.watch(lambda _: self._hurry())
        for feed in self.feeds:
            feed.watch(self._hurry)

    def _hurry(self) -> None:
        for timer in self.paused.values():
            if timer.getTime() - self.clock.seconds() > SPREAD_SECONDS:
                timer.reset(SPREAD_SECONDS * self.chance())


def _to_nobody(_: bytes) -> int:
    return 0


class Follower:
    """One subscription; a Reader, as far as that has to do with comets. `write` is set by its kind."""

    __slots__ = ("_attempt", "_followers", "_since", "_subscription", "cursor", "format", "key", "token", "write")
    write: Write

    def __init__(self, followers: Followers, key: str, token: str, format: Format) -> None:
        self._followers = followers
        self._subscription: Subscription | None = None
        self._attempt = 0
        self._since = 0.0
        self.key = key
        self.token = token
        self.format = format
        self.cursor = 0

    # --- what the kinds of followers do ---

    def mid(self) -> int | None:
        """The mid to subscribe with."""
        raise NotImplementedError

    def joined(self) -> None:
        """It is subscribed, for the first time or again."""
        raise NotImplementedError

    def turned_away(self, reply: bytes) -> None:
        """A comet has refused it; it is not tried again unless follow() is called."""
        raise NotImplementedError

    def nowhere(self, reason: str) -> bool:
        """No comet serves its key just now, for this reason; gives whether to try again."""
        raise NotImplementedError

    def after(self) -> int | None:
        """See LogFollower."""
        raise NotImplementedError

    def reads(self) -> bool:
        """See LogFollower."""
        return False

    def read_on(self, page: Page, frames: bytes) -> None:
        """See LogFollower."""
        raise NotImplementedError

    def cut_off(self) -> None:
        """See LogFollower."""

    # --- and what only those with a client that reads do ---

    def waiting(self) -> Lag | None:
        """See Reader."""
        return None

    def until_drained(self) -> Awaitable[None]:
        """See Reader."""
        return succeed(None)

    @property
    def peer(self) -> str:
        """See Reader."""
        return ""

    # --- the way to the key ---

    @property
    def subscribed(self) -> bool:
        """Whether a comet has accepted it: one that is on its way to a comet misses what is stored meanwhile."""
        return self._subscription is not None and self._since > 0

    def follow(self) -> None:
        """Subscribe where the key is now."""
        followers = self._followers
        followers.paused.pop(self, None)
        followers.log_reader.add(self)
        owner = followers.coordination.view.owner(self.key)
        if owner is None:
            self.pause("no comet")
            return
        request = Subscribe(self.key, 0, self.token, VERSION, self.mid())
        for feed in followers.feeds:
            self._subscription = feed.open(owner, request, self.format, self)
            if self._subscription is not None:
                self._subscription.start()
                return
        self.pause("no comet")

    def leave(self) -> None:
        """Subscribe no more: it is over."""
        self.write = _to_nobody  # one that leads to the follower itself would leave it to the collector (daemon/gc.py)
        self._followers.log_reader.discard(self)
        cancel(self._followers.paused.pop(self, None))
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            subscription.close()

    def pause(self, reason: str) -> None:
        """Try again after a while, if it is to be tried."""
        if not self.nowhere(reason):
            return
        followers = self._followers
        pause = min(FIRST_PAUSE_SECONDS * 2**self._attempt, LONGEST_PAUSE_SECONDS) * (0.5 + followers.chance() / 2)
        self._attempt = min(self._attempt + 1, 16)
        followers.paused[self] = followers.clock.callLater(pause, self.follow)

    # --- what a feed calls (see Reader) ---

    def accepted(self) -> None:
        """See Reader."""
        self._followers.log_reader.accepted(self)
        self._since = self._followers.clock.seconds()
        self.joined()

    def refused(self, reply: bytes) -> None:
        """See Reader."""
        self._over()
        if reply == REFUSE_NODE:
            self.pause("comet away")
        else:
            self._followers.log_reader.discard(self)
            self.turned_away(reply)

    def ended(self, reached: bool) -> None:
        """See Reader."""
        self._over()
        self.pause("store away" if reached else "comet away")

    def _over(self) -> None:
        self._followers.log_reader.add(self)
        self._subscription = None
        if self._since and self._followers.clock.seconds() - self._since > STANDS_SECONDS:
            self._attempt = 0
        self._since = 0.0
