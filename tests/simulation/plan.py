"""What a seed stands for: the cluster of a run, and the script of what happens to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, cast

from gopush.comet.settings import SubscriberSettings

if TYPE_CHECKING:
    from tests.simulation.process import MessageProcess, Process
    from tests.simulation.world import World

KEYS = ("alpha", "beta")


@dataclass(frozen=True)
class Plan:
    """A cluster. `comets`: address and node of each process, standbys included. `confirm`: how long the store may take
    for the answer to what it has stored, as for a replica that it waits for. `page`, `slice`, `replay`: how small
    pages of the log, slices of a round, and the memory for joiners are, so that few messages reach their limits."""

    comets: tuple[tuple[str, str], ...]
    messages: tuple[str, ...]
    webs: tuple[str, ...]
    keys: tuple[str, ...]
    settings: SubscriberSettings
    store: int
    confirm: float
    page: int
    slice: int
    replay: int
    skew: float
    view_lag: float
    wrong_comet: float
    chaos: float

    def healed(self) -> Plan:
        """The same without what clients and ZooKeeper do wrong."""
        return replace(self, view_lag=0.3, wrong_comet=0.0)


ALONE, MIXED = "alone", "mixed"
"""Equal nodes in the place of all processes, or beside them."""


def draw(random: Random, equals: str = "") -> Plan:
    """A cluster."""
    plan = _draw(random)
    if not equals:
        return plan
    number = random.choice((1, 2, 2, 3) if equals == MIXED else (2, 2, 3))
    addresses = tuple(f"e{one}" for one in range(1, number + 1))
    comets = tuple((address, f"equal{address}") for address in addresses)
    if equals == ALONE:
        return replace(plan, comets=comets, messages=addresses, webs=addresses)
    few = random.random() < 0.5  # what there is of separate roles
    return replace(
        plan,
        comets=(*comets, *plan.comets[: 1 if few else None]),
        messages=(*addresses, *plan.messages[: 1 if few else None]),
        webs=(*addresses, *plan.webs),
    )


def _draw(random: Random) -> Plan:
    nodes = random.choice((1, 1, 2, 2, 3))
    comets = [(f"c{number}", f"node{number}") for number in range(1, nodes + 1)]
    if random.random() < 0.25:
        comets.append(("c1b", "node1"))
    settings = replace(
        SubscriberSettings(),
        msgbuf_messages=random.choice((6, 15, 4096)),
        msgbuf_bytes=random.choice((400, 2000, 1 << 21)),
        max_subscribers=random.choice((2, 64, 64, 64)),
        sweep=random.choice((2.0, 5.0, 5.0, 30.0)),
    )
    return Plan(
        comets=tuple(comets),
        messages=tuple(f"m{number}" for number in range(1, random.choice((1, 2, 2, 3)) + 1)),
        webs=("w1", "w2")[: random.randrange(1, 3)],
        keys=KEYS[: random.choice((1, 1, 2))],
        settings=settings,
        store=random.choice((2, 4, 8, 20)),
        confirm=random.choice((0.0, 0.0, 0.02, 0.1)),
        page=random.choice((2, 3, 256)),
        slice=random.choice((1, 2, 256)),
        replay=random.choice((2, 1024)),
        skew=random.choice((0.0, 0.05, 0.3, 1.5)),
        view_lag=random.choice((0.1, 0.5, 3.0)),
        wrong_comet=random.choice((0.0, 0.0, 0.2)),
        chaos=random.uniform(3.0, 9.0),
    )


Action = Callable[["World", Random], object]


def _some(world: World, random: Random, kinds: str = "cmw") -> Process:
    """A comet, message or web process, or one that is all of these."""
    return random.choice([process for address, process in world.processes.items() if address[0] in f"{kinds}e"])


def _push(world: World, random: Random) -> None:
    expire = random.choice((0, 0, 1, 2, 4, 60, 600, 600, 600))
    padding = random.choice((0, 0, 0, 20, 300))
    world.publishers.push(random.choice(world.plan.keys), expire, padding, random.choice((1, 1, 3)))


def _burst(world: World, random: Random) -> None:
    for _ in range(random.randrange(2, 9)):
        _push(world, random)


def _bulk(world: World, random: Random) -> None:
    groups = [random.randrange(1, 3) for _ in range(random.randrange(2, 6))]
    world.publishers.bulk(random.choice(world.plan.keys), groups, random.choice((0.05, 0.3, 0.7)))


def _subscribe(world: World, random: Random) -> None:
    kind = random.choice(("plain", "plain", "resume", "resume", "resume", "mixed", "now"))
    world.subscribe(random.choice(world.plan.keys), kind, random.choice((0.0, 0.0, 1.0, 30.0)))


def _drop(world: World, random: Random) -> None:
    if world.subscribers:
        random.choice(world.subscribers).drop()


def _slow(world: World, random: Random) -> None:
    connections = [one.current for one in world.subscribers if one.current is not None]
    if connections:
        random.choice(connections).slow_down(world.clock.now + random.choice((1.0, 3.0, 9.0)))


def _vanish(world: World, random: Random) -> None:
    if len(world.subscribers) > 1:
        random.choice(world.subscribers).leave(silently=random.random() < 0.4)


def _kill(world: World, random: Random) -> None:
    world.kill(_some(world, random), random.choice((0.05, 0.5, 3.0)))


def _retire(world: World, random: Random) -> None:
    world.retire(_some(world, random, "cm"), random.random())


def _freeze(world: World, random: Random) -> None:
    world.freeze(_some(world, random), random.choice((0.3, 1.3, 2.5, 5.0)))


def _blind(world: World, random: Random) -> None:
    world.zookeeper.blind(_some(world, random), random.choice((1.0, 4.0)))


def _mislead(world: World, random: Random) -> None:
    world.zookeeper.mislead(_some(world, random, "cw"), random.choice((1.0, 4.0)))


def _accidents(world: World, random: Random) -> None:
    world.lose_calls(random.choice((0.1, 0.3, 0.6)), random.choice((0.5, 2.0, 5.0)))


def _cut(world: World, random: Random) -> None:
    pair = random.sample(list(world.processes), 2)
    world.cut(pair[0], pair[1], random.choice((0.5, 1.5, 3.0, 6.0)))


def _strand(world: World, random: Random) -> None:
    """A comet reaches no message node, while lines of bulk calls come."""
    comet, duration = random.choice(world.comet_addresses), random.choice((1.9, 2.1, 2.6, 5.0))
    for node in world.plan.messages:
        if node != comet:
            world.cut(comet, node, duration)
    process = world.processes[comet]
    if comet in world.plan.messages:
        world.lose_way(cast("MessageProcess", process), duration)
    for _ in range(4):
        world.clock.after(random.uniform(0.0, duration), _bulk, world, random)


def _store_fails(world: World, random: Random) -> None:
    world.break_store(random.choice(("fails", "hangs", "lags")), random.choice((0.3, 1.2, 3.0)))


def _store_loses(world: World, random: Random) -> None:
    world.break_store("loses", 0.05 + 0.95 * random.random())


def _store_alone(world: World, random: Random) -> None:
    world.isolate_store(random.choice((0.5, 2.0, 4.0)), random.random() < 0.8)
    for _ in range(2):
        world.clock.after(random.uniform(0.0, 0.5), _burst, world, random)


def _way_lost(world: World, random: Random) -> None:
    process = _some(world, random, "m")
    world.lose_way(cast("MessageProcess", process), random.choice((0.1, 2.0, 5.0)))
    for _ in range(3):
        world.clock.after(random.uniform(0.0, 0.5), _burst, world, random)


def _owner_changes(world: World, random: Random) -> None:
    """While batches are under way: at the store, or on their way back from it."""
    if random.random() < 0.6:
        world.break_store("lags", random.choice((0.02, 0.2, 0.7)))
    world.change_owner(random.choice((0.01, 0.1, 0.5, 2.0)))
    for _ in range(3):
        _burst(world, random)
        world.clock.after(random.uniform(0.0, 0.3), _burst, world, random)


def _store_steps(world: World, random: Random) -> None:
    world.step_store(-random.choice((0.001, 0.4, 3.0)))


def _clock_steps(world: World, random: Random) -> None:
    world.step_clock(_some(world, random), random.choice((-3.0, -0.5, 0.5, 3.0)))


def _clock_is_wrong(world: World, random: Random) -> None:
    """Of a comet, by more than a cursor may be ahead of it."""
    world.step_clock(_some(world, random, "c"), random.choice((-90.0, -90.0, 90.0)))


def _isolate(world: World, random: Random) -> None:
    comet = world.comet_at(random.choice(world.comet_addresses))
    if comet is not None:
        world.isolate(comet, random.choice((3.0, 9.0, 9.0)))


def _delete(world: World, random: Random) -> None:
    world.delete(random.choice(world.plan.keys))


def _purge(world: World, random: Random) -> None:
    world.store.purge()


USUAL: tuple[tuple[Action, int], ...] = (
    (_push, 14), (_burst, 4), (_bulk, 2), (_subscribe, 3), (_drop, 5), (_slow, 3), (_vanish, 1), (_purge, 1)
)  # fmt: skip
FAULTS: tuple[Action, ...] = (
    _kill, _retire, _freeze, _blind, _mislead, _accidents, _cut, _strand, _store_fails, _store_loses, _store_steps,
    _store_alone, _way_lost,
    _clock_steps, _clock_is_wrong, _isolate, _delete
)  # fmt: skip


def script(random: Random, plan: Plan) -> list[tuple[float, Action]]:
    """What happens when, ascending: what clients do, and some kinds of fault."""
    actions, weights = zip(*USUAL, strict=True)
    steps: list[tuple[float, Action]] = [(0.05, _subscribe) for _ in range(random.randrange(1, 4))]
    chosen = random.choices(actions, weights, k=random.randrange(12, 36))
    steps += [(random.uniform(0.3, plan.chaos), action) for action in chosen]
    faults = FAULTS
    if any(address[0] == "e" for address in plan.webs):
        faults = (*FAULTS, _owner_changes, _owner_changes, _way_lost)
    for kind in dict.fromkeys(random.sample(faults, random.choice((0, 1, 2, 3, 4, 5)))):
        for _ in range(random.randrange(1, 4)):
            time = random.uniform(0.3, plan.chaos if kind is not _isolate else 1.0)  # this one takes its time to show
            steps.append((time, kind))
            # What is under way just then meets it.
            steps += [(time + random.uniform(-0.004, 0.002), _burst) for _ in range(random.randrange(3))]
            steps += [(time + random.uniform(-0.004, 0.1), _drop) for _ in range(random.randrange(2))]
    return sorted(steps, key=lambda step: step[0])
