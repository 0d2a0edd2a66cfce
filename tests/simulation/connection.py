"""A client's connection to a comet, both ends: the real protocol of the comet on a simulated socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, succeed

from gopush.comet.session import Session, State
from gopush.comet.tcp import TcpSubscriber
from gopush.model import TCP_OLD

if TYPE_CHECKING:
    from tests.simulation.process import CometProcess
    from tests.simulation.subscriber import Subscriber

KERNEL_BYTES = 200
KERNEL_FRAMES = 6
FRAME_BYTES = 1000
FRAME = b'{"msg":'


class SimSession(Session):
    """A session whose place in a set is the same in every run."""

    __slots__ = ("number",)

    number: int

    def __hash__(self) -> int:
        return self.number


class Connection(TcpSubscriber):
    """The comet's protocol, its wire, and the socket between it and a subscriber."""

    def __init__(self, process: CometProcess, subscriber: Subscriber, number: int) -> None:
        super().__init__(process.comet)
        self.process = process
        self.number = number
        self.opened = False  # the comet knows of it
        self.asked = 0.0  # when the comet read the request
        self.session: SimSession | None = None
        # What the client knows:
        self.resumes = False
        self.asked_after = 0  # the cursor that it gave
        self.accepted: float | None = None
        self.ended: float | None = None
        self.buffer = b""
        self.refused = b""
        self.last = 0  # the last message, or the cursor that it gave
        self.heard_any = False
        self.gaps: list[tuple[float, int]] = []  # when it heard +g, and after which message
        self.replies = 0  # how often it heard +h
        self.heartbeats = 0  # how many it sent
        self.fetches = 0  # how often it tried to fetch
        self.slow_until = 0.0
        self.slow_times: list[tuple[float, float]] = []
        self._world = process.world
        self._subscriber = subscriber
        self._queue = bytearray()
        self._draining = False
        self._joined = (0, 0)
        self._waiters: list[Deferred[None]] = []
        self._finished = False
        self._gone = False  # the comet's end is closed

    # --- the comet's end ---

    def connectionMade(self) -> None:
        self._session = self.session = SimSession(self, TCP_OLD, self._comet.settings, self._comet.clock.seconds())
        self.session.number = self.number
        self.opened = True
        self._comet.opened(self.session)

    def hear(self, data: bytes) -> None:
        """Bytes of the client have come."""
        if not self._gone:
            if not self.asked:
                self.asked = self._world.clock.now
            self.dataReceived(data)

    def send(self, data: bytes) -> int:
        """See Wire."""
        assert self.session is not None
        if self._gone or self._finished:
            return 0
        live = self.session.state is State.LIVE
        if live:
            self._note_delivered(data)
            self._check_bounds(live)
        self._queue += data
        if not live:
            self._check_bounds(live)
        if not self._draining:
            self._draining = True
            self._world.clock.after(0.0003 + 0.002 * self._world.random.random(), self._drain)
        return self._waiting()

    def finish(self) -> None:
        """See Wire."""
        self._finished = True
        if not self._queue:
            self._world.clock.after(0.001, self._end_client)
            self.process.clock.callLater(0.002, self.lost)

    def abort(self) -> None:
        """See Wire."""
        self.process.clock.callLater(0, self.lost)
        self._cut_off()

    def drained(self) -> Deferred[None]:
        """See Wire."""
        if not self._waiting() or self._gone:
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._waiters.append(done)
        return done

    def lost(self) -> None:
        """The comet notices that the connection is gone."""
        if not self._gone and self.opened:
            self._gone = True
            self._comet.closed(self._session)
            self._tell_waiters()

    @property
    def closed(self) -> bool:
        """Whether the comet's end is closed."""
        return self._gone or not self.opened

    def _waiting(self) -> int:
        return max(0, len(self._queue) - KERNEL_BYTES)

    def _note_delivered(self, data: bytes) -> None:
        at = data.rfind(b'"mid":')
        if at >= 0:
            self.process.delivered(self._subscriber.key, int(data[at + 6 : data.index(b",", at)]))

    def _check_bounds(self, live: bool) -> None:
        """Before a send: no more waits than what came while joining, msgbuf, and one message (delivery rule 9)."""
        bytes_waiting, frames = self._waiting(), self._queue.count(FRAME)
        if not live:
            self._joined = (bytes_waiting, frames)
            return
        limits = self._comet.settings
        if bytes_waiting > self._joined[0] + limits.msgbuf_bytes + FRAME_BYTES:
            self._violated(f"{bytes_waiting} bytes wait")
        elif bytes_waiting and frames > self._joined[1] + limits.msgbuf_messages + KERNEL_FRAMES:
            self._violated(f"{frames} messages wait")

    def _violated(self, what: str) -> None:
        self._world.violated(9, self._subscriber.key, f"{what} for {self._subscriber.name}")

    # --- the socket ---

    def _drain(self) -> None:
        """The client reads: all there is, or a little where it is slow."""
        self._draining = False
        if self.ended is not None or not self._queue:
            return
        now = self._world.clock.now
        slow = now < self.slow_until
        data = bytes(self._queue[: 40 if slow else None])
        del self._queue[: len(data)]
        self._subscriber.receive(self, data)
        if self._queue:
            self._draining = True
            self._world.clock.after(0.2, self._drain)
        if not self._waiting():
            self._world.clock.after(0, self._tell_waiters, owner=self.process)
        if self._finished and not self._queue:
            self._world.clock.after(0.001, self._end_client)
            self._world.clock.after(0.002, self.lost, owner=self.process)

    def _tell_waiters(self) -> None:
        if self._waiting() and not self._gone:
            return
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(None)

    def _cut_off(self) -> None:
        """What was on its way arrives in part."""
        rest = bytes(self._queue[: self._world.random.randrange(len(self._queue) + 1)])
        self._queue.clear()
        if self.ended is None:
            self._world.clock.after(0.001, self._end_client, rest)

    def _end_client(self, rest: bytes = b"") -> None:
        if self.ended is None:
            if rest:
                self._subscriber.receive(self, rest)
            self.ended = self._world.clock.now
            self._subscriber.disconnected(self)

    # --- what happens to it ---

    def died(self) -> None:
        """The comet's process is dead."""
        self._gone = True
        self._cut_off()

    def close(self, silently: bool = False) -> None:
        """The client goes; where silently, the comet does not learn of it."""
        if self.ended is None:
            self.ended = self._world.clock.now
            if not silently:
                self._queue.clear()
                self._world.clock.after(0.001, self.lost, owner=self.process)

    def slow_down(self, until: float) -> None:
        """The client hardly reads until then."""
        self.slow_until = until
        self.slow_times.append((self._world.clock.now, until))
