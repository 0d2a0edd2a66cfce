"""What a web node counts."""

from __future__ import annotations

from dataclasses import dataclass

from gopush.errors import RET_INTERNAL, RET_NO_NODE, RET_OK, RET_PARAMETER
from gopush.net.limits import LimiterCounters
from gopush.stats.counting import Family, counter, labelled

CALLS = Family("refused_calls", "calls refused", "reason")


@dataclass
class WebCounters(LimiterCounters):
    """Since the start. `pushes`: single messages, each key of a multiple push and each line of a bulk one, by `ret`."""

    lookups: int = counter("look-ups of a key's comet")
    reads: int = counter("offline reads of a key's messages")
    foreign_origins: int = CALLS.of("foreign_origin", "a page of a web site that may not call it")
    foreign_hosts: int = CALLS.of("foreign_host", "Host holds a name that the admin port does not have ([admin] hosts)")
    proxied_calls: int = CALLS.of("proxied", "a proxy passed it to the admin port, which has no keys")
    wrong_keys: int = CALLS.of("wrong_key", "the API key is not known")
    missing_keys: int = CALLS.of("missing_key", "it has no API key; most often a page, which asks for one then")
    outside_scope: int = CALLS.of("scope", "the API key is for other calls, or for keys of another prefix")
    refused_tokens: int = CALLS.of("token", "an offline read whose token is missing or not good")
    limited_pushes: int = CALLS.of(
        "key_rate", "a push to a key that has used up its pushes for the second ([push] key.rate)"
    )
    limited_keys: int = CALLS.of(
        "api_key_rate",
        "its API key has used up its limit; so have keys of a multiple push and lines of a bulk one",
    )
    pushes_over_limit: int = counter(
        "pushes answered 65535 over a limit: [push] key.rate, or that of their API key; others with 65535 failed"
    )
    streams_opened: int = counter("event streams that clients asked for")
    streams_closed: int = counter("event streams that have ended")
    streams_resumed: int = counter("times that an event stream subscribed again at a comet")
    streams_refused: int = counter("event streams refused, or ended with a reason")
    streams_slow: int = counter(
        "event streams closed because their client did not read, by their comet or by the port", "streams_slow_closed"
    )
    log_reads: int = counter("pages that web read from the log for event streams and waiting reads without a comet")
    polls_opened: int = counter("offline reads that waited for a message")
    polls_closed: int = counter("offline reads that waited and have ended")
    pushes: dict[int, int] = labelled(
        "pushes by the ret of their answer; each key and each line counts, a call refused as a whole once",
        "ret",
        keys=(RET_OK, RET_NO_NODE, RET_PARAMETER, RET_INTERNAL),
    )
