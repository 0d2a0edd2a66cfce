"""How a subscriber gets into its channel (delivery rule 4): the checks, the channel's first cursor, the backlog.

A subscriber that gave a mid reads the log with a cursor of its own until it has all that the channel delivered; only
then, within one reactor turn, is it live. The order on the wire: `+h`, `+g` where messages were trimmed away, the
backlog, answers to the heartbeats that came meanwhile, what is live.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256

from twisted.internet.defer import Deferred, succeed

from gopush.auth import SignedTokens, is_signed
from gopush.comet.channel import Channel
from gopush.comet.counters import CometCounters, Guard
from gopush.comet.delivery import Delivery
from gopush.comet.session import Session, State
from gopush.comet.unread import Unread
from gopush.errors import UnavailableError
from gopush.model import REFUSE_KEY, REFUSE_TOKEN, Head, Message
from gopush.net.clock import Clock, pause
from gopush.routing.messages import Messages

PATIENCE_SECONDS = 2
RETRY_SECONDS = 0.25


@dataclass(eq=False, repr=False)
class Recovery:
    """Lets sessions into channels. `mid_before`: the store's mid of so many seconds ago."""

    _clock: Clock
    _messages: Messages
    _delivery: Delivery
    _counters: CometCounters
    _mid_before: Callable[[float], int]
    _guard: Guard
    _signed: SignedTokens | None
    _beginning: set[Channel] = field(default_factory=set, init=False)
    _headless: list[Channel] = field(default_factory=list, init=False)
    """Those that ask for their first cursor at the end of the turn."""
    _patient: deque[tuple[float, Session, Channel]] = field(default_factory=deque, init=False)

    def __post_init__(self) -> None:
        self._unread = Unread(self._clock, self._counters, self._guard)

    def check_token(self, session: Session) -> Deferred[bytes | None]:
        """The reply that refuses the session's key and token, if any; UnavailableError where the store cannot say."""
        request = session.request
        assert request is not None
        if self._signed is not None and is_signed(request.token):
            return succeed(None if self._signed.allow(request.token, request.key) else REFUSE_TOKEN)
        state = self._messages.check_token(request.key, sha256(request.token.encode()).digest())
        return state.addCallback(lambda known: None if known.valid else REFUSE_TOKEN if known.created else REFUSE_KEY)

    def join(self, session: Session, channel: Channel) -> None:
        """Let a session in, now or as soon as the log was read."""
        if channel.cursor is not None and not session.resumes:
            channel.settle(session)
            session.accept()
            session.go_live()
            return
        channel.start_recovery(session)
        self._begin(channel)
        if session.resumes:
            Deferred.fromCoroutine(self._resume(session, channel)).addErrback(
                lambda failure: self._guard.caught("letting a subscriber into its channel", (session,), failure)
            )
        elif channel.cursor is None:
            self._wait_patiently(session, channel)

    def _begin(self, channel: Channel) -> None:
        """Ask for the channel's first cursor until it is known."""
        if channel.cursor is None and channel not in self._beginning:
            self._beginning.add(channel)
            self._find_soon([channel])

    def _find_soon(self, channels: list[Channel]) -> None:
        """At the end of the turn, together with the others that begin until then."""
        if not self._headless:
            self._clock.callLater(0, self._find_heads)
        self._headless += channels

    def _find_heads(self) -> None:
        channels, self._headless = self._headless, []
        left = [channel for channel in channels if channel.subscribers]
        self._beginning.difference_update(channel for channel in channels if not channel.subscribers)
        self._messages.heads([channel.key for channel in left], partial(self._heads_answered, left))

    def _heads_answered(
        self, channels: list[Channel], indexes: Sequence[int], heads: Sequence[Head | None] | UnavailableError
    ) -> None:
        asked = [channels[index] for index in indexes]
        found = [None] * len(asked) if isinstance(heads, UnavailableError) else heads
        again: list[Channel] = []
        for channel, head in zip(asked, found, strict=True):
            if head is None:
                again.append(channel)
                continue
            settled = self._delivery.settled(channel, unkept=True)
            settled.addCallback(self._take_cursor, head, channel)
            settled.addErrback(lambda failure: self._guard.caught("taking the last mid of a key", (), failure))
        if again:
            self._clock.callLater(RETRY_SECONDS, self._find_soon, again)

    def _take_cursor(self, _: None, head: Head, channel: Channel) -> None:
        self._beginning.discard(channel)
        if channel.subscribers:
            channel.begin(head.last)
        for session in [session for session in channel.recovering if not session.resumes]:
            self._let_in(session, channel)
        self._delivery.advance(channel)

    def _wait_patiently(self, session: Session, channel: Channel) -> None:
        """Let the session in after a while at the latest; one timer serves all that wait."""
        self._patient.append((self._clock.seconds() + PATIENCE_SECONDS, session, channel))
        if len(self._patient) == 1:
            self._clock.callLater(PATIENCE_SECONDS, self._patience_ends)

    def _patience_ends(self) -> None:
        now = self._clock.seconds()
        while self._patient and self._patient[0][0] <= now:
            _, session, channel = self._patient.popleft()
            try:
                self._let_in_blindly(session, channel)
            except Exception:
                self._guard.caught("letting a subscriber into its channel", (session,))
        if self._patient:
            self._clock.callLater(self._patient[0][0] - now, self._patience_ends)

    def _let_in_blindly(self, session: Session, channel: Channel) -> None:
        """The store cannot be read: let a plain subscriber in all the same, it gets what came since it asked."""
        if channel.cursor is None:
            channel.remember_since(self._mid_before(PATIENCE_SECONDS))
        self._let_in(session, channel)

    def _let_in(self, session: Session, channel: Channel) -> None:
        if session in channel.recovering and session.state is State.RECOVERING:
            try:
                channel.settle(session)
                session.accept()
                session.go_live()
            except Exception:
                self._guard.caught("letting a subscriber into its channel", (session,))

    async def _resume(self, session: Session, channel: Channel) -> None:
        request = session.request
        assert request is not None
        assert request.mid is not None
        cursor = max(request.mid, 0)
        channel.claimed = max(channel.claimed, cursor)
        sent = 0
        # A subscriber that asks for all kept messages (0) cannot miss what was trimmed before.
        seen_trimmed = cursor == 0
        started = self._clock.seconds()
        accepted = False
        while session in channel.recovering:
            channel_cursor = channel.cursor
            try:
                page = await self._messages.read(channel.key, cursor)
            except UnavailableError:
                if not accepted and self._clock.seconds() - started < PATIENCE_SECONDS:
                    await pause(RETRY_SECONDS, self._clock)
                    continue
                session.abort()
                return
            if session not in channel.recovering:
                return
            if not accepted:
                accepted = True
                session.accept()
            settled: Deferred[None] = Deferred()
            if not page.more and self._delivery.unanswered.settled(channel.key, settled.callback, unkept=True):
                await settled
                await self._reach(session, channel, page.head.last)
                page = page._replace(messages=channel.mingle(page, max(cursor, channel_cursor or 0)))
                if session not in channel.recovering:
                    return
            gap = page.head.trimmed > cursor and not seen_trimmed
            seen_trimmed = False
            self._catch_up(session, page.messages, gap)
            if page.messages:
                cursor = sent = page.messages[-1].mid
            more, last = page.more, page.head.last
            del page  # it is sent: while the client takes its time there is no need for a second copy
            if more:
                await session.wire.drained()
            else:
                # What the channel had delivered before the read began was in the read, or is gone. A cursor past the
                # end of the log (of a clock that is ahead, or of a second that the store lost) does not count: others
                # wait in this channel for what comes below it.
                cursor = max(sent, last, channel_cursor or 0)
                if await self._meet(session, channel, cursor):
                    return

    def _catch_up(self, session: Session, messages: list[Message], gap: bool) -> None:
        self._counters.sent_bytes += session.catch_up(messages, gap)
        if session.unread:
            self._unread.watch(session)

    async def _meet(self, session: Session, channel: Channel, cursor: int) -> bool:
        """Bring together the session, which has all up to `cursor`, and its channel; False: it must read again."""
        await self._reach(session, channel, cursor)
        missed = channel.bridge(cursor) if session in channel.recovering else []
        if missed is None:
            return False
        if session in channel.recovering:
            self._catch_up(session, missed, gap=False)
            channel.settle(session)
            session.go_live()
        return True

    async def _reach(self, session: Session, channel: Channel, cursor: int) -> None:
        """Wait until the channel has delivered all up to `cursor`, or the session is gone."""
        while session in channel.recovering and (channel.cursor is None or channel.cursor < cursor):
            channel.offer(cursor, 0, None)
            await self._delivery.next_step(channel)
