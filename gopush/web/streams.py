"""`GET /sub`: server-sent events (protocol.md, section 10). A browser's EventSource needs no more than the address.

An EventSource stops for good at any status but 200, so only a request that must not be repeated gets another one: 400,
401, 403. The stream itself tells of all else that ends it, and the browser comes back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from twisted.python.failure import Failure

from gopush.event_stream import COMMENT, CONTENT_TYPE, EVENT, HEADERS, event_format, opening, refusal
from gopush.model import (
    GAP,
    MID_STEP,
    REFUSE_KEY,
    REFUSE_LIMIT,
    REFUSE_PARAMETER,
    REFUSE_TOKEN,
    Head,
    Page,
    Subscribe,
    subscribe,
)
from gopush.net.clock import Deadlines
from gopush.net.http.held import Held, HeldAnswer
from gopush.net.http.request import TEXT, Request, Response, Streamed, chunk, plain
from gopush.net.http.routes import Answered, Route, Routes
from gopush.net.timers import NO_SLOT, Wheel
from gopush.reports import Lag
from gopush.routing.messages import Messages
from gopush.web.counters import WebCounters
from gopush.web.follower import Follower, Followers

PATIENCE_SECONDS = 5.0
"""How long a stream that has not begun waits for its comet; a second more at most."""
RETRY_MS = 1000, 3000
RETRY_AT_LIMIT_MS = 15_000, 30_000
LEFT_IN_A_TURN = 500
MOST_HEARTBEAT_SECONDS = 600
"""Only a comment finds out that a client has vanished: it would keep its place at a quiet key."""

_UNAUTHORIZED = Response(
    401,
    TEXT,
    b"Unauthorized: this stream wants a token of its key, token=TOKEN in the query\n",
    (("WWW-Authenticate", 'Bearer realm="gopush"'),),  # RFC 9110 wants one, though EventSource can send no header
)
REFUSALS = {
    REFUSE_PARAMETER: (plain(400), "the mid is above the key's last one, and more than 60 seconds ahead of now"),
    REFUSE_TOKEN: (_UNAUTHORIZED, "it is missing, or not a valid one"),
    REFUSE_KEY: (plain(403), "nobody created this key: there is neither a token nor a kept message for it"),
}
REASON = {REFUSE_PARAMETER: "parameter", REFUSE_TOKEN: "token", REFUSE_KEY: "key", REFUSE_LIMIT: "limit"}
_HEAD = Streamed(200, CONTENT_TYPE, HEADERS)


class EventStreams:
    """All streams. `room`: whether there are files for one more."""

    def __init__(
        self, followers: Followers, messages: Messages, counters: WebCounters, room: Callable[[], bool]
    ) -> None:
        self.followers = followers
        self.messages = messages
        self.counters = counters
        self.room = room
        self.leaving = False
        self.streams: dict[EventStream, None] = {}
        self.wheel: Wheel[EventStream] = Wheel(followers.clock.seconds())
        self._deadlines = Deadlines(self.wheel, EventStream.due, lambda: self.streams, followers.clock)
        self.formats = {True: event_format(chunk), False: event_format(bytes)}

    def routes(self) -> Routes:
        """The route of the public port. Whether a stream would begin shows only where one does: there is no HEAD."""
        return {"/sub": {"GET": Route(self._open, too_many=self._too_many, alone=True, head=False)}}

    def retry_ms(self, limit: bool) -> int:
        """When a browser is to come back: not all at the same time."""
        least, most = RETRY_AT_LIMIT_MS if limit else RETRY_MS
        return least + int((most - least) * self.followers.chance())

    def stop(self) -> None:
        """End all streams, a part in each turn: this process leaves."""
        self.leaving = True
        for stream in list(self.streams)[:LEFT_IN_A_TURN]:
            stream.end("leaving")
        if self.streams:
            self.followers.clock.callLater(0, self.stop)

    def opened(self, stream: EventStream) -> None:
        """One more."""
        self.streams[stream] = None
        self._deadlines.watch()
        self.counters.streams_opened += 1

    def closed(self, stream: EventStream) -> None:
        """It is over."""
        if stream in self.streams:
            del self.streams[stream]
            self.wheel.discard(stream)
            self.counters.streams_closed += 1

    def _too_many(self, _: Request) -> Response:
        """Of a client that has all its connections: as a key that has."""
        self.counters.streams_refused += 1
        return Response(200, CONTENT_TYPE, opening(self.retry_ms(limit=True), None) + refusal("limit"), HEADERS)

    def _open(self, request: Request) -> Answered:
        query = request.query
        mid = request.header(b"last-event-id") or query.get("mid")
        wanted = subscribe(query.text("key"), query.text("heartbeat"), query.text("token"), "", mid)
        return Held(partial(self._begin, wanted))

    def _begin(self, wanted: Subscribe, answer: HeldAnswer) -> EventStream:
        stream = EventStream(self, wanted, answer)
        self.opened(stream)
        if self.leaving:
            stream.end("leaving")
        elif not self.room():
            stream.end("busy", limit=True)
        else:
            stream.start()
        return stream


class EventStream(Follower):
    """One stream; a Watcher of its connection. `deadline`: of the wheel: its next comment, or the end of patience."""

    __slots__ = ("_answer", "_begun", "_heartbeat", "_mid", "_read", "_streams", "_why", "deadline", "slot")

    def __init__(self, streams: EventStreams, wanted: Subscribe, answer: HeldAnswer) -> None:
        super().__init__(streams.followers, wanted.key, wanted.token, streams.formats[answer.in_chunks])
        self._answer = answer
        self.write = answer.send
        self._streams = streams
        self._heartbeat = min(wanted.heartbeat, MOST_HEARTBEAT_SECONDS)
        self._begun = False
        self._mid = wanted.mid
        self._read = 0
        self._why = "store away"
        """Why it has not begun."""
        self.slot = NO_SLOT
        self.deadline = streams.followers.clock.seconds() + PATIENCE_SECONDS

    def start(self) -> None:
        """Find the beginning, which is the end of the log for a client that has seen nothing, and subscribe."""
        self._streams.wheel.add(self)
        if self._streams.followers.coordination.view.owner(self.key) is None:
            self.end("no comet")
        elif self._mid is None:
            head = self._streams.messages.head(self.key)
            head.addCallbacks(self._found, self._unknown)
        else:
            self._from(self._mid)

    def _found(self, head: Head) -> None:
        self._from(max(head.last, MID_STEP))

    def _unknown(self, _: Failure) -> None:
        if self in self._streams.streams:
            self.end("store away")

    def _from(self, mid: int) -> None:
        if self in self._streams.streams:
            self._mid = self.cursor = mid
            self._why = "comet away"
            self.follow()

    def due(self) -> None:
        """A comment is due: the browser, and proxies between, shall see that the stream is alive. Or patience ends."""
        if not self._begun:
            self.end(self._why)
            return
        self.deadline = self._streams.followers.clock.seconds() + self._heartbeat
        self._streams.wheel.add(self)
        self.write(self._framed(COMMENT))

    def end(self, reason: str, limit: bool = False) -> None:
        """Say why, and end: the browser comes back."""
        self.leave()
        self._streams.closed(self)
        self._streams.counters.streams_refused += 1
        # In one piece: a client that reads only the opening would take the stream for a live one.
        later = opening(self._streams.retry_ms(limit), None) if limit else b""
        before = later if self._begun else self._begin(limit)
        self._answer.finish(self._framed(before + refusal(reason)))

    # --- Follower ---

    def mid(self) -> int | None:
        """See Follower."""
        return self.cursor

    def joined(self) -> None:
        """See Follower."""
        if not self._begun:
            # Also one that asked for all of the log (0) has a place in it now: if it came back with 0, it would not
            # hear of gaps.
            self._mid = self.cursor = max(self.cursor, MID_STEP)
            self.write(self._framed(self._begin(limit=False)))
            self.deadline = self._streams.followers.clock.seconds() + self._heartbeat
        else:
            self._streams.counters.streams_resumed += 1

    def turned_away(self, reply: bytes) -> None:
        """See Follower."""
        refused = REFUSALS.get(reply)
        if refused is None or self._begun:
            self.end(REASON.get(reply, "comet away"), limit=reply == REFUSE_LIMIT)
            return
        self._streams.closed(self)
        self._streams.counters.streams_refused += 1
        self._answer.refuse(*refused)

    def nowhere(self, reason: str) -> bool:
        """See Follower. A comet that is there closes it because the client does not read, or to have it come back."""
        if self._begun:
            if reason != "store away" or self._answer.waiting() is None:
                return True
            self._streams.counters.streams_slow += 1
            self._over_and_out()
            return False
        if reason == "no comet":
            self.end(reason)
            return False
        self._why = reason
        return True

    def after(self) -> int | None:
        """See LogFollower. A page is enough for a client that has not read the last one."""
        return self.cursor if self._begun and self._answer.waiting() is None else None

    def read_on(self, page: Page, frames: bytes) -> None:
        """See LogFollower."""
        gap = self.format.reply(GAP) if page.head.trimmed > self.cursor else b""
        self.cursor = page.messages[-1].mid if page.messages else max(self.cursor, page.head.last)
        self._read = self.cursor
        if gap or frames:
            self._answer.send(gap + frames)
        self.write = self._write_unread  # the subscription that is on its way to the comet began before that

    def cut_off(self) -> None:
        """See LogFollower."""
        self.end("store away")

    def waiting(self) -> Lag | None:
        """See Reader."""
        return self._answer.waiting()

    def until_drained(self) -> Awaitable[None]:
        """See Reader."""
        return self._answer.until_drained()

    @property
    def peer(self) -> str:
        """See Reader."""
        return self._answer.peer

    def _write_unread(self, data: bytes) -> int:
        """Write what comes from a comet, without the messages that were read from the log already."""
        self.cursor = max(self.cursor, self._read)
        events = list(EVENT.finditer(data))
        unread = next((event.start() for event in events if int(event[1]) > self._read), None)
        if unread is not None:
            self.write = self._answer.send
            gap = self.format.reply(GAP)
            return self.write(data[unread - len(gap) if data.endswith(gap, 0, unread) else unread :])
        return 0 if events else self._answer.send(data)

    # --- Watcher ---

    def hung_up(self) -> None:
        """See Watcher."""
        self._over_and_out()

    def lost(self) -> None:
        """See Watcher."""
        self._streams.counters.streams_slow += self._answer.slow
        self.leave()
        self._streams.closed(self)

    # --- the answer ---

    def _begin(self, limit: bool) -> bytes:
        """Begin the answer; gives what it opens with."""
        self._begun = True
        self._answer.begin(_HEAD)
        return opening(self._streams.retry_ms(limit), self._mid)

    def _framed(self, piece: bytes) -> bytes:
        return chunk(piece) if self._answer.in_chunks else piece

    def _over_and_out(self) -> None:
        self.leave()
        self._streams.closed(self)
        self._answer.abort()
