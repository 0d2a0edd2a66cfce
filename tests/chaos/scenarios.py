"""What happens to the cluster, by name, and the rules that it must keep meanwhile."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from tests.chaos.cluster import ALONE, APPENDS, ROOT, SECRET, SESSION_SECONDS, Cluster, Node
from tests.chaos.load import Load
from tests.chaos.verdict import Rules

BACK_SECONDS = SESSION_SECONDS + 2.0
"""After a comet's death live delivery is back within the session time-out + 2 s."""

SERVED_SECONDS = 2.0
"""The subscribers of a comet that was asked to end are served again within that time."""

FROZEN_SECONDS = 15.0
CUT_OFF_SECONDS = 10 * SESSION_SECONDS
KNOWN_SECONDS = 5.0
"""A comet that reaches no message node is known to refuse after so long."""

FAIL_OVER_SECONDS = 20


@dataclass
class Stage:
    """Where a scenario takes place."""

    cluster: Cluster
    load: Load
    random: random.Random
    minutes: float

    async def kill(self, name: str) -> None:
        """kill -9."""
        await asyncio.to_thread(self.cluster[name].kill)

    async def start(self, name: str) -> None:
        """Start a process that is dead."""
        await asyncio.to_thread(self.cluster[name].start)

    async def stop(self, name: str) -> None:
        """SIGTERM, and wait for the end."""
        self.load.leaving.append(await asyncio.to_thread(self.cluster[name].stop))

    async def freeze(self, name: str, seconds: float) -> None:
        """SIGSTOP, and SIGCONT later."""
        self.cluster[name].freeze()
        try:
            await asyncio.sleep(seconds)
        finally:
            self.cluster[name].thaw()

    async def add(self, role: str, name: str, node: str = "") -> None:
        """One more node."""
        await asyncio.to_thread(self.cluster.add(role, name, node).start)


Act = Callable[[Stage], Awaitable[None]]
SCENARIOS: dict[str, tuple[Act, Rules]] = {}
REPLICATED = {"redis-failed-over"}
"""Those that need a cluster with two Redis servers and sentinels."""

QUORUM = {"zookeeper-leader-killed"}
"""Those that need three ZooKeeper servers."""

PARTED = {"message-loses-its-way", "redis-parted"}
"""Those that need a way of its own from each message node to a Redis with a replica."""

HBASE = {"hbase-killed"}
"""Those that keep messages in HBase, with fewer pushes: it needs more of the machine than Redis."""

FIREWALLED = {"comet-without-message-nodes"}
"""Those in which the ways to the message nodes can be cut."""

OLDER = {"rolling-upgrade", "roles-to-equals"}
"""Those that begin with an older release (older.py)."""

KILLED = {"web-killed", "message-loses-its-way"}
"""Those in which an equal node costs its subscribers more than a message or web node would."""

UPGRADED = ("message-1", "comet-2", "web-1", "comet-1-standby", "message-2", "comet-1", "web-2")
"""In an order in which each role is called by the older release, and calls it."""


def scenario(rules: Rules) -> Callable[[Act], Act]:
    """Enter a function's name, with dashes, into SCENARIOS."""

    def enter(act: Act) -> Act:
        SCENARIOS[act.__name__.replace("_", "-")] = act, rules
        return act

    return enter


DEATH = Rules(delay=BACK_SECONDS, named_dead=SESSION_SECONDS)


@scenario(DEATH)
async def comet_killed_with_standby(stage: Stage) -> None:
    """kill -9 of an active comet whose standby takes over; it comes back as the standby."""
    await stage.kill("comet-1")
    await asyncio.sleep(10)
    await stage.start("comet-1")
    await asyncio.sleep(4)


@scenario(DEATH)
async def comet_killed(stage: Stage) -> None:
    """kill -9 of a comet without a standby, which does not come back: its keys go to its neighbours."""
    await stage.kill("comet-2")
    await asyncio.sleep(12)


@scenario(DEATH)
async def comet_killed_returning(stage: Stage) -> None:
    """kill -9 of a comet without a standby, which comes back when its keys have moved."""
    await stage.kill("comet-2")
    await asyncio.sleep(9)
    await stage.start("comet-2")
    await asyncio.sleep(6)


@scenario(DEATH)
async def comet_back_at_once(stage: Stage) -> None:
    """kill -9 of a comet that is back while its old registration still lives, beside its standby."""
    await stage.kill("comet-1")
    await stage.start("comet-1")
    await asyncio.sleep(12)


@scenario(Rules(refusal=0.0))
async def comet_frozen(stage: Stage) -> None:
    """SIGSTOP of an active comet for 15 s."""
    await stage.freeze("comet-1", FROZEN_SECONDS)
    await asyncio.sleep(8)


@scenario(Rules(refusal=0.0, delay=SERVED_SECONDS, away=SERVED_SECONDS))
async def comet_terminated(stage: Stage) -> None:
    """SIGTERM of comets, with a standby and without."""
    for name in ("comet-1", "comet-2"):
        await stage.stop(name)
        await asyncio.sleep(3)
        await stage.start(name)
        await asyncio.sleep(3)


@scenario(Rules(delay=None, slow=0))
async def comet_without_message_nodes(stage: Stage) -> None:
    """A comet reaches no message node for 15 s, but all others and its clients: they know after one attempt."""
    pid = stage.cluster["comet-1"].pid
    for firewall in stage.cluster.firewalls:
        firewall.cut(pid)
    stage.load.settled_at = time.monotonic() + KNOWN_SECONDS
    await asyncio.sleep(FROZEN_SECONDS)
    for firewall in stage.cluster.firewalls:
        firewall.mend()
    await asyncio.sleep(5)


@scenario(Rules(delay=BACK_SECONDS))
async def message_killed(stage: Stage) -> None:
    """kill -9 of a message node, which comes back."""
    await stage.kill("message-1")
    await asyncio.sleep(8)
    await stage.start("message-1")
    await asyncio.sleep(4)


@scenario(Rules(delay=BACK_SECONDS))
async def message_frozen(stage: Stage) -> None:
    """SIGSTOP of a message node for 15 s."""
    await stage.freeze("message-1", FROZEN_SECONDS)
    await asyncio.sleep(6)


@scenario(Rules(delay=SERVED_SECONDS))
async def web_killed(stage: Stage) -> None:
    """kill -9 of a web node, which comes back."""
    await stage.kill("web-1")
    await asyncio.sleep(5)
    await stage.start("web-1")
    await asyncio.sleep(4)


@scenario(Rules(refusal=None, delay=BACK_SECONDS))
async def redis_restarted(stage: Stage) -> None:
    """kill -9 of Redis, and a second later its start on its append-only file."""
    await asyncio.to_thread(stage.cluster.redis.kill)
    await asyncio.sleep(1)
    await asyncio.to_thread(stage.cluster.redis.start)
    await asyncio.sleep(8)


@scenario(Rules(refusal=None, delay=BACK_SECONDS))
async def redis_failed_over(stage: Stage) -> None:
    """kill -9 of the master Redis: sentinels make its replica the master; it comes back as a replica (wait = 1)."""
    servers = stage.cluster.replicated
    assert servers is not None
    old = servers.master
    await asyncio.to_thread(old.kill)
    for _ in range(FAIL_OVER_SECONDS):
        await asyncio.sleep(1)
        if await asyncio.to_thread(lambda: servers.master) is not old:
            break
    await asyncio.to_thread(old.start)
    await asyncio.sleep(10)


@scenario(Rules(refusal=None, delay=BACK_SECONDS))
async def hbase_killed(stage: Stage) -> None:
    """kill -9 of HBase with its region server, and its start; then kill -9 of one of two Thrift servers."""
    hbase, (thrift, _) = stage.cluster.hbase, stage.cluster.thrifts
    assert hbase is not None
    await asyncio.to_thread(hbase.kill)
    await asyncio.sleep(1)
    await asyncio.to_thread(hbase.start)
    await asyncio.to_thread(thrift.ready)
    await asyncio.sleep(8)
    await asyncio.to_thread(thrift.kill)
    await asyncio.sleep(3)
    await asyncio.to_thread(thrift.start)
    await asyncio.sleep(3)


@scenario(Rules(delay=SERVED_SECONDS))
async def message_loses_its_way(stage: Stage) -> None:
    """A message node's connection that writes is reset, and refused for 12 s; then all are reset now and then."""
    way = stage.cluster.ways[stage.cluster["message-1"].name]
    await asyncio.to_thread(way.block, APPENDS)
    await asyncio.sleep(12)
    way.blocks = b""
    await asyncio.sleep(3)
    for _ in range(6):
        for each in stage.cluster.ways.values():
            await asyncio.to_thread(each.cut)
        await asyncio.sleep(1)
    await asyncio.sleep(3)


@scenario(Rules(refusal=None, delay=BACK_SECONDS))
async def redis_parted(stage: Stage) -> None:
    """Message nodes reach a master that is cut off from its replica for 6 s; then the replica is the master."""
    cluster = stage.cluster
    replica = cluster.replica
    assert replica is not None
    await asyncio.to_thread(replica.call, "REPLICAOF", "NO", "ONE")
    await asyncio.sleep(6)
    for way in cluster.ways.values():
        way.to = replica.port
    await asyncio.to_thread(cluster.redis.call, "REPLICAOF", "127.0.0.1", replica.port)
    for way in cluster.ways.values():
        await asyncio.to_thread(way.cut)
    await asyncio.sleep(12)


@scenario(Rules(delay=BACK_SECONDS))
async def zookeeper_killed(stage: Stage) -> None:
    """ZooKeeper is away for longer than the session lasts, and comes back with its data."""
    await asyncio.to_thread(stage.cluster.zookeeper.kill)
    await asyncio.sleep(2.5 * SESSION_SECONDS)
    await asyncio.to_thread(stage.cluster.zookeeper.start)
    await asyncio.sleep(12)


@scenario(Rules(delay=BACK_SECONDS))
async def zookeeper_empty(stage: Stage) -> None:
    """ZooKeeper comes back and knows nothing."""
    await asyncio.to_thread(stage.cluster.zookeeper.kill)
    stage.cluster.zookeeper.forget()
    await asyncio.sleep(1)
    await asyncio.to_thread(stage.cluster.zookeeper.start)
    await asyncio.sleep(16)


@scenario(Rules(refusal=None))
async def all_but_clients_gone(stage: Stage) -> None:
    """ZooKeeper and all message nodes die: comets send their subscribers away until one is back."""
    cluster = stage.cluster
    await asyncio.to_thread(cluster.zookeeper.kill)
    for name in ("message-1", "message-2"):
        await stage.kill(name)
    if cluster.members == ALONE:  # who is left has a message node of its own
        await asyncio.to_thread(cluster.redis.kill)
    until = time.monotonic() + CUT_OFF_SECONDS
    while any(subscriber.joined for subscriber in stage.load.subscribers):
        if time.monotonic() > until:
            raise RuntimeError("comets that can deliver nothing keep their subscribers")
        await asyncio.sleep(0.1)
    await asyncio.to_thread(cluster.zookeeper.start)
    if cluster.members == ALONE:
        await asyncio.to_thread(cluster.redis.start)
    await asyncio.gather(stage.start("message-1"), stage.start("message-2"))
    await asyncio.sleep(12)


@scenario(Rules(delay=BACK_SECONDS))
async def zookeeper_leader_killed(stage: Stage) -> None:
    """Of three ZooKeeper servers the one that leads dies; the others go on. A comet dies after that."""
    quorum = stage.cluster.quorum
    assert quorum is not None
    leader = await asyncio.to_thread(lambda: quorum.leader)
    assert leader is not None
    await asyncio.to_thread(leader.kill)
    await asyncio.sleep(8)
    await stage.kill("comet-2")
    await asyncio.sleep(8)
    await asyncio.to_thread(leader.start)
    await asyncio.sleep(5)


@scenario(Rules(delay=SERVED_SECONDS, away=SERVED_SECONDS))
async def rolling_restart(stage: Stage) -> None:
    """Every process is asked to end and started again, one after the other."""
    for node in list(stage.cluster.nodes.values()):
        await stage.stop(node.name)
        await stage.start(node.name)
        await asyncio.sleep(2)


@scenario(Rules(delay=SERVED_SECONDS, away=SERVED_SECONDS))
async def rolling_upgrade(stage: Stage) -> None:
    """From an older release, with a secret: every process is asked to end, and this release started in its place."""
    for name in UPGRADED:
        node = stage.cluster[name]
        await stage.stop(name)
        node.root = ROOT
        node.set({"rpc": {"secret.legacy": "yes"}})
        await stage.start(name)
        await asyncio.sleep(1)


@scenario(Rules(delay=SERVED_SECONDS, away=SERVED_SECONDS))
async def nodes_added_and_removed(stage: Stage) -> None:
    """A comet, a message node and a web node more, and away again; beside equal nodes another one, too."""
    added = [("comet", "comet-3", "node3a"), ("message", "message-3", ""), ("gopush-web", "web-3", "")]
    if stage.cluster.members:
        added.append(("member", "member-4", "node4"))
    for role, name, node in added:
        await stage.add(role, name, node)
        await asyncio.sleep(4)
    for _, name, _ in added:
        await stage.stop(name)
        await asyncio.sleep(2)


@scenario(Rules(delay=SERVED_SECONDS, away=SERVED_SECONDS))
async def roles_to_equals(stage: Stage) -> None:
    """From the roles of an older release to three equal nodes, and to this release's roles: each comes, then goes."""
    cluster = stage.cluster
    roles = [node for node in cluster.nodes.values() if node.role != "member"]
    for number in (1, 2, 3):
        equal = cluster.add("member", f"member-{number}", f"equal{number}")
        equal.set({"rpc": {"secret": SECRET, "secret.legacy": "yes"}})
        await stage.start(equal.name)
        await asyncio.sleep(1)
    for node in roles:
        await stage.stop(node.name)
        await asyncio.sleep(1)
    await asyncio.sleep(2)
    for node in roles:
        node.root = ROOT
        await stage.start(node.name)
        await asyncio.sleep(1)
    for number in (1, 2, 3):
        await stage.stop(f"member-{number}")
        await asyncio.sleep(1)


@scenario(Rules(delay=BACK_SECONDS))
async def short(stage: Stage) -> None:
    """A selection that fits into a test: a comet, a message node, a web node, and a graceful stop."""
    await stage.kill("comet-1")
    await stage.kill("message-1")
    await asyncio.sleep(SESSION_SECONDS + 3)
    await stage.kill("web-1")
    await asyncio.gather(stage.start("comet-1"), stage.start("message-1"), stage.start("web-1"))
    await asyncio.sleep(3)
    await stage.stop("comet-2")
    await asyncio.sleep(2)


@scenario(Rules(refusal=None))
async def mixed(stage: Stage) -> None:
    """One thing after the other, for the minutes that were asked for."""
    until = time.monotonic() + 60 * stage.minutes
    while time.monotonic() < until:
        name, act = stage.random.choice(MIXED)
        print(f"  {time.strftime('%H:%M:%S')} {name}", flush=True)
        await act(stage, stage.random.choice(_nodes(stage, name)))
        await asyncio.sleep(stage.random.uniform(1, 8))


async def _killed(stage: Stage, node: Node) -> None:
    await stage.kill(node.name)
    await asyncio.sleep(stage.random.choice((0.0, 0.5, 7.0)))
    await stage.start(node.name)


async def _stopped(stage: Stage, node: Node) -> None:
    await stage.stop(node.name)
    await asyncio.sleep(stage.random.uniform(0, 2))
    await stage.start(node.name)


async def _frozen(stage: Stage, node: Node) -> None:
    await stage.freeze(node.name, stage.random.uniform(1, FROZEN_SECONDS))


async def _store_killed(stage: Stage, _: Node) -> None:
    await asyncio.to_thread(stage.cluster.redis.kill)
    await asyncio.sleep(stage.random.uniform(0, 2))
    await asyncio.to_thread(stage.cluster.redis.start)


async def _coordinator_killed(stage: Stage, _: Node) -> None:
    await asyncio.to_thread(stage.cluster.zookeeper.kill)
    await asyncio.sleep(stage.random.choice((0.0, 2.0 * SESSION_SECONDS)))
    if stage.random.random() < 0.5:
        stage.cluster.zookeeper.forget()
    await asyncio.to_thread(stage.cluster.zookeeper.start)
    await asyncio.sleep(SESSION_SECONDS)


MIXED: list[tuple[str, Callable[[Stage, Node], Awaitable[None]]]] = [
    *(("kill a process", _killed),) * 3,
    *(("stop a process", _stopped),) * 2,
    *(("freeze a process", _frozen),) * 2,
    ("kill Redis", _store_killed),
    ("kill ZooKeeper", _coordinator_killed),
]


def _nodes(stage: Stage, name: str) -> list[Node]:
    nodes = list(stage.cluster.nodes.values())
    return [node for node in nodes if node.role != "gopush-web"] if "freeze" in name else nodes


def rules(name: str, members: str) -> Rules:
    """Of a scenario: where an equal node dies, or stands still, for a message or web node, its subscribers do, too."""
    kept = SCENARIOS["comet-frozen" if members and name == "message-frozen" else name][1]
    if members and kept.delay is not None and name in KILLED:
        return replace(kept, delay=BACK_SECONDS)
    return kept
