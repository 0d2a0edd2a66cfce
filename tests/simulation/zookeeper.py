"""The simulated ZooKeeper: who is registered, and when each process learns of it."""

from __future__ import annotations

from functools import lru_cache
from math import inf
from typing import TYPE_CHECKING

from gopush.membership.view import View
from gopush.model import NodeInfo
from tests.simulation.process import CometProcess, Process

if TYPE_CHECKING:
    from tests.simulation.world import World


@lru_cache(4096)
def view_of(comets: tuple[NodeInfo, ...], messages: tuple[NodeInfo, ...]) -> View:
    """The view with these processes; a ring takes a while to compute, and schedules meet the same ones again."""
    return View(comets, messages)


class ZooKeeper:
    """The truth about who lives, a little late. `nodes`: the node of each comet's address."""

    def __init__(self, world: World, nodes: dict[str, str], messages: tuple[str, ...]) -> None:
        self._world = world
        self._nodes = nodes
        self._messages = messages
        self._registered: dict[str, NodeInfo] = {}
        self._sequence = 0
        for address in (*nodes, *messages):
            self._add(address)

    def register(self, process: Process) -> None:
        """A process has started, or is back."""
        if not process.leaving and self._registers(process):
            self._add(process.address)
        self.publish()

    def return_of(self, process: Process) -> None:
        """A process goes on after it stood still: it finds itself gone, or not."""
        if process.address not in self._registered:
            pause = 0.3 * self._world.random.random()
            self._world.clock.after(pause, self.register, process, owner=process)

    def withdraw(self, process: Process) -> None:
        """A process leaves."""
        process.leaving = True
        self._registered.pop(process.address, None)
        self.publish()

    def expire(self, process: Process) -> None:
        """A process was not heard of for a while: it is taken out of the view, unless it is back."""
        gone = self._world.processes[process.address] is process and (not process.alive or process.frozen)
        if gone and self._registered.pop(process.address, None) is not None:
            self._world.trouble()
            self.publish()

    def lapse(self, process: Process) -> None:
        """A process that reaches nobody is taken out of the view."""
        if not process.coordination.connected and self._registered.pop(process.address, None) is not None:
            self._world.trouble()
            self.publish()

    def view(self) -> View:
        """The truth."""
        infos = sorted(self._registered.values(), key=lambda info: info.sequence)
        comets = tuple(info for info in infos if info.id in self._nodes)
        return view_of(comets, tuple(info._replace(node=info.id) for info in infos if info.id in self._messages))

    def _registers(self, process: Process) -> bool:
        return process.address in self._nodes or process.address in self._messages

    def publish(self) -> None:
        """Tell all: each process sees it in its own time."""
        world, view = self._world, self.view()
        for process in world.processes.values():
            lag = world.plan.view_lag * world.random.random() ** 2
            process.view_due = max(process.view_due, world.clock.now + lag)
            world.clock.at(process.view_due, self._see, process, view, owner=process)

    def blind(self, process: Process, duration: float) -> None:
        """A process loses ZooKeeper for a while."""
        self._world.note("blind", process.address, duration)
        self._world.trouble(duration)
        process.coordination.connected = False
        self._world.clock.after(duration, self._sees_again, process, owner=process)

    def mislead(self, process: Process, duration: float) -> None:
        """A process takes one comet for the only one for a while: its view is late, or early."""
        view = process.coordination.view
        if not view.comets:
            return
        self.show_only(process, self._world.random.choice(view.comets).id, duration)

    def show_only(self, process: Process, address: str, duration: float) -> None:
        """A process sees no comet but this one for a while."""
        view = process.coordination.view
        comets = tuple(comet for comet in view.comets if comet.id == address)
        if comets:
            process.coordination.adopt(view_of(comets, view.messages))
            self._world.note("sees only", process.address, address)
            self.blind(process, duration)

    def _add(self, address: str) -> None:
        self._sequence += 1
        node = self._nodes.get(address, address)
        self._registered[address] = NodeInfo(node, self._sequence, (address,), (address,))

    def _see(self, process: Process, view: View) -> None:
        """As Adoption has it: no empty view, and none that lacks the process itself."""
        coordination = process.coordination
        if not coordination.connected:
            return
        infos = (*view.comets, *view.messages)
        known = any(info.id == process.address for info in infos)
        if known or process.leaving or not self._registers(process):
            old = coordination.view
            adopted = view_of(view.comets or old.comets, view.messages or old.messages)
            if adopted != old:
                seen = (*adopted.comets, *adopted.messages)
                self._world.note("view", process.address, " ".join(info.id for info in seen))
                coordination.adopt(adopted)
        elif process.address not in self._registered:
            self.register(process)

    def _sees_again(self, process: Process) -> None:
        if isinstance(process, CometProcess) and process.isolated < inf:
            self._world.clock.after(0.5, self._sees_again, process, owner=process)
            return
        process.coordination.connected = True
        self._see(process, self.view())
