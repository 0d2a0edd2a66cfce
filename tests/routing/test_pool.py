"""Peers: health, order per key, and what happens to calls when one of them fails (delivery rules 6 and 8)."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import capturedLogs, formatEvent

from gopush.errors import UnavailableError
from gopush.model import NodeInfo
from gopush.routing.peer import BatchCall, Peer
from gopush.routing.pending import PendingCalls
from gopush.routing.pool import RETRY_PAUSE_SECONDS, Peers
from gopush.routing.router import Choose, Router
from gopush.rpc.settings import RpcSettings
from tests.comet.harness import Clock, result
from tests.rpc.harness import REFUSED, Node

TIMEOUT = 1.0


class MistakeError(Exception):
    pass


def info(name: str) -> NodeInfo:
    return NodeInfo("", 0, (name,))


def first(_: str, peers: Sequence[Peer[Node]]) -> Peer[Node]:
    return min(peers, key=lambda peer: peer.info.id)


def by_key(key: str, peers: Sequence[Peer[Node]]) -> Peer[Node]:
    return sorted(peers, key=lambda peer: peer.info.id)[ord(key[0]) % len(peers)]


class World:
    """Peers a, b, c …; of those that may be tried the first one is chosen, or the one that `choose` takes."""

    def __init__(self, *names: str, choose: Choose[Node] = first, **settings: Any) -> None:
        self.clock = Clock()
        self.nodes: dict[str, Node] = {}
        self.taken: list[Any] = []
        """The items that a node has taken, in the order of its answers."""
        self.peers = Peers[Node](self.clock, self._connect, choose, RpcSettings(**settings))
        self.ordered = BatchCall[Node](
            lambda node, items: node.call(items), TIMEOUT, ordered=True, refused=lambda answer: answer[0] == REFUSED
        )
        self.free = BatchCall[Node](lambda node, items: node.call(items), TIMEOUT)
        self.once = BatchCall[Node](lambda node, items: node.call(items), TIMEOUT, moves=False)
        self.update(*names)

    def _connect(self, peer: NodeInfo) -> Node:
        node = self.nodes[peer.id] = Node(peer.id)
        return node

    def update(self, *names: str) -> None:
        self.peers.update(map(info, names))

    def call(
        self, item: Any, key: str = "k", life: float = 10.0, call: BatchCall[Node] | None = None, batcher: str = ""
    ) -> list[Any]:
        until = self.clock.seconds() + life
        return result(self.peers.call(call or self.ordered, key, item, 1, until, batcher).addCallback(self._note))

    def _note(self, answer: Any) -> Any:
        if answer[0] != REFUSED:
            self.taken.append(answer[1])
        return answer

    def send(self, items: Sequence[Any], keys: str, life: float = 10.0, size: int = 1) -> list[list[Any]]:
        """Calls that were gathered; for each of them what it was answered."""
        fired: list[list[Any]] = [[] for _ in items]

        def answered(indexes: Sequence[int], answers: Sequence[Any] | UnavailableError) -> None:
            each = [answers] * len(indexes) if isinstance(answers, UnavailableError) else map(self._note, answers)
            for index, answer in zip(indexes, each, strict=True):
                fired[index].append(answer)

        self.peers.send(
            self.ordered,
            PendingCalls(keys, items, lambda some: [size] * len(some), self.clock.seconds() + life, answered),
        )
        return fired

    def wait(self, seconds: float = 0.0, step: float = 1 / 16) -> None:
        self._turn()
        for _ in range(round(seconds / step)):
            self.clock.advance(step)
            self._turn()

    def _turn(self) -> None:
        while self.clock.due:
            self.clock.advance(0)


def failed(answer: list[Any]) -> bool:
    return len(answer) == 1 and isinstance(answer[0], UnavailableError)


# --- calls ---


def test_a_call_goes_to_the_chosen_peer() -> None:
    world = World("a", "b")
    answer = world.call(1)
    world.wait()
    assert answer == [("a", 1)]
    assert world.nodes["b"].batches == []


def test_what_is_called_in_one_turn_goes_in_one_batch() -> None:
    world = World("a")
    answers = [world.call(i, key=f"k{i}") for i in range(5)]
    world.wait()
    assert world.nodes["a"].batches == [[0, 1, 2, 3, 4]]
    assert answers == [[("a", i)] for i in range(5)]


def test_kinds_of_calls_and_batchers_do_not_wait_for_each_other() -> None:
    world = World("a")
    node = world.nodes["a"]
    node.mode = "silent"
    world.call(1)
    world.wait()
    node.mode = "up"
    free = world.call(2, call=world.free)
    other = result(world.peers.call(world.ordered, "k2", 3, 1, 10.0, "other shard"))
    same = world.call(4, key="k3")
    world.wait()
    assert free == [("a", 2)]
    assert other == [("a", 3)]
    assert same == []


def test_without_a_peer_a_call_fails_at_once() -> None:
    world = World()
    assert failed(world.call(1))
    assert failed(world.call(2, call=world.free))


@pytest.mark.parametrize("kind", ["ordered", "free"])
def test_what_is_too_much_for_a_batcher_fails_at_once(kind: str) -> None:
    """Delivery rule 9: 65535 at once; it is not spread over other peers' lanes."""
    world = World("a", "b", lane_messages=2)
    answers = [world.call(i, call=getattr(world, kind)) for i in range(3)]
    assert failed(answers[2])
    world.wait()
    assert answers[:2] == [[("a", 0)], [("a", 1)]]


@pytest.mark.parametrize("bound", [{"lane_messages": 4}, {"lane_bytes": 3}])
def test_the_batchers_of_a_peer_are_bounded_together_and_each_has_room_for_a_batch(bound: dict[str, Any]) -> None:
    """One store that hangs neither shuts out the others, nor has what waits grow with their number."""
    world = World("a", batch_messages=1, batch_bytes=1, **bound)
    node = world.nodes["a"]
    node.next_modes = ["late", "late"]
    for store in ("hangs", "goes on"):
        world.call("under way", store, batcher=store)
    world.wait()
    for _ in range(2):
        answers = [world.call(item, "hangs", batcher="hangs") for item in range(5)]
        answers += [world.call(item, "goes on", batcher="goes on") for item in range(2)]
        assert list(map(failed, answers)) == [False] * 4 + [True, False, True]
        assert world.peers.numbers.waiting() == (5, 5)
        node.answer_late()
        world.wait()
        assert world.peers.numbers.waiting() == (0, 0)
        assert all(answers)


# --- what was gathered ---


def test_what_was_gathered_goes_at_once_and_together() -> None:
    world = World("a")
    fired = world.send([1, 2, 3], "kkl")
    assert world.nodes["a"].batches == [[1, 2, 3]]
    assert fired == [[("a", 1)], [("a", 2)], [("a", 3)]]


def test_what_was_gathered_goes_to_the_peer_of_each_key() -> None:
    world = World("a", "b", choose=by_key)
    fired = world.send([1, 2, 3, 4, 5], "klkml")
    assert [world.nodes[name].batches for name in "ab"] == [[[2, 5]], [[1, 3, 4]]]
    assert fired == [[("b", 1)], [("a", 2)], [("b", 3)], [("b", 4)], [("a", 5)]]


def test_what_was_gathered_is_cut_to_the_bounds_of_a_batch() -> None:
    world = World("a", batch_messages=3, batch_bytes=20)
    assert all(world.send(range(7), "kkkkkkk"))
    assert all(world.send(range(7, 12), "kkkkk", size=8))
    assert all(world.send(range(12, 14), "kk", size=99))
    assert world.nodes["a"].batches == [[0, 1, 2], [3, 4, 5], [6], [7, 8], [9, 10], [11], [12], [13]]


def test_what_was_gathered_waits_behind_what_is_under_way() -> None:
    world = World("a")
    world.nodes["a"].mode = "late"
    world.send([1], "k")
    fired = world.send([2, 3], "kl")
    world.call(4)
    world.nodes["a"].answer()
    assert fired == [[], []]
    world.nodes["a"].answer()
    assert world.nodes["a"].batches == [[1], [2, 3, 4]]
    assert fired == [[("a", 2)], [("a", 3)]]


def test_what_was_gathered_moves_in_order_to_the_peers_of_its_keys() -> None:
    world = World("a", "b", "c", choose=by_key)
    world.nodes["b"].mode = "silent"
    fired = world.send([1, 2, 3, 4], "kkek")  # both keys belong to c
    assert world.nodes["c"].batches == [[1, 2, 3, 4]]
    world.nodes["c"].mode = "silent"
    fired = world.send([5, 6, 7, 8], "kkek")
    later = world.send([9], "k")
    world.nodes["b"].mode = "up"
    world.wait(TIMEOUT)
    fired += world.send([10], "e") + later
    world.wait(TIMEOUT)
    got = [item for name in "ab" for item in world.nodes[name].items]
    assert sorted(got) == [5, 6, 7, 8, 9, 10]
    assert [item for item in got if item in (5, 6, 8, 9)] == [5, 6, 8, 9]
    assert [item for item in got if item in (7, 10)] == [7, 10]
    assert all(len(answers) == 1 and not failed(answers) for answers in fired)
    assert not any(world.peers._router._held.values())


def test_a_peer_that_fails_while_pieces_go_out_parts_no_key() -> None:
    """The first piece finds out that it fails, and others are best then; the second one goes where its key went."""
    world = World("a", "b", "c", choose=by_key, batch_messages=3)
    world.nodes["a"].mode = "down"
    fired = world.send([1, 2, 3, 4], "klmm")
    world.wait()
    assert fired == [[("c", 1)], [("b", 2)], [("b", 3)], [("b", 4)]]


@pytest.mark.parametrize("mode", ["down", "refuse"])
def test_what_moves_while_pieces_go_out_stays_before_the_later_pieces(mode: str) -> None:
    """Also where the peer that failed the first piece would take the second one."""
    world = World("a", "b", batch_messages=2)
    world.nodes["a"].next_modes = [mode]
    fired = world.send([1, 2, 3], "kkk")
    world.wait()
    assert world.nodes["b"].items == [1, 2, 3]
    assert fired == [[("b", item)] for item in (1, 2, 3)]


def test_a_peer_that_fails_while_parts_go_out_leaves_the_other_keys_where_they_go() -> None:
    world = World("a", "b", "c", choose=by_key)
    world.nodes["a"].mode = "down"
    fired = world.send([1, 2], "lm")
    world.nodes["b"].mode = "late"
    assert world.send([3], "m") == [[]]
    world.wait()
    assert (fired, world.nodes["b"].batches) == ([[], []], [[1, 2, 3]])
    world.nodes["b"].answer()
    assert fired == [[("b", 1)], [("b", 2)]]
    assert not any(world.peers._router._held.values())


def test_a_key_stays_where_its_last_call_has_no_answer_yet() -> None:
    """Also when it was gathered with others, and only as long."""
    world = World("b")
    world.nodes["b"].mode = "late"
    world.send([1, 2], "kl")
    world.update("a", "b")
    assert world.send([3, 4], "km") == [[], [("a", 4)]]
    world.nodes["b"].answer()
    world.nodes["b"].answer()
    assert world.nodes["b"].batches == [[1, 2], [3]]
    assert world.send([5], "k") == [[("a", 5)]]
    assert not any(world.peers._router._held.values())


def test_what_is_too_much_for_a_batcher_fails_together() -> None:
    world = World("a", lane_messages=3)
    world.nodes["a"].mode = "silent"
    world.send([1], "k")
    assert world.send([2, 3], "kk") == [[], []]
    assert all(map(failed, world.send([4, 5], "kk")))
    assert world.peers.numbers.counters.refused == 2


def test_a_call_that_was_refused_lets_its_key_not_go_before_the_earlier_calls() -> None:
    """They wait at one that fails other calls, and another one is best for the next call of the key."""
    world = World("a", "b", lane_messages=2)
    world.nodes["a"].mode = "late"
    world.send([0], "x")
    answers = world.send([1], "k") + world.send([2], "y")
    world.nodes["a"].next_modes = ["down"]
    world.call(3, call=world.free)
    world.wait()
    assert not world.peers.live["a"].healthy
    assert failed(world.send([4], "k")[0])
    assert failed(world.send([5], "k")[0])
    world.nodes["a"].answer()
    answers += world.send([6], "k")
    world.nodes["a"].answer()
    world.nodes["a"].answer()
    assert answers == [[("a", 1)], [("a", 2)], [("a", 6)]]
    assert world.nodes["a"].batches == [[0], [1, 2], [6]]
    assert world.send([7], "k") == [[("b", 7)]]
    assert not any(world.peers._router._held.values())


def test_a_call_that_was_refused_lets_its_key_not_go_before_those_that_pause() -> None:
    world = World("a", lane_messages=2)
    world.nodes["a"].mode = "down"
    answers = world.send([1], "k") + world.send([2], "y")
    world.wait()
    assert failed(world.send([3], "k")[0])
    world.nodes["a"].mode = "up"
    assert failed(world.send([4], "k")[0])
    world.wait(2 * RETRY_PAUSE_SECONDS)
    assert answers == [[("a", 1)], [("a", 2)]]
    assert world.nodes["a"].items == [1, 2]
    assert not any(world.peers._router._held.values())


# --- failing ---


@pytest.mark.parametrize("mode", ["silent", "down", "raises", "short"])
@pytest.mark.parametrize("kind", ["ordered", "free"])
def test_what_one_peer_failed_is_tried_at_another(mode: str, kind: str) -> None:
    world = World("a", "b")
    world.nodes["a"].mode = mode
    answer = world.call(1, call=getattr(world, kind))
    world.wait(TIMEOUT)
    assert answer == [("b", 1)]


def test_the_content_of_a_batcher_moves_first_and_in_order() -> None:
    world = World("a", "b", batch_messages=2)
    world.nodes["a"].mode = "silent"
    answers = [world.call(i, key="kl"[i % 2]) for i in range(6)]
    world.wait()
    answers += [world.call(6), world.call(7, key="l")]
    world.wait(TIMEOUT)
    assert world.nodes["b"].items == list(range(8))
    assert answers == [[("b", i)] for i in range(8)]


def test_an_answer_that_comes_after_the_time_out_is_ignored() -> None:
    world = World("a", "b")
    world.nodes["a"].mode = "late"
    answer = world.call(1)
    world.wait(TIMEOUT)
    world.nodes["a"].answer()
    assert answer == [("b", 1)]


def test_new_calls_about_a_key_go_where_its_unanswered_ones_are() -> None:
    world = World("b")
    world.nodes["b"].mode = "late"
    answers = [world.call(1)]
    world.wait()
    world.update("a", "b")
    answers += [world.call(2)]
    other = world.call(3, key="other")
    world.wait()
    assert other == [("a", 3)]
    assert world.nodes["a"].items == [3]
    world.nodes["b"].answer()
    world.nodes["b"].answer()
    assert answers == [[("b", 1)], [("b", 2)]]
    answer = world.call(4)
    world.wait()
    assert answer == [("a", 4)]  # nothing of it is unanswered: it moves to the better peer
    assert not any(world.peers._router._held.values())


def test_calls_without_an_order_go_to_the_best_peer_each() -> None:
    world = World("b")
    world.nodes["b"].mode = "late"
    world.call(1, call=world.free)
    world.wait()
    world.update("a", "b")
    answer = world.call(2, call=world.free)
    world.wait()
    assert answer == [("a", 2)]


def test_new_calls_wait_behind_those_that_moved() -> None:
    world = World("a", "b", ping=0.25)
    world.nodes["a"].mode = "silent"
    one = world.call(1)
    world.wait()
    world.nodes["b"].mode = "late"
    world.wait(TIMEOUT)
    world.nodes["a"].mode = "up"
    world.wait(0.5)  # a is healthy again, and would be the better one
    two = world.call(2)
    world.wait()
    assert world.nodes["a"].items == [1]
    for _ in range(2):
        world.nodes["b"].answer()
    assert (one, two) == ([("b", 1)], [("b", 2)])


def test_what_is_past_its_time_does_not_move() -> None:
    world = World("a", "b")
    world.nodes["a"].mode = "silent"
    short, long = world.call(1, life=0.5), world.call(2, life=5)
    world.wait(TIMEOUT)
    assert failed(short)
    assert long == [("b", 2)]
    assert world.nodes["b"].items == [2]


def test_what_has_moved_does_not_wait_past_its_time() -> None:
    """Time-outs nest (delivery rule 6): the second peer's own time-out would end too late."""
    world = World("a", "b")
    world.nodes["a"].mode = world.nodes["b"].mode = "silent"
    answer = world.call(1, life=1.5)
    world.wait(1.4)
    assert not answer
    world.wait(0.2)
    assert failed(answer)
    world.wait(1)
    assert world.nodes["b"].items == [1]


def test_what_is_past_its_time_fails_at_once_though_the_next_peer_is_busy() -> None:
    world = World("a", "b")
    for node in world.nodes.values():
        node.mode = "silent"
    short, long = world.call(1, life=1.5), world.call(2, life=9)
    world.wait(1.25)
    assert short == []
    world.wait(0.25)
    assert failed(short)
    assert long == []


def test_calls_about_a_key_stay_together_whatever_each_of_them_has_seen() -> None:
    """The first one was failed by a and b, the second by b alone, and a is back."""
    world = World("a", "b", "c", ping=0.25)
    world.nodes["a"].mode = "silent"
    one = world.call(1)
    world.wait()
    world.nodes["b"].mode = "silent"
    world.wait(TIMEOUT)
    world.nodes["a"].mode = "up"
    two = world.call(2)
    world.wait(TIMEOUT)
    assert (one, two) == ([("c", 1)], [("c", 2)])
    assert world.nodes["c"].batches == [[1, 2]]


def test_a_call_that_must_not_move_fails() -> None:
    world = World("a", "b")
    world.nodes["a"].mode = "silent"
    answer = world.call(1, call=world.once)
    world.wait(TIMEOUT)
    assert failed(answer)
    assert world.nodes["b"].items == []


# --- when all fail ---


@pytest.mark.parametrize("kind", ["ordered", "free"])
def test_where_all_have_failed_they_are_tried_again_after_a_pause(kind: str) -> None:
    world = World("a", "b")
    for node in world.nodes.values():
        node.mode = "down"
    answers = [world.call(i, call=getattr(world, kind)) for i in range(3)]
    world.wait(3 * RETRY_PAUSE_SECONDS)
    assert answers == [[]] * 3
    world.nodes["b"].mode = "up"
    answers.append(world.call(3, call=getattr(world, kind)))
    world.wait(2 * RETRY_PAUSE_SECONDS)
    assert answers == [[("b", i)] for i in range(4)]
    assert kind == "free" or world.nodes["b"].items == [0, 1, 2, 3]
    assert not any(world.peers._router._held.values())


@pytest.mark.parametrize("mode", ["down", "silent"])
@pytest.mark.parametrize("kind", ["ordered", "free"])
def test_where_nobody_answers_in_time_a_call_fails(mode: str, kind: str) -> None:
    world = World("a", "b")
    for node in world.nodes.values():
        node.mode = mode
    answer = world.call(1, life=4, call=getattr(world, kind))
    world.wait(3.5)
    assert answer == []
    world.wait(2)
    assert failed(answer)
    asked = len(world.nodes["a"].items + world.nodes["b"].items)
    world.wait(5)
    assert len(world.nodes["a"].items + world.nodes["b"].items) == asked
    assert not any(world.peers._router._held.values())


def test_new_calls_about_a_key_wait_behind_those_that_pause() -> None:
    world = World("a")
    world.nodes["a"].mode = "down"
    answers = [world.call(1)]
    world.wait()
    world.nodes["a"].mode = "up"
    answers.append(world.call(2))
    world.wait()
    assert answers == [[], []]
    world.wait(2 * RETRY_PAUSE_SECONDS)
    assert answers == [[("a", 1)], [("a", 2)]]
    assert world.nodes["a"].items == [1, 2]


def test_an_error_where_calls_are_tried_again_is_the_outcome_of_their_batcher_alone() -> None:
    """Those behind it were lost, and their keys held for ever."""
    broken = False

    def choose(key: str, peers: Sequence[Peer[Node]]) -> Peer[Node]:
        if key == "x" and broken:
            raise MistakeError
        return first(key, peers)

    world = World("a", choose=choose)
    world.nodes["a"].mode = "down"
    before = world.call(1, key="k")
    met = [world.call(item, key, batcher="other shard") for item, key in ((2, "l"), (3, "x"), (4, "x"))]
    behind = [world.call(5, "m", batcher="a third"), world.call(6, "n", call=world.free)]
    world.wait()
    broken = True
    world.peers._router.forget()
    world.nodes["a"].mode = "up"
    world.wait(2 * RETRY_PAUSE_SECONDS)
    assert list(map(failed, met)) == [True] * 3
    assert before == [("a", 1)]
    assert behind == [[("a", 5)], [("a", 6)]]
    assert not world.peers.busy
    assert not any(world.peers._router._held.values())
    broken = False
    again = world.call(7, "x")
    world.wait()
    assert again == [("a", 7)]


@pytest.mark.parametrize("batchers", [("", "", ""), ("r1", "r2", "r3")])
@pytest.mark.parametrize("bound", [{"lane_messages": 3}, {"lane_bytes": 2}])
def test_what_pauses_is_counted_and_bounded_as_what_waits(bound: dict[str, Any], batchers: Sequence[str]) -> None:
    """Each kind of calls by itself: others' must not take the room of pushes."""
    world = World("a", **bound)
    world.nodes["a"].mode = "down"
    answers = [world.call(i, batcher=batcher) for i, batcher in enumerate(batchers)]
    world.wait()
    assert (answers, world.peers.numbers.waiting()) == ([[]] * 3, (3, 3))
    assert failed(world.call(3))
    assert (world.peers.numbers.counters.refused, world.peers.numbers.waiting()) == (1, (3, 3))
    answers.append(world.call(4, call=world.free))
    world.wait()
    assert (answers, world.peers.numbers.waiting()) == ([[]] * 4, (4, 4))
    world.nodes["a"].mode = "up"
    world.wait(2 * RETRY_PAUSE_SECONDS)
    assert answers == [[("a", item)] for item in (0, 1, 2, 4)]
    assert world.peers.numbers.waiting() == (0, 0)


# --- health ---


def test_a_peer_that_failed_is_not_chosen_until_it_answers_a_ping() -> None:
    world = World("a", "b", ping=1.0)
    world.nodes["a"].mode = "silent"
    world.call(1)
    world.wait(TIMEOUT)
    world.nodes["a"].mode = "up"
    answer = world.call(2)
    world.wait()
    assert answer == [("b", 2)]
    world.wait(1.1)
    assert world.nodes["a"].pings == 1
    answer = world.call(3)
    world.wait()
    assert answer == [("a", 3)]
    world.wait(5)
    assert not world.clock.getDelayedCalls()
    assert world.nodes["a"].pings == 1  # healthy peers are left alone
    assert world.nodes["b"].pings == 0


def test_a_peer_that_stays_silent_is_probed_again_and_again() -> None:
    world = World("a", "b", ping=1.0)
    world.nodes["a"].mode = "silent"
    world.call(1)
    world.wait(TIMEOUT + 5.2)
    assert 4 <= world.nodes["a"].pings <= 6
    world.nodes["a"].mode = "up"
    world.wait(1.2)
    assert world.peers.live["a"].healthy


def test_a_peer_that_fails_again_is_probed_again() -> None:
    world = World("a", "b", ping=1.0)
    for _ in range(2):
        world.nodes["a"].mode = "down"
        world.call(1)
        world.wait(0.5)
        assert not world.peers.live["a"].healthy
        world.nodes["a"].mode = "up"
        world.wait(3)
        assert world.peers.live["a"].healthy


def test_where_no_peer_is_healthy_they_are_tried_all_the_same() -> None:
    world = World("a")
    world.nodes["a"].mode = "down"
    world.call(1, life=0.05)
    world.wait()
    world.nodes["a"].mode = "up"
    assert not world.peers.live["a"].healthy
    answer = world.call(2)
    world.wait()
    assert answer == [("a", 2)]


@pytest.mark.parametrize(
    ("names", "does"),
    [
        ("a", "a does not answer; there is no other one to ask"),
        ("ab", "a does not answer; this process asks others first until it answers a ping"),
    ],
)
def test_a_peer_that_failed_is_logged_with_what_that_means(names: str, does: str) -> None:
    with capturedLogs() as logged:
        world = World(*names)
        world.nodes["a"].mode = "down"
        world.call(1, life=0.05)
        world.wait()
    assert [formatEvent(event) for event in logged] == [does]


@pytest.mark.parametrize(
    ("mode", "does", "given_up", "reason"),
    [("down", "does not answer", 1, "a did not answer in time"), ("no store", "refuses calls", 0, "Redis node1: away")],
)
def test_a_peer_whose_store_is_away_refuses_and_is_not_given_up(
    mode: str, does: str, given_up: int, reason: str
) -> None:
    with capturedLogs() as logged:
        world = World("a", "b")
        world.nodes["a"].mode = mode
        moved, failed = world.call(1), world.call(2, "l", call=world.once)
        world.wait()
    assert moved == [("b", 1)]
    assert list(map(str, failed)) == [reason]
    assert world.peers.numbers.counters.retried == 1
    assert world.peers.numbers.counters.given_up == 2 * given_up
    assert does in formatEvent(logged[0])


# --- views ---


def test_what_waits_for_a_peer_that_is_gone_moves_at_once_and_in_order() -> None:
    world = World("a", "b")
    world.nodes["a"].mode = "silent"
    answers = [world.call(i) for i in range(3)]
    world.wait()
    answers += [world.call(i) for i in range(3, 6)]
    world.update("b")
    world.wait()
    assert answers == [[("b", i)] for i in range(6)]
    assert world.nodes["b"].items == list(range(6))
    assert world.nodes["a"].stopped
    assert not world.nodes["b"].stopped


def test_peers_that_go_together_lose_nothing() -> None:
    world = World("a", "b", "c")
    for name in "ab":
        world.nodes[name].mode = "silent"
    answers = [world.call(i) for i in range(3)]
    world.wait()
    world.update("c")
    world.wait()
    assert answers == [[("c", i)] for i in range(3)]
    assert [world.nodes[name].stopped for name in "abc"] == [True, True, False]


def test_where_the_last_peer_goes_what_waits_fails() -> None:
    world = World("a")
    world.nodes["a"].mode = "silent"
    answers = [world.call(1), world.call(2, call=world.free)]
    world.wait()
    world.update()
    assert all(map(failed, answers))
    assert not any(world.peers._router._held.values())


def test_a_pause_ends_with_the_last_peer() -> None:
    world = World("a")
    world.nodes["a"].mode = "down"
    answer = world.call(1)
    world.wait()
    world.update()
    world.wait(2 * RETRY_PAUSE_SECONDS)
    assert failed(answer)
    assert not any(world.peers._router._held.values())


def test_a_peer_that_stays_keeps_its_connection_and_learns_its_weight() -> None:
    world = World("a")
    node = world.nodes["a"]
    world.peers.update([info("a")._replace(weight=3)])
    assert world.nodes["a"] is node
    assert world.peers.live["a"].info.weight == 3
    assert not node.stopped


def test_a_peer_that_comes_back_is_connected_anew() -> None:
    world = World("a", "b")
    old = world.nodes["a"]
    world.update("b")
    world.update("a", "b")
    answer = world.call(1)
    world.wait()
    assert world.nodes["a"] is not old
    assert answer == [("a", 1)]


@pytest.mark.parametrize("others", ["", "b"])
def test_a_peer_that_is_back_with_other_addresses_is_connected_anew(others: str) -> None:
    """By its first address it is the same one; what waits for it moves at once, or goes to the new one."""
    world = World("a", *others)
    old = world.nodes["a"]
    old.mode = "silent"
    answers = [world.call(1), world.call(2)]
    world.wait()
    answers.append(world.call(3))
    world.peers.update([NodeInfo("", 1, ("a", "second")), *map(info, others)])
    world.wait(2 * RETRY_PAUSE_SECONDS)
    assert answers == [[(others or "a", item)] for item in (1, 2, 3)]
    assert old.stopped
    assert world.nodes["a"] is not old
    assert not world.nodes["a"].stopped
    assert world.peers.live["a"].healthy
    assert not any(world.peers._router._held.values())


def test_peers_that_go_are_let_go_in_a_fixed_order() -> None:
    """So that a simulation with the same seed sees the same."""
    world = World("c", "a", "b")
    order: list[str] = []
    for name, node in world.nodes.items():
        node.stop = lambda name=name: order.append(name)  # type: ignore[method-assign, misc]
    world.update()
    assert order == ["c", "a", "b"]


def test_stopping_fails_what_waits_and_leaves_nothing_behind() -> None:
    world = World("a", "b")
    world.nodes["a"].mode = "silent"
    world.nodes["b"].mode = "down"
    waiting = world.call(1)
    world.wait(TIMEOUT)
    paused = world.call(2, key="other", call=world.free)
    world.wait()
    world.peers.stop()
    assert failed(waiting)
    assert failed(paused)
    assert all(node.stopped for node in world.nodes.values())
    world.wait(5)
    assert not world.clock.getDelayedCalls()


# --- one peer in particular ---


def test_a_call_to_one_peer_goes_there_though_it_is_not_the_chosen_one() -> None:
    world = World("a", "b")
    answer = result(world.peers.call_peer(world.once, "b", 1, 1))
    world.wait()
    assert answer == [("b", 1)]


@pytest.mark.parametrize("mode", ["silent", "down"])
def test_a_call_to_one_peer_never_moves(mode: str) -> None:
    world = World("a", "b")
    world.nodes["b"].mode = mode
    answer = result(world.peers.call_peer(world.once, "b", 1, 1))
    world.wait(TIMEOUT)
    assert failed(answer)
    assert world.nodes["a"].items == []


def test_a_call_to_a_peer_that_is_gone_fails() -> None:
    world = World("a")
    assert failed(result(world.peers.call_peer(world.once, "b", 1, 1)))
    world.nodes["a"].mode = "silent"
    answer = result(world.peers.call_peer(world.once, "a", 1, 1))
    world.wait()
    world.update()
    assert failed(answer)


# --- all of it ---

MODES = st.sampled_from(["up", "late", "silent", "down", "short", "refuse", "refuse some"])
STEPS = st.one_of(
    st.tuples(st.just("call"), st.sampled_from("klm"), st.booleans()),
    st.tuples(st.just("send"), st.text("klm", min_size=1, max_size=8)),
    st.tuples(st.just("mode"), st.sampled_from("abc"), MODES),
    st.tuples(st.just("next modes"), st.sampled_from("abc"), st.lists(MODES, min_size=1, max_size=3)),
    st.tuples(st.just("answer"), st.sampled_from("abc")),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.1, 0.5, 1.0])),
    st.tuples(st.just("view"), st.sets(st.sampled_from("abc"), min_size=1), st.sampled_from(["", "second"])),
)


@given(st.lists(STEPS, min_size=20, max_size=60), st.sampled_from([first, by_key]), st.sampled_from([4, 20_000]))
def test_whatever_fails_each_call_is_answered_once_in_time_and_a_keys_answers_keep_their_order(
    steps: list[tuple[Any, ...]], choose: Choose[Node], lane_messages: int
) -> None:
    """Modes change within a turn, too, and lanes may be full."""
    world = World("a", "b", "c", choose=choose, batch_messages=3, lane_messages=lane_messages)
    calls: list[tuple[str, list[Any]]] = []

    def answer(node: Node) -> None:
        if node._late:
            node.answer()

    for step in steps:
        match step:
            case ("call", key, ordered):
                call = world.ordered if ordered else world.free
                calls.append((key if ordered else "", world.call(len(calls), key, life=4, call=call)))
            case ("send", keys):
                numbers = range(len(calls), len(calls) + len(keys))
                calls += zip(keys, world.send(numbers, keys, life=4), strict=True)
            case ("mode", name, mode):
                world.nodes[name].mode = mode
            case ("next modes", name, modes):
                world.nodes[name].next_modes = modes
            case ("answer", name):
                answer(world.nodes[name])
            case ("wait", seconds):
                world.wait(seconds)
            case ("view", names, other):
                world.peers.update(NodeInfo("", 0, (name, other)) for name in sorted(names))
    world.wait(4 + 2 * TIMEOUT)
    assert all(len(fired) == 1 for _, fired in calls)
    for key in "klm":
        order = [number for number in world.taken if calls[number][0] == key]
        assert order == sorted(order)
    assert not any(world.peers._router._held.values())


# --- draining ---


def draining(name: str) -> NodeInfo:
    return info(name)._replace(draining=True)


@pytest.mark.parametrize("kind", ["ordered", "free"])
def test_a_draining_peer_gets_no_new_calls_while_there_is_another(kind: str) -> None:
    world = World("a", "b")
    world.peers.update([draining("a"), info("b")])
    answer = world.call(1, call=getattr(world, kind))
    world.wait()
    assert answer == [("b", 1)]


def test_draining_peers_are_called_where_there_is_no_other() -> None:
    world = World("a", "b")
    world.peers.update([draining("a"), info("b")])
    world.nodes["b"].mode = "down"
    answers = [world.call(1), world.call(2, call=world.free)]
    world.wait()
    assert answers == [[("a", 1)], [("a", 2)]]


def test_a_busy_key_leaves_a_draining_peer_in_order() -> None:
    """Its next call waits for the answer to the batch under way, and then goes elsewhere."""
    world = World("a", "b")
    world.nodes["a"].mode = "late"
    answers = [world.call(1)]
    world.wait()
    answers.append(world.call(2))
    world.peers.update([draining("a"), info("b")])
    answers.append(world.call(3))
    world.wait()
    assert world.nodes["b"].batches == []
    world.nodes["a"].answer()
    world.wait()
    assert answers == [[("a", 1)], [("b", 2)], [("b", 3)]]
    assert not world.peers.busy


def test_what_is_meant_for_one_peer_still_goes_there_while_it_drains() -> None:
    world = World("a", "b")
    node = world.nodes["a"]
    node.mode = "late"
    answers = [result(world.peers.call_peer(world.once, "a", item, 1)) for item in (1, 2)]
    world.wait()
    answers.append(result(world.peers.call_peer(world.once, "a", 3, 1)))
    world.peers.update([draining("a"), info("b")])
    while world.peers.busy:
        node.answer()
        world.wait()
    assert answers == [[("a", 1)], [("a", 2)], [("a", 3)]]


# --- what concerns no key ---


def test_one_peer_is_asked_past_its_batchers() -> None:
    world = World("a", "b")
    world.nodes["b"].mode = "late"
    world.call(1)
    assert result(world.peers.ask("b", lambda node: succeed(node.name))) == ["b"]
    assert failed(result(world.peers.ask("c", lambda node: succeed(node.name))))
    assert failed(result(world.peers.ask("b", lambda node: fail(ConnectionError("down")))))
    silent = result(world.peers.ask("b", lambda node: Deferred()))
    world.wait(TIMEOUT)
    assert failed(silent)


@pytest.mark.parametrize(
    ("modes", "answered"), [("silent up", True), ("down up", True), ("down down", False), ("silent", False)]
)
def test_one_peer_that_answers_a_ping_is_enough(modes: str, answered: bool) -> None:
    names = dict(zip("ab", modes.split(), strict=False))
    world = World(*names)
    for name, mode in names.items():
        world.nodes[name].mode = mode
    ping = result(world.peers.ping())
    world.wait(TIMEOUT)
    assert failed(ping) is not answered


@pytest.mark.parametrize("gives_up", [False, True], ids=["in time", "who asks"])
def test_who_answers_no_ping_is_said_to_be_late_in_plain_words(gives_up: bool) -> None:
    """/health shows it to people: no error's name."""
    world = World("a")
    silent: Deferred[None] = Deferred()
    ping = world.peers.ask("a", lambda _: silent)
    why = result(ping)
    if gives_up:
        ping.cancel()
    world.wait(TIMEOUT)
    assert str(why[0]) == "a did not answer in time"


def test_without_peers_nobody_answers() -> None:
    assert failed(result(World().peers.ping()))


def test_where_no_peer_answers_a_ping_the_store_is_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than a node that is away besides; and this process's own words rather than those of others."""
    world = World("a", "b", "c")
    reasons = {"a": "a: ping: the connection was lost", "b": "b: ping: store: Redis", "c": "c: ping: store: Redis"}

    for name, node in world.nodes.items():
        monkeypatch.setattr(node, "ping", lambda name=name: fail(UnavailableError(reasons[name])))

    def why() -> str:
        (failure,) = result(world.peers.ping())
        return str(failure)

    assert why() == "b: ping: store: Redis"
    reasons["c"] = "store: Redis"
    assert why() == "store: Redis"
    reasons["b"] = reasons["c"] = "away"
    assert why() == reasons["a"]


def test_the_choices_for_no_more_than_so_many_keys_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody can ask for any key."""
    monkeypatch.setattr("gopush.routing.router.REMEMBERED_KEYS", 100)
    peer: Any = SimpleNamespace(healthy=True, info=SimpleNamespace(draining=False), batchers={})
    router: Router[Any] = Router({"m1": peer}, lambda _, peers: peers[0])
    assert all(router.best(f"key-{number}") is peer for number in range(500))
    assert len(router._first) <= 100
