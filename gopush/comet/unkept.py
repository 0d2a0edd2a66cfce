"""Pushes that are never kept and have no answer yet: a log that is read meanwhile may be past them, without a trace."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred

from gopush.model import Push


class Unkept:
    """Those under way through this comet, by key; each has its answer within the time of an attempt.

    The log cannot give them back, so nothing that it gave is believed to be all before they have come.
    """

    __slots__ = ("_calls", "_under_way", "_waiting")

    def __init__(self) -> None:
        self._calls = 0
        self._under_way: dict[str, dict[int, int]] = {}  # by key: how many in each call, the oldest first
        self._waiting: dict[str, list[tuple[int, Deferred[None]]]] = {}  # until all calls up to this one are answered

    def sent(self, pushes: Sequence[Push]) -> int:
        """These are on their way; gives the number of the call, 0 where all of them are kept."""
        call = 0
        for push in pushes:
            if not push.expire:
                call = self._calls + 1
                calls = self._under_way.setdefault(push.key, {})
                calls[call] = calls.get(call, 0) + 1
        self._calls = call or self._calls
        return call

    def answered(self, call: int, pushes: Sequence[Push]) -> None:
        """These of the call were delivered, or are lost."""
        for push in pushes:
            if push.expire:
                continue
            calls = self._under_way[push.key]
            calls[call] -= 1
            if not calls[call]:
                del calls[call]
                self._wake(push.key, calls)

    def settled(self, key: str) -> Deferred[None] | None:
        """Fires once those of the key that are under way now have been answered; None: there are none."""
        calls = self._under_way.get(key)
        if calls is None:
            return None
        settled: Deferred[None] = Deferred()
        self._waiting.setdefault(key, []).append((next(reversed(calls)), settled))
        return settled

    def _wake(self, key: str, calls: dict[int, int]) -> None:
        if not calls:
            del self._under_way[key]
        oldest = next(iter(calls), self._calls + 1)
        waiting = self._waiting.pop(key, [])
        if left := [one for one in waiting if one[0] >= oldest]:
            self._waiting[key] = left
        for call, settled in waiting:
            if call < oldest:
                settled.callback(None)
