"""A session with ZooKeeper, the blocking side of zookeeper.py; connection.py and znodes.py belong to it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from kazoo.client import KazooClient
from kazoo.exceptions import ConnectionLoss, NoAuthError, NoNodeError
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.protocol.states import KazooState
from twisted.logger import Logger

from gopush.errors import StartError
from gopush.membership import znodes
from gopush.membership.connection import Connector, Ownership, asked
from gopush.membership.znodes import Registered, Registration, Seen, check_stores
from gopush.rpc.settings import ZooKeeperSettings

JOB_SECONDS = 5.0
RECONNECT = {"max_tries": -1, "delay": 0.1, "backoff": 2, "max_delay": 0.4}

log = Logger()


class SlowReadError(Exception):
    """ZooKeeper has too much there to be read in a job, or is slow."""


class ZooKeeperSession:
    """The blocking side. All but the constructor runs in the worker; the callbacks are called in kazoo's threads."""

    def __init__(
        self,
        settings: ZooKeeperSettings,
        on_state: Callable[[bool], None],
        on_event: Callable[[Any], None],
    ) -> None:
        """`on_state` hears whether there is a connection, `on_event` that something has changed."""
        self._settings = settings
        self._on_event = on_event
        self._changed: deque[str | None] = deque()
        self._cache: dict[str, Registered | None] = {}
        self._below: dict[str, list[str]] = {}  # what is below each name of a comet's node
        self._cached_for = 0
        self._skipped: set[str] = set()
        self._deadline = 0.0
        self._refused = False
        self._names: int | None = None
        self._ownership = Ownership(settings)
        self._connector = Connector(settings)
        self._client: Any = KazooClient(
            hosts=self._connector.hosts,
            handler=self._connector,
            timeout=settings.asked_timeout,
            connection_retry=RECONNECT,
            default_acl=self._ownership.acl,
            auth_data=[("digest", f"{settings.user}:{settings.secret}")] if settings.user else None,
        )
        self._client.add_listener(lambda state: self._state_changed(state, on_state))

    @property
    def wrong(self) -> str:
        """Why there is no session; empty: there is one, or none was tried."""
        return self._connector.wrong

    def open(self) -> None:
        """Begin to connect, and never give up."""
        self._client.start_async()

    def close(self) -> None:
        """End the session; what it registered is gone at once if ZooKeeper hears of it."""
        try:
            self._client.stop()
        finally:
            self._client.close()

    def accept_earlier_state(self) -> None:
        """Connect also to a ZooKeeper that knows less than this session has seen: it came back empty.

        It says whether the session is still alive; if not, a new one begins. Called from any thread.
        """
        self._client.last_zxid = 0

    def forget(self) -> None:
        """Read all anew in the next refresh. Called from any thread."""
        self._changed.append(None)

    def _state_changed(self, state: Any, on_state: Callable[[bool], None]) -> None:
        self.forget()  # ZooKeeper does not report what changed while there was no connection
        if state == KazooState.CONNECTED:
            self._connector.wrong = ""
        on_state(state == KazooState.CONNECTED)

    def _reported(self, event: Any) -> None:
        self._changed.append(event.path)
        self._on_event(event)

    def refresh(self, wanted: Sequence[Registration], comets: bool, proven: bool = True) -> Seen:
        """Read all; register what is `wanted` and was not registered by this session, and read again.

        Raises SlowReadError, and StartError where what is new must not be. `comets`: whether a comet may register now.
        `proven`: the address leads to this process, so other registrations of it are of dead processes, and are
        deleted. While it is not, a process that finds others there neither registers nor deletes.

        It writes only what has changed; what an operator writes into the znode stays until it registers anew.
        """
        try:
            return self._refresh(wanted, comets, proven)
        except NoAuthError:
            said = "ZooKeeper: what is there belongs to another [zookeeper] user: all processes must have the same"
            if any(registration.new for registration in wanted):
                raise StartError(said) from None
            if not self._refused:
                self._refused = True
                log.error(said)
            raise
        except KazooTimeoutError:
            names, path = self._names, self._settings.comet_path
            if names is None:
                raise SlowReadError(f"no answer within {JOB_SECONDS:g} s") from None
            raise SlowReadError(f"{JOB_SECONDS:g} s were too short to read all, {path} with {names} names") from None

    def _refresh(self, wanted: Sequence[Registration], comets: bool, proven: bool) -> Seen:
        self._names, self._deadline = None, time.monotonic() + JOB_SECONDS
        owner = self._owner()
        registrations = self._read()
        due = [one for one in wanted if comets or not one.comet or self._find(registrations, one, owner)]
        ids = {registration.info.id for registration in due}
        contested = any(one.info.id in ids and one.owner != owner for one in registrations)
        if proven or not contested:
            for registration in due:
                registrations = self._register(registrations, registration, owner)
        mine = [found for one in due if (found := self._find(registrations, one, owner)) is not None]
        if proven or not contested:
            if len(mine) < len(due):
                raise ConnectionLoss("a registration is gone again")
            registrations = self._without_ghosts(registrations, mine)
        return Seen(registrations, mine, contested)

    def _register(self, registrations: list[Registered], registration: Registration, owner: int) -> list[Registered]:
        """Have it registered as it is wanted; what is registered then."""
        mine = self._find(registrations, registration, owner)
        if mine is None:
            check_stores(registrations, registration)
            self._create(registration)
            registrations = self._read()
        elif (changed := mine.info.with_changes(registration.info, registration.changed)) != mine.info:
            self._wait(self._client.set_async(mine.path, znodes.content(mine.comet, changed)))
            self._changed.append(mine.path)
            registrations = self._read()
        mine = self._find(registrations, registration, owner)
        if mine is None:
            raise ConnectionLoss("the registration is gone again")
        self._check_again(registrations, registration, mine)
        return registrations

    def _owner(self) -> int:
        client_id = self._client.client_id
        if client_id is None:
            raise ConnectionLoss("not connected")
        if client_id[0] != self._cached_for:
            self._cache, self._below, self._cached_for = {}, {}, client_id[0]
        return self._cached_for

    def _wait(self, result: Any) -> Any:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise KazooTimeoutError  # also where the answer is there: who asks many would never end
        return result.get(timeout=left)

    def _read(self) -> list[Registered]:
        comets, messages = self._settings.comet_path, self._settings.message_path
        self._forget_changed()
        nodes = {f"{comets}/{node}": node for node in self._children(comets)}
        self._names = len(nodes)
        self._below = {path: names for path, names in self._below.items() if path in nodes}
        look = partial(self._client.get_children_async, watch=self._reported)
        for path, result in asked(look, [path for path in nodes if path not in self._below]):
            if (names := self._wait_there(result)) is not None:
                self._below[path] = names  # at once: where there are too many for a job, the next one goes on here
        found = [(node, f"{path}/{name}") for path, node in nodes.items() for name in self._below.get(path, ())]
        found += [("", f"{messages}/{name}") for name in self._children(messages)]
        everything = [*nodes, *(path for _, path in found)]
        foreign = self._ownership.take(self._client, self._wait, everything)
        found = [(node, path) for node, path in found if not {path, path.rpartition("/")[0]} & foreign]
        unknown = [path for _, path in found if path not in self._cache]
        read = partial(self._client.get_async, watch=self._reported)
        contents = {path: self._wait_there(result) for path, result in asked(read, unknown)}
        cache: dict[str, Registered | None] = {}
        for node, path in found:
            if path in self._cache:
                cache[path] = self._cache[path]
            elif contents[path] is not None:
                cache[path] = self._registered(node, path, *contents[path])
        self._cache = cache
        self._skipped.intersection_update(cache)
        return [registered for registered in cache.values() if registered is not None]

    def _forget_changed(self) -> None:
        while self._changed:
            path = self._changed.popleft()
            if path is None:
                self._cache.clear()
                self._below.clear()
                self._ownership.forget()
            else:
                self._cache.pop(path, None)
                self._below.pop(path, None)

    def _children(self, path: str) -> list[str]:
        try:
            return list(self._wait(self._client.get_children_async(path, watch=self._reported)))
        except NoNodeError:
            self._wait(self._client.ensure_path_async(path))
            return list(self._wait(self._client.get_children_async(path, watch=self._reported)))

    def _wait_there(self, result: Any) -> Any:
        """The result of reading something that may have gone meanwhile: None."""
        try:
            return self._wait(result)
        except NoNodeError:
            return None

    def _create(self, registration: Registration) -> None:
        path = self._settings.message_path
        if registration.comet:
            self._own(self._settings.comet_path)
            path = f"{self._settings.comet_path}/{registration.info.node}"
            self._wait(self._client.ensure_path_async(path))
        self._own(path)
        content = znodes.content(registration.comet, registration.info)
        self._wait(self._client.create_async(f"{path}/", content, ephemeral=True, sequence=True))
        self._changed.append(path)  # the report of it may come later than the answer

    def _own(self, path: str) -> None:
        """Take over what was there before there was a user: whoever may write into a znode may delete its children."""
        if self._ownership.acl is not None:
            self._wait(self._client.set_acls_async(path, self._ownership.acl))

    def _find(self, registrations: list[Registered], registration: Registration, owner: int) -> Registered | None:
        mine = [
            one
            for one in registrations
            if (one.owner, one.comet, one.info.id) == (owner, registration.comet, registration.info.id)
        ]
        return max(mine, key=lambda registered: registered.made, default=None)

    def _check_again(self, registrations: list[Registered], registration: Registration, mine: Registered) -> None:
        """Of two that start at once with different stores, the later one gives way."""
        try:
            check_stores([registered for registered in registrations if registered.made < mine.made], registration)
        except StartError:
            self._delete(mine.path)
            raise

    def _without_ghosts(self, registrations: list[Registered], mine: list[Registered]) -> list[Registered]:
        """Delete what an earlier life of this process left behind: older registrations of its address."""
        ids = {registered.info.id for registered in mine}
        newest = max((registered.made for registered in mine), default=0)
        ghosts = [one for one in registrations if one.info.id in ids and one.made < newest and one not in mine]
        for ghost in ghosts:
            log.info("older registration {path} of {id} removed", path=ghost.path, id=ghost.info.id)
            self._delete(ghost.path)
        return [registered for registered in registrations if registered not in ghosts]

    def _delete(self, path: str) -> None:
        self._wait_there(self._client.delete_async(path))
        self._changed.append(path.rpartition("/")[0])

    def _registered(self, node: str, path: str, data: bytes, stat: Any) -> Registered | None:
        name = path.rpartition("/")[2]
        try:
            if not stat.ephemeralOwner:
                raise ValueError("it is persistent, and says of no process that it lives")
            info = znodes.read_comet(node, name, data) if node else znodes.read_message(name, data)
        except ValueError as wrong:
            if path not in self._skipped:
                self._skipped.add(path)
                log.warn("{path} is skipped: {reason}", path=path, reason=wrong)
            return None
        self._skipped.discard(path)
        return Registered(path, bool(node), info, stat.ephemeralOwner, stat.czxid)
