"""Message nodes that learn which data are behind them, and that these differ (gopush/message/registration.py)."""

from __future__ import annotations

from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from gopush.errors import StartError
from gopush.membership.node import LocalNode
from gopush.membership.view import Coordination, StaticCoordination, View
from gopush.message.registration import LOOK_SECONDS, OTHER_STORE_LOOKS, StoreRegistration
from gopush.message.service import StoreService
from gopush.model import NodeInfo

STORES = (("node1", 1),)
SEEN_SECONDS = 0.03
"""How long it takes until all see what one has told."""


class Late(StaticCoordination):
    """A view that follows by a clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self.latest = View()

    def register_message(self, info: NodeInfo) -> Deferred[None]:
        """See Coordination."""
        return self._tell([*self.latest.messages, info._replace(sequence=len(self.latest.messages))])

    def announce(self, info: NodeInfo, *changed: str) -> Deferred[None]:
        """See Coordination."""
        others = self.latest.messages
        return self._tell([one._replace(store=info.store) if one.id == info.id else one for one in others])

    def _tell(self, messages: list[NodeInfo]) -> Deferred[None]:
        self.latest = View((), messages)
        seen: Deferred[None] = Deferred()
        self._clock.callLater(SEEN_SECONDS, self.adopt, self.latest)
        self._clock.callLater(SEEN_SECONDS, seen.callback, None)
        return seen


class Data:
    """A StoreService's."""

    def __init__(self, identity: str) -> None:
        self.identity = identity


class Nodes:
    """Message nodes that registered one after the other. `refused`: the indexes of those that must stop."""

    def __init__(self, *identities: str, between: float = 0.0) -> None:
        self.clock = Clock()
        self.view = Late(self.clock)
        self.refused: list[int] = []
        self.data = [Data(identity) for identity in identities]
        for index, data in enumerate(self.data):
            info = NodeInfo(f"n{index}", 0, (f"127.0.0.1:{index}",), stores=STORES)
            coordination = cast(Coordination, self.view)
            node = LocalNode(cast(Any, self.clock), coordination, info)
            registration = StoreRegistration(
                self.clock, coordination, node, cast(StoreService, data), self._refuse(index)
            )
            Deferred.fromCoroutine(registration.register())
            self.run(between)
        self.run(5)

    def run(self, seconds: float) -> None:
        self.clock.pump([SEEN_SECONDS / 3] * int(seconds / SEEN_SECONDS * 3))

    @property
    def stores(self) -> list[str]:
        return [info.store for info in self.view.view.messages]

    def _refuse(self, index: int) -> Any:
        def refuse(why: StartError) -> None:
            assert "hold other data" in str(why)
            self.refused.append(index)

        return refuse


@pytest.mark.parametrize("between", [0.0, 0.01, 0.4])
def test_of_two_that_learn_their_other_data_at_once_the_later_one_gives_way(between: float) -> None:
    """Their Redis is back, and their prefixes differ: neither saw the other's data before it told its own."""
    nodes = Nodes("", "", between=between)
    nodes.data[0].identity, nodes.data[1].identity = "a", "b"
    nodes.run((OTHER_STORE_LOOKS + 3) * LOOK_SECONDS)
    assert nodes.refused == [1]


def test_of_two_that_register_at_once_with_other_data_the_later_one_gives_way() -> None:
    nodes = Nodes("a", "b")
    nodes.run((OTHER_STORE_LOOKS + 3) * LOOK_SECONDS)
    assert nodes.refused == [1]


def test_one_that_learns_it_later_gives_way_to_who_knew_before() -> None:
    nodes = Nodes("", "b")
    nodes.data[0].identity = "a"
    nodes.run((OTHER_STORE_LOOKS + 3) * LOOK_SECONDS)
    assert nodes.refused == [0]


def test_a_store_that_was_emptied_stops_nobody() -> None:
    """Each learns it in a time of its own, soon after the start or long after it."""
    nodes = Nodes("a", "a", "a")
    for number in range(2):
        for data in reversed(nodes.data):
            data.identity = f"new{number}"
            nodes.run(3 * LOOK_SECONDS)
        nodes.run(3 * OTHER_STORE_LOOKS * LOOK_SECONDS)
    assert nodes.refused == []
    assert nodes.stores == ["new1"] * 3


def test_one_that_tells_other_data_later_on_stops_none_that_has_been_there_for_long() -> None:
    """It may be the one that is cut off from a store that the others saw emptied."""
    nodes = Nodes("a", "a")
    nodes.run(2 * OTHER_STORE_LOOKS * LOOK_SECONDS)
    nodes.data[1].identity = "b"
    nodes.run(3 * OTHER_STORE_LOOKS * LOOK_SECONDS)
    assert nodes.refused == []
    assert nodes.stores == ["a", "b"]
