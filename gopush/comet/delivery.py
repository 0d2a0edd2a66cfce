"""From a channel to its subscribers: rounds of delivery, and catching up with the log where a round cannot go on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import islice

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from gopush.comet.channel import Channel, Unanswered
from gopush.comet.counters import CometCounters, Guard
from gopush.comet.rounds import Round, crowded, in_parts
from gopush.comet.session import Limits, Session, State
from gopush.errors import UnavailableError
from gopush.model import Format, Head, Message, Page
from gopush.net.clock import Clock
from gopush.routing.messages import Messages

SLICE_CHANNELS = 64
"""In one turn of the reactor: the next batch is read, and on its way to the store, while this one is delivered."""
RETRY_SECONDS = 0.5
CROWD_MSGBUFS = 8
"""What may wait for a key with so many subscribers that its rounds take several turns: `msgbuf` this often, which is
less than may wait for these subscribers themselves. A burst comes faster than the rounds go.
"""


class Delivery:
    """Delivers what channels offer."""

    def __init__(
        self,
        clock: Clock,
        messages: Messages,
        limits: Limits,
        counters: CometCounters,
        unanswered: Unanswered,
        guard: Guard,
    ) -> None:
        self.unanswered = unanswered
        self._clock = clock
        self._messages = messages
        self._limits = limits
        self._counters = counters
        self._guard = guard
        self._touched: dict[Channel, None] = {}
        self._failed: set[Channel] = set()
        self._message: Message | None = None  # the last one that went out alone
        self._frames: dict[Format, bytes] = {}
        self._due: list[tuple[Session, bytes]] = []  # frames that go out at the end of this step
        self._ahead: dict[Channel, list[Deferred[None]]] = {}  # what waits for the next step of these

    def touch(self, channel: Channel) -> None:
        """Something was offered: deliver at the end of the turn, together with what comes until then."""
        if not self._touched:
            self._clock.callLater(0, self._advance_touched)
        self._touched[channel] = None

    def advance(self, channel: Channel) -> None:
        """Deliver what can be delivered, and read the log where something is missing."""
        self._step(channel)
        self._send_due()

    def _step(self, channel: Channel) -> None:
        cursor = channel.cursor
        try:
            self._advance(channel)
            if self._failed:
                self._failed.discard(channel)
        except Exception:
            # It is not known whether all got what the cursor has passed, nor whether another try would work.
            hopeless = channel.cursor != cursor or channel in self._failed
            self._guard.caught("delivering to a channel", self._all(channel) if hopeless else ())
            self._failed.discard(channel)
            if not hopeless:
                self._failed.add(channel)
                self._clock.callLater(RETRY_SECONDS, self._try_again, channel)

    def _try_again(self, channel: Channel) -> None:
        if channel.subscribers:
            self.advance(channel)
        self._failed.discard(channel)

    def _advance(self, channel: Channel) -> None:
        if channel.cursor is None:
            self._bound(channel)
            return
        stands = channel.busy  # until its round is over
        if not stands:
            messages = channel.take()
            if messages or channel.gap:
                self._begin(channel, messages)
        if channel.unsettled:
            if channel.behind and not channel.reading and not channel.busy:
                self.catch_up(channel)
            self._bound(channel)
        if self._ahead and not stands:
            self.moved(channel)

    def settled(self, channel: Channel, unkept: bool) -> Deferred[None]:
        """Fires once the pushes to the channel's key that are under way now were answered; see Unanswered."""
        settled: Deferred[None] = Deferred()
        if not self.unanswered.settled(channel.key, settled.callback, unkept):
            settled.callback(None)
        return settled

    def next_step(self, channel: Channel) -> Deferred[None]:
        """Read the channel's log; fires after its next step."""
        stepped: Deferred[None] = Deferred()
        self._ahead.setdefault(channel, []).append(stepped)
        if not channel.busy:
            self.catch_up(channel)
        return stepped

    def moved(self, channel: Channel) -> None:
        """The channel has made a step, or has no subscribers any more: nothing has to wait for it."""
        for stepped in self._ahead.pop(channel, ()):
            stepped.callback(None)

    def catch_up(self, channel: Channel) -> None:
        """Read the log from the cursor: the one repair for lost forwards, holes, new owners and dead comets."""
        if channel.reading or channel.cursor is None:
            return
        self._counters.catch_ups += 1
        read = maybeDeferred(self._messages.read, channel.key, channel.begin_read())
        read.addCallbacks(self._read, self._not_read, callbackArgs=(channel,), errbackArgs=(channel,))

    def sweep(self, channels: Iterable[Channel]) -> None:
        """Compare channels with the heads of their logs, and catch up where the head is ahead."""
        left = [channel for channel in channels if channel.cursor is not None and not channel.reading]
        self._messages.heads([channel.key for channel in left], partial(self._compare, left))

    def _advance_touched(self) -> None:
        for channel in list(islice(self._touched, SLICE_CHANNELS)):
            del self._touched[channel]
            self._step(channel)
        self._send_due()
        if self._touched:
            self._clock.callLater(0, self._advance_touched)

    def _begin(self, channel: Channel, messages: list[Message]) -> None:
        """A round: at once where one slice is all, as for most keys."""
        sessions = list(channel.live)
        if len(sessions) == len(messages) == 1 and not channel.gap:
            self._deliver_one(sessions[0], messages[0])
            return
        gap, channel.gap = channel.gap, False
        frames: dict[Format, bytes] = {}
        later: Sequence[list[Message]] = ()
        if len(messages) == 1:
            frames = self._frames_of(messages[0])
        else:
            messages, *later = in_parts(messages, self._limits)
        self._send_due()  # perhaps to one of these: what waited for a step may make the next one at once
        Round(
            self._clock, self._counters, channel, sessions, messages, later, frames, gap, self.advance, self._guard
        ).run()

    def _deliver_one(self, session: Session, message: Message) -> None:
        """A round of one message to the only subscriber, as most are."""
        frames = self._frames_of(message)
        frame = frames.get(session.format)
        if frame is None:
            frame = frames[session.format] = session.format.message(message)
        self._due.append((session, frame))

    def _send_due(self) -> None:
        """In a row: what the kernel does for a send leaves the caches cold for what Python would do between two."""
        due, self._due = self._due, []
        for session, frame in due:
            try:
                session.deliver(frame, 1)
            except Exception:
                self._guard.caught("delivering to a subscriber", (session,))
        counters = self._counters
        counters.rounds += len(due)
        counters.deliveries += len(due)
        counters.sent_bytes += sum(len(frame) for _, frame in due)

    def _frames_of(self, message: Message) -> dict[Format, bytes]:
        """How it looks in each format, if known: the keys of a push get the same message, which is framed once."""
        if message != self._message:
            self._message, self._frames = message, {}
        return self._frames

    def _read(self, page: Page, channel: Channel) -> None:
        """What the log does not tell may be our own pushes, which come with their answer."""
        trimmed = page.head.trimmed > (channel.cursor or 0)
        self.settled(channel, unkept=not trimmed).addCallback(self._take_in, page, channel)

    def _take_in(self, _: None, page: Page, channel: Channel) -> None:
        try:
            channel.end_read(page)
        except Exception:
            self._guard.caught("taking in what was read of a log", self._all(channel))
            return
        if channel.gap:
            self._counters.gaps += 1
        if channel.subscribers:
            self.advance(channel)

    def _not_read(self, failure: Failure, channel: Channel) -> None:
        if not failure.check(UnavailableError):
            self._guard.caught("reading a log", failure=failure)
        self._clock.callLater(RETRY_SECONDS, self._retry, channel)

    def _retry(self, channel: Channel) -> None:
        channel.end_read(None)
        if channel.subscribers:
            self.catch_up(channel)

    def _compare(
        self, channels: list[Channel], indexes: Sequence[int], heads: Sequence[Head | None] | UnavailableError
    ) -> None:
        if isinstance(heads, UnavailableError):
            return  # another sweep follows
        for channel, head in zip(map(channels.__getitem__, indexes), heads, strict=True):
            if head is not None and channel.cursor is not None and head.last > channel.cursor and channel.subscribers:
                channel.offer(head.last, 0, None)
                self.advance(channel)

    def _bound(self, channel: Channel) -> None:
        """Too much waits for a read that does not come, or for a round: close the subscribers, which resume elsewhere
        or later.
        """
        limits, times = self._limits, CROWD_MSGBUFS if crowded(channel) else 1
        if channel.waiting_messages > limits.msgbuf_messages * times or (
            channel.waiting_messages > 1 and channel.waiting_bytes > limits.msgbuf_bytes * times
        ):
            # Who is closed stays in the channel until the end of its connection is told.
            left = [session for session in self._all(channel) if session.state is not State.CLOSING]
            if left and channel.busy:
                self._counters.overruns += 1
            elif left:
                self._counters.overflows += 1
            for session in left:
                session.abort()

    def _all(self, channel: Channel) -> list[Session]:
        return [*channel.live, *channel.recovering]
