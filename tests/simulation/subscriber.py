"""Clients as they are in the field: they look up their comet, subscribe, fetch or resume, and reconnect."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from twisted.python.failure import Failure

from gopush.model import Message, mid_at
from tests.simulation.connection import Connection

if TYPE_CHECKING:
    from tests.simulation.process import WebProcess
    from tests.simulation.world import World

MESSAGE = re.compile(rb'\{"msg":(.*),"mid":([0-9]+),"gid":0\}')
PATIENCE_SECONDS = 7.0
FETCH_PATIENCE_SECONDS = 5.0
HEARTBEAT_SECONDS = 29.0


class Move(NamedTuple):
    """A subscriber has all after `before` up to `after`, as it must believe."""

    before: int
    after: int
    time: float
    connection: Connection


class Subscriber:
    """One client. `kind`: "plain" subscribes and then fetches, "resume" gives its last mid, "mixed" does either,
    "now" resumes from what it takes for the present, which may lie ahead of the store's clock."""

    def __init__(self, world: World, name: str, key: str, kind: str, ahead: float = 0.0) -> None:
        self.name = name
        self.key = key
        self.kind = kind
        self.base = 0
        self.got: dict[int, float] = {}
        self.moves: list[Move] = []
        self.connections: list[Connection] = []
        self.current: Connection | None = None
        self.gone = False  # for good
        self.complete = False  # the current connection has brought all that was missed
        self._world = world
        self._random = world.random
        self._ahead = ahead

    # --- what it does ---

    def connect(self) -> None:
        """Look up the key's comet and subscribe."""
        if self.gone or self.current is not None:
            return
        world, random = self._world, self._random
        web = world.some_web()
        owner = None if web is None else web.coordination.view.owner(self.key)
        if web is None or owner is None:
            self._again()
            return
        if self.kind == "now" and not self.base:
            self.base = mid_at(web.wall() + self._ahead)
        address = owner.id
        if random.random() < world.plan.wrong_comet:
            address = random.choice(world.comet_addresses)
        process = world.comet_at(address)
        if process is None:
            self._again()
            return
        world.connections += 1
        connection = Connection(process, self, world.connections)
        connection.resumes = self.kind in ("resume", "now") or (self.kind == "mixed" and random.random() < 0.5)
        connection.last = self.base if connection.resumes else 0
        connection.asked_after = self.base
        self.current = connection
        self.complete = False
        self.connections.append(connection)
        process.connections.append(connection)
        world.note("connect", self.key, self.name, address, "resume" if connection.resumes else "plain", self.base)
        world.clock.after(0.0005, connection.connectionMade, owner=process)
        self._request(connection)
        world.clock.after(PATIENCE_SECONDS, self._lose_patience, connection)

    def drop(self) -> None:
        """Close the connection, as devices do, and come back."""
        if (connection := self.current) is not None:
            connection.close()
            self.disconnected(connection)

    def leave(self, silently: bool = False) -> None:
        """Go for good; silently: like a device without a network, so that the comet does not learn of it."""
        self.gone = True
        if (connection := self.current) is not None:
            self.current = None
            connection.close(silently)

    def disconnected(self, connection: Connection) -> None:
        """The connection is gone."""
        self._world.note("disconnected", self.key, self.name, connection.process.address)
        if connection is self.current:
            self.current = None
            self._again(1.0 if connection.refused == b"-l" else 0.02)

    def _again(self, pause: float = 0.02) -> None:
        self._world.clock.after(pause + 0.5 * self._random.random() ** 2, self.connect)

    def _request(self, connection: Connection) -> None:
        world, random = self._world, self._random
        arguments = [b"sub", self.key.encode(), b"30", b"", b"1"]
        if connection.resumes:
            # What a JavaScript client may make of a mid.
            arguments.append(b"%d" % (self.base + random.randrange(-7, 8) if self.base else 0))
        request = b"*%d\r\n" % len(arguments) + b"".join(b"$%d\r\n%b\r\n" % (len(one), one) for one in arguments)
        if random.random() < 0.3:
            connection.heartbeats = random.randrange(1, 4)
            request += b"h" * connection.heartbeats
        world.clock.after(0.001, connection.hear, request, owner=connection.process)
        world.clock.after(HEARTBEAT_SECONDS, self._beat, connection)

    def _beat(self, connection: Connection) -> None:
        if connection is self.current:
            connection.heartbeats += 1
            self._world.clock.after(0.001, connection.hear, b"h", owner=connection.process)
            self._world.clock.after(HEARTBEAT_SECONDS, self._beat, connection)

    def _lose_patience(self, connection: Connection) -> None:
        if connection is self.current and connection.accepted is None:
            self.drop()

    # --- what it hears ---

    def receive(self, connection: Connection, data: bytes) -> None:
        """Bytes from the comet, cut anywhere."""
        if connection.ended is not None:
            return
        buffer = connection.buffer + data
        while True:
            line, end, rest = buffer.partition(b"\r\n")
            if not end:
                break
            if line[:1] == b"$":
                size = int(line[1:])
                if len(rest) < size + 2:
                    break
                self._frame(connection, rest[:size])
                rest = rest[size + 2 :]
            else:
                self._reply(connection, line)
            buffer = rest
        connection.buffer = buffer

    def _reply(self, connection: Connection, line: bytes) -> None:
        now = self._world.clock.now
        if line == b"+h":
            connection.replies += 1
            if connection.replies > 1 + connection.heartbeats:
                self._violated(4, "hears +h more often than it sent heartbeats")
            if connection.accepted is None:
                connection.accepted = now
                if connection.resumes:
                    self.complete = True
                else:
                    self._fetch(connection)
        elif line == b"+g":
            if not connection.resumes or connection.accepted is None:
                self._violated(4, "hears +g where it must not")
            connection.gaps.append((now, 0 if self._was_ahead(connection) else connection.last))
            self._world.note("+g", self.key, self.name)
        elif line == b"-p":
            if any(record.lost > now for record in self._world.history.of(self.key).by_mid.get(self.base, ())):
                self._violated(2, f"is refused with {self.base}, a mid that was given")
            # Else its own clock gave it that mid, or the store has lost it.
            connection.refused = line
            self.gone = True
        elif line not in (b"-n", b"-l"):
            self._violated(4, f"hears {line!r}")
        else:
            self._world.note("refused", self.key, self.name, line.decode())
            connection.refused = line
            self.gone = self.gone or (line == b"-l" and self._world.healed)

    def _frame(self, connection: Connection, frame: bytes) -> None:
        parsed = MESSAGE.fullmatch(frame)
        if parsed is None:
            self._violated(3, f"cannot read {frame!r}")
            return
        body, mid = parsed[1], int(parsed[2])
        self._world.note("receive", self.key, self.name, body[:24].decode(), mid - self._world.first_mid)
        if connection.accepted is None:
            self._violated(4, "gets a message before +h")
        if mid <= connection.last and not self._was_ahead(connection):
            self._violated(3, f"gets {body[:24]!r} again or out of order: {mid} after {connection.last}")
        connection.last, connection.heard_any = mid, True
        self._check_stored(mid, body, connection)
        self.got.setdefault(mid, self._world.clock.now)
        if self.complete and mid > self.base:
            self._move(connection, mid)

    def _was_ahead(self, connection: Connection) -> bool:
        """Whether the first message may lie below the cursor that was given, because that was past the log's end."""
        history = self._world.history.of(self.key)
        if connection.last != connection.asked_after or connection.heard_any:
            return False
        records = history.by_mid.get(connection.last, [])
        lost = any(record.lost <= self._world.clock.now for record in records)
        return lost or (self.kind == "now" and not records)

    def _check_stored(self, mid: int, body: bytes, connection: Connection | None = None) -> None:
        records = self._world.history.of(self.key).by_mid.get(mid, [])
        # Lost in a fail-over and stored anew, it has the same mid and body: the last one is what was got.
        record = next((record for record in reversed(records) if record.push.body == body), None)
        if record is None:
            self._violated(3, f"gets {body[:24]!r} under {mid}, which nobody stored")
        elif connection is not None and connection.resumes and connection.replies > 1:
            # The second +h answers a heartbeat: the backlog, all that was stored when it asked, came before it.
            kept = record.push.expire and record.time < connection.asked < record.gone
            if kept and mid > connection.asked_after:
                self._violated(4, f"gets {body[:24]!r} of the backlog after the answer to a heartbeat")

    def _move(self, connection: Connection, mid: int) -> None:
        self.moves.append(Move(self.base, mid, self._world.clock.now, connection))
        self.base = mid

    # --- the plain way ---

    def _fetch(self, connection: Connection) -> None:
        if connection is not self.current or self.complete:
            return
        web = self._world.some_web()
        if web is not None:
            cursor = self.base + self._random.randrange(-7, 8) if self.base else 0
            connection.fetches += 1
            self._world.clock.after(0.001, self._ask, connection, web, cursor, connection.fetches, owner=web)
        self._world.clock.after(FETCH_PATIENCE_SECONDS, self._fetch_late, connection, connection.fetches)

    def _ask(self, connection: Connection, web: WebProcess, cursor: int, attempt: int) -> None:
        fetched = web.fetch(self.key, cursor)
        fetched.addCallbacks(
            self._fetched, self._not_fetched, callbackArgs=(connection,), errbackArgs=(connection, attempt)
        )

    def _fetch_late(self, connection: Connection, attempt: int) -> None:
        if attempt == connection.fetches:
            self._fetch(connection)

    def _not_fetched(self, _: Failure, connection: Connection, attempt: int) -> None:
        self._world.clock.after(0.2 + self._random.random(), self._fetch_late, connection, attempt)

    def _fetched(self, messages: list[Message], connection: Connection) -> None:
        if connection is not self.current or self.complete:
            return
        now, last = self._world.clock.now, self.base
        self._world.note("fetched", self.key, self.name, len(messages))
        for mid, body in messages:
            if mid <= last:
                self._violated(4, f"fetches {mid} after {last}")
            last = mid
            self._check_stored(mid, body)
            self.got.setdefault(mid, now)
        self.complete = True
        if max(last, connection.last) > self.base:
            self._move(connection, max(last, connection.last))

    def _violated(self, rule: int, what: str) -> None:
        self._world.violated(rule, self.key, f"{self.name} {what}")
