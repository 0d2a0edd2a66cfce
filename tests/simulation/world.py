"""All there is in one run: processes, store, network, clients, and what can be done to them."""

from __future__ import annotations

from math import inf
from random import Random

from gopush.model import mid_at
from tests.simulation.clock import SimClock
from tests.simulation.history import History
from tests.simulation.network import Network
from tests.simulation.plan import Plan
from tests.simulation.process import (
    EPOCH,
    SESSION_SECONDS,
    CometProcess,
    EqualProcess,
    MessageProcess,
    Process,
    WebProcess,
)
from tests.simulation.publisher import Publishers
from tests.simulation.store import SharedStore
from tests.simulation.subscriber import Subscriber
from tests.simulation.way import Way
from tests.simulation.zookeeper import ZooKeeper

MOST_VIOLATIONS = 20
SETTLED_SECONDS = 3.0


class World:
    """One run."""

    def __init__(self, plan: Plan, random: Random) -> None:
        self.plan = plan
        self.random = random
        self.clock = SimClock()
        self.events: list[tuple[float, tuple[object, ...]]] = []
        self.violations: list[tuple[float, int, str, str]] = []
        self.troubles: list[list[float]] = []
        self.first_mid = mid_at(EPOCH)
        self.healed = False
        self.healed_at = 0.0
        self.connections = 0
        self._rough_until = -inf
        self.network = Network(self)
        self.store = SharedStore(self, plan.store, plan.page)
        self.history: History = self.store.history
        self.publishers = Publishers(self)
        self.subscribers: list[Subscriber] = []
        self.processes: dict[str, Process] = {}
        self.comet_addresses = [address for address, _ in plan.comets]
        self.zookeeper = ZooKeeper(self, dict(plan.comets), plan.messages)
        for address in dict.fromkeys((*self.comet_addresses, *plan.messages, *plan.webs)):
            self._start(address)

    # --- what it tells ---

    def note(self, *event: object) -> None:
        """Remember what happened, for the trace of a failed run: what, to which key or process, and more."""
        self.events.append((self.clock.now, event))

    def violated(self, rule: int, key: str, what: str, time: float | None = None) -> None:
        """A delivery rule did not hold at `time` (now)."""
        if len(self.violations) < MOST_VIOLATIONS:
            self.violations.append((self.clock.now if time is None else time, rule, key, what))

    def trouble(self, duration: float = 0.0, settles: float = SETTLED_SECONDS) -> None:
        """From now on for this long, and until it has settled, nobody can expect all to go smoothly."""
        self.troubles.append([self.clock.now, self.clock.now + duration + settles])

    def calm(self, start: float, end: float) -> bool:
        """Whether there was no trouble in between."""
        return not any(begin <= end and start <= over for begin, over in self.troubles)

    # --- who lives ---

    def some_web(self) -> WebProcess | None:
        """A live web node, frozen or not."""
        webs = [web for address in self.plan.webs if isinstance(web := self.processes[address], WebProcess)]
        return self.random.choice([web for web in webs if web.alive] or [None])

    def comet_at(self, address: str) -> CometProcess | None:
        """The live comet there."""
        process = self.processes.get(address)
        return process if isinstance(process, CometProcess) and process.alive else None

    def comets(self) -> list[CometProcess]:
        """All live comets."""
        found = [self.comet_at(address) for address in self.comet_addresses]
        return [comet for comet in found if comet is not None]

    def ways_to_store(self, web: WebProcess, since: float) -> set[tuple[str, str]]:
        """The pairs of comet and message node that must let a push of this web through (delivery rule 8): they run
        and reach one another since `since`; of the others one may hang, and any number may be dead."""
        processes = self.processes
        hanging = sum(process.alive and (process.frozen or process.thawed > since) for process in processes.values())
        rough = self._rough_until >= since or self.network.cuts or self.network.trouble or self.store.down
        if hanging > 1 or rough or not web.steady_since(since) or abs(web.wall() - self.store.now()) > 0.5:
            return set()
        return {
            (comet.id, node.id)
            for comet in web.coordination.view.comets
            if processes[comet.id].steady_since(since)
            for node in processes[comet.id].coordination.view.messages
            if processes[node.id].steady_since(since) and self._has_way(processes[node.id], since)
        }

    @staticmethod
    def _has_way(process: Process, since: float) -> bool:
        return isinstance(process, MessageProcess) and not process.way.cut and process.way.whole_since <= since

    # --- what is done to processes ---

    def kill(self, process: Process, back_after: float) -> None:
        """A process dies, and is started again after a while; its place in the view outlives it a little."""
        if process.alive:
            self.note("killed", process.address)
            self.trouble(max(back_after, 2.0))
            process.die()
            self.clock.after(2.0 * self.random.random(), self.zookeeper.expire, process)
            self.clock.after(back_after, self._restart, process)

    def retire(self, process: Process, back_after: float) -> None:
        """A process leaves as SIGTERM makes it: first the view, then its subscribers move, then it ends."""
        if process.alive and not process.frozen:
            self.note("retires", process.address)
            self.trouble(back_after)
            self.zookeeper.withdraw(process)
            if isinstance(process, CometProcess):
                process.housekeeping.move_all()
            self.clock.after(2.0, self._ended, process)
            self.clock.after(2.0 + back_after, self._restart, process)

    def freeze(self, process: Process, duration: float) -> None:
        """A process stands still, and goes on after a while; meanwhile it may drop out of the view."""
        if process.alive and not process.frozen:
            self.note("frozen", process.address)
            self.trouble(duration)
            process.freeze()
            self.clock.after(1.0 + 2.0 * self.random.random(), self.zookeeper.expire, process)
            self.clock.after(duration, self._wake, process)

    def _wake(self, process: Process) -> None:
        if process.alive and process.frozen:
            self.note("woken", process.address)
            process.wake()
            self.zookeeper.return_of(process)

    def _ended(self, process: Process) -> None:
        if process.alive:
            process.die()

    def _restart(self, process: Process) -> None:
        if self.processes[process.address] is process and not process.alive:
            self.note("started", process.address)
            started = self._start(process.address)
            self.zookeeper.register(started)
            started.coordination.adopt(self.zookeeper.view())

    def _start(self, address: str) -> Process:
        kind = {"c": CometProcess, "m": MessageProcess, "w": WebProcess, "e": EqualProcess}[address[0]]
        process = self.processes[address] = kind(self, address, self.zookeeper.view())
        process.offset = self.random.uniform(-self.plan.skew, self.plan.skew)
        return process

    # --- what is done to the network, the store and the clocks ---

    def lose_calls(self, chance: float, duration: float) -> None:
        """Calls meet with accidents."""
        self.note("accidents", chance, duration)
        self._rough(duration)
        self.network.trouble = chance
        self.clock.after(duration, setattr, self.network, "trouble", 0.0)

    def cut(self, one: str, other: str, duration: float) -> None:
        """Two processes can't reach each other."""
        self.note("cut", one, other, duration)
        self._rough(duration)
        self.network.cut(one, other)
        self.clock.after(duration, self.network.mend, one, other)

    def isolate(self, process: CometProcess, duration: float) -> None:
        """A comet reaches nobody but its clients, neither ZooKeeper nor any other process."""
        if not process.alive or process.frozen or process.isolated < inf:
            return
        self.note("isolated", process.address, duration)
        process.isolated = self.clock.now
        for address in [address for address in self.processes if address != process.address]:
            self.cut(process.address, address, duration)
        if isinstance(process, MessageProcess):
            self._cut_way(process, duration)
        self.zookeeper.blind(process, duration)
        self.clock.after(SESSION_SECONDS, self.zookeeper.lapse, process)
        self.clock.after(duration, setattr, process, "isolated", inf)

    def change_owner(self, duration: float) -> None:
        """Two equal nodes take a key for their own at once, each with appends at its own message service under way."""
        equals = [one for one in self.processes.values() if isinstance(one, EqualProcess) and one.alive]
        for process in self.random.sample(equals, min(2, len(equals))):
            self.zookeeper.show_only(process, process.address, duration)

    def lose_way(self, process: MessageProcess, duration: float) -> None:
        """A message node's way to write to the store is lost, and found again."""
        if not process.way.cut:
            self.note("loses its way", process.address, duration)
            self.trouble(duration)
            self._cut_way(process, duration)

    def _cut_way(self, process: MessageProcess, duration: float) -> None:
        process.way.cuts += 1
        self.clock.after(duration, self._finds_way, process.way)

    def _finds_way(self, way: Way) -> None:
        way.cuts -= 1
        way.whole_since = self.clock.now

    def isolate_store(self, duration: float, fails_over: bool) -> None:
        """The store is cut off from its replica, not from message nodes, until that has taken over or is back."""
        if not self.store.down:
            self.note("store", "alone", duration, fails_over)
            self._rough(duration + 0.3)
            self.store.save()
            self.store.down = "alone"
            self.clock.after(duration, self._store_rejoins, fails_over)

    def _store_rejoins(self, fails_over: bool) -> None:
        if self.store.down != "alone":
            return
        if fails_over:
            self.note("store", "fails over")
            self.store.fail_over()
        self.store.together()

    def break_store(self, how: str, duration: float) -> None:
        """The store fails, hangs, or (how "loses") fails and comes back without the last second."""
        if self.store.down:
            return
        self.note("store", how, duration)
        self._rough(duration)
        if how == "loses":
            self.store.save()
            self.clock.after(duration, self._store_dies)
        else:
            self.store.down = how
            self.clock.after(duration, setattr, self.store, "down", "")

    def _store_dies(self) -> None:
        if not self.store.down:
            self.note("store", "lost its last second")
            self.store.lose()
            self.store.down = "fails"
            self.clock.after(0.05 + 0.3 * self.random.random(), setattr, self.store, "down", "")

    def step_store(self, seconds: float) -> None:
        """The store's clock steps."""
        self.note("store", "clock steps", seconds)
        self._rough(0.0)
        self.store.time.step(self.clock.now, seconds)

    def step_clock(self, process: Process, seconds: float) -> None:
        """A process's wall clock steps."""
        self.note("clock steps", process.address, seconds)
        self._rough(0.0)
        process.offset += seconds

    def _rough(self, duration: float) -> None:
        self.trouble(duration)
        self._rough_until = max(self._rough_until, self.clock.now + duration)

    def heal(self) -> None:
        """All troubles end: who hangs goes on, who is dead is started, everybody hears of it."""
        self.note("heals")
        self.healed = True
        self.healed_at = self.clock.now
        self.network.heal()
        if self.store.down == "alone":
            self.store.together()
        self.store.down = ""
        for process in list(self.processes.values()):
            self._wake(process)
            self._restart(process)
            process.coordination.connected = True
            if isinstance(process, CometProcess):
                process.isolated = inf
        self.plan = self.plan.healed()
        self.clock.after(0.1, self.zookeeper.publish)
        for subscriber in self.subscribers:
            if subscriber.current is not None:
                subscriber.current.slow_down(0.0)

    # --- what clients do ---

    def subscribe(self, key: str, kind: str, ahead: float = 0.0) -> Subscriber:
        """A new client."""
        subscriber = Subscriber(self, f"s{len(self.subscribers) + 1}", key, kind, ahead)
        self.subscribers.append(subscriber)
        subscriber.connect()
        return subscriber

    def delete(self, key: str) -> None:
        """Somebody deletes the key's messages."""
        web = self.some_web()
        if web is not None:
            self.note("delete", key)
            self.trouble()
            self.clock.after(0.001, lambda: web.delete(key).addErrback(lambda _: None), owner=web)
