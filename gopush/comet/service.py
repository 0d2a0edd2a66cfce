"""A comet: how subscribers come into it and leave it; pushes.py has the way of a push."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from gopush.auth import signed_tokens
from gopush.comet.busy_keys import BusyKeys
from gopush.comet.channel import Channel
from gopush.comet.cut_off import CutOff
from gopush.comet.pushes import Pushes
from gopush.comet.recovery import Recovery
from gopush.comet.session import Session, State
from gopush.comet.settings import SubscriberSettings
from gopush.comet.slow_consumers import SlowConsumers
from gopush.membership.view import Coordination
from gopush.model import (
    REFUSE_KEY,
    REFUSE_LIMIT,
    REFUSE_NODE,
    REFUSE_PARAMETER,
    REFUSE_TOKEN,
    Format,
    Head,
    Subscribe,
    mid_at,
)
from gopush.net.clock import Clock
from gopush.net.timers import NO_SLOT, Wheel
from gopush.reports import BusyKey, Load, Presence, SlowConsumer
from gopush.routing.comets import Comets
from gopush.routing.messages import Messages

CURSOR_AHEAD_SECONDS = 60
_NOBODY = Presence(0)


class Comet(Pushes):
    """The service behind the client ports and the RPC port; implements CometService. `id`: its NodeInfo.id."""

    def __init__(
        self,
        clock: Clock,
        coordination: Coordination,
        messages: Messages,
        comets: Comets,
        settings: SubscriberSettings,
        id: str,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(clock, coordination, messages, comets, settings, id, now)
        self.settings = settings
        self.wheel: Wheel[Session] = Wheel(clock.seconds())
        self._now = now
        self._second = 0
        self.cut_off = CutOff(clock, coordination, messages)
        self._slow_consumers = SlowConsumers(clock, self.channels)
        self._busy_keys = BusyKeys(clock, self.counters, self.channels, self._rates.rates)
        signed = signed_tokens(settings.tokens)
        self._recovery = Recovery(
            clock, messages, self.delivery, self.counters, self._store_time.mid_before, self.guard, signed
        )

    # --- what web and the other comets call (the rest of CometService) ---

    def close(self, keys: Sequence[str]) -> Deferred[list[int]]:
        """See CometService."""
        closed = []
        for key in keys:
            sessions = self.sessions(key)
            for session in sessions:
                self.end(session)
                self._leave(session)  # it may take seconds to close its connection
            closed.append(len(sessions))
        return succeed(closed)

    def subscribers(self, keys: Sequence[str]) -> Deferred[list[int]]:
        """See CometService."""
        return succeed([len(self.sessions(key)) for key in keys])

    def presence(self, keys: Sequence[str]) -> Deferred[list[Presence]]:
        """See CometService."""
        return succeed([self._presence(key) for key in keys])

    def slowest(self, most: int) -> Deferred[list[SlowConsumer]]:
        """See CometService."""
        return self._slow_consumers.find(most)

    def keys(self, prefix: str, most: int) -> Deferred[list[BusyKey]]:
        """See CometService."""
        return self._busy_keys.find(prefix, most)

    def ping(self) -> Deferred[None]:
        """See CometService."""
        return self._messages.ping()

    # --- what the client ports call ---

    def opened(self, session: Session) -> None:
        """A client has connected; its session's deadline is watched from now on."""
        self.counters.opened_connections[session.wire.kind] += 1
        self.wheel.add(session)

    def subscribe(self, session: Session, request: Subscribe, format: Format) -> None:
        """The client's request was read, to be answered in this format: let it in or refuse it (protocol.md, 1)."""
        session.join(request, format, self.clock.seconds())
        if self.cut_off.holds:
            self._refuse_cut_off(session)
        elif not self.owns(request.key):
            self._refuse_node(session)
        else:
            self._check_cursor(session, request)

    def closed(self, session: Session) -> None:
        """The session's connection is gone."""
        self.counters.closed_connections[session.wire.kind] += 1
        self.wheel.discard(session)
        session.lost()
        self.counters.slow_closed += session.too_slow
        self._leave(session)

    def _leave(self, session: Session) -> None:
        channel = self.channels.get(session.request.key) if session.request is not None else None
        if channel is None:
            return
        channel.remove(session)
        if not channel.subscribers:
            del self.channels[channel.key]
            self.counters.channels_deleted += 1
            self.delivery.moved(channel)

    @property
    def subscribed(self) -> int:
        """How many connections have a key."""
        return sum(channel.subscribers for channel in self.channels.values())

    def sessions(self, key: str) -> list[Session]:
        """Who is subscribed to the key: one that was told to go may take seconds to close its connection."""
        channel = self.channels.get(key)
        sessions = () if channel is None else (*channel.live, *channel.recovering)
        return [session for session in sessions if session.state is not State.CLOSING]

    def load(self) -> Load:
        """How much this comet holds and has delivered."""
        counters = self.counters
        return Load(counters.connections_added - counters.connections_removed, len(self.channels), counters.deliveries)

    def refuse_parameter(self, session: Session) -> None:
        """The client's request makes no sense."""
        self.counters.refused_parameter += 1
        self.refuse(session, REFUSE_PARAMETER)

    def refuse(self, session: Session, reply: bytes) -> None:
        """Say `reply` to the client and close."""
        session.finish(reply, self.clock.seconds())
        if session.slot != NO_SLOT:  # else its connection is gone
            self.wheel.add(session)

    def end(self, session: Session) -> None:
        """Close without a reply, once all that was sent is out."""
        self.refuse(session, b"")

    def owns(self, key: str) -> bool:
        """Whether this process is the one that holds the key's subscribers, in its own view."""
        owner = self._coordination.view.owner(key)
        return owner is not None and owner.id == self.id

    def _presence(self, key: str) -> Presence:
        sessions = self.sessions(key)
        if not sessions:
            return _NOBODY
        over = dict[str, int]()
        for session in sessions:
            kind = session.wire.kind
            over[kind] = over.get(kind, 0) + 1
        seconds = int(self.clock.seconds()) - self.channels[key].since
        return Presence(len(sessions), seconds, tuple(sorted(over.items())))

    # --- a subscriber's way ---

    def _check_cursor(self, session: Session, request: Subscribe) -> None:
        """A cursor far above this clock is good up to the key's head: a clock may be slow, or step."""
        mid, channel = request.mid, self.channels.get(request.key)
        known = 0 if channel is None else channel.floor
        if mid is None or mid <= known or mid <= mid_at(self._now() + CURSOR_AHEAD_SECONDS):
            self._check_token(session, request)
            return
        head = self._messages.head(request.key)
        head.addCallbacks(
            self._head_read, self._not_checked, callbackArgs=(session, request, mid), errbackArgs=(session,)
        )

    def _head_read(self, head: Head, session: Session, request: Subscribe, mid: int) -> None:
        if session.state is not State.RECOVERING:
            return
        if mid > head.last:
            self.refuse_parameter(session)
        elif not self.owns(request.key):  # it has moved meanwhile
            self._refuse_node(session)
        else:
            self._check_token(session, request)

    def _check_token(self, session: Session, request: Subscribe) -> None:
        if not self.settings.auth:
            self._join(session, request)
            return
        check = self._recovery.check_token(session)
        check.addCallbacks(self._checked, self._not_checked, callbackArgs=(session, request), errbackArgs=(session,))

    def _checked(self, refusal: bytes | None, session: Session, request: Subscribe) -> None:
        if session.state is not State.RECOVERING:
            return
        if refusal is not None:
            self.counters.refused_key += refusal == REFUSE_KEY
            self.counters.refused_token += refusal == REFUSE_TOKEN
            self.refuse(session, refusal)
        elif not self.owns(request.key):  # it has moved meanwhile
            self._refuse_node(session)
        else:
            self._join(session, request)

    def _refuse_cut_off(self, session: Session) -> None:
        self.counters.cut_off_refused += 1
        self.refuse(session, REFUSE_NODE)

    def _refuse_node(self, session: Session) -> None:
        self.counters.refused_node += 1
        self.refuse(session, REFUSE_NODE)

    def _not_checked(self, _: Failure, session: Session) -> None:
        session.abort()

    def _join(self, session: Session, request: Subscribe) -> None:
        if self.cut_off.holds:  # by now: those that were there have been told to go
            self._refuse_cut_off(session)
            return
        self.counters.channels_accessed += 1
        channel = self.channels.get(request.key)
        if channel is None:
            second = int(self.clock.seconds())
            if second != self._second:
                self._second = second  # one object for all channels of a second
            channel = self.channels[request.key] = Channel(request.key, self._second)
            self.counters.channels_created += 1
        elif channel.subscribers >= self.settings.max_subscribers:
            self.counters.refused_limit += 1
            self.refuse(session, REFUSE_LIMIT)
            return
        self._recovery.join(session, channel)
