"""What a comet counts (protocol.md, section 6), and a guard that counts errors: one that meets a subscriber or a
channel must not stop the work for the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from twisted.logger import Logger
from twisted.python.failure import Failure

from gopush.comet.session import Session
from gopush.net.clock import Clock
from gopush.net.limits import LimiterCounters
from gopush.stats.counting import Family, counter, labelled

REFUSED = Family("refused_subscriptions", "subscribers refused", "reason")
CLOSED = Family("dropped_connections", "subscribers' connections that the comet closed by itself", "reason")
PUSHES = Family("pushes", "pushes that reached this comet", "result")


SSE = "sse: event streams and long polls"

KINDS = ("tcp", "websocket", "sse")
"""Of connections (Wire.kind)."""


@dataclass(slots=True)
class CometCounters(LimiterCounters):
    """Plain integers: counting must cost nothing. All only grow."""

    channels_accessed: int = counter("times that a subscription looked for its key's channel")
    channels_created: int = counter("channels made, for keys that got their first subscriber")
    channels_deleted: int = counter("channels removed with their last subscriber")
    opened_connections: dict[str, int] = labelled(
        f"connections that clients made; {SSE}", "transport", keys=KINDS, was="connections_added"
    )
    closed_connections: dict[str, int] = labelled(
        f"connections that have ended, whichever side ended them; {SSE}",
        "transport",
        keys=KINDS,
        was="connections_removed",
    )
    messages_succeeded: int = PUSHES.of("stored", "stored, and to be delivered")
    messages_failed: int = PUSHES.of("failed", "not known to be stored; the publisher got an error")
    deliveries: int = counter("messages given to subscribers' connections; a message counts once for each connection")
    rounds: int = counter("rounds of delivery: new messages of a key, to all its subscribers")
    received_bytes: int = counter("bytes that subscribers sent, without TLS")
    sent_bytes: int = counter("bytes of messages sent to subscribers, framed, without TLS; replies do not count")
    catch_ups: int = counter("reads of a key's log because messages were missing")
    gaps: int = counter("times that the comet told a key's subscribers that messages are gone for good")
    slow_closed: int = CLOSED.of("slow", "too much waited for it because it did not read ([channel] msgbuf)")
    deaf_closed: int = CLOSED.of("deaf", "it did not read what it resumed with")
    overflows: int = counter("channels closed because too much waited while the comet could not read the log")
    overruns: int = counter("channels closed because messages came faster than the comet could send them to everybody")
    moved: int = CLOSED.of("moved", "its key has another comet now")
    cut_off_closed: int = CLOSED.of("cut_off", "this comet is cut off from its cluster")
    cut_off_refused: int = REFUSED.of("cut_off", "this comet is cut off from its cluster")
    notices_sent: int = counter(
        "forwards of messages, to the comets that own their keys, or did a moment ago", name="forwards_sent"
    )
    notices_received: int = counter(
        "forwards of messages, from comets that got the push first", name="forwards_received"
    )
    refused_parameter: int = REFUSED.of("parameter", "a wrong request (-p)")
    refused_token: int = REFUSED.of("token", "the token is missing or not good (-a)")
    refused_key: int = REFUSED.of("key", "nobody made a token for this key (-c)")
    refused_node: int = REFUSED.of("node", "the key belongs to another comet (-n)")
    refused_limit: int = REFUSED.of("limit", "the key has all its connections (-l)")
    refused_origin: int = REFUSED.of("origin", "a page of a web site that may not connect")
    refused_handshake: int = REFUSED.of("handshake", "not a WebSocket handshake for this path")
    busy_keys_cut_short: int = counter("answers to /1/admin/keys for which not all keys were looked at in time")
    errors: int = counter("errors caught, each of one subscriber or channel")
    timed_out: int = CLOSED.of("silent", "it sent nothing for heartbeat + 5 s, or no request within 5 s")
    handshake_timed_out: int = counter(
        "connections closed because they sent no request within 5 s; they count as silent, too"
    )

    @property
    def connections_added(self) -> int:
        """By all transports."""
        return sum(self.opened_connections.values())

    @property
    def connections_removed(self) -> int:
        """By all transports."""
        return sum(self.closed_connections.values())

    def open_connections(self) -> dict[str, int]:
        """By transport, now."""
        return {
            transport: number - self.closed_connections[transport]
            for transport, number in self.opened_connections.items()
        }


QUIET_SECONDS = 10.0
"""One traceback in that time: the others are counted."""

log = Logger()


class Guard:
    """Counts exceptions that were caught, logs one of them now and then, and closes the subscribers that they met,
    which resume.
    """

    def __init__(self, clock: Clock, counters: CometCounters) -> None:
        self._clock = clock
        self._counters = counters
        self._quiet_until = float("-inf")

    def caught(self, doing: str, sessions: Iterable[Session] = (), failure: Failure | None = None) -> None:
        """An exception is handled, or a failure: what was being done, and who cannot go on after it."""
        self._counters.errors += 1
        if self._clock.seconds() >= self._quiet_until:
            self._quiet_until = self._clock.seconds() + QUIET_SECONDS
            log.failure("{doing} failed; all else goes on", failure, doing=doing)
        for session in sessions:
            try:
                session.abort()
            except Exception:
                log.failure("a connection could not be closed")
