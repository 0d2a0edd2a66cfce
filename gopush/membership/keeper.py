"""The view that a process uses: it adopts what it sees once it may believe it, and has its rings computed."""

from __future__ import annotations

from typing import Any

from twisted.logger import Logger

from gopush.membership.debounce import Rings, ViewDebouncer
from gopush.membership.view import View, ViewWatcher
from gopush.net.clock import cancel

log = Logger()


class ViewKeeper:
    """Keeps the view of a Coordination that sees it change, while that is `_running`."""

    def __init__(self, reactor: Any, settle: float, rings: bool) -> None:
        """`settle`: see ViewDebouncer. `rings`: whether views need theirs."""
        self.view = View()
        self.leaving = False
        self._reactor = reactor
        self._debouncer = ViewDebouncer(settle)
        self._rings = Rings() if rings else None
        self._watchers: list[ViewWatcher] = []
        self._settling: Any = None
        self._computing: Any = None
        self._running = False
        self._active = ""
        """The process (NodeInfo.id) that had the keys of our node, when last we looked; empty: none yet."""

    def watch(self, watcher: ViewWatcher) -> None:
        """See Coordination."""
        self._watchers.append(watcher)

    def _adopt(self, view: View | None) -> None:
        self._settle_at(self._debouncer.due)
        if view is not None:
            self._use(view if self._rings is None else self._rings.offer(view))
            self._compute_rings()

    def _compute_rings(self) -> None:
        """Have the rings computed, a slice in each turn of the reactor."""
        if self._rings is not None and self._rings.busy and self._computing is None and self._running:
            self._computing = self._reactor.callLater(0, self._compute_slice, self._rings)

    def _compute_slice(self, rings: Rings) -> None:
        self._computing = None
        self._use(rings.step())
        self._compute_rings()

    def _use(self, view: View | None) -> None:
        if view is None:
            return
        before, self.view = self.view, view
        if changes := view.changes(before):
            log.info(
                "view: {comets} comets, {messages} message nodes ({changes})",
                comets=len(view.comets),
                messages=len(view.messages),
                changes=changes,
            )
        if view.all_drain and not (before.all_drain or self.leaving):
            log.warn("all comets drain, or stop: subscribers find none (gopush undrain NODE, or start one)")
        self._tell_standing()
        for watcher in self._watchers:
            try:
                watcher(view)
            except Exception:
                log.failure("a part of this process failed to take the new view")

    def _tell_standing(self) -> None:
        """Where this process is a comet: say when another one has the keys of its node, and when it has them again."""
        mine = next((info.id for info in self._debouncer.mine), "")
        active = self.view.active_of(mine)
        if active is None or active.id == self._active:
            return
        if active.id != mine:
            log.info(
                "standby of {name}, whose active process is {active}: this one has no keys until that one ends "
                "([base] node)",
                name=active.node,
                active=active.id,
            )
        elif self._active:
            log.info("active process of {name} now: its keys are here", name=active.node)
        self._active = active.id

    def _settle_at(self, due: float | None) -> None:
        cancel(self._settling)
        if due is not None:
            self._settling = self._reactor.callLater(max(0.0, due - self._reactor.seconds()), self._settled)

    def _settled(self) -> None:
        self._adopt(self._debouncer.tick(self._reactor.seconds()))

    def _rest(self) -> None:
        """Adopt nothing more."""
        self._settle_at(None)
        cancel(self._computing)
