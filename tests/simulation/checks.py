"""The delivery rules, seen from the subscribers and the publishers once a run is over and all has healed."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import TYPE_CHECKING

from gopush.comet.delivery import CROWD_MSGBUFS
from gopush.comet.session import State
from tests.simulation.history import KeyHistory, Record
from tests.simulation.process import CometProcess, Process, WebProcess
from tests.simulation.subscriber import Move, Subscriber

if TYPE_CHECKING:
    from tests.simulation.world import World

PROMPT_SECONDS = 1.0
LONGEST_SILENCE_SECONDS = 36.5
CUT_OFF_SECONDS = 6.5


def missing(world: World, subscriber: Subscriber) -> Iterator[Record]:
    """What the subscriber could have got by now and has not."""
    now, time = world.clock.now, world.store.time
    for record in world.history.of(subscriber.key).records:
        owed = record.kept and record.mid > subscriber.base and not record.reused
        if owed and record.expired(time) > now and record.mid not in subscriber.got:
            yield record


def settled(world: World) -> bool:
    """Whether all subscribers are connected and have all there is."""
    for subscriber in world.subscribers:
        if not subscriber.gone and (not subscriber.complete or any(missing(world, subscriber))):
            return False
    return True


def check_store(world: World) -> None:
    """Rules 1 and 10: what was acknowledged and is neither expired nor trimmed, deleted or lost, can be read."""
    now, time = world.clock.now, world.store.time
    for history in world.history.keys.values():
        kept = [one for one in history.records if one.kept and one.expires > time.at(now)]
        expected = [(one.mid, one.push.body) for one in kept if one.expired(time) > now]
        perhaps = {one.mid for one in kept if one.expired(time) <= now}  # the clock was put back after it had expired
        found = [one for one in world.store.readable(history.key) if one[0] not in perhaps]
        if found != expected:
            world.violated(1, history.key, f"the store has {found} instead of {expected}")


def check_untold(world: World) -> None:
    """Rule 1: what no replica confirmed, and a fail-over forgot, was refused; so nobody was told of it."""
    untold = world.store.untold
    for record in untold:
        key, mid = record.push.key, record.mid
        # Its mid may have been given again, to a message that was told.
        others = [other.time for other in world.history.of(key).by_mid[mid] if other not in untold]
        for subscriber in world.subscribers:
            got = subscriber.got.get(mid, inf) if subscriber.key == key else inf
            if got < min(others, default=inf):
                world.violated(1, key, f"{subscriber.name} got {mid}, which was refused, and is gone")


def check_subscribers(world: World) -> None:
    """Rules 3, 4 and 9: no holes; +g where something was trimmed, and only there; nobody waits for others."""
    for subscriber in world.subscribers:
        history = world.history.of(subscriber.key)
        for move in subscriber.moves:
            _check_move(world, subscriber, history, move)
        for connection in subscriber.connections:
            for time, last in connection.gaps:
                if not any(one.mid > last and one.trimmed_ever <= time for one in history.records):
                    world.violated(
                        4, subscriber.key, f"{subscriber.name} heard +g after {last}, nothing was trimmed", time
                    )
        if not subscriber.gone:
            for record in missing(world, subscriber):
                _lacks(world, subscriber, record, "at the end", world.clock.now)
        _check_prompt(world, subscriber, history)


def _check_move(world: World, subscriber: Subscriber, history: KeyHistory, move: Move) -> None:
    for record in history.records:
        if not move.before < record.mid < move.after or record.mid in subscriber.got or not record.push.expire:
            continue
        if record.time > move.time or record.reused:
            continue  # the store had lost what others got, and its clock was behind
        gone = min(record.gone, record.expired(world.store.time))
        if gone > move.time:
            _lacks(world, subscriber, record, f"when it gets {move.after}", move.time)
        elif record.trimmed == gone < move.time < record.lost and not _was_reported(move, gone):
            _lacks(world, subscriber, record, f"and has not heard +g before {move.after}", move.time)


def _was_reported(move: Move, trimmed: float) -> bool:
    """Whether the subscriber is no one to tell of what was trimmed, or heard +g since then."""
    connection = move.connection
    return not (connection.resumes and connection.asked_after) or any(
        trimmed <= time <= move.time for time, _ in connection.gaps
    )


def _check_prompt(world: World, subscriber: Subscriber, history: KeyHistory) -> None:
    """While all is calm, what is stored is with every subscriber that reads within a second."""
    for connection in subscriber.connections:
        begin = connection.accepted
        if begin is None:
            continue
        end = connection.ended if connection.ended is not None else inf
        for record in history.records:
            start, due = record.time, record.time + PROMPT_SECONDS
            if (
                begin + PROMPT_SECONDS > start
                or due > min(end, world.clock.now)
                or subscriber.got.get(record.mid, inf) <= due
            ):
                continue
            slow = any(since <= due and start <= until + PROMPT_SECONDS for since, until in connection.slow_times)
            if (
                not slow
                and not record.reused
                and record.mid > subscriber_start(subscriber)
                and world.calm(start - 5, due)
            ):
                rule = 9 if record.push.expire else 7
                world.violated(
                    rule, subscriber.key, f"{subscriber.name} waits a second for {record.push.body[:24]!r}", due
                )


def subscriber_start(subscriber: Subscriber) -> int:
    """The cursor that the subscriber began with."""
    return subscriber.moves[0].before if subscriber.moves else subscriber.base


def _lacks(world: World, subscriber: Subscriber, record: Record, when: str, time: float) -> None:
    rule = 4 if record.time < (subscriber.connections[-1].accepted or 0) else 3
    body = record.push.body[:24]
    world.violated(rule, subscriber.key, f"{subscriber.name} lacks {body!r} ({record.mid}) {when}", time)


def check_bounds(world: World) -> None:
    """Rule 9: what waits in a channel is bounded."""
    settings = world.plan.settings
    limit = settings.msgbuf_messages * (CROWD_MSGBUFS if settings.max_subscribers > world.plan.slice else 1)
    for process in world.comets():
        for channel in process.comet.channels.values():
            if not process.frozen and channel.waiting_messages > limit:
                world.violated(9, channel.key, f"{channel.waiting_messages} messages wait in a channel")


def check_cut_off(world: World) -> None:
    """Rule 5: a comet that can deliver nothing, and that nobody can tell of messages, keeps nobody."""
    for process in world.comets():
        since = max(process.isolated, process.thawed, process.born)
        if process.frozen or world.clock.now < since + CUT_OFF_SECONDS:
            continue
        sessions = [session for channel in process.comet.channels.values() for session in channel.live]
        kept = sum(session.state is State.LIVE for session in sessions)
        if kept:
            world.violated(5, "", f"{process.address} reaches nobody since {process.isolated:.3f}, and keeps {kept}")


def check_silent(world: World) -> None:
    """Rule 10: who has not been heard of for heartbeat + 5 s is closed."""
    for process in world.comets():
        for connection in process.connections:
            ended = connection.ended
            if ended is not None and ended < world.clock.now - LONGEST_SILENCE_SECONDS and not connection.closed:
                world.violated(10, "", f"{process.address} keeps a connection that ended at {ended:.3f}")


def check_leftovers(world: World) -> None:
    """Rule 10: without subscribers and calls nothing is kept of them."""
    for process in world.processes.values():
        kept = {name: count for name, count in _kept(process).items() if count}
        if kept:
            world.violated(10, "", f"{process.address} keeps {kept}")


def _kept(process: Process) -> dict[str, int]:
    kept: dict[str, int] = {}
    if isinstance(process, CometProcess):
        comet = process.comet
        kept["channels"] = len(comet.channels)
        kept["sessions"] = sum(map(len, comet.wheel._slots))
        kept["joining"] = len(comet._recovery._beginning) + len(comet.delivery._ahead)
        kept["touched"] = len(comet.delivery._touched)
    if isinstance(process, (CometProcess, WebProcess)):
        for name, peers in (("messages", process.messages), ("comets", process.comets)):
            batchers = [batcher for peer in peers.live.values() for batcher in peer.batchers.values()]
            kept[f"calls to {name}"] = sum(len(batcher.unanswered) for batcher in batchers)
            kept[f"keys held for {name}"] = sum(map(len, peers._router._held.values())) + len(peers._paused)
    return kept
