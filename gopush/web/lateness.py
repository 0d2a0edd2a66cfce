"""Whether pushes are late for the store alone: this machine's clock is behind the store's then, and all are refused."""

from __future__ import annotations

from twisted.logger import Logger

from gopush.errors import RET_OK, UnavailableError
from gopush.model import LATE, Pushed

LATE_SECONDS = 10.0
"""For so long after the last such push this process is not ready: it may be sent no other one meanwhile."""
BEHIND = "the store has them past their deadline: this machine's clock is behind the store's (run NTP)"

log = Logger()


class Lateness:
    """Compares the answers to pushes with the time that they took here; `deadline`: seconds that a push may take."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._until = 0.0
        self._all = False
        self.logged = False
        """The log says that pushes are late."""

    def answered(self, answer: Pushed, since: float, now: float) -> None:
        """A push has its answer. What the store has past its deadline, long before it is so here, tells of a clock."""
        if answer.ret == RET_OK:
            self._all = False
            if self.logged and now >= self._until:
                self.logged = False
                log.info("pushes: they come to the store in time again")
        elif answer.mid == LATE and now - since < self._deadline / 2:
            self._until = now + LATE_SECONDS
            if not self.logged:
                self.logged = self._all = True
                log.warn("pushes: refused: {why}", why=BEHIND)

    def check(self, now: float) -> None:
        """Raises UnavailableError where no push comes to the store in time."""
        if self._all and now < self._until:
            raise UnavailableError(f"pushes are refused: {BEHIND}")
