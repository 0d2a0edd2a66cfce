"""What is wrong with a store: a line when something begins, one when all is well again, however many calls notice."""

from __future__ import annotations

from twisted.logger import Logger

from gopush.net.clock import Clock

RELAPSE_SECONDS = 60.0
CALM_SECONDS = 10.0

log = Logger()


class Troubles:
    """The troubles of one store: `now`, by the part of it that they concern. `name` begins each line."""

    def __init__(self, name: str, clock: Clock) -> None:
        self._name = name
        self._clock = clock
        self.now: dict[str, str] = {}
        self._failed: dict[str, float] = {}
        self._patience: dict[str, float] = {}
        self._ended: dict[str, float] = {}

    def __contains__(self, part: str) -> bool:
        return part in self.now

    def get(self, part: str) -> str | None:
        """What is wrong with this part, if anything."""
        return self.now.get(part)

    def begin(self, part: str, trouble: str) -> None:
        """This is wrong now. A part that fails again and again must work for CALM_SECONDS before that is believed."""
        now = self._clock.seconds()
        if part not in self.now:
            relapse = now - self._ended.get(part, float("-inf")) < RELAPSE_SECONDS
            self._patience[part] = CALM_SECONDS if relapse else 0.0
        self._failed[part] = now
        if trouble not in self.now.values():
            log.warn("{store}: {trouble}", store=self._name, trouble=trouble)
        self.now[part] = trouble

    def end(self, part: str, *, calm: bool = False, lucky: bool = False) -> None:
        """This part works. `calm`: it says so again and again, and may be lucky between failures; `lucky`: what works
        is easier than what fails.
        """
        if part not in self.now:
            return
        now = self._clock.seconds()
        patience = CALM_SECONDS if lucky else self._patience[part] if calm else 0.0
        if now - self._failed[part] < patience:
            return
        del self.now[part]
        self._ended[part] = now
        if not self.now:
            log.info("{store}: all is well again", store=self._name)
