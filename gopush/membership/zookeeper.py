"""Coordination through ZooKeeper (protocol.md, section 7).

kazoo lives in threads of its own (session.py, connection.py): its callbacks only hand over to the reactor, and all
that calls into it runs in one worker. Everything is repaired by one act, refresh: read all znodes, register where this
process is missing, adopt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from gopush.errors import StartError
from gopush.membership.connection import Reasons, Worker
from gopush.membership.keeper import ViewKeeper
from gopush.membership.session import JOB_SECONDS, SlowReadError, ZooKeeperSession
from gopush.membership.view import LeadsHere, View
from gopush.membership.znodes import Registered, Registration, Seen
from gopush.model import NodeInfo
from gopush.net.clock import repeating, within
from gopush.net.exposure import refuse_open_zookeeper
from gopush.rpc.settings import ZooKeeperSettings

CHECK_SECONDS = 1.0
PATIENCE_SECONDS = 3.0
"""How long the start may go without ZooKeeper before that is said, and how long leaving may take."""

FULL_SECONDS = 60.0
"""How often it reads all anew, to find changes that ZooKeeper has not reported."""

QUIET_SECONDS = 60.0
"""How often a connection that breaks again and again is said to be lost. One that stays away is said all the same."""

STANDBY_SECONDS = 5.0
"""A standby that lost its session lets the active process of its node register first, so that the roles stay."""

log = Logger()


def coordinate(reactor: Any, settings: ZooKeeperSettings, rings: bool = True) -> ZooKeeperCoordination:
    """The coordination of a process. Raises StartError where strangers could register, and SettingsError."""
    refuse_open_zookeeper(settings.hosts, bool(settings.user) or settings.trusted)
    return ZooKeeperCoordination(reactor, settings, rings)


class ZooKeeperCoordination(ViewKeeper):
    """Coordination, as view.py describes it; goes on with the last view while ZooKeeper is away."""

    def __init__(self, reactor: Any, settings: ZooKeeperSettings, rings: bool = True) -> None:
        """`rings`: whether this process asks for the owners of keys, or for their stores."""
        super().__init__(reactor, settings.settle, rings)
        self.connected = False
        self._settings = settings
        self._name = "ZooKeeper at " + ",".join(settings.hosts)
        self.cluster = f"{','.join(settings.hosts)}{settings.comet_path}"
        # By whether it is as a comet: what is wanted, who waits for that, and what is there.
        self._registrations: dict[bool, Registration] = {}
        self._waiting: dict[bool, list[Deferred[None]]] = {}
        self._mine: dict[bool, NodeInfo] = {}
        self._leads_here: LeadsHere | None = None
        self._refused: Callable[[StartError], object] = lambda _: None
        self._asking: Deferred[Any] | None = None
        self._proven = False
        self._proof_missed = False
        self._read_all_at = 0.0
        self._worker = Worker(reactor)
        self._session = ZooKeeperSession(
            settings,
            lambda up: reactor.callFromThread(self._state_changed, up),
            lambda _: reactor.callFromThread(self._refresh),
        )
        self._check = repeating(self._look_after, reactor)
        self._up = False  # kazoo has a connection
        self._refreshing = False
        self._stale = False  # a refresh is due
        self._alone_since = 0.0
        self._up_since = 0.0
        self._said = False  # the log says that ZooKeeper is away
        self._reasons = Reasons()
        self._quiet_until = float("-inf")
        self._slow = False  # the log says that it is too slow to be read
        self._silent = False  # it has not answered an announcement

    def register_comet(self, info: NodeInfo) -> Deferred[None]:
        """See Coordination."""
        return self._register(Registration(True, info, True))

    def register_message(self, info: NodeInfo) -> Deferred[None]:
        """See Coordination. Fails with StartError where a live message node has other stores."""
        return self._register(Registration(False, info, True))

    def start(self) -> None:
        """See Coordination."""
        self._running = True
        self._alone_since = self._reactor.seconds()
        self._worker.start()
        self._run(self._session.open)
        self._check.start(CHECK_SECONDS, now=False)

    def announce(self, info: NodeInfo, *changed: str) -> Deferred[None]:
        """See Coordination. Fires at once where this process is not registered, or ZooKeeper is away or silent."""
        found = next((one for one in self._registrations.values() if one.info.place == info.place), None)
        if found is None:
            return succeed(None)
        self._registrations[found.comet] = found._replace(info=info, changed=found.changed.union(changed))
        self._refresh()
        held_back = found.comet and not self._comet_may_register()
        if found.new or held_back or not self.connected or self._silent:
            return succeed(None)
        announced: Deferred[None] = Deferred()
        self._waiting.setdefault(found.comet, []).append(announced)
        return within(PATIENCE_SECONDS, announced, self._reactor).addErrback(self._left_behind)

    def stop(self) -> Deferred[None]:
        """See Coordination. What is registered goes with the session. Fires soon even if ZooKeeper does not answer, at
        once if it has not answered before."""
        if not self._running:
            return succeed(None)
        self._running = self.connected = False
        self._check.stop()
        self._rest()
        closed = self._run(self._session.close)
        self._worker.stop()
        return within(0.0 if self._silent else PATIENCE_SECONDS, closed, self._reactor)

    def contest(self, leads_here: LeadsHere, refused: Callable[[StartError], object]) -> None:
        """See Coordination."""
        self._leads_here, self._refused = leads_here, refused

    def _register(self, registration: Registration) -> Deferred[None]:
        registered: Deferred[None] = Deferred()
        self._waiting.setdefault(registration.comet, []).append(registered)
        self._registrations[registration.comet] = registration
        self._refresh()
        return registered

    def _state_changed(self, up: bool) -> None:
        if not self._running:
            return
        self._up = up
        if up:
            self._up_since = self._reactor.seconds()
            self._refresh()
        elif self.connected:
            self.connected = False
            self._settle_at(None)  # what was missing may be back, and nobody would tell
            now = self._alone_since = self._reactor.seconds()
            self._said = now >= self._quiet_until
            if self._said:
                self._quiet_until = now + QUIET_SECONDS
                log.warn("{name} lost; going on with the last view", name=self._name)

    def _refresh(self) -> None:
        self._stale = True
        if self._refreshing or not self._up or not self._running:
            return
        self._stale, self._refreshing = False, True
        proven = self._proven or self._leads_here is None
        wanted = tuple(self._registrations.values())
        seen = self._worker.run(self._session.refresh, wanted, self._comet_may_register(), proven)
        seen.addCallbacks(self._seen, self._not_seen, callbackArgs=(wanted,), errbackArgs=(wanted,))
        seen.addErrback(lambda failure: log.failure("a view could not be adopted", failure))

    def _comet_may_register(self) -> bool:
        registration = self._registrations.get(True)
        if registration is None or registration.new:
            return True
        node, me = registration.info.node, registration.info.id
        is_standby = any(info.node == node and info.id != me for info in self.view.active)
        return not is_standby or self._reactor.seconds() >= self._up_since + STANDBY_SECONDS

    def _seen(self, seen: Seen, wanted: Sequence[Registration]) -> None:
        self._refreshing = self._slow = self._silent = False
        again = self._stale
        if self._up and self._running:
            self._connected()
            self._note_registered(seen.mine, wanted)
            comets = [registered.info for registered in seen.registrations if registered.comet]
            view = View(comets, [registered.info for registered in seen.registrations if not registered.comet])
            self._stale = self._debouncer.lacks_me(view)
            self._adopt(self._debouncer.offer(view, self._reactor.seconds()))
            self._contest(seen.contested)
        if again:
            self._refresh()

    def _note_registered(self, mine: Sequence[Registered], wanted: Sequence[Registration]) -> None:
        """Note what is registered, of what was wanted and has not changed since."""
        found = {registered.comet: registered.info for registered in mine}
        known = [one for one in wanted if one.comet in found and self._registrations.get(one.comet) is one]
        for one in known:
            stands = self._mine[one.comet] = found[one.comet]
            written = stands.with_changes(one.info, one.changed) == stands
            self._registrations[one.comet] = one._replace(new=False, changed=frozenset() if written else one.changed)
        self._debouncer.mine = tuple(self._mine.values())
        for one in known:
            self._answer(one.comet, None)

    def _contest(self, contested: bool) -> None:
        """Where others advertise our address, ask whether it leads to us, before anything is done about them."""
        if not contested:
            self._proven = self._proof_missed = False
        elif self._leads_here is not None and not self._proven and self._asking is None:
            self._asking = self._leads_here()
            self._asking.addErrback(lambda _: None).addCallback(self._answered)

    def _answered(self, leads_here: bool | None) -> None:
        self._asking = None
        if not self._running or not self._registrations:
            return
        if leads_here is False:
            self._stop_for_another()
        elif leads_here:
            self._proven = True
            self._refresh()
        else:
            self._stale = True
            if not self._proof_missed:
                self._proof_missed = True
                log.warn(
                    "[base] rpc.advertise: {id} is registered already, by another process or by one that died, and "
                    "no process answers there; waiting",
                    id=self._id,
                )

    @property
    def _id(self) -> str:
        return next(iter(self._registrations.values())).info.id

    def _stop_for_another(self) -> None:
        """Our address is that of another process: this one must not be called there."""
        wrong = StartError(
            f"[base] rpc.advertise: {self._id} leads to another process, which advertises it too: each needs its own"
        )
        registrations, self._registrations = self._registrations, {}
        for comet in registrations:
            self._answer(comet, Failure(wrong))
        if not all(registration.new for registration in registrations.values()):
            self._refused(wrong)

    def _not_seen(self, failure: Failure, wanted: Sequence[Registration]) -> None:
        self._refreshing = False
        self._stale = True
        if failure.check(SlowReadError) and not self._slow:
            self._slow = self._said = True
            log.warn("{name}: {reason}; trying again", name=self._name, reason=failure.getErrorMessage())
        refused = [one for one in wanted if one.new and self._registrations.get(one.comet) is one]
        if not (isinstance(failure.value, StartError) and refused):
            log.debug("{name}: {reason!r}", name=self._name, reason=failure.value)
            return
        for one in refused:
            del self._registrations[one.comet]
            self._answer(one.comet, failure)

    def _answer(self, comet: bool, outcome: Any) -> None:
        for registered in self._waiting.pop(comet, ()):
            registered.callback(outcome)  # a Failure counts as one

    def _connected(self) -> None:
        if not self.connected:
            self.connected = True
            first = self.view == View()
            if not first:
                now = self._reactor.seconds()
                self._debouncer.distrust(now, now - self._alone_since, self._settings.session_timeout)
            if first or self._said:
                log.info("{name} connected", name=self._name)
            self._said = False
            self._reasons.clear()

    def _look_after(self) -> None:
        """Repeat a refresh that failed; where ZooKeeper stays away, say so, and take it back in any state."""
        if self._reactor.seconds() >= self._read_all_at:
            self._read_all_at = self._reactor.seconds() + FULL_SECONDS
            self._session.forget()
            self._stale = True
        if self._stale:
            self._refresh()
        if self.connected:
            return
        alone, why = self._reactor.seconds() - self._alone_since, self._session.wrong
        if alone > PATIENCE_SECONDS + self._up * JOB_SECONDS and (why or not self._said) and self._reasons.is_new(why):
            self._said = True
            log.warn("{name} cannot be reached{why}; trying again", name=self._name, why=why and f" ({why})")
        if alone > self._settings.session_timeout:
            self._session.accept_earlier_state()

    def _run(self, job: Callable[[], None]) -> Deferred[None]:
        done = self._worker.run(job)
        return done.addErrback(lambda failure: log.debug("{name}: {reason!r}", name=self._name, reason=failure.value))

    def _left_behind(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return  # who announced waits no more
        self._silent = True
        then = "it will notice by itself that this process left" if self.leaving else "this takes effect once it does"
        log.warn("{name} does not answer; {then}", name=self._name, then=then)
