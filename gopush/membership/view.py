"""Who is alive, as each process sees it: an immutable view, swapped whole (docs/architecture.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from twisted.internet.defer import Deferred, succeed

from gopush.errors import StartError, UnavailableError
from gopush.hashing import HashRing
from gopush.model import NodeInfo

REMEMBERED_KEYS = 65536

ViewWatcher = Callable[["View"], None]
LeadsHere = Callable[[], "Deferred[bool | None]"]


class View:
    """The live comets and message nodes at one moment, and the rings that follow from them.

    A ring that prepare() did not give is made when it is asked for.
    """

    __slots__ = ("_active", "_alone", "_owners", "_ring", "_shards", "comets", "messages")

    def __init__(self, comets: Iterable[NodeInfo] = (), messages: Iterable[NodeInfo] = ()) -> None:
        self.comets = tuple(sorted(comets, key=lambda info: (info.node, info.sequence)))
        self.messages = tuple(sorted(messages, key=lambda info: info.sequence))
        self._owners: dict[str, NodeInfo | None] = {}  # of keys that were asked for: a look is cheaper than a SHA-1
        self._active: dict[str, NodeInfo] = {}
        for info in self.comets:
            if not info.draining:
                self._active.setdefault(info.node, info)
        self._alone = next(iter(self._active.values())) if len(self._active) == 1 else None
        self._ring: HashRing | None = None
        self._shards: HashRing | None = None

    @property
    def weights(self) -> dict[str, int]:
        """The nodes on the ring of the comets, and their weights."""
        return {name: info.weight for name, info in self._active.items()}

    @property
    def stores(self) -> tuple[tuple[str, int], ...]:
        """The Redis servers behind the message nodes, and their weights: all nodes have the same."""
        return next((info.stores for info in self.messages), ())

    def prepare(self, ring: HashRing, shards: HashRing, before: View) -> None:
        """Take the rings of the comets and of the stores, and what an earlier view knows, as far as it still holds."""
        self._ring, self._shards = ring, shards
        if before._ring is ring and before._active == self._active:
            self._owners = before._owners

    @property
    def ring(self) -> HashRing:
        """The ring over the comets' nodes."""
        if self._ring is None:
            self._ring = HashRing(self.weights)
        return self._ring

    @property
    def shards(self) -> HashRing:
        """The ring over the stores."""
        if self._shards is None:
            self._shards = HashRing(dict(self.stores))
        return self._shards

    def without(self, id: str) -> View:
        """This view as it was before the comet of this id came; its ring is a slow one, and ready."""
        left = View((info for info in self.comets if info.id != id), self.messages)
        left._ring = self.ring.without({info.node for info in self.active if info.id == id})
        return left

    def alone(self, id: str) -> bool:
        """Whether the process of this id is the one comet on the ring, and so owns all keys."""
        return self._alone is not None and self._alone.id == id

    def owner(self, key: str) -> NodeInfo | None:
        """The active comet that holds the key's subscribers."""
        if self._alone is not None:
            return self._alone
        try:
            return self._owners[key]
        except KeyError:
            if len(self._owners) >= REMEMBERED_KEYS:
                self._owners.clear()
            node = self.ring.node_of(key)
            owner = self._owners[key] = None if node is None else self._active[node]
            return owner

    def active_of(self, id: str) -> NodeInfo | None:
        """The active process of the node whose comet has this id; None: it is no comet here, or drains."""
        mine = next((info for info in self.comets if info.id == id), None)
        return None if mine is None or mine.draining else self._active[mine.node]

    @property
    def active(self) -> tuple[NodeInfo, ...]:
        """The comets that are on the ring."""
        return tuple(self._active.values())

    @property
    def all_drain(self) -> bool:
        """Whether there are comets, and none on the ring: those that drain have no keys, for they may be leaving."""
        return bool(self.comets) and not self._active

    @property
    def registered(self) -> tuple[NodeInfo, ...]:
        """All comets and message nodes; a process may be both."""
        return (*self.comets, *self.messages)

    def knows(self, id: str) -> bool:
        """Whether the process of this id is registered."""
        return any(info.id == id for info in self.registered)

    def others(self, id: str) -> dict[str, NodeInfo]:
        """All processes but that of this id, by theirs."""
        return {info.id: info for info in self.registered if info.id != id}

    def changes(self, before: View) -> str:
        """What is different from an earlier view, for people: "+10.0.0.1:6970 ~10.0.0.2:6970 -10.0.0.3:8070", "node2
        drains". Empty where only the other half of a process, which is a comet and a message node, has followed.
        """
        old = {info.place: info for info in before.registered}
        new = {info.place: info for info in self.registered}
        came = [f"+{info.id}" for place, info in new.items() if place not in old]
        changed = [
            self._change(old[place], info, before) for place, info in new.items() if old.get(place, info) != info
        ]
        gone = [f"-{info.id}" for place, info in old.items() if place not in new]
        said = dict.fromkeys([*came, *filter(None, changed), *gone])  # a comet and message node is named once
        return ", ".join(said) if any(" " in word for word in said) else " ".join(said)

    def _change(self, old: NodeInfo, new: NodeInfo, before: View) -> str:
        if old != new._replace(draining=old.draining):
            return f"~{new.id}"
        others = [info for info in before.registered if info.id == new.id and info.place != new.place]
        if any(info.draining == new.draining for info in others):
            return ""
        nodes = [info.node for info in self.comets if info.id == new.id]
        name = nodes[0] if nodes and [info.node for info in self.comets].count(nodes[0]) == 1 else new.id
        return f"{name} drains" if new.draining else f"{name} drains no more"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, View) and (self.comets, self.messages) == (other.comets, other.messages)

    def __hash__(self) -> int:
        return hash((self.comets, self.messages))


class Coordination(Protocol):
    """Keeps the view, and this process in everybody's view."""

    view: View
    connected: bool
    leaving: bool
    """Whether this process has said that it ends soon."""
    cluster: str
    """Which cluster this is, for people: where it is registered; empty: one process alone."""

    def watch(self, watcher: ViewWatcher) -> None:
        """Call `watcher` with every view that is adopted from now on, in the reactor's thread."""

    def register_comet(self, info: NodeInfo) -> Deferred[None]:
        """Advertise a comet process; `sequence` is given by the coordinator. Fires once it is registered.

        A process may be a comet and a message node, at the same address.
        """

    def register_message(self, info: NodeInfo) -> Deferred[None]:
        """Advertise a message node, as register_comet."""

    def announce(self, info: NodeInfo, *changed: str) -> Deferred[None]:
        """Advertise what this process registered before, by its NodeInfo.place, with another weight, or draining.

        `changed`: these fields; what an operator has written into the others stays, until the process registers anew.
        Fires once the others can see it, or after a few seconds.
        """

    def contest(self, leads_here: LeadsHere, refused: Callable[[StartError], object]) -> None:
        """What to do where another process advertises the address of this one.

        `leads_here` tells whether that leads to this process (None: to nobody for now): the registration of a dead
        process is deleted then. `refused` hears why this process must stop where another one lives at its address.
        """

    def start(self) -> None:
        """Begin to look for the coordinator, and never give up."""

    def stop(self) -> Deferred[None]:
        """Leave everybody's view, and let go of the coordinator."""


def check_registered(coordination: Coordination, id: str, who: str = "this process") -> None:
    """Raise UnavailableError where others do not know the process of this id, `who` for people: for its health."""
    if not coordination.view.knows(id):
        why = "" if coordination.connected else ", and ZooKeeper cannot be reached"
        raise UnavailableError(f"{who} is not registered{why}")


class StaticCoordination:
    """The coordination of a cluster of one, which never changes but by itself."""

    connected = True
    leaving = False
    cluster = ""

    def __init__(self, view: View | None = None) -> None:
        self.view = view or View()
        self._watchers: list[ViewWatcher] = []

    def watch(self, watcher: ViewWatcher) -> None:
        """See Coordination."""
        self._watchers.append(watcher)

    def register_comet(self, info: NodeInfo) -> Deferred[None]:
        """See Coordination."""
        self.adopt(View((*self.view.comets, info), self.view.messages))
        return succeed(None)

    def register_message(self, info: NodeInfo) -> Deferred[None]:
        """See Coordination."""
        self.adopt(View(self.view.comets, (*self.view.messages, info)))
        return succeed(None)

    def announce(self, info: NodeInfo, *changed: str) -> Deferred[None]:
        """See Coordination."""
        comets, messages = (
            [one.with_changes(info, changed) if one.place == info.place else one for one in infos]
            for infos in (self.view.comets, self.view.messages)
        )
        self.adopt(View(comets, messages))
        return succeed(None)

    def contest(self, leads_here: LeadsHere, refused: Callable[[StartError], object]) -> None:
        """See Coordination."""

    def adopt(self, view: View) -> None:
        """Swap the view and tell the watchers."""
        self.view = view
        for watcher in self._watchers:
            watcher(view)

    def start(self) -> None:
        """See Coordination."""

    def stop(self) -> Deferred[None]:
        """See Coordination."""
        return succeed(None)
