"""What a comet does beside its calls: it watches deadlines, sweeps its channels, and moves subscribers away."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from twisted.logger import Logger

from gopush.comet.channel import Channel
from gopush.comet.moves import MOVE_SECONDS
from gopush.comet.service import Comet
from gopush.comet.session import Session, State
from gopush.membership.reachability import Reachability
from gopush.membership.view import Coordination, View
from gopush.model import REFUSE_NODE
from gopush.net.clock import Expiry, cancel, repeating

TICK_SECONDS = 0.5
BLIND_SWEEP_SECONDS = 2.0
FROZEN_SECONDS = 2.0
"""A process that has done nothing for so long may have lost its session, and pushes have gone elsewhere."""

SETTLED_SECONDS = 3.0
"""How long after its session is back others may still take a comet for gone."""

SWEPT_PER_SECOND = 10_000
LOOKED_AT = 1000
"""Points of a ring, or channels where fewer are, that are looked at in a turn after a change of the view."""

MOVE_STEPS = 20

log = Logger()


class Housekeeping:
    """Runs while the comet does."""

    def __init__(self, comet: Comet, coordination: Coordination, session_timeout: float) -> None:
        """`session_timeout`: after so many seconds without ZooKeeper others have this comet's keys."""
        self._session_timeout = session_timeout
        self._clock = clock = comet.clock
        self._comet = comet
        self._coordination = coordination
        self.reachability: Reachability | None = None
        """Whether others can call this comet; None: there are no others."""
        self.leaving = False
        """Whether all subscribers are to move, whoever has their keys."""
        self._walk: Iterator[Channel] = iter(())
        self._walk_began = self._walked_from = self._settled_at = float("-inf")
        self._ticked = clock.seconds()
        self._looking: Any = None
        self._moving: set[Session] = set()
        self._expiry = Expiry(comet.wheel, self._timed_out, clock)
        self._ticking = repeating(self._look_around, clock)
        coordination.watch(self._view_changed)

    def start(self) -> None:
        """Begin."""
        self._ticking.start(TICK_SECONDS, now=False)

    def stop(self) -> None:
        """End."""
        self._ticking.stop()

    def _look_around(self) -> None:
        self._expiry.look()
        if self._comet.cut_off.look(self._session_timeout):
            self._cut_off_changed()
        self._sweep()

    def _timed_out(self, session: Session) -> None:
        # Who had the last word and did not close was counted by what that word said.
        self._comet.counters.timed_out += session.state is not State.CLOSING
        self._comet.counters.handshake_timed_out += session.state is State.WAITING
        try:
            session.abort()
        except Exception:
            self._comet.guard.caught("closing a silent subscriber")

    def _sweep(self) -> None:
        """Go on with the slow walk over the channels, the newest first, because the walk before did not see these. The
        walk is quick while this comet cannot hear of new owners or of messages, and for one whole walk after that.
        """
        now = self._clock.seconds()
        frozen, self._ticked = now - self._ticked > FROZEN_SECONDS, now
        unheard = self.reachability is not None and self.reachability.lost
        if frozen or unheard or not self._coordination.connected:
            self._settled_at = now + SETTLED_SECONDS
        quick = self._walked_from < self._settled_at
        interval = BLIND_SWEEP_SECONDS if quick else self._comet.settings.sweep
        share = int(len(self._comet.channels) * TICK_SECONDS / interval) + 1
        due = list(islice(self._walk, min(share, int(SWEPT_PER_SECOND * TICK_SECONDS))))
        self._comet.delivery.sweep(due)
        if not due:
            self._walk = iter(list(reversed(self._comet.channels.values())))
            self._walked_from, self._walk_began = self._walk_began, now

    def _cut_off_changed(self) -> None:
        if self._comet.cut_off.holds:
            log.warn(
                "cut off: no ZooKeeper for {seconds:g} s, and no message node answers; this comet closes its {count} "
                "subscribers and refuses others until one of them is back",
                seconds=self._session_timeout,
                count=self._comet.subscribed,
            )
            self._spread(self._comet.channels.values())
        else:
            log.info("no longer cut off: this comet takes subscribers again")

    def _view_changed(self, view: View) -> None:
        """Close the subscribers whose key is no longer ours, spread over a second: they look up and resume."""
        cancel(self._looking)
        self._look_for_moved(view, iter(list(self._comet.channels.values())), [])

    def _look_for_moved(self, view: View, left: Iterator[Channel], moved: list[Channel]) -> None:
        """Go on with a slice of the channels: owners of many keys are not found in one turn."""
        budget = view.ring.look_ups(LOOKED_AT)
        due = list(islice(left, budget))
        moved += [channel for channel in due if not self._comet.owns(channel.key)]
        if len(due) == budget:
            self._looking = self._clock.callLater(0, self._look_for_moved, view, left, moved)
            return
        if (count := self._spread(moved)) and not self.leaving:
            log.info("{count} subscribers move: their keys belong to other comets now", count=count)

    def move_all(self) -> None:
        """This comet leaves: close all subscribers, spread over a second."""
        self.leaving = True
        self._spread(self._comet.channels.values())

    def _spread(self, channels: Iterable[Channel]) -> int:
        """Close the subscribers that are not on their way yet; gives their number."""
        sessions = (session for channel in channels for session in (*channel.live, *channel.recovering))
        lost = [one for one in sessions if one.state is not State.CLOSING and one not in self._moving]
        self._moving.update(lost)
        for step in range(MOVE_STEPS):
            if part := lost[step::MOVE_STEPS]:
                # Not at once: when subscribers come back, the others must have seen the same change.
                self._clock.callLater((step + 1) * MOVE_SECONDS / MOVE_STEPS, self._move, part)
        return len(lost)

    def _move(self, sessions: list[Session]) -> None:
        self._moving.difference_update(sessions)
        for session in sessions:
            if session.state is State.CLOSING or session.request is None:
                continue
            counters, cut_off = self._comet.counters, self._comet.cut_off.holds
            if cut_off or self.leaving or not self._comet.owns(session.request.key):
                counters.moved += not cut_off
                counters.cut_off_closed += cut_off
                try:
                    self._comet.refuse(session, REFUSE_NODE)
                except Exception:
                    self._comet.guard.caught("moving a subscriber", (session,))
