"""A message node: the calls of the cluster on one side, a store on the other. It keeps nothing itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, NoReturn, TypeVar

from twisted.internet.defer import Deferred, TimeoutError
from twisted.logger import Logger
from twisted.python.failure import Failure

from gopush.errors import RET_OK, PeerRefusedError, UnavailableError
from gopush.message.rules import REFUSED, UNAVAILABLE
from gopush.message.store import CALM_SECONDS, MessageCounters, Store, Troubles
from gopush.model import LATE, NOT_REACHED, Append, Appended, Head, Page, Read, Token, TokenState
from gopush.net.clock import Clock, repeating, within
from gopush.reports import Backup
from gopush.stats.histogram import SIZES, Histogram
from gopush.stats.resource import CHECK_SECONDS

PURGE_SECONDS = 1.0
PING_SHARE = 0.8
"""Of the time that who asks gives a ping: it hears that it is the store, and which one, before it gives up."""

T = TypeVar("T")

log = Logger()
_REPEAT = attrgetter("repeat")


class StoreService:
    """Implements MessageService; whatever the store fails with reaches callers as PeerRefusedError."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        wall: Callable[[], float] = time.time,
        attempt: float = 2.0,
        timeout: float = CHECK_SECONDS,
    ) -> None:
        """`attempt`: for so many seconds a comet may try for a push that is past its deadline already. `timeout`: after
        so many who calls from another process gives up.
        """
        self.counters = MessageCounters()
        self.under_way = 0
        self.sizes = Histogram(SIZES)
        self.stores = store.numbers
        self._stopped = False
        self._wall = wall
        self._attempt = attempt
        self._ping_seconds = PING_SHARE * min(timeout, CHECK_SECONDS)
        self._late_until = 0.0
        self._troubles = Troubles("pushes", clock)
        self._clock = clock
        self._store = store
        self._purging = repeating(self._purge, clock)

    @property
    def identity(self) -> str:
        """See Store."""
        return self._store.identity

    async def start(self) -> None:
        """Open the store. Fails with StartError where it can never work."""
        await self._store.start()
        if not self._stopped:
            self._purging.start(PURGE_SECONDS, now=False)

    async def stop(self) -> None:
        """Close the store."""
        self._stopped = True
        self._purging.stop()
        await self._store.stop()

    def append(self, appends: Sequence[Append]) -> Deferred[list[Appended]]:
        """See MessageService."""
        self.counters.batches += 1
        self.sizes.observe(len(appends))
        self.under_way += 1
        return self._store.append(appends).addCallbacks(
            self._appended, self._not_appended, callbackArgs=(appends, self._wall())
        )

    def read(self, reads: Sequence[Read]) -> Deferred[list[Page | None]]:
        """See MessageService."""
        self.counters.reads += len(reads)
        return self._guarded(self._store.read(reads)).addCallback(self._count_pages)

    def heads(self, keys: Sequence[str]) -> Deferred[list[Head | None]]:
        """See MessageService."""
        self.counters.heads += len(keys)
        return self._guarded(self._store.heads(keys))

    def delete(self, key: str) -> Deferred[None]:
        """See MessageService."""
        self.counters.deletes += 1
        return self._guarded(self._store.delete(key))

    def create_token(self, key: str, token: Token) -> Deferred[None]:
        """See MessageService."""
        return self._guarded(self._store.create_token(key, token))

    def revoke_token(self, key: str, digest: bytes) -> Deferred[bool]:
        """See MessageService."""
        return self._guarded(self._store.revoke_token(key, digest))

    def tokens(self, key: str) -> Deferred[list[Token]]:
        """See MessageService."""
        return self._guarded(self._store.tokens(key))

    def check_token(self, key: str, digest: bytes) -> Deferred[TokenState]:
        """See MessageService."""
        return self._guarded(self._store.check_token(key, digest))

    def backup(self, path: str, id: str) -> Deferred[Backup]:
        """See BackupService."""
        return self._guarded(self._store.backup(path, id))

    def ping(self) -> Deferred[None]:
        """See MessageService."""
        pong = within(self._ping_seconds, self._store.ping(), self._clock).addErrback(self._late)
        return self._guarded(pong).addErrback(self._no_pong)

    def _late(self, failure: Failure) -> NoReturn:
        failure.trap(TimeoutError)
        raise UnavailableError(f"{self._store.name}: no answer within {self._ping_seconds:g} s")

    @staticmethod
    def _no_pong(failure: Failure) -> None:
        """Whoever asks, through however many processes, hears that it is the store."""
        raise UnavailableError(f"store: {failure.getErrorMessage()}")

    def _guarded(self, call: Deferred[T]) -> Deferred[T]:
        self.under_way += 1
        return call.addBoth(self._answered).addErrback(self._unavailable)

    def _answered(self, result: Any) -> Any:
        self.under_way -= 1
        return result

    def _unavailable(self, failure: Failure) -> NoReturn:
        reason = failure.getErrorMessage()
        if not failure.check(UnavailableError):
            log.failure("the store failed", failure)
            reason = f"the store failed: {reason}"
        raise PeerRefusedError(reason)

    def _not_appended(self, failure: Failure) -> NoReturn:
        self.under_way -= 1
        self._unavailable(failure)

    def _appended(self, answers: list[Appended], appends: Sequence[Append], came: float) -> list[Appended]:
        self.under_way -= 1
        refused = [index for index, answer in enumerate(answers) if answer.ret != RET_OK]
        if refused and all(answer is UNAVAILABLE for answer in answers):
            raise PeerRefusedError("the store cannot be reached from this message node")
        for index in refused:
            if answers[index] is UNAVAILABLE:
                answers[index] = UNAVAILABLE._replace(mid=NOT_REACHED)
            elif answers[index] is not REFUSED:
                answers[index] = answers[index]._replace(mid=LATE)
                self.counters.late += 1
                self._look_at_clocks(appends[index].push.deadline, came)
        repeats = sum(map(_REPEAT, answers))
        self.counters.refused += len(refused)
        self.counters.repeats += repeats
        self.counters.saves += len(answers) - len(refused) - repeats
        return answers

    def _look_at_clocks(self, deadline: float, came: float) -> None:
        """A push that is late for less than an attempt was tried for long; where it is more, a clock is wrong, and
        nothing else says so.
        """
        behind = came - deadline
        if behind > self._attempt:
            said = f"they come {behind:.1f} s past their deadline: web's clock is behind, or the cluster is slow"
        elif deadline - self._wall() > self._attempt:
            said = "they are past their deadline by the store's clock, not by this machine's: the store's is ahead"
        else:
            return
        if "deadline" not in self._troubles:
            self._troubles.begin("deadline", f"refused: {said} (run NTP)")
        self._late_until = self._clock.seconds() + CALM_SECONDS

    def _count_pages(self, pages: list[Page | None]) -> list[Page | None]:
        self.counters.read_messages += sum(len(page.messages) for page in pages if page is not None)
        return pages

    def _purge(self) -> Deferred[None]:
        if self._clock.seconds() >= self._late_until:
            self._troubles.end("deadline")
        return self._store.purge().addErrback(self._not_purged)

    @staticmethod
    def _not_purged(failure: Failure) -> None:
        if not failure.check(UnavailableError):  # what the store has said itself
            log.failure("old messages were not purged", failure)
