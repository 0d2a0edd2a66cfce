"""The one store behind all message nodes, with a clock that steps and a memory that may lose its last second."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail, succeed

from gopush.errors import RET_OK, UnavailableError
from gopush.message.memory import MemoryStore
from gopush.message.redis.replication import Replication
from gopush.message.rules import REFUSED
from gopush.message.store import StoreSettings
from gopush.model import Append, Appended, Head, Page, Read, Token, TokenState
from tests.simulation.history import History, Record, StoreTime

if TYPE_CHECKING:
    from tests.simulation.world import World


class SharedStore:
    """A real MemoryStore, watched. `page`: messages in a page at most.

    `down`: "fails", "hangs", "lags" (it does what it was asked to meanwhile as soon as it is back), or it is "alone":
    without the replica that is to confirm what it stores; "": none of these.
    `untold`: what it stored while alone and forgot in a fail-over.
    """

    shards: tuple[tuple[str, int], ...] = ()
    name = identity = "simulated"

    def __init__(self, world: World, store: int, page: int) -> None:
        self.time = StoreTime()
        self.history = History(world, store)
        self._down = ""
        self._lagging: list[tuple[Callable[[], Any], Deferred[Any]]] = []
        self._world = world
        self._page = page
        self._inner = MemoryStore(StoreSettings(store=store), now=self.now)
        self.numbers = self._inner.numbers
        self._saved: Any = {}
        self.untold: set[Record] = set()
        self._alone: set[Record] = set()
        self._replication = Replication(self._confirm, "simulated", lambda: "")

    def now(self) -> float:
        return self.time.at(self._world.clock.now)

    @property
    def down(self) -> str:
        return self._down

    @down.setter
    def down(self, down: str) -> None:
        self._down = down
        if not down:
            lagging, self._lagging = self._lagging, []
            for call, done in lagging:
                done.callback(call())

    def save(self) -> None:
        """What comes from now on may be lost."""
        self._saved = deepcopy(self._inner.logs)
        self.history.save()

    def lose(self) -> None:
        """Forget all since save()."""
        self._inner.logs = deepcopy(self._saved)
        self.history.lose()

    def fail_over(self) -> None:
        """The replica is the store from now on: it has what was there before the store was alone."""
        self.lose()
        self.untold |= self._alone

    def together(self) -> None:
        """The replica is back, and has all."""
        self.down = ""
        self._alone = set()

    def _confirm(self) -> Deferred[None]:
        if self.down:
            return fail(UnavailableError("no replica confirms it"))
        self._replication.reached(self.now())
        return succeed(None)

    def readable(self, key: str) -> list[tuple[int, bytes]]:
        """All that a reader could get now, whether the store is down or not."""
        page = _result(self._inner.read([Read(key, 0, 1_000_000)]))[0]
        return [(message.mid, message.body) for message in page.messages]

    def start(self) -> Deferred[None]:
        return succeed(None)

    def stop(self) -> Deferred[None]:
        return succeed(None)

    def purge(self) -> Deferred[None]:
        return self._inner.purge()

    def append(self, appends: Sequence[Append]) -> Deferred[list[Appended]]:
        done = self._reached(lambda: self._append(appends))
        confirm = self._world.plan.confirm * self._world.random.random()
        if not confirm:
            return done
        confirmed: Deferred[list[Appended]] = Deferred()
        self._world.clock.after(confirm, done.chainDeferred, confirmed)
        return confirmed

    def _append(self, appends: Sequence[Append]) -> list[Appended]:
        now = self.now()
        answers: list[Appended] = _result(self._inner.append(appends))
        for append, answer in zip(appends, answers, strict=True):
            self.history.appended(append, answer, now)
        for key in {append.push.key: None for append in appends}:
            if (log := self._inner.logs.get(key)) is not None:
                self.history.trimmed(key, log.trimmed)
        self._replication.saw("writes", now)
        if self.down == "alone":
            self._alone |= {
                self.history.of(append.push.key).by_mid[answer.mid][-1]
                for append, answer in zip(appends, answers, strict=True)
                if answer.ret == RET_OK and not answer.repeat
            }
            return [REFUSED] * len(answers)
        self._replication.reached(now, len(answers))
        return answers

    def read(self, reads: Sequence[Read]) -> Deferred[list[Page | None]]:
        short = [read._replace(limit=min(read.limit, self._page)) for read in reads]
        return self._reached(lambda: _result(self._inner.read(short))).addCallback(
            lambda pages: self._reported(pages, [page.head for page in pages])
        )

    def heads(self, keys: Sequence[str]) -> Deferred[list[Head | None]]:
        return self._reached(lambda: _result(self._inner.heads(keys))).addCallback(
            lambda heads: self._reported(heads, heads)
        )

    def _reported(self, answer: Any, heads: Sequence[Head]) -> Any:
        """As message/redis/server.py does with `wait`: nothing is told that the replica may not have."""
        self._replication.saw("reads", self.now())
        if any(self._replication.lacks(head.last) for head in heads):
            return self._replication.confirm().addCallback(lambda _: answer)
        return answer

    def delete(self, key: str) -> Deferred[None]:
        def delete() -> None:
            _result(self._inner.delete(key))
            self.history.deleted(key)

        return fail(UnavailableError("no replica confirms it")) if self.down == "alone" else self._reached(delete)

    def create_token(self, key: str, token: Token) -> Deferred[None]:
        return self._inner.create_token(key, token)

    def revoke_token(self, key: str, digest: bytes) -> Deferred[bool]:
        return self._inner.revoke_token(key, digest)

    def tokens(self, key: str) -> Deferred[list[Token]]:
        return self._inner.tokens(key)

    def check_token(self, key: str, digest: bytes) -> Deferred[TokenState]:
        return self._inner.check_token(key, digest)

    def ping(self) -> Deferred[None]:
        return self._reached(lambda: None)

    def _reached(self, call: Callable[[], Any]) -> Deferred[Any]:
        if self.down == "hangs":
            return Deferred()
        if self.down == "lags":
            lags: Deferred[Any] = Deferred()
            self._lagging.append((call, lags))
            return lags
        if self.down == "fails":
            return fail(UnavailableError("the store is down"))
        return succeed(call())


def _result(done: Deferred[Any]) -> Any:
    results: list[Any] = []
    done.addCallback(results.append)
    return results[0]
