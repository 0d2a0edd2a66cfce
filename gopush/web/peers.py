"""What the calls of a web node work with: the other processes, for which tests put something smaller, and counters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred

from gopush.errors import RET_INTERNAL, RET_NO_NODE, RET_OK, RET_PARAMETER
from gopush.model import Head, Page, Push, Pushed, Token, TokenState
from gopush.reports import BusyKey, Presence, SlowConsumer
from gopush.rpc.services import NodeService

T = TypeVar("T")


class AllNodes(Protocol):
    """All registered processes of one role."""

    def ask(self, name: str, call: Callable[[NodeService], Deferred[T]]) -> Deferred[T]:
        """Call the process of this NodeInfo.id as its administrator. Fails with UnavailableError."""


class KeyLogs(AllNodes, Protocol):
    """The log of each key; every call fails with UnavailableError where it cannot be reached."""

    def read(self, key: str, after: int, limit: int = ...) -> Deferred[Page]:
        """A piece of the key's log."""

    def head(self, key: str) -> Deferred[Head]:
        """Where the key's log ends."""

    def delete(self, key: str) -> Deferred[None]:
        """Delete the key's kept messages."""

    def create_token(self, key: str, token: Token) -> Deferred[None]:
        """Keep a token."""

    def revoke_token(self, key: str, digest: bytes) -> Deferred[bool]:
        """Forget a token; False where it was not known."""

    def tokens(self, key: str) -> Deferred[list[Token]]:
        """The key's live tokens."""

    def check_token(self, key: str, digest: bytes) -> Deferred[TokenState]:
        """What is known of the key and the token."""


class AllComets(AllNodes, Protocol):
    """All comets."""

    def push(self, pushes: Sequence[Push], answered: Callable[[int, Pushed], object]) -> None:
        """Have messages of one deadline stored and delivered; `answered` is called once for each, with its place.

        Never fails: see Pushed.ret.
        """

    def close(self, key: str) -> Deferred[int]:
        """Close the key's subscribers everywhere; how many there were."""

    def subscribers(self, key: str) -> Deferred[dict[str, int | None]]:
        """How many subscribers of the key each comet has, by NodeInfo.id; None of one that does not answer."""

    def presence(self, keys: Sequence[str]) -> Deferred[dict[str, Presence | None]]:
        """Who is subscribed to each key at its owner; None where that one is unknown, or does not answer."""

    def slowest(self, most: int) -> Deferred[dict[str, list[SlowConsumer] | None]]:
        """The connections that are furthest behind on each comet, as subscribers()."""

    def keys(self, prefix: str, most: int) -> Deferred[dict[str, list[BusyKey] | None]]:
        """The busiest keys of each comet that begin so, as subscribers()."""

    def ping(self) -> Deferred[None]:
        """Fires as soon as one comet answers. Fails with UnavailableError."""


def _by_ret() -> dict[int, int]:
    return dict.fromkeys((RET_OK, RET_NO_NODE, RET_PARAMETER, RET_INTERNAL), 0)


@dataclass
class WebCounters:
    """Since the start. `pushes`: single messages, each key of a multiple push and each line of a bulk one, by `ret`."""

    lookups: int = 0
    reads: int = 0
    foreign_origins: int = 0
    foreign_hosts: int = 0
    proxied_calls: int = 0
    wrong_keys: int = 0
    missing_keys: int = 0
    outside_scope: int = 0
    refused_tokens: int = 0
    limited_pushes: int = 0
    refused_address: int = 0
    refused_proxy: int = 0
    accept_waits: int = 0
    limited_keys: int = 0
    streams_opened: int = field(default=0, metadata={"meaning": "event streams that were asked for"})
    streams_closed: int = field(default=0, metadata={"meaning": "event streams that are over"})
    streams_resumed: int = field(default=0, metadata={"meaning": "times an event stream went on at a comet anew"})
    streams_refused: int = field(default=0, metadata={"meaning": "event streams refused, or ended with a reason"})
    streams_slow: int = field(default=0, metadata={"meaning": "event streams closed whose client did not read"})
    polls_opened: int = field(default=0, metadata={"meaning": "offline reads that waited for a message"})
    polls_closed: int = field(default=0, metadata={"meaning": "offline reads that waited and are over"})
    pushes: dict[int, int] = field(default_factory=_by_ret, metadata={"label": "ret"})
