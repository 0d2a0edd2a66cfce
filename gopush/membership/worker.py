"""One thread for calls that block, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

Job = tuple["Deferred[Any]", Callable[..., Any], tuple[Any, ...]]


class Worker:
    """Runs jobs in its thread and gives their results in the reactor's. It never keeps the process from ending."""

    def __init__(self, reactor: Any, name: str) -> None:
        self._reactor = reactor
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._name = name

    def start(self) -> None:
        """Begin to work."""
        # The thread is made here, not earlier: it would not outlive twistd's fork into the background.
        Thread(target=self._work, name=self._name, daemon=True).start()

    def stop(self) -> None:
        """End, once the jobs given so far are done; waits for nothing."""
        self._jobs.put(None)

    def run(self, job: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """Have `job` done; fires with what it returns or raises."""
        done: Deferred[Any] = Deferred()
        self._jobs.put((done, job, args))
        return done

    def _work(self) -> None:
        while (registered := self._jobs.get()) is not None:
            done, job, args = registered
            try:
                result = job(*args)
            except Exception:
                self._reactor.callFromThread(done.errback, Failure())  # type: ignore[no-untyped-call]
            else:
                self._reactor.callFromThread(done.callback, result)
