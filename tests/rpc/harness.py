"""A node that answers as a test wants, for all that calls nodes through lanes."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed

from gopush.errors import PeerRefusedError

REFUSED = "refused"


class Node:
    """Answers each item with (its own name, the item). Its `mode`:

    "up": at once; "late": when the test calls answer(); "silent": never; "down": every call fails;
    "no store": so, and the node says it;
    "short": with too few answers; "raises": the call itself raises; "refuse": (REFUSED, the item) at once;
    "refuse some": so for every other item.
    Each of the `next_modes` is that of one call, before.
    """

    def __init__(self, name: str = "a", mode: str = "up") -> None:
        self.name = name
        self.mode = mode
        self.next_modes: list[str] = []
        self.batches: list[list[Any]] = []
        self.pings = 0
        self.stopped = False
        self._late: list[tuple[Deferred[Any], list[Any]]] = []

    def call(self, items: list[Any]) -> Deferred[list[Any]]:
        mode = self.next_modes.pop(0) if self.next_modes else self.mode
        if mode == "raises":
            raise ValueError("cannot be packed")
        if mode == "down":
            return fail(ConnectionError("down"))
        if mode == "no store":
            return fail(PeerRefusedError("Redis node1: away"))
        self.batches.append(items)
        waiting: Deferred[list[Any]] = Deferred()
        if mode == "late":
            self._late.append((waiting, items))
        elif mode != "silent":
            waiting.callback(self._answers(items, mode)[: -1 if mode == "short" else None])
        return waiting

    def answer(self) -> None:
        """Answer the oldest call, if its caller still waits."""
        waiting, items = self._late.pop(0)
        if not waiting.called:
            waiting.callback(self._answers(items, self.mode))

    def answer_late(self) -> None:
        """Answer all calls that wait for it."""
        while self._late:
            self.answer()

    def _answers(self, items: list[Any], mode: str) -> list[Any]:
        refused = items if mode == "refuse" else items[::2] if mode == "refuse some" else []
        return [(REFUSED if item in refused else self.name, item) for item in items]

    def ping(self) -> Deferred[None]:
        self.pings += 1
        if self.mode == "silent":
            return Deferred()
        return fail(ConnectionError("down")) if self.mode in ("down", "no store", "raises") else succeed(None)

    def stop(self) -> None:
        self.stopped = True

    @property
    def items(self) -> list[Any]:
        """All that it was ever given."""
        return [item for batch in self.batches for item in batch]
