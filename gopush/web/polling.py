"""Long polling: `GET /1/msg/get` with `wait` (protocol.md, section 10).

A waiting read subscribes at the key's comet, *then* reads the log, then waits for what the comet delivers: so it misses
nothing, and does not ask the store again and again. At a new comet it starts over, and drops what it read before it was
subscribed there. If it cannot subscribe at once, it reads all the same, again and again while that lasts
(log_reader.py), and once more when its time is over. If nothing came, it stays subscribed for a moment: a client that
comes back with the same cursor goes on waiting there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from gopush.errors import ParameterError
from gopush.feed import last_mid
from gopush.model import GAP, REFUSE_KEY, REFUSE_TOKEN, Format, Page, raw_json
from gopush.net.clock import Deadlines
from gopush.net.timers import NO_SLOT, Wheel
from gopush.routing.messages import Messages
from gopush.web.counters import WebCounters
from gopush.web.follower import Follower, Followers

MAX_WAIT_SECONDS = 60
PATIENCE_SECONDS = 1.0
"""How long it waits for a comet before it reads what is there already; a frozen one is given up once others have
its keys, or after ten."""
PARKED_SECONDS = 3.0
MAX_PARKED = 20_000
MAX_CAME_BYTES = 1 << 20
"""What may come while the log is read; if it is more, the log is read again."""

Found = Page | list[bytes]
"""What is after the cursor: a page of the log, of which there is more, or all of it, as section 3 has it."""

Waited = tuple[str, str, int]
"""Key, token and cursor of one that waited in vain."""

LINES = Format(lambda message: raw_json(message) + b"\n", lambda reply: b"" if reply == GAP else reply)


class Polls:
    """All that wait, and those that did. `room`: whether there are files for one more subscription."""

    def __init__(
        self, followers: Followers, messages: Messages, counters: WebCounters, room: Callable[[], bool]
    ) -> None:
        self.followers = followers
        self.messages = messages
        self.counters = counters
        self.wheel: Wheel[Poll] = Wheel(followers.clock.seconds())
        self._deadlines = Deadlines(self.wheel, self._due, lambda: self._waiting or self._parked, followers.clock)
        self.leaving = False
        self._room = room
        self._waiting: dict[Poll, None] = {}
        self._parked: dict[Waited, Poll] = {}

    def wait(self, key: str, token: str, after: int, seconds: int) -> Deferred[Found]:
        """What comes after a cursor, as soon as something does, or an empty list after so many seconds. Cancelled, it
        fires with that at once."""
        self._deadlines.watch()
        parked = self._parked.pop((key, token, after), None)
        poll = parked or Poll(self, key, token, after)
        self._waiting[poll] = None
        self.counters.polls_opened += 1
        coming = poll.wait(0 if self.leaving else seconds)
        if parked is None and not self.leaving and self._room():
            poll.follow()
        else:
            poll.read_first()
        return coming

    def stop(self) -> None:
        """Answer all that wait, with nothing: this process leaves."""
        self.leaving = True
        for poll in list(self._waiting):
            poll.answer([])
        for poll in list(self._parked.values()):
            self.drop(poll)

    def answered(self, poll: Poll, park: bool) -> None:
        """It does not wait any more."""
        del self._waiting[poll]
        self.counters.polls_closed += 1
        if park and not self.leaving and len(self._parked) < MAX_PARKED and poll.waited not in self._parked:
            self._parked[poll.waited] = poll
            poll.deadline = self.followers.clock.seconds() + PARKED_SECONDS
            self.wheel.add(poll)
        else:
            self.drop(poll)

    def drop(self, poll: Poll) -> None:
        """Let it go."""
        if self._parked.get(poll.waited) is poll:
            del self._parked[poll.waited]
        self.wheel.discard(poll)
        poll.leave()

    def _due(self, poll: Poll) -> None:
        if poll in self._waiting:
            poll.due()
        else:
            self.drop(poll)


class Poll(Follower):
    """One that waits, or has waited. `deadline`: of the wheel."""

    __slots__ = (
        *("_after", "_came", "_came_bytes", "_coming", "_end", "_polls", "_reading", "_reads"),
        *("deadline", "slot"),
    )

    def __init__(self, polls: Polls, key: str, token: str, after: int) -> None:
        super().__init__(polls.followers, key, token, LINES)
        self.write = self._take
        self._polls = polls
        self._after = after
        self._came: list[bytes] = []
        self._came_bytes = 0
        self._coming: Deferred[Found] | None = None
        self._reading = False
        self._reads = 0
        self._end = self.deadline = 0.0
        self.slot = NO_SLOT

    @property
    def waited(self) -> Waited:
        """What has to be the same for a client that goes on."""
        return self.key, self.token, self._after

    def wait(self, seconds: int) -> Deferred[Found]:
        """See Polls."""
        coming = self._coming = Deferred[Found](lambda _: self.answer([]))
        now = self._polls.followers.clock.seconds()
        self._end = now + seconds
        self.deadline = min(now + PATIENCE_SECONDS, self._end)
        self._polls.wheel.add(self)
        return coming

    def read_first(self) -> None:
        """Read what is there, unless that was done: nobody knows how long there is no way to its comet."""
        if not self._reads:
            self._read()

    def answer(self, found: Found | Failure, park: bool = False) -> None:
        """This is it."""
        coming, self._coming = self._coming, None
        if coming is not None:
            self._polls.answered(self, park)
            coming.callback(found)  # a Failure counts as one

    def due(self) -> None:
        """It has waited for long enough: for its comet, or altogether. Then a read that is under way, or is needed, is
        its last."""
        if not self._late:
            self.deadline = self._end
            self._polls.wheel.add(self)
            self.read_first()
        elif self.subscribed and not self._reading:
            self.answer([], park=True)
        else:
            self.leave()
            if not self._reading:
                self._read()

    # --- Follower ---

    def mid(self) -> int | None:
        """See Follower: what is before is read from the log."""
        return None

    def joined(self) -> None:
        """See Follower."""
        if self._coming is not None:
            self._read()

    def turned_away(self, reply: bytes) -> None:
        """See Follower. A read that waits may wait for a place at the comet, too."""
        if reply in (REFUSE_TOKEN, REFUSE_KEY):
            self.answer(Failure(ParameterError("the token is missing or not good")))
        else:
            self.pause("refused")

    def nowhere(self, reason: str) -> bool:
        """See Follower."""
        if self._coming is None:
            self._polls.drop(self)
        else:
            self.read_first()
        return self._coming is not None

    def after(self) -> int | None:
        """See LogFollower."""
        return self._after if self._coming is not None and not self._reading else None

    def reads(self) -> bool:
        """See LogFollower. It has its own reads, and this one may become its last."""
        self._read()
        return True

    # --- the log, and what comes ---

    @property
    def _late(self) -> bool:
        return self._polls.followers.clock.seconds() >= self._end

    def _read(self) -> None:
        self._reading = True
        self._reads += 1
        self._came, self._came_bytes = [], 0
        read: Deferred[Any] = maybeDeferred(self._polls.messages.read, self.key, self._after)
        number = (self._reads,)
        read.addCallbacks(self._found, self._failed, callbackArgs=number, errbackArgs=number)

    def _found(self, page: Page, number: int) -> None:
        if self._in_vain(number):
            return
        self._reading = False
        came = self._came_after()
        if page.more and page.messages:
            self.answer(page)
        elif page.messages:
            lines = {message.mid: raw_json(message) for message in page.messages}
            lines.update((last_mid(line), line) for line in came)
            self.answer([lines[mid] for mid in sorted(lines)])
        else:
            self._nothing_yet(came)

    def _nothing_yet(self, came: list[bytes]) -> None:
        """The log has nothing after the cursor."""
        if came:
            self.answer(came)
        elif self._came_bytes > MAX_CAME_BYTES:
            self._read()
        elif self._late:
            self.answer([], park=self.subscribed)
        else:
            self._came_bytes = 0

    def _failed(self, failure: Failure, number: int) -> None:
        if self._in_vain(number):
            return
        self._reading = False
        if self.subscribed or self._late:
            self.answer(failure)  # else it reads again as soon as it is subscribed, or at its end

    def _in_vain(self, number: int) -> bool:
        """Whether to ignore this read: nobody waits for it any more, or the poll has subscribed anew since then, and
        messages may be missing between what it found and what comes now."""
        return self._coming is None or number != self._reads

    def _take(self, data: bytes) -> int:
        """Messages have come, in the order of their mids and without a hole since it subscribed."""
        if self._coming is None:
            self._polls.drop(self)  # who comes back reads them
            return 0
        self._came_bytes += len(data)
        if self._came_bytes > MAX_CAME_BYTES and self._reading:
            self._came = []
            return 0
        self._came.append(data)
        if not self._reading and (came := self._came_after()):
            self.answer(came)
        return 0

    def _came_after(self) -> list[bytes]:
        lines = b"".join(self._came).split(b"\n")
        self._came = []
        return [line for line in lines if last_mid(line) > self._after]
