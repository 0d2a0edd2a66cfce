"""How a message node comes into the view, with the data behind it: a node with other data than the others stays out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from gopush.errors import StartError
from gopush.membership.node import LocalNode
from gopush.membership.view import Coordination
from gopush.membership.znodes import OtherStoreError, check_store
from gopush.message.service import StoreService
from gopush.net.clock import pause, repeating

LOOK_SECONDS = 1.0
OTHER_STORE_LOOKS = 12
"""How often a node sees that the others have other data before it believes that they are no longer the same cluster's:
where a store was emptied, each of them reports it within some seconds.
"""


@dataclass(eq=False, repr=False)
class StoreRegistration:
    """Registers `node`, whose service is `message`; `refused` hears why the process must stop, later on."""

    _reactor: Any
    _coordination: Coordination
    _node: LocalNode
    _message: StoreService
    _refused: Callable[[StartError], object]
    _looks: int = field(default=0, init=False)
    _doubts: int = field(default=OTHER_STORE_LOOKS, init=False)

    def __post_init__(self) -> None:
        self._looking = repeating(self._look, self._reactor)

    async def register(self) -> None:
        """Come into the view. Raises StartError where this node must not: the others have other data."""
        for left in reversed(range(OTHER_STORE_LOOKS)):
            info = self._node.info = self._node.info._replace(store=self._message.identity)
            try:
                await self._coordination.register_message(info)
                break
            except OtherStoreError:
                if not (info.stores and left):
                    raise
                await pause(LOOK_SECONDS, self._reactor)
        self._looking.start(LOOK_SECONDS, now=False)

    def stop(self) -> None:
        """Look at the data no more."""
        self._looking.stop()

    def _look(self) -> None:
        """Tell the others which data are behind this node, when that is known or has changed.

        A node that learns it after the start gives way to those that had other data before. Two may learn it at the
        same moment: until none has differed for some looks, a node gives way to those that registered before it. Where
        a store was emptied, all learn that within some seconds.
        """
        store, before = self._message.identity, self._node.info.store
        if not store or (store == before and not self._doubts):
            return
        if store == before or not before:
            if (other := self._differs(store, reported=bool(before))) is not None:
                self._looks += 1
                if self._looks >= OTHER_STORE_LOOKS:
                    self._looking.stop()
                    self._refused(other)
                return
            self._doubts -= bool(before)
        self._looks = 0
        if store != before:
            self._node.tell_store(store)

    def _differs(self, store: str, reported: bool) -> StartError | None:
        mine = self._node.info._replace(store=store)
        others = self._coordination.view.messages  # in the order in which they registered
        if reported:
            others = tuple(takewhile(lambda info: info.id != mine.id, others))
        try:
            for info in others:
                if info.id != mine.id:
                    check_store(mine, info)
        except OtherStoreError as other:
            return other
        return None
