"""A store under test, called from outside the reactor's thread, on a clock that the test moves where that can be."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from gopush.message.store import Store
from gopush.model import Append, Appended, Head, Message, Page, Push, Read, Token, TokenState

START = 1_700_000_000.0


class FakeTime:
    """Seconds since the epoch, as memory and SQLite are told."""

    def __init__(self) -> None:
        self.seconds = START

    def __call__(self) -> float:
        return self.seconds


class Subject:
    """The calls of a Store, blocking and with short arguments. `reopen` gives the same store anew, where it can."""

    def __init__(
        self, kind: str, in_reactor: Callable[..., Any], make: Callable[[], Store], clock: FakeTime | None
    ) -> None:
        self.kind = kind
        self.clock = clock
        self._in_reactor = in_reactor
        self._make = make
        self.store = in_reactor(make)
        in_reactor(self.store.start)

    def now(self) -> float:
        return self.clock() if self.clock else time.time()

    def wait(self, seconds: float) -> None:
        """Let so much of the store's time pass."""
        if self.clock:
            self.clock.seconds += seconds
        else:
            time.sleep(seconds)

    def item(
        self,
        key: str = "k",
        body: bytes = b"1",
        *,
        expire: int = 600,
        id: str = "",
        dedupe: int = 60,
        floor: int = 0,
        deadline: float | None = None,
    ) -> Append:
        until = self.now() + 60 if deadline is None else deadline
        return Append(Push(key, body, expire, id, dedupe, until), floor)

    def append(self, *appends: Append) -> list[Appended]:
        answers: list[Appended] = self._in_reactor(self.store.append, appends)
        return answers

    def push(self, key: str = "k", body: bytes = b"1", **more: Any) -> Appended:
        return self.append(self.item(key, body, **more))[0]

    def page(self, key: str = "k", after: int = 0, limit: int = 100_000) -> Page:
        page: Page = self._in_reactor(self.store.read, [Read(key, after, limit)])[0]
        return page

    def read(self, key: str = "k", after: int = 0) -> list[Message]:
        """All pages."""
        found: list[Message] = []
        while True:
            page = self.page(key, after)
            found += page.messages
            if not page.more:
                return found
            after = found[-1].mid

    def bodies(self, key: str = "k") -> list[bytes]:
        return [message.body for message in self.read(key)]

    def head(self, key: str = "k") -> Head:
        head: Head = self._in_reactor(self.store.heads, [key])[0]
        return head

    def reads(self, reads: Sequence[Read]) -> list[Page]:
        pages: list[Page] = self._in_reactor(self.store.read, reads)
        return pages

    def heads(self, keys: Sequence[str]) -> list[Head]:
        heads: list[Head] = self._in_reactor(self.store.heads, keys)
        return heads

    def delete(self, key: str = "k") -> None:
        self._in_reactor(self.store.delete, key)

    def create_token(self, key: str, digest: bytes, expires: int) -> None:
        self._in_reactor(self.store.create_token, key, Token(digest, expires))

    def revoke_token(self, key: str, digest: bytes) -> bool:
        known: bool = self._in_reactor(self.store.revoke_token, key, digest)
        return known

    def tokens(self, key: str) -> set[Token]:
        return set(self._in_reactor(self.store.tokens, key))

    def check_token(self, key: str, digest: bytes) -> TokenState:
        state: TokenState = self._in_reactor(self.store.check_token, key, digest)
        return state

    def purge(self) -> None:
        self._in_reactor(self.store.purge)

    def reopen(self) -> None:
        if self.kind == "memory":
            return
        self.close()
        self.store = self._in_reactor(self._make)
        self._in_reactor(self.store.start)

    def close(self) -> None:
        self._in_reactor(self.store.stop)
