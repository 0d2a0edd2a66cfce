"""Whether pushes are late for the store alone: one of the two clocks is wrong then, and the log says so."""

from __future__ import annotations

from twisted.logger import Logger

from gopush.errors import RET_OK
from gopush.model import LATE, Pushed

CALM_SECONDS = 10.0
"""It is over once a push is stored so long after the last late one: of several servers one may be ahead."""

log = Logger()


class Lateness:
    """Compares the answers to pushes with the time that they took here; `deadline`: seconds that a push may take."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._until = 0.0
        self.logged = False
        """The log says that pushes are late."""

    def answered(self, answer: Pushed, since: float, now: float) -> None:
        """A push has its answer. If the store calls it late long before that is so here, a clock is wrong."""
        if answer.mid == LATE and now - since < self._deadline / 2:
            self._until = now + CALM_SECONDS
            if not self.logged:
                self.logged = True
                log.warn(
                    "pushes: refused: the store has them past their deadline: one of the two clocks is wrong, this "
                    "machine's or the store's (run NTP)"
                )
        elif self.logged and answer.ret == RET_OK and now >= self._until:
            self.logged = False
            log.info("pushes: they come to the store in time again")
