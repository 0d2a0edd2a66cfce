"""What comet and message offer to the others. In one process they are the services themselves, in a cluster
the Perspective Broker clients of client.py: nobody who calls them can tell.

Every call takes and gives a batch, in the same order; a call that fails as a whole fails with UnavailableError.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from twisted.internet.defer import Deferred

from gopush.feed import FeedItem, FeedRequest
from gopush.model import Append, Appended, Forward, Head, Page, Push, Pushed, Read, Token, TokenState
from gopush.reports import Backup, BusyKey, Presence, SlowConsumer, Status


class MessageService(Protocol):
    """The log of every key."""

    def append(self, appends: Sequence[Append]) -> Deferred[list[Appended]]:
        """Sequence and keep messages; what `ret` 0 answers is as durable as the store's settings say."""

    def read(self, reads: Sequence[Read]) -> Deferred[list[Page | None]]:
        """Read pieces of logs; None: that of this key cannot be read."""

    def heads(self, keys: Sequence[str]) -> Deferred[list[Head | None]]:
        """Read where logs end; None: that of this key cannot be read."""

    def delete(self, key: str) -> Deferred[None]:
        """Delete a key's kept messages; its head and the ids of its pushes stay."""

    def create_token(self, key: str, token: Token) -> Deferred[None]:
        """Keep a token for a key until it expires."""

    def revoke_token(self, key: str, digest: bytes) -> Deferred[bool]:
        """Forget a token; False where it was not known."""

    def tokens(self, key: str) -> Deferred[list[Token]]:
        """The key's live tokens."""

    def check_token(self, key: str, digest: bytes) -> Deferred[TokenState]:
        """Whether the key was created, and whether it has a live token of this digest."""

    def ping(self) -> Deferred[None]:
        """Make a round trip to the store."""


class BackupService(Protocol):
    """Copies of the data behind a message node."""

    def backup(self, path: str, id: str) -> Deferred[Backup]:
        """Begin to copy the store to a new file on the machine of the message node, and say at once how far that is.

        Repeats with the same `id` begin nothing: they ask.
        """


class NodeService(Protocol):
    """Any process that registers, as those who administer it see it. What is changed holds until the process ends."""

    def status(self) -> Deferred[Status]:
        """How it is."""

    def set_weight(self, weight: int) -> Deferred[None]:
        """Take another share, from 1 to MAX_WEIGHT."""

    def identity(self) -> Deferred[str]:
        """What tells this process from all others, also from earlier ones at its address."""

    def drain(self, draining: bool) -> Deferred[None]:
        """Give all that can be given to others, or take it back."""


class CometService(Protocol):
    """A comet, as web and the other comets see it."""

    def push(self, pushes: Sequence[Push]) -> Deferred[list[Pushed]]:
        """Have messages stored and deliver them to the subscribers here, or tell the comet that has them."""

    def forward(self, forwards: Sequence[Forward]) -> Deferred[None]:
        """Hear of messages that another comet has appended."""

    def close(self, keys: Sequence[str]) -> Deferred[list[int]]:
        """Close the subscribers of these keys, without a word to them; answers how many each had."""

    def subscribers(self, keys: Sequence[str]) -> Deferred[list[int]]:
        """How many subscribers each of these keys has here."""

    def presence(self, keys: Sequence[str]) -> Deferred[list[Presence]]:
        """Who is subscribed to each of these keys here."""

    def slowest(self, most: int) -> Deferred[list[SlowConsumer]]:
        """The connections that are furthest behind, at most so many, the worst first."""

    def keys(self, prefix: str, most: int) -> Deferred[list[BusyKey]]:
        """The busiest keys that begin so, at most so many, the busiest first."""

    def ping(self) -> Deferred[None]:
        """Answer, where a message node answers this comet: else it can have nothing stored."""


class FeedService(Protocol):
    """A comet, as the event streams and waiting reads of another process see it. Both calls are about the connection by
    which they come: what it has subscribed ends with it."""

    def feed(self, wanted: Sequence[FeedRequest], closed: Sequence[int], read: Sequence[int]) -> Deferred[None]:
        """Subscribe; end subscriptions; say whose clients have read all that came before a READ_ALL."""

    def feed_next(self) -> Deferred[list[FeedItem]]:
        """What comes next for the subscriptions, in order; nothing, if nothing has come for some seconds. To be called
        again and again, once at a time: while that is out, what comes waits, bounded."""
