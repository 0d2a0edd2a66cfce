"""A key's channel on this comet: which of its log's messages are delivered next, and to whom. Pure.

The store is the sequencer: each message comes with its mid and the mid before it. The channel's cursor is the last mid
that all live subscribers were given; a message whose predecessor lies past the cursor waits until the log was read
(delivery rule 3). Nothing here knows of sockets, calls or time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

from gopush.comet.session import ReplayBuffer, Session
from gopush.model import Message, Page, Push


class Channel:
    """The subscribers of one key and their place in its log."""

    __slots__ = (
        *("_head", "_pending", "_proven", "_replay", "_settles", "_since"),
        *("busy", "claimed", "cursor", "gap", "key", "live", "reading", "recovering", "since", "waiting_bytes"),
    )

    def __init__(self, key: str, since: int = 0) -> None:
        self.key = key
        self.since = since  # when the first subscriber came, in whole seconds of a steady clock
        self.cursor: int | None = None  # None until the store's head is known
        self.live: dict[Session, None] = {}
        self.recovering: dict[Session, None] = {}
        self.busy = False  # a round of delivery is under way
        self.reading = False  # a read of the log is under way
        self.claimed = 0  # the highest cursor that a subscriber came with
        self.gap = False  # messages after the cursor were trimmed away before they could be read
        self._head = 0  # the highest mid that is known to exist
        self._pending: list[tuple[int, int, bytes]] = []  # (mid, previous, body), ascending, after the cursor
        self.waiting_bytes = 0  # the bodies of the messages that cannot be delivered yet
        self._proven = 0  # up to here all that is left of the log is in pending
        self._settles = 0  # what the read under way will prove
        self._since: int | None = None
        self._replay: ReplayBuffer | None = None  # while somebody joins

    @property
    def subscribers(self) -> int:
        """How many connections the key has."""
        return len(self.live) + len(self.recovering)

    @property
    def floor(self) -> int:
        """The next message must come above it: subscribers have got, or say that they have, all up to here."""
        cursor, claimed = self.cursor or 0, self.claimed
        return cursor if cursor > claimed else claimed

    @property
    def behind(self) -> bool:
        """Whether the subscribers need messages that only a read of the log can bring."""
        return self.cursor is not None and self._head > self.cursor

    @property
    def unsettled(self) -> bool:
        """Whether something waits, or is missing."""
        return bool(self._pending) or self.cursor is None or self._head > self.cursor

    @property
    def waiting_messages(self) -> int:
        """The messages that cannot be delivered yet."""
        return len(self._pending)

    def begin(self, cursor: int) -> None:
        """Take the first cursor: all up to it is behind the subscribers."""
        self._head = max(self._head, cursor)
        if self._pending:
            cursor = min(cursor, self._pending[0][1])
        if self._since is not None:
            cursor = min(cursor, self._since)
        self.cursor = cursor
        if self._replay is not None:
            self._replay.since = cursor

    def remember_since(self, mid: int) -> None:
        """A subscriber joins before the first cursor is known, and must get what comes after `mid`."""
        self._since = mid if self._since is None else min(self._since, mid)

    def offer(self, mid: int, previous: int, body: bytes | None) -> None:
        """A message was appended; without its body it has to be read."""
        if self.cursor is not None and mid <= self.cursor:
            return
        if mid > self._head:
            self._head = mid
        if body is not None:
            self._insert(mid, previous, body)

    def take(self) -> list[Message]:
        """The messages that all live subscribers get next; the cursor moves to the last of them."""
        if self.cursor is None:
            return []
        cursor, pending = self.cursor, self._pending
        proven = self._proven
        messages = []
        for mid, previous, body in pending:
            if previous > cursor and previous > proven:
                break
            messages.append(Message(mid, body))
            self.waiting_bytes -= len(body)
            cursor = mid
        del pending[: len(messages)]
        self.cursor = cursor if cursor > proven else proven
        if self._replay is not None:
            if self.gap:
                # A subscriber that joins reads the log again, and hears of the gap itself.
                self._replay = ReplayBuffer(self.cursor)
            else:
                self._replay.add(messages)
        return messages

    def begin_read(self) -> int:
        """A read of the log starts at the cursor that is returned."""
        self.reading = True
        self._settles = self._head
        assert self.cursor is not None
        return self.cursor

    def end_read(self, page: Page | None) -> None:
        """The read that began last gave this page, or nothing (None)."""
        self.reading = False
        if page is None or self.cursor is None:
            return
        self.gap = self.gap or page.head.trimmed > self._reach(self.cursor)
        for message in page.messages:
            if message.mid > self.cursor:
                self._insert(message.mid, 0, message.body)
        if page.more:
            self._proven = page.messages[-1].mid
            self._head = max(self._head, page.head.last)
        else:
            # All that was offered before the read began is in its answer, or expired, trimmed or lost by the store.
            self._proven = max(page.head.last, self._settles)

    def start_recovery(self, session: Session) -> None:
        """The session has a cursor of its own until settle() lets it in."""
        if self._replay is None:
            self._replay = ReplayBuffer(self.cursor or 0)
        self.recovering[session] = None

    def settle(self, session: Session) -> None:
        """The session has all that the channel delivered: it is live."""
        self.recovering.pop(session, None)
        self.live[session] = None
        if not self.recovering:
            self._replay = None

    def bridge(self, cursor: int) -> list[Message] | None:
        """What the channel delivered after `cursor` while somebody joined; None where it does not remember that far."""
        return self._replay.after(cursor) if self._replay is not None else None

    def mingle(self, page: Page, cursor: int) -> list[Message]:
        """The page, the log's last one, and what the channel delivered after `cursor` and was never kept."""
        replay = self._replay
        if replay is None or replay.since > page.head.last:  # what was kept after the page would be missing
            return page.messages
        delivered = replay.after(max(cursor, replay.since)) or ()
        return [Message(mid, body) for mid, body in sorted(dict([*page.messages, *delivered]).items())]

    def remove(self, session: Session) -> None:
        """The session's connection is gone."""
        self.live.pop(session, None)
        self.recovering.pop(session, None)
        if not self.recovering:
            self._replay = None

    def _reach(self, cursor: int) -> int:
        """How far the log after `cursor` is known without a hole."""
        for mid, previous, _ in self._pending:
            if previous > cursor:
                break
            cursor = mid
        return cursor

    def _insert(self, mid: int, previous: int, body: bytes) -> None:
        pending = self._pending
        if pending and pending[-1][0] >= mid:
            at = bisect_left(pending, (mid,))
            if pending[at][0] == mid:
                return
            pending.insert(at, (mid, previous, body))
        else:
            pending.append((mid, previous, body))
        self.waiting_bytes += len(body)


class Unanswered:
    """The batches of pushes that have no answer yet; each has it within the time of an attempt.

    A read of the log tells nothing of some of their messages: of those that the store never keeps, and of those that it
    trims at once, for a batch may be longer than the log of a key.
    """

    __slots__ = ("_batches", "_waiting")

    def __init__(self) -> None:
        self._batches: dict[object, tuple[Sequence[Push], frozenset[str]]] = {}  # with the keys of what is not kept
        self._waiting: list[tuple[set[object], Callable[[None], object]]] = []

    def sent(self, batch: object, pushes: Sequence[Push]) -> None:
        """These are on their way."""
        self._batches[batch] = pushes, frozenset([push.key for push in pushes if not push.expire])

    def answered(self, batch: object) -> None:
        """All of the batch were delivered, or are lost."""
        del self._batches[batch]
        for batches, then in self._waiting[:]:
            batches.discard(batch)
            if not batches:
                self._waiting.remove((batches, then))
                then(None)

    def settled(self, key: str, then: Callable[[None], object], unkept: bool = False) -> bool:
        """Have `then` called once the key's batches that are under way now were answered, or only those in which it has
        pushes that are not kept; False: there are none.
        """
        batches = {
            batch
            for batch, (pushes, keys) in self._batches.items()
            if key in keys or (not unkept and any(push.key == key for push in pushes))
        }
        if batches:
            self._waiting.append((batches, then))
        return bool(batches)
