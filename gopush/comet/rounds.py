"""A round of delivery: the same messages to all subscribers of a channel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gopush.comet.channel import Channel
from gopush.comet.counters import CometCounters, Guard
from gopush.comet.session import Limits, Session
from gopush.model import GAP, Format, Message
from gopush.net.clock import Clock

SLICE_SUBSCRIBERS = 64
"""In one turn of the reactor. The pushes that come in between are joined to the next round (docs/performance.md)."""
PARTS = 4
"""A subscriber gets a quarter of `msgbuf` in one send: all of a send counts as waiting while any of its bytes do."""


@dataclass(eq=False, slots=True)
class Round:
    """Messages on their way to all subscribers that were live when it began, in slices: other work has its turn between
    them. `frames`: how the messages look in each format, as far as that is known. `later`: more messages, in parts,
    each of which goes to all before the next one does.
    """

    _clock: Clock
    _counters: CometCounters
    _channel: Channel
    _sessions: list[Session]
    _messages: list[Message]
    _later: Sequence[list[Message]]
    _frames: dict[Format, bytes]
    _gap: bool
    _advance: Callable[[Channel], None]
    _guard: Guard
    _at: int = 0

    def run(self) -> None:
        """Serve the first slice, and the others in turns of their own."""
        while True:
            end = self._at + SLICE_SUBSCRIBERS
            self._serve(self._sessions[self._at : end])
            self._at = end
            if end < len(self._sessions):
                break
            self._count()
            if not self._later:
                return
            self._messages, *self._later = self._later
            self._frames, self._gap, self._at = {}, False, 0
            if len(self._sessions) > SLICE_SUBSCRIBERS:
                break
        self._channel.busy = True
        self._clock.callLater(0, self._go_on)

    def _go_on(self) -> None:
        try:
            self.run()
        except Exception:
            self._guard.caught("a round of delivery", self._sessions[0 if self._later else self._at :])
            self._later, self._at = (), len(self._sessions)
        if self._at >= len(self._sessions):
            self._channel.busy = False
            self._advance(self._channel)

    def _serve(self, sessions: list[Session]) -> None:
        messages, frames, gap = self._messages, self._frames, self._gap
        count, format, data = len(messages), None, b""
        for session in sessions:
            try:
                if session.format is not format:  # nearly always all have the same
                    data = frames.get(session.format) or b"".join(map(session.format.message, messages))
                    format = session.format
                    frames[format] = data
                if gap and session.resumes:
                    session.deliver(session.format.reply(GAP) + data, count)
                elif data:
                    session.deliver(data, count)
            except Exception:
                self._guard.caught("delivering to a subscriber", (session,))

    def _count(self) -> None:
        """The messages went to all; nearly always all have the same frames."""
        counters, sessions, frames = self._counters, self._sessions, self._frames
        counters.rounds += 1
        counters.deliveries += len(self._messages) * len(sessions)
        if len(frames) == 1:
            (data,) = frames.values()
            counters.sent_bytes += len(data) * len(sessions)
        else:
            counters.sent_bytes += sum(len(frames.get(session.format, b"")) for session in sessions)


def in_parts(messages: list[Message], limits: Limits) -> list[list[Message]]:
    """What goes out in one send each, in order; one message alone is never too much."""
    most, most_bytes = max(1, limits.msgbuf_messages // PARTS), limits.msgbuf_bytes // PARTS
    sizes = [len(body) for _, body in messages]
    if len(sizes) <= most and sum(sizes) <= most_bytes:
        return [messages]
    parts, begin, waiting = [], 0, 0
    for at, size in enumerate(sizes):
        waiting += size
        if at > begin and (at - begin == most or waiting > most_bytes):
            parts.append(messages[begin:at])
            begin, waiting = at, size
    return [*parts, messages[begin:]]


def crowded(channel: Channel) -> bool:
    """Whether its rounds take several turns, and more messages come meanwhile."""
    return channel.busy or len(channel.live) > SLICE_SUBSCRIBERS
