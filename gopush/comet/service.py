"""A comet: takes pushes, has them stored, delivers them to its subscribers, or tells the comet that holds them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from gopush.auth import signed_tokens
from gopush.comet import codec
from gopush.comet.channel import Channel
from gopush.comet.codec import Subscribe
from gopush.comet.counters import CometCounters
from gopush.comet.cut_off import CutOff
from gopush.comet.delivery import Delivery
from gopush.comet.guard import Guard
from gopush.comet.recovery import Recovery
from gopush.comet.session import Session, State
from gopush.comet.settings import SubscriberSettings
from gopush.comet.slow_consumers import SlowConsumers
from gopush.comet.store_time import StoreTime
from gopush.comet.unkept import Unkept
from gopush.comet.unread import Unread
from gopush.errors import RET_INTERNAL, RET_OK, UnavailableError
from gopush.membership.view import Coordination
from gopush.model import MAX_FORWARD_HOPS, Append, Appended, Forward, Head, Load, Push, Pushed, SlowConsumer, mid_at
from gopush.net.clock import Clock
from gopush.net.timers import NO_SLOT, Wheel
from gopush.routing.comets import Comets
from gopush.routing.messages import Messages

CURSOR_AHEAD_SECONDS = 60
DOUBT_SECONDS = 4.5
"""What was refused may be stored until its deadline: then, and not later, its log is compared once more."""


class Comet:
    """The service behind the client ports and the RPC port; implements CometService. `name`: its NodeInfo.id."""

    def __init__(
        self,
        clock: Clock,
        coordination: Coordination,
        messages: Messages,
        comets: Comets,
        settings: SubscriberSettings,
        name: str,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.channels: dict[str, Channel] = {}
        self.counters = CometCounters()
        self.settings = settings
        self.name = name
        self.wheel: Wheel[Session] = Wheel(clock.seconds())
        self._clock = clock
        self._now = now
        self._coordination = coordination
        self._messages = messages
        self._comets = comets
        self._unkept = Unkept()
        self._doubts = False
        self._doubtful: dict[str, None] = {}
        self.guard = Guard(clock, self.counters)
        self.delivery = Delivery(clock, messages, settings, self.counters, self._unkept, self.guard)
        self.cut_off = CutOff(clock, coordination, messages)
        self._slow_consumers = SlowConsumers(clock, self.channels)
        self._store_time = StoreTime(clock, now)
        unread = Unread(clock, self.counters, self.guard)
        signed = signed_tokens(settings.tokens)
        self._recovery = Recovery(clock, messages, self.delivery, unread, self._store_time, self.guard, signed)

    # --- what web and the other comets call (CometService) ---

    def push(self, pushes: Sequence[Push]) -> Deferred[list[Pushed]]:
        """See CometService. A push is answered as soon as it is stored; delivery follows in the same turn."""
        if not pushes:
            return succeed([])
        batch = _PushBatch(pushes, self._unkept.sent(pushes))
        channels = map(self.channels.get, [push.key for push in pushes])
        floors = [0 if channel is None else channel.floor for channel in channels]
        self._messages.append(list(map(Append, pushes, floors)), partial(self._appended, batch))
        return batch.done

    def forward(self, forwards: Sequence[Forward]) -> Deferred[None]:
        """See CometService."""
        self.counters.notices_received += len(forwards)
        for forward in forwards:
            self._offer(*forward)
        return succeed(None)

    def close(self, keys: Sequence[str]) -> Deferred[list[int]]:
        """See CometService."""
        closed = []
        for key in keys:
            channel = self.channels.get(key)
            sessions = [] if channel is None else [*channel.live, *channel.recovering]
            for session in sessions:
                self.end(session)
            closed.append(len(sessions))
        return succeed(closed)

    def subscribers(self, keys: Sequence[str]) -> Deferred[list[int]]:
        """See CometService."""
        channels = map(self.channels.get, keys)
        return succeed([0 if channel is None else channel.subscribers for channel in channels])

    def slowest(self, most: int) -> Deferred[list[SlowConsumer]]:
        """See CometService."""
        return self._slow_consumers.find(most)

    def ping(self) -> Deferred[None]:
        """See CometService."""
        return self._messages.ping()

    # --- what the client ports call ---

    def opened(self, session: Session) -> None:
        """A client has connected; its session's deadline is watched from now on."""
        self.counters.connections_added += 1
        self.wheel.add(session)

    def subscribe(self, session: Session) -> None:
        """The session has read its client's request: let it in or refuse it (protocol.md, section 1)."""
        request = session.request
        assert request is not None
        if self.cut_off.holds:
            self.counters.cut_off_refused += 1
            self.refuse(session, codec.REFUSE_NODE)
        elif not self.owns(request.key):
            self._refuse_node(session)
        else:
            self._check_cursor(session, request)

    def closed(self, session: Session) -> None:
        """The session's connection is gone."""
        self.counters.connections_removed += 1
        self.wheel.discard(session)
        session.lost()
        self.counters.slow_closed += session.too_slow
        channel = self.channels.get(session.request.key) if session.request is not None else None
        if channel is None:
            return
        channel.remove(session)
        if not channel.subscribers:
            del self.channels[channel.key]
            self.counters.channels_deleted += 1
            self._recovery.forget(channel)

    @property
    def subscribed(self) -> int:
        """How many connections have a key."""
        return sum(channel.subscribers for channel in self.channels.values())

    def load(self) -> Load:
        """What there is to do here."""
        counters = self.counters
        return Load(counters.connections_added - counters.connections_removed, len(self.channels), counters.deliveries)

    def refuse_parameter(self, session: Session) -> None:
        """The client's request makes no sense."""
        self.counters.refused_parameter += 1
        self.refuse(session, codec.REFUSE_PARAMETER)

    def refuse(self, session: Session, reply: bytes) -> None:
        """Say `reply` to the client and close."""
        session.finish(reply, self._clock.seconds())
        if session.slot != NO_SLOT:  # else its connection is gone
            self.wheel.add(session)

    def end(self, session: Session) -> None:
        """Close without a word, once all that was sent is out."""
        self.refuse(session, b"")

    def owns(self, key: str) -> bool:
        """Whether this process is the one that holds the key's subscribers, in its own view."""
        owner = self._coordination.view.owner(key)
        return owner is not None and owner.id == self.name

    # --- a push's way ---

    def _appended(
        self, batch: _PushBatch, indexes: Sequence[int], results: Sequence[Appended] | UnavailableError
    ) -> None:
        if isinstance(results, UnavailableError):
            self._not_appended(batch, indexes)
        else:
            self._offer_all(batch, indexes, results)
        if batch.call:
            self._unkept.answered(batch.call, [batch.pushes[index] for index in indexes])

    def _offer_all(self, batch: _PushBatch, indexes: Sequence[int], results: Sequence[Appended]) -> None:
        batch.answer(indexes, [Pushed(ret, mid) for ret, mid, _, _ in results])
        succeeded = 0
        for index, (ret, mid, previous, repeat) in zip(indexes, results, strict=True):
            if ret == RET_OK:
                succeeded += 1
                push = batch.pushes[index]
                # A repeat may carry another body than the first push: what was stored then is read, if it was kept.
                body = None if repeat and push.expire else push.body
                self._offer(push.key, mid, previous, body, MAX_FORWARD_HOPS)
        if ret == RET_OK and not repeat:  # of the last one: more would tell nothing new
            self._store_time.gave(mid)
        self.counters.messages_succeeded += succeeded
        self.counters.messages_failed += len(results) - succeeded

    def _not_appended(self, batch: _PushBatch, indexes: Sequence[int]) -> None:
        self.counters.messages_failed += len(indexes)
        batch.answer(indexes, [Pushed(RET_INTERNAL, 0)] * len(indexes))
        # They may have been stored all the same, or will be until their deadline: the logs are compared.
        keys = {key: None for index in indexes if (key := batch.pushes[index].key) in self.channels}
        self._sweep(keys)
        if keys and not self._doubts:
            self._doubts = True
            self._clock.callLater(DOUBT_SECONDS, self._look_again, {})
        self._doubtful.update(keys)

    def _look_again(self, keys: dict[str, None]) -> None:
        """Compare these logs once more: none of their pushes is stored any later. Then those that came since."""
        self._sweep(keys)
        doubtful, self._doubtful = self._doubtful, {}
        self._doubts = bool(doubtful)
        if doubtful:
            self._clock.callLater(DOUBT_SECONDS, self._look_again, doubtful)

    def _sweep(self, keys: Iterable[str]) -> None:
        channels = map(self.channels.get, keys)
        self.delivery.sweep([channel for channel in channels if channel is not None])

    def _offer(self, key: str, mid: int, previous: int, body: bytes | None, hops: int) -> None:
        """Deliver to the subscribers here; tell the owner where that is another comet (the fields of a Notice)."""
        channel = self.channels.get(key)
        try:
            if channel is not None:
                channel.offer(mid, previous, body)
                self.delivery.touch(channel)
            if hops:
                owner = self._coordination.view.owner(key)
                if owner is not None and owner.id != self.name:
                    self.counters.notices_sent += 1
                    self._comets.forward(owner.id, Forward(key, mid, previous, body, hops - 1))
        except Exception:
            self.guard.caught("offering a message to a channel")
            self.delivery.sweep(() if channel is None else (channel,))

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
        if refusal == codec.REFUSE_KEY:
            self.counters.refused_key += 1
            self.refuse(session, refusal)
        elif refusal is not None:
            self.counters.refused_token += 1
            self.refuse(session, refusal)
        elif not self.owns(request.key):  # it has moved meanwhile
            self._refuse_node(session)
        else:
            self._join(session, request)

    def _refuse_node(self, session: Session) -> None:
        self.counters.refused_node += 1
        self.refuse(session, codec.REFUSE_NODE)

    def _not_checked(self, _: Failure, session: Session) -> None:
        session.abort()

    def _join(self, session: Session, request: Subscribe) -> None:
        self.counters.channels_accessed += 1
        channel = self.channels.get(request.key)
        if channel is None:
            channel = self.channels[request.key] = Channel(request.key)
            self.counters.channels_created += 1
        elif channel.subscribers >= self.settings.max_subscribers:
            self.counters.refused_limit += 1
            self.refuse(session, codec.REFUSE_LIMIT)
            return
        self._recovery.join(session, channel)


class _PushBatch:
    """Gathers the answers to a call's pushes, in their order."""

    __slots__ = ("_answers", "_left", "call", "done", "pushes")

    def __init__(self, pushes: Sequence[Push], call: int) -> None:
        self.call = call
        self.done: Deferred[list[Pushed]] = Deferred()
        self.pushes = pushes
        self._answers = [Pushed(RET_INTERNAL, 0)] * len(pushes)
        self._left = len(pushes)

    def answer(self, indexes: Sequence[int], answers: Sequence[Pushed]) -> None:
        for index, answer in zip(indexes, answers, strict=True):
            self._answers[index] = answer
        self._left -= len(indexes)
        if not self._left:
            self.done.callback(self._answers)
