"""A small world behind a web node: a log per key, a comet that appends to it, all in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from twisted.internet.defer import Deferred, fail, succeed

from gopush.errors import RET_NO_NODE, UnavailableError
from gopush.model import Head, Message, OnPushed, Page, Push, Pushed, Token, TokenState, mid_at, next_mid
from gopush.reports import BusyKey, Presence, SlowConsumer, Status
from gopush.routing.pending import OnAnswers
from gopush.rpc.services import NodeService

T = TypeVar("T")
NOW = 1_700_000_000.0


class FakeNodes:
    """Processes that do what their administrator says, as long as they are in `nodes`, by address."""

    def __init__(self) -> None:
        self.nodes: dict[str, FakeNode] = {}

    def ask(self, name: str, call: Callable[[NodeService], Deferred[T]]) -> Deferred[T]:
        return call(self.nodes[name]) if name in self.nodes else fail(UnavailableError(f"{name} is silent"))


class FakeNode:
    """Remembers what it was told."""

    def __init__(self, status: Status) -> None:
        self._status = status
        self.reported: list[int | bool] = []

    def status(self) -> Deferred[Status]:
        return succeed(self._status)

    def identity(self) -> Deferred[str]:
        return succeed("one")

    def set_weight(self, weight: int) -> Deferred[None]:
        self.reported.append(weight)
        return succeed(None)

    def drain(self, draining: bool) -> Deferred[None]:
        self.reported.append(draining)
        return succeed(None)


class FakeMessages(FakeNodes):
    """Keeps everything for ever; pages are small. `down`: the store does not answer."""

    def __init__(self) -> None:
        super().__init__()
        self.logs: dict[str, list[Message]] = {}
        self.kept_tokens: dict[str, list[Token]] = {}
        self.reads: list[tuple[str, int]] = []
        self.down = False

    def append(self, key: str, body: bytes, now: float = NOW) -> int:
        log = self.logs.setdefault(key, [])
        mid = next_mid(log[-1].mid if log else 0, 0, mid_at(now))
        log.append(Message(mid, body))
        return mid

    def read(self, key: str, after: int, limit: int = 256) -> Deferred[Page]:
        self.reads.append((key, after))
        if self.down:
            return fail(UnavailableError("down"))
        log = self.logs.get(key, [])
        found = [message for message in log if message.mid > after]
        page = found[: min(limit, 3)]
        return succeed(Page(page, Head(log[-1].mid if log else 0, 0), len(page) < len(found)))

    def head(self, key: str) -> Deferred[Head]:
        if self.down:
            return fail(UnavailableError("down"))
        log = self.logs.get(key, [])
        return succeed(Head(log[-1].mid if log else 0, 0))

    def heads(self, keys: Sequence[str], answered: OnAnswers) -> None:
        for at, key in enumerate(keys):
            self.head(key).addCallbacks(
                lambda head, at=at: answered([at], [head]), lambda failure, at=at: answered([at], failure.value)
            )

    def delete(self, key: str) -> Deferred[None]:
        if self.down:
            return fail(UnavailableError("down"))
        self.logs.pop(key, None)
        return succeed(None)

    def create_token(self, key: str, token: Token) -> Deferred[None]:
        self.kept_tokens.setdefault(key, []).append(token)
        return succeed(None)

    def revoke_token(self, key: str, digest: bytes) -> Deferred[bool]:
        kept = self.kept_tokens.get(key, [])
        self.kept_tokens[key] = [token for token in kept if token.digest != digest]
        return succeed(len(self.kept_tokens[key]) < len(kept))

    def tokens(self, key: str) -> Deferred[list[Token]]:
        return succeed(self.kept_tokens.get(key, []))

    def check_token(self, key: str, digest: bytes) -> Deferred[TokenState]:
        if self.down:
            return fail(UnavailableError("down"))
        kept = self.kept_tokens.get(key, [])
        return succeed(TokenState(bool(kept), any(token.digest == digest for token in kept)))


def _answer_one(answered: OnPushed, index: int, pushed: Pushed) -> None:
    answered([index], [pushed])


class FakeComets(FakeNodes):
    """Appends at once, or `later` when the test says so; `refuse` gives the ret of keys that fail."""

    def __init__(self, messages: FakeMessages) -> None:
        super().__init__()
        self._messages = messages
        self.pushes: list[Push] = []
        self.closed: list[str] = []
        self.slow: list[SlowConsumer] = []
        self.busy: dict[str, list[BusyKey] | None] = {}
        self.there: dict[str, Presence | None] = {}
        self.asked: list[str] = []
        self.refuse: Callable[[str], int] = lambda key: 0
        self.none_known = False
        self.hold = False
        self.held: list[tuple[Push, Callable[[Pushed], object]]] = []
        self.most_held = 0
        self._first: dict[tuple[str, str], Pushed] = {}

    def push(self, pushes: Sequence[Push], answered: OnPushed) -> None:
        for index, push in enumerate(pushes):
            self.pushes.append(push)
            self.held.append((push, partial(_answer_one, answered, index)))
        self.most_held = max(self.most_held, len(self.held))
        if not self.hold:
            self.answer_all()

    def answer_all(self) -> None:
        """Answer what is held, the last push first: nobody may depend on the order."""
        held, self.held = self.held, []
        answers = [(answered, self._append(push)) for push, answered in held]
        for answered, pushed in reversed(answers):
            answered(pushed)

    def close(self, key: str) -> Deferred[int]:
        self.closed.append(key)
        assert key not in self._messages.logs, "a message was there when the subscribers were closed"
        return succeed(1)

    def subscribers(self, key: str) -> Deferred[dict[str, int | None]]:
        return succeed({name: None if name == "silent" else len(key) for name in ("10.0.0.1:6970", "silent")})

    def presence(self, keys: Sequence[str]) -> Deferred[dict[str, Presence | None]]:
        self.asked = list(keys)
        return succeed({key: self.there.get(key, Presence(0)) for key in keys})

    def slowest(self, most: int) -> Deferred[dict[str, list[SlowConsumer] | None]]:
        return succeed({"10.0.0.1:6970": self.slow[:most], "silent": None})

    def keys(self, prefix: str, most: int) -> Deferred[dict[str, list[BusyKey] | None]]:
        def some(busy: list[BusyKey]) -> list[BusyKey]:
            return [one for one in busy if one.key.startswith(prefix)][:most]

        return succeed({name: busy and some(busy) for name, busy in self.busy.items()})

    def ping(self) -> Deferred[None]:
        return fail(UnavailableError("no comet answers")) if self.none_known else succeed(None)

    def _append(self, push: Push) -> Pushed:
        ret = RET_NO_NODE if self.none_known else self.refuse(push.key)
        if ret:
            return Pushed(ret, 0)
        known = self._first.get((push.key, push.id))
        if known is None:
            known = self._first[push.key, push.id] = Pushed(0, self._messages.append(push.key, push.body))
        return known
