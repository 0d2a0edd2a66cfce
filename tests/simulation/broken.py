"""The rules broken on purpose, one at a time, to see that the simulation notices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from gopush.comet.channel import Channel, Unanswered
from gopush.comet.cut_off import CutOff
from gopush.comet.housekeeping import Housekeeping
from gopush.comet.recovery import Recovery
from gopush.comet.rounds import Round
from gopush.comet.service import CURSOR_AHEAD_SECONDS, Comet
from gopush.comet.session import Nowhere, Session
from gopush.errors import RET_OK
from gopush.message import memory
from gopush.message.redis.replication import Replication
from gopush.message.rules import First, sequence
from gopush.model import Append, Appended, Message, Subscribe, mid_at
from gopush.routing.pending import PendingCalls, Refusal
from gopush.routing.pool import Peers


def _clock_alone(append: Append, last: int, first: First | None, now: float) -> Appended:
    answer = sequence(append, last, first, now)
    return answer if answer.ret != RET_OK or answer.repeat else answer._replace(mid=mid_at(now))


def _no_floor(append: Append, last: int, first: First | None, now: float) -> Appended:
    return sequence(append._replace(floor=0), last, first, now)


def _no_ids(append: Append, last: int, first: First | None, now: float) -> Appended:
    return sequence(append, last, None, now)


def _no_deadline(append: Append, last: int, first: First | None, now: float) -> Appended:
    return sequence(append._replace(push=append.push._replace(deadline=now)), last, first, now)


def _trust_the_clock(comet: Comet, session: Session, request: Subscribe) -> None:
    if request.mid is not None and request.mid > mid_at(comet._now() + CURSOR_AHEAD_SECONDS):
        comet.refuse_parameter(session)
    else:
        comet._check_token(session, request)


_take = Channel.take


def _take_all(channel: Channel) -> list[Message]:
    channel._pending = [(mid, 0, body) for mid, _, body in channel._pending]
    messages = _take(channel)
    channel._head = channel.cursor or 0
    return messages


async def _join_at_once(_: Recovery, session: Session, channel: Channel, cursor: int) -> bool:
    channel.settle(session)
    session.go_live()
    return True


_run_round = Round.run


def _wait_for_all(round: Round) -> None:
    sessions: list[Any] = round._sessions
    if any(session.wire._waiting() for session in sessions if not isinstance(session.wire, Nowhere)):
        round._channel.busy = True
        round._clock.callLater(0.5, round._go_on)
    else:
        _run_round(round)


def _none(*_: Any, **__: Any) -> None:
    return None


def _each_its_own_way(
    peers: Any, call: Any, batcher: str, peer: Any, refusals: list[Refusal], behind: list[PendingCalls]
) -> None:
    others = [other for name, other in peers.live.items() if name != peer.info.id]
    for pending, answer in refusals:
        if not others:
            pending.answer([answer])
            continue
        pending.peer = others[0]
        peers._route(call, "elsewhere", pending)
    for pending in behind:
        pending.peer = others[0] if others else peer
        peers._route(call, batcher, pending)


@contextmanager
def _never_look() -> Iterator[None]:
    """A walk over so few channels as there are here comes by every second: it would hide this."""
    with (
        patch.object(Comet, "_offer", _none),
        patch.object(Comet, "_sweep", _none),
        patch.object(Housekeeping, "_sweep", _none),
    ):
        yield


def _never(*_: Any, **__: Any) -> bool:
    return False


def _no_limit(*_: Any, **__: Any) -> None:
    pass


BREAKS: dict[str, Callable[[], Any]] = {
    "1-alone": lambda: patch.object(Replication, "lacks", _never),
    "2": lambda: patch.object(memory, "sequence", _clock_alone),
    "2-floor": lambda: patch.object(memory, "sequence", _no_floor),
    "2-cursor": lambda: patch.object(Comet, "_check_cursor", _trust_the_clock),
    "3": lambda: patch.object(Channel, "take", _take_all),
    "4": lambda: patch.object(Recovery, "_meet", _join_at_once),
    "5-cut-off": lambda: patch.object(CutOff, "look", _never),
    "5-doubt": _never_look,
    "6": lambda: patch.object(memory, "sequence", _no_ids),
    "6-deadline": lambda: patch.object(memory, "sequence", _no_deadline),
    "7": lambda: patch.object(Unanswered, "settled", _none),
    "8-way": lambda: patch("gopush.message.service.UNAVAILABLE", object()),
    "8-lines": lambda: patch.object(Peers, "_sent_back", _each_its_own_way),
    "9": lambda: patch.object(Session, "_fall_behind", _no_limit),
    "9-block": lambda: patch.object(Round, "run", _wait_for_all),
}


@contextmanager
def broken(rule: str | None) -> Iterator[None]:
    """While this holds, a rule is broken."""
    with ExitStack() as stack:
        if rule is not None:
            stack.enter_context(BREAKS[rule]())
        yield
