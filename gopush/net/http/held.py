"""Answers that come later, or go on and on: their handler watches the connection meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol, TypeVar

from twisted.internet.defer import Deferred, succeed

from gopush.net import transport as wire
from gopush.net.http.request import AnyResponse, Response, Streamed, chunk, explained
from gopush.reports import Lag

T = TypeVar("T")


class Watcher(Protocol):
    """What hears of the connection until the answer is complete."""

    def hung_up(self) -> None:
        """The client sends no more; browsers that leave say no more than that."""

    def lost(self) -> None:
        """The connection is gone; whatever is still written goes nowhere."""


class Held(NamedTuple):
    """An answer that its handler gives when it can: `begin` gets where to write it, and gives the watcher of the
    connection.
    """

    begin: Callable[[HeldAnswer], Watcher]


class WaitingClient:
    """Who waits for an answer, until it leaves; a Watcher. Only the waiting ends then: all else that the answer needs
    goes on, for a client that has only ended its side of the connection gets it.
    """

    __slots__ = ("_coming", "_left")

    def __init__(self) -> None:
        self._left = False
        self._coming: Deferred[Any] | None = None

    def answered(self, coming: Deferred[Any]) -> Held:
        """Its answer."""

        def begin(answer: HeldAnswer) -> Watcher:
            coming.addCallback(answer.give)
            return self

        return Held(begin)

    def until_left(self, coming: Deferred[T]) -> Deferred[T]:
        """This is cancelled as soon as the client leaves, or has left."""
        self._coming = coming
        if self._left:
            coming.cancel()
        return coming

    def hung_up(self) -> None:
        """See Watcher."""
        self._left = True
        if self._coming is not None:
            self._coming.cancel()

    def lost(self) -> None:
        """See Watcher."""
        self.hung_up()


class HeldAnswer:
    """Where such an answer is written, in the place of what an HttpChannel owes. `in_chunks`: each piece of a stream
    has to be one of HTTP's chunks. `send` sends one, and gives how many bytes wait for the client then. `over`: the
    answer is complete.
    """

    __slots__ = ("_channel", "_owed", "_proxied", "in_chunks", "over", "send")

    def __init__(self, channel: Any, owed: Any) -> None:
        self._channel = channel
        self._owed = owed
        self.in_chunks = owed.in_chunks
        self.over = False
        self.send = channel.send
        self._proxied = owed.request.peer if owed.request.peer != channel.peer else ""

    @property
    def peer(self) -> str:
        """The client's address, "host:port"."""
        return self._proxied or wire.peer(self._channel.transport)

    def give(self, response: AnyResponse) -> None:
        """This is the whole answer."""
        owed = self._close()
        if owed is not None:
            owed.give(response)

    def refuse(self, response: Response, why: str) -> None:
        """This is the whole answer, and why, where the request asks for that."""
        owed = self._close()
        if owed is not None:
            owed.give(explained(response, owed.request, why))

    def begin(self, head: Streamed) -> None:
        """Begin a stream; it is ended by finish() or abort(), or with the connection."""
        owed, self._owed = self._owed, None
        assert owed is not None
        if not self._channel.deaf:
            self._channel.site.counters.answer(owed.request, head.status)
            self._channel.stream(owed, head)

    def finish(self, piece: bytes) -> None:
        """Send the last piece of the stream, and close."""
        self._close()
        if not self._channel.deaf:
            self.send(piece + chunk(b"") if self.in_chunks else piece)
            self._channel.leave(linger=False)

    def abort(self) -> None:
        """Close at once."""
        self._close()
        self._channel.abort()

    @property
    def slow(self) -> bool:
        """Whether the port has closed the connection because its client did not read."""
        return bool(self._channel.slow)

    def waiting(self) -> Lag | None:
        """What waits for the client; None: nothing."""
        return wire.lag(self._channel.transport)

    def until_drained(self) -> Awaitable[None]:
        """Fires when the client has read what waited, where it is stalled, or the connection is lost."""
        drained: Awaitable[None] = self._channel.drain if self._channel.stalled else succeed(None)
        return drained

    def _close(self) -> Any:
        self.over = True
        self._channel.watcher = None
        owed, self._owed = self._owed, None
        return owed


class _Endless:
    """Stands among the answers that are owed for a stream."""

    data = None


ENDLESS: Any = _Endless()
