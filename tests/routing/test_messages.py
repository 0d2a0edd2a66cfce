"""The message nodes as comet and web use them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail

from gopush.errors import PeerRefusedError, UnavailableError
from gopush.hashing import best
from gopush.membership.view import StaticCoordination, View
from gopush.message.memory import MemoryStore
from gopush.message.store import StoreSettings
from gopush.model import Append, Head, NodeInfo, Page, Push, Read, Token, TokenState
from gopush.routing.messages import PAGE_MESSAGES, Messages
from gopush.routing.peer import Here
from gopush.routing.pending import OnAnswers
from gopush.rpc.settings import RpcSettings
from tests.comet.harness import EPOCH, Clock, FaultyService, result


class FlowingService(FaultyService):
    """One in another process, whose answers are on their way."""

    def receiving(self) -> bool:
        return True


class World:
    """Message nodes on one store."""

    service: type[FaultyService] = FaultyService

    def __init__(self, *names: str, stores: tuple[tuple[str, int], ...] = ()) -> None:
        self.clock = Clock()
        self.store = MemoryStore(StoreSettings(), now=lambda: EPOCH + self.clock.seconds())
        self.nodes: dict[str, FaultyService] = {}
        self.coordination = StaticCoordination()
        self.view(*names, stores=stores)
        self.messages = Messages(self.clock, self.coordination, self._connect, RpcSettings())

    def _connect(self, info: NodeInfo) -> Any:
        node = self.nodes[info.id] = self.service(self.store)
        return node

    def view(self, *names: str, stores: tuple[tuple[str, int], ...] = ()) -> None:
        infos = [NodeInfo("", number, (name,), stores=stores) for number, name in enumerate(names)]
        self.coordination.adopt(View((), infos))

    def append(self, key: str = "k", body: bytes = b"1", floor: int = 0) -> list[Any]:
        (answer,) = self.append_all([key], body, floor)
        return answer

    def append_all(self, keys: Sequence[str], body: bytes = b"1", floor: int = 0) -> list[list[Any]]:
        """One append for each key; for each of them what it was answered."""
        fired, answered = _answers(len(keys))
        self.messages.append([Append(Push(key, body, 60, "", 0, EPOCH + 1000), floor) for key in keys], answered)
        return fired

    def heads(self, keys: Sequence[str]) -> list[list[Any]]:
        """The head of each key; for each of them what it was answered."""
        fired, answered = _answers(len(keys))
        self.messages.heads(keys, answered)
        return fired

    def wait(self, seconds: float = 0) -> None:
        for _ in range(round(seconds * 16) + 1):
            while self.clock.due:
                self.clock.advance(0)
            self.clock.advance(1 / 16 if seconds else 0)


def _answers(count: int) -> tuple[list[list[Any]], OnAnswers]:
    """Where the answers to so many items go, and what takes them there."""
    fired: list[list[Any]] = [[] for _ in range(count)]

    def answered(indexes: Sequence[int], answers: Sequence[Any] | UnavailableError) -> None:
        each: Sequence[Any] = [answers] * len(indexes) if isinstance(answers, UnavailableError) else answers
        for index, answer in zip(indexes, each, strict=True):
            fired[index].append(answer)

    return fired, answered


def test_every_call_reaches_the_store() -> None:
    world = World("m1")
    messages, token = world.messages, Token(b"d" * 32, int(EPOCH) + 100)
    created = result(messages.create_token("k", token))
    appended = world.append()
    world.wait()
    ((mid,),) = [[answer.mid for answer in appended]]
    answers = [
        result(messages.read("k", 0)),
        result(messages.head("k")),
        result(messages.tokens("k")),
        result(messages.check_token("k", token.digest)),
        result(messages.check_token("none", token.digest)),
        result(messages.revoke_token("k", token.digest)),
        result(messages.revoke_token("k", token.digest)),
        result(messages.delete("k")),
    ]
    world.wait()
    page = answers[0][0]
    assert [message.mid for message in page.messages] == [mid]
    assert answers[1:] == [
        [Head(mid, 0)],
        [[token]],
        [TokenState(True, True)],
        [TokenState(False, False)],
        [True],
        [False],
        [None],
    ]
    assert created == [None]
    assert world.store.logs["k"].messages == []


def test_calls_of_one_turn_travel_together() -> None:
    world = World("m1")
    world.append_all([f"k{i}" for i in range(5)])
    for i in range(5):
        world.messages.read(f"k{i}", 0)
        world.messages.head(f"k{i}")
    world.wait()
    assert sorted((name, len(items)) for name, items in world.nodes["m1"].calls) == [
        ("append", 5),
        ("heads", 5),
        ("read", 5),
    ]


def test_heads_of_many_keys_travel_together_and_come_back_together() -> None:
    world = World("m1", "m2", stores=(("s1", 1), ("s2", 1)))
    keys = [f"key-{i}" for i in range(100)]
    mids = world.append_all(keys)
    world.wait()
    answers = world.heads([*keys, "none"])
    world.wait()
    assert answers == [[Head(answer.mid, 0)] for (answer,) in mids] + [[Head(0, 0)]]
    asked = [items for node in world.nodes.values() for name, items in node.calls if name == "heads"]
    assert len(asked) == 4, "one batch for each node and store"
    assert sorted(key for items in asked for key in items) == sorted([*keys, "none"])


def test_heads_of_a_node_that_fails_are_asked_of_the_others() -> None:
    world = World("m1", "m2")
    world.nodes["m1"].mode = "silent"
    answers = world.heads([f"key-{i}" for i in range(20)])
    world.wait(2)
    assert answers == [[Head(0, 0)]] * 20


def test_heads_fail_where_no_node_answers() -> None:
    world = World("m1")
    world.nodes["m1"].mode = "down"
    answers = world.heads(["a", "b"])
    world.wait(5)
    assert [[type(answer) for answer in each] for each in answers] == [[UnavailableError]] * 2


def test_a_key_that_fails_fails_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of one turn go together: pages that are missing, and what is asked of each key by itself."""
    world = World("m1", "m2")
    messages, token = world.messages, Token(b"d" * 32, int(EPOCH) + 100)
    check, read = world.store.check_token, world.store.read

    def check_most(key: str, digest: bytes) -> Deferred[TokenState]:
        return fail(PeerRefusedError("strange")) if key == "bad" else check(key, digest)

    def read_most(reads: Sequence[Read]) -> Deferred[list[Page | None]]:
        keys = [one.key for one in reads]
        return read(reads).addCallback(lambda pages: [None if key == "bad" else pages[0] for key in keys])

    monkeypatch.setattr(world.store, "check_token", check_most)
    monkeypatch.setattr(world.store, "read", read_most)
    checks = [result(messages.check_token(key, token.digest)) for key in ("good", "bad", "other")]
    pages = [result(messages.read(key, 0)) for key in ("good", "bad", "other")]
    world.wait(0.5)
    assert [len(one) for one in (checks[0], checks[2], pages[0], pages[2])] == [1] * 4
    assert checks[0] == checks[2] == [TokenState(False, False)]
    assert isinstance(pages[1][0], UnavailableError)
    world.wait(10)
    assert isinstance(checks[1][0], UnavailableError)


def test_no_keys_have_no_heads() -> None:
    world = World("m1")
    assert world.heads([]) == []
    world.wait()
    assert world.nodes["m1"].calls == []


def test_a_page_is_asked_for_in_its_usual_size() -> None:
    world = World("m1")
    world.messages.read("k", 16)
    world.messages.read("k", 32, limit=1)
    world.wait()
    ((_, reads),) = world.nodes["m1"].calls
    assert [(read.key, read.after, read.limit) for read in reads] == [("k", 16, PAGE_MESSAGES), ("k", 32, 1)]


def test_a_key_goes_to_the_node_that_rendezvous_gives_it() -> None:
    world = World("m1", "m2", "m3")
    keys = [f"key-{i}" for i in range(100)]
    answers = world.append_all(keys)
    for key in keys:
        world.messages.head(key)
    world.wait()
    assert [world.store.logs[key].last for key in keys] == [answer.mid for (answer,) in answers]
    for name, node in world.nodes.items():
        mine = [key for key in keys if best(key, [("m1", 1), ("m2", 1), ("m3", 1)]) == name]
        for call, items in node.calls:
            assert [item if call == "heads" else item.push.key for item in items] == mine


def test_the_appends_of_a_key_keep_their_order_when_a_node_fails() -> None:
    world = World("m1", "m2")
    name = best("k", [("m1", 1), ("m2", 1)])
    world.nodes[name].mode = "silent"
    answers = [world.append(body=b"%d" % i) for i in range(5)]
    world.wait(1.5)
    mids = [answer.mid for (answer,) in answers]
    assert mids == sorted(mids)
    assert [message.body for message in world.store.logs["k"].messages] == [b"%d" % i for i in range(5)]


@pytest.mark.parametrize("mode", ["silent", "down"])
def test_where_no_node_answers_in_time_a_call_fails(mode: str) -> None:
    """After 2 s, the time of a comet's attempt: two nodes had a second each."""
    world = World("m1", "m2")
    for node in world.nodes.values():
        node.mode = mode
    answers = [world.append(), result(world.messages.read("k", 0)), result(world.messages.tokens("k"))]
    world.wait(1.8)
    assert answers == [[], [], []]
    world.wait(0.4)
    assert all(isinstance(answer[0], UnavailableError) for answer in answers)


def test_without_a_node_a_call_fails_at_once() -> None:
    world = World()
    assert isinstance(world.append()[0], UnavailableError)


def test_nodes_that_come_are_used() -> None:
    world = World()
    world.view("m1")
    answer = world.append()
    world.wait()
    assert answer[0].ret == 0


def test_a_store_that_is_slow_holds_up_no_other() -> None:
    """A lane for each message node and store."""
    stores = (("r1", 1), ("r2", 1))
    world = World("m1", stores=stores)
    shards = {key: world.messages._shard(key) for key in (f"key-{i}" for i in range(50))}
    assert set(shards.values()) == {"r1", "r2"}
    slow = next(key for key, shard in shards.items() if shard == "r1")
    quick = next(key for key, shard in shards.items() if shard == "r2")
    world.nodes["m1"].late = ("append",)
    waiting = world.append(slow)
    world.wait()
    world.nodes["m1"].late = ()
    behind, beside = world.append(slow), world.append(quick)
    world.wait()
    assert beside[0].ret == 0
    assert waiting == behind == []
    world.nodes["m1"].release()
    world.wait()
    assert waiting[0].mid < behind[0].mid


def test_what_was_gathered_goes_through_the_batcher_of_each_store() -> None:
    world = World("m1", stores=(("r1", 1), ("r2", 1)))
    keys = [f"key-{i}" for i in range(20)]
    shards = {shard: [key for key in keys if world.messages._shard(key) == shard] for shard in ("r1", "r2")}
    answers = world.append_all(keys)
    batches = [[item.push.key for item in items] for _, items in world.nodes["m1"].calls]
    assert sorted(batches) == sorted(shards.values())
    assert [world.store.logs[key].last for key in keys] == [answer.mid for (answer,) in answers]


def test_one_store_needs_no_shards() -> None:
    world = World("m1", stores=(("r1", 3),))
    assert world.messages._shard("k") == ""


def test_the_shards_follow_the_view() -> None:
    world = World("m1")
    assert world.messages._shard("k") == ""
    world.view("m1", stores=(("r1", 1), ("r2", 1)))
    assert world.messages._shard("k") in ("r1", "r2")


def test_stopping_fails_what_waits() -> None:
    world = World("m1")
    world.nodes["m1"].mode = "silent"
    answer = world.append()
    world.wait()
    world.messages.stop()
    assert isinstance(answer[0], UnavailableError)


def test_what_found_no_room_is_read_again_and_rooms_shrink_when_answers_come_late() -> None:
    world = World("m1")
    bodies = [b"%d" % i + b"x" * 3_000_000 for i in range(6)]
    for i, body in enumerate(bodies):
        world.append(f"k{i}", body)
        world.wait()
    pages = [result(world.messages.read(f"k{i}", 0)) for i in range(6)]
    world.wait(1)
    assert [[message.body for message in page.messages] for (page,) in pages] == [[body] for body in bodies]
    node = world.nodes["m1"]
    rooms = [read.room for name, *reads in node.calls if name == "read" for read in reads[0]]
    assert set(rooms) == {4 << 20}
    node.mode = "silent"
    late = result(world.messages.read("k0", 0))
    world.wait(1.0)
    node.mode = "up"
    world.wait(1)
    assert [message.body for message in late[0].messages] == [bodies[0]]
    rooms = [read.room for name, *reads in node.calls if name == "read" for read in reads[0]]
    assert rooms[-1] == 2 << 20


class SlowLink(World):
    """A message node behind a slow link, with four keys of 1 MB each and a small one."""

    service = FlowingService
    big = ("k0", "k1", "k2", "k3")

    def __init__(self) -> None:
        super().__init__("m1")
        for key in (*self.big, "small"):
            self.append(key, b"1" if key == "small" else b"x" * 1_000_000)
            self.wait()

    def read(self, *keys: str, took: float = 0) -> list[list[Any]]:
        """Read these keys at once, where the first answer takes so long; what each of them was answered."""
        node = self.nodes["m1"]
        node.late = ("read",)
        pages = [result(self.messages.read(key, 0)) for key in keys]
        self.wait(took)
        node.release()
        self.wait()
        return pages

    @property
    def rooms(self) -> list[int]:
        """That each batch had."""
        return [reads[0].room for name, reads in self.nodes["m1"].calls if name == "read"]


def test_an_answer_that_took_too_long_is_taken_and_the_next_ones_are_smaller() -> None:
    """By more than half where it took more than twice the time: else nobody gets one for long."""
    world = SlowLink()
    pages = world.read(*world.big, took=3)
    assert [len(page.messages) for (page,) in pages] == [1, 1, 1, 1]
    world.read("k0", took=0.5)
    world.read("k0", took=0.5)
    full, smaller, same = world.rooms
    assert full == 4 << 20
    assert full / 4 < smaller < full / 3
    assert same == smaller


def test_answers_grow_again_once_those_that_fill_their_room_are_quick() -> None:
    """Small ones are quick over any link."""
    world = SlowLink()
    world.read(*world.big, took=3)
    smaller = world.messages._room
    assert smaller < 4 << 20
    for _ in range(5):
        world.read("small")
    assert world.messages._room == smaller
    assert all(len(page.messages) == 1 for (page,) in world.read(*world.big))
    assert world.messages._room == 4 << 20


def own_world(own: str = "m2") -> World:
    """Three message nodes, one of them in the process of the caller."""
    world = World("m1", "m2", "m3")
    world.messages = Messages(world.clock, world.coordination, world._connect, RpcSettings(), own)
    return world


def appended_at(world: World) -> dict[str, int]:
    """How many appends each node was asked for."""
    return {name: sum(len(items) for _, items in node.calls) for name, node in world.nodes.items() if node.calls}


def test_the_node_in_the_own_process_is_asked_for_all_keys() -> None:
    world = own_world()
    world.append_all([f"key-{i}" for i in range(50)])
    world.wait()
    assert appended_at(world) == {"m2": 50}


@pytest.mark.parametrize("mode", ["silent", "sick"])
def test_where_it_reaches_no_store_the_others_share_the_keys_until_it_does(mode: str) -> None:
    """By rendezvous, in order, as what waits for any node that fails."""
    world = own_world()
    keys = [f"key-{i}" for i in range(50)]
    world.nodes["m2"].mode = mode
    answers = [world.append_all(keys, b"%d" % i) for i in range(3)]
    world.wait(1.5)
    for i, key in enumerate(keys):
        mids = [round[i][0].mid for round in answers]
        assert mids == sorted(mids)
        assert [message.body for message in world.store.logs[key].messages] == [b"0", b"1", b"2"]
    shares = {name: sum(best(key, [("m1", 1), ("m3", 1)]) == name for key in keys) * 3 for name in ("m1", "m3")}
    assert appended_at(world) == shares
    world.nodes["m2"].mode = "up"
    world.wait(2)
    world.append_all(keys)
    world.wait()
    assert world.nodes["m2"].count("append") == 1


def test_one_that_drains_is_spared_where_there_are_others() -> None:
    world = own_world()
    infos = [info._replace(draining=info.id == "m2") for info in world.coordination.view.messages]
    world.coordination.adopt(View((), infos))
    world.append_all([f"key-{i}" for i in range(50)])
    world.wait()
    assert appended_at(world).keys() == {"m1", "m3"}
    world.coordination.adopt(View((), infos[1:2]))
    before = appended_at(world)
    world.append()
    world.wait()
    assert appended_at(world) == {**before, "m2": 1}


@pytest.mark.parametrize(
    ("own", "others", "reachable"),
    [
        ("up", "down", True),
        ("sick", "sick", True),  # another process that answers is enough: nobody is better off
        ("sick", "down", False),
        ("silent", "silent", False),
    ],
)
def test_a_node_in_the_own_process_proves_nothing_but_by_its_store(own: str, others: str, reachable: bool) -> None:
    world = own_world()
    for name, node in world.nodes.items():
        node.mode = own if name == "m2" else others
    found = result(world.messages.reachable())
    world.wait(1.5)
    assert found == [reachable]


def test_without_any_node_nothing_is_reachable() -> None:
    assert result(World().messages.reachable()) == [False]


def test_a_call_within_the_process_that_is_given_up_goes_on() -> None:
    """As in another process: the store is not interrupted, and nobody hears of its answer."""
    cancelled: list[object] = []
    storing: Deferred[list[Any]] = Deferred(cancelled.append)

    class Service:
        def append(self, appends: Sequence[Append]) -> Deferred[list[Any]]:
            return storing

    call = Here(Service()).append([])
    fired = result(call)
    call.cancel()
    assert isinstance(fired[0], CancelledError)
    assert cancelled == []
    storing.callback([])
    assert len(fired) == 1
