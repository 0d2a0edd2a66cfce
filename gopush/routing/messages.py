"""The message nodes of the cluster, as comet and web use them: one key at a time here, batches on the way.

A key goes to the node in this process, where there is one and it answers, else to the one that rendezvous hashing gives
it among those that answer; appends of a key keep their order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import methodcaller
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

from gopush.errors import UnavailableError
from gopush.hashing import best
from gopush.membership.view import Coordination, View
from gopush.model import Append, Head, NodeInfo, Page, Read, Token, TokenState
from gopush.net.clock import Clock
from gopush.routing.peer import BatchCall, Peer, Service, one_of
from gopush.routing.pending import OVERHEAD_BYTES, OnAnswers, PendingCalls
from gopush.routing.pool import Peers
from gopush.rpc.services import MessageService, NodeService
from gopush.rpc.settings import RpcSettings

T = TypeVar("T")
PAGE_MESSAGES = 256
MOST_READS = 16
"""In one call."""
ROOM_BYTES = 4 << 20
"""Bodies in the answer to one call at most, where it holds more than one message: it has to be carried in time."""
LEAST_ROOM_BYTES = 64 << 10
UNREADABLE = "the key's log cannot be read"


class MessagePeer(MessageService, NodeService, Service, Protocol):
    """A message service that can be let go."""


class Messages(Peers[MessagePeer]):
    """All that a key's log can do. Every call fails with UnavailableError where no node answers in time."""

    def __init__(
        self,
        clock: Clock,
        coordination: Coordination,
        connect: Callable[[NodeInfo], MessagePeer],
        settings: RpcSettings,
        own: str = "",
    ) -> None:
        """`own`: the NodeInfo.id of a message node in this process: while it answers, no other one is asked."""
        timeout = settings.call_timeout
        self._append = BatchCall[MessagePeer](lambda node, appends: node.append(appends), timeout, ordered=True)
        self._read = BatchCall[MessagePeer](self._read_batch, timeout, most=MOST_READS, long=True)
        self._heads = BatchCall[MessagePeer](lambda node, keys: node.heads(keys), timeout)
        self._single = BatchCall[MessagePeer](
            _one_by_one, timeout, refused=lambda answer: isinstance(answer, UnavailableError)
        )
        super().__init__(clock, connect, self._own_first, settings)
        self._attempt = settings.attempt_timeout
        self._room = ROOM_BYTES
        self._own = own
        coordination.watch(self._adopt)
        self._adopt(coordination.view)

    def append(self, appends: Sequence[Append], answered: OnAnswers) -> None:
        """Sequence pushes, and keep those that are to be kept (delivery rules 1, 2, 6 and 7).

        `answered` is called with indexes of `appends` and as many Appended, or an UnavailableError for all of these:
        once for those that went together.
        """
        keys = [push.key for push, _ in appends]
        self.send_by_store(self._append, PendingCalls(keys, appends, _sizes, self._until(), answered))

    def read(self, key: str, after: int, limit: int = PAGE_MESSAGES) -> Deferred[Page]:
        """A page of the key's log after the cursor `after`."""
        item = Read(key, after, limit)
        page = self.call(self._read, key, item, OVERHEAD_BYTES, self._until(), self._shard(key))
        return page.addCallback(self._read_one, item)

    def _read_one(self, page: Page | None, item: Read) -> Page | Deferred[Page]:
        """What found no room in its batch is asked for again, behind what waits."""
        if page is None:
            raise UnavailableError(UNREADABLE)
        return self.read(item.key, item.after, item.limit) if page.more and not page.messages else page

    def _read_batch(self, node: MessagePeer, reads: list[Read]) -> Deferred[list[Page | None]]:
        """Answers that take too long are made smaller, until their callers still wait for them."""
        pages = node.read([read._replace(room=self._room) for read in reads])
        began = self._clock.seconds()
        return pages.addCallbacks(self._read_answered, self._read_failed, (began,), errbackArgs=(began,))

    def _read_answered(self, pages: list[Page | None], began: float) -> list[Page | None]:
        took = self._clock.seconds() - began
        if took > self._read.timeout:
            self._shrink(took)
        elif took < self._read.timeout / 4 and self._room < ROOM_BYTES and _bodies(pages) > self._room // 2:
            self._room = min(self._room * 2, ROOM_BYTES)
        return pages

    def _read_failed(self, failure: Failure, began: float) -> Failure:
        self._shrink(self._clock.seconds() - began)
        return failure

    def _shrink(self, took: float) -> None:
        """By half at least: what took ten times too long would else be tried four times."""
        self._room = max(int(self._room / max(2, took / self._read.timeout)), LEAST_ROOM_BYTES)

    def head(self, key: str) -> Deferred[Head]:
        """Where the key's log ends."""
        head = self.call(self._heads, key, key, OVERHEAD_BYTES, self._until(), self._shard(key))
        return head.addCallback(_known)

    def heads(self, keys: Sequence[str], answered: OnAnswers) -> None:
        """Where the logs of these keys end; `answered` is called as in append(), with Heads, None for a key whose log
        cannot be read, if there are any keys.
        """
        if keys:
            self.send_by_store(self._heads, PendingCalls(keys, keys, _overheads, self._until(), answered))

    def delete(self, key: str) -> Deferred[None]:
        """Delete the key's kept messages."""
        return self._call(key, lambda node: node.delete(key))

    def create_token(self, key: str, token: Token) -> Deferred[None]:
        """Keep a token for the key."""
        return self._call(key, lambda node: node.create_token(key, token))

    def revoke_token(self, key: str, digest: bytes) -> Deferred[bool]:
        """Forget a token; False where it was not known."""
        return self._call(key, lambda node: node.revoke_token(key, digest))

    def tokens(self, key: str) -> Deferred[list[Token]]:
        """The key's live tokens."""
        return self._call(key, lambda node: node.tokens(key))

    def check_token(self, key: str, digest: bytes) -> Deferred[TokenState]:
        """Whether the key was created and whether the token is good."""
        return self._call(key, lambda node: node.check_token(key, digest))

    def reachable(self) -> Deferred[bool]:
        """Whether a message node answers that is of use to this process; never fails. One in another process is, even
        if its store does not answer: no other comet is better off then. The one in this process always answers: it is
        of use while it reaches the store.
        """
        asked = [self.ask(name, methodcaller("ping" if name == self._own else "status")) for name in self.live]
        return one_of(asked).addCallbacks(lambda _: True, lambda _: False)

    def _call(self, key: str, call: Callable[[MessageService], Deferred[T]]) -> Deferred[T]:
        called = self.call(self._single, key, call, OVERHEAD_BYTES, self._until(), self._shard(key))
        return called.addCallback(lambda answer: Failure(answer) if isinstance(answer, UnavailableError) else answer)

    def _own_first(self, key: str, peers: Sequence[Peer[MessagePeer]]) -> Peer[MessagePeer]:
        """The one in this process, else the one that rendezvous hashing gives the key."""
        for peer in peers:
            if len(peers) == 1 or peer.info.id == self._own:
                return peer
        name = best(key, [(peer.info.id, peer.info.weight) for peer in peers])
        return next(peer for peer in peers if peer.info.id == name)

    def _until(self) -> float:
        return self._clock.seconds() + self._attempt

    def _shard(self, key: str) -> str:
        return "" if self._shards.ring is None else self._shards.of(key)

    def _adopt(self, view: View) -> None:
        self.adopt(view, view.messages)


def _known(head: Head | None) -> Head:
    if head is None:
        raise UnavailableError(UNREADABLE)
    return head


def _bodies(pages: Sequence[Page | None]) -> int:
    return sum(len(message.body) for page in pages if page is not None for message in page.messages)


def _sizes(appends: Sequence[Append]) -> list[int]:
    return [OVERHEAD_BYTES + len(push.body) for push, _ in appends]


def _overheads(keys: Sequence[str]) -> list[int]:
    return [OVERHEAD_BYTES] * len(keys)


def _one_by_one(node: MessagePeer, calls: list[Callable[[MessagePeer], Deferred[Any]]]) -> Deferred[list[Any]]:
    """Calls that come too seldom to be packed into batches: what fails one of them says nothing of the others."""
    return DeferredList([call(node) for call in calls], consumeErrors=True).addCallback(_unless_all_failed)


def _unless_all_failed(outcomes: list[tuple[bool, Any]]) -> list[Any]:
    if not any(done for done, _ in outcomes):
        outcomes[0][1].raiseException()
    return [result if done else UnavailableError(result.getErrorMessage()) for done, result in outcomes]
