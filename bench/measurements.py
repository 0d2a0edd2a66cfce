"""What is measured. The figures that docs/performance.md explains come from here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

RATE, PUSHES, HANDSHAKES, P50, P99, BYTES = (
    "deliveries_per_second",
    "pushes_per_second",
    "handshakes_per_second",
    "delivery_p50",
    "delivery_p99",
    "bytes_per_connection",
)
CLUSTER, EMBEDDED, TWO_CORES, EMBEDDED_TWO_CORES = "cluster", "embedded", "cluster-2-cores", "embedded-2-cores"
EQUAL, EQUALS, EQUAL_TWO_CORES = "equal", "equals", "equal-2-cores"
"""One equal node, two of them, one that has both cores; all on Redis, as the cluster of roles."""


@dataclass(frozen=True)
class Measurement:
    """One line of the table.

    `system`: what is measured; the server has core 0 and the load core 1, but where two cores are shared by both.
    `figure`: which of the load's figures is the result. `load`: the load's options (load.c). `raw`: also taken with a
    server that does nothing but send. `fresh`: needs a server that did nothing else before. `client`: what subscribers
    are: tcp, websocket, stream (of events) or poll. `beside`: the options of a load that runs through all of it, whose
    figures are shown as "beside_…".
    """

    name: str
    system: str
    figure: str
    load: Mapping[str, object]
    raw: bool = False
    fresh: bool = False
    client: str = "tcp"
    beside: Mapping[str, object] = field(default_factory=dict)


def _fan_out(
    name: str, subscribers: int, messages: int, load: Mapping[str, object], client: str = "tcp", system: str = CLUSTER
) -> Measurement:
    options = {"subscribers": subscribers, "messages": messages, "seconds": 20} | dict(load)
    return Measurement(name, system, RATE, options, raw=client == "tcp", client=client)


_ALONE = {"publishers": 1, "window": 1}
_WINDOW = {"publishers": 1, "window": 8}
_SATURATED = {"publishers": 16, "window": 64}
_STORED = {"publishers": 50, "keys": 10_000, "expire": 600, "seconds": 5}
_LISTENED = {"subscribers": 10_000, **_STORED}
_MANY = {"subscribers": 10_000, "keys": 10_000, "publishers": 4, "batch": 1000, "expire": 600, "seconds": 20}
_STEADY = {"subscribers": 1000, "keys": 1000, "publishers": 20, "rate": 200, "expire": 600}

_WAITING = {"subscribers": 10_000, "keys": 10_000, "publishers": 20, "rate": 200, "expire": 600, "seconds": 10}

MEASUREMENTS = (
    _fan_out("fan-out, window 1, TCP 1,000", 1000, 300, _ALONE),
    _fan_out("fan-out, window 1, WebSocket 1,000", 1000, 300, _ALONE, "websocket"),
    _fan_out("fan-out, window 8, TCP 1,000", 1000, 300, _WINDOW),
    _fan_out("fan-out, window 8, WebSocket 1,000", 1000, 300, _WINDOW, "websocket"),
    _fan_out("fan-out, window 8, TCP 10,000", 10_000, 30, _WINDOW),
    _fan_out("fan-out, window 8, WebSocket 10,000", 10_000, 30, _WINDOW, "websocket"),
    _fan_out("fan-out, saturated, TCP 1,000", 1000, 1000, _SATURATED),
    _fan_out("fan-out, saturated, WebSocket 1,000", 1000, 1000, _SATURATED, "websocket"),
    _fan_out("fan-out, saturated, TCP 10,000", 10_000, 200, _SATURATED),
    _fan_out("fan-out, saturated, WebSocket 10,000", 10_000, 200, _SATURATED, "websocket"),
    _fan_out("fan-out, saturated, WebSocket 1,000, one member", 1000, 1000, _SATURATED, "websocket", EQUAL),
    _fan_out("fan-out, saturated, event streams 1,000, one member", 1000, 1000, _SATURATED, "stream", EQUAL),
    _fan_out("fan-out, saturated, event streams 1,000, web beside", 1000, 1000, _SATURATED, "stream"),
    Measurement("latency at 200 pushes/s, WebSocket 10,000, one member", EQUAL, P50, _WAITING, client="websocket"),
    Measurement(
        "latency at 200 pushes/s, long polls 10,000, one member",
        EQUAL,
        P50,
        {**_WAITING, "settle": 5000},
        client="poll",
    ),
    Measurement("mprivate to 10,000 keys", CLUSTER, RATE, {**_MANY, "way": "mprivate", "messages": 20, "window": 4}),
    Measurement("bulk to 10,000 keys", CLUSTER, RATE, {**_MANY, "way": "bulk", "messages": 20, "window": 4}),
    Measurement("bulk to 10,000 keys, 2 cores", TWO_CORES, RATE, {**_MANY, "way": "bulk", "messages": 20, "window": 4}),
    Measurement("one push a request", CLUSTER, PUSHES, _STORED),
    Measurement("one push a request, a subscriber each", CLUSTER, PUSHES, _LISTENED),
    Measurement("one push a connection", CLUSTER, PUSHES, {**_STORED, "reconnect": 1}),
    Measurement("one push a request, 2 cores", TWO_CORES, PUSHES, _STORED),
    Measurement("one push a request, embedded", EMBEDDED, PUSHES, _STORED),
    Measurement("one push a request, embedded, a subscriber each", EMBEDDED, PUSHES, _LISTENED),
    Measurement("one push a request, embedded, 2 cores", EMBEDDED_TWO_CORES, PUSHES, _STORED),
    Measurement("one push a request, one member", EQUAL, PUSHES, _STORED),
    Measurement("one push a request, one member, a subscriber each", EQUAL, PUSHES, _LISTENED),
    Measurement("one push a request, two members", EQUALS, PUSHES, _STORED),
    Measurement(
        "mprivate to 10,000 keys, one member", EQUAL, RATE, {**_MANY, "way": "mprivate", "messages": 20, "window": 4}
    ),
    Measurement(
        "bulk to 10,000 keys, one member, 2 cores",
        EQUAL_TWO_CORES,
        RATE,
        {**_MANY, "way": "bulk", "messages": 20, "window": 4},
    ),
    Measurement("latency at 200 pushes/s, one member", EQUAL, P99, {**_STEADY, "seconds": 10}),
    Measurement(
        "latency at 200 pushes/s, one member, 10,000 idle",
        EQUAL,
        P99,
        {**_STEADY, "seconds": 10},
        beside={"subscribers": 10_000, "keys": 10_000, "prefix": "idle"},
    ),
    Measurement("latency at 200 pushes/s, embedded", EMBEDDED, P99, {**_STEADY, "seconds": 10}),
    Measurement("latency at 200 pushes/s", CLUSTER, P99, {**_STEADY, "seconds": 10}),
    Measurement(
        "latency at 200 pushes/s, 10,000 idle",
        CLUSTER,
        P99,
        {**_STEADY, "seconds": 10},
        beside={"subscribers": 10_000, "keys": 10_000, "prefix": "idle"},
    ),
    *(
        Measurement(
            f"idle {kind} connections, {count:,}",
            CLUSTER,
            BYTES,
            {"subscribers": count},
            fresh=True,
            client=kind.lower(),
        )
        for kind in ("TCP", "WebSocket")
        for count in (10_000, 19_000)
    ),
    Measurement(
        "idle event streams, 10,000, one member", EQUAL, BYTES, {"subscribers": 10_000}, fresh=True, client="stream"
    ),
    Measurement(
        "idle event streams, 9,500, web beside", CLUSTER, BYTES, {"subscribers": 9500}, fresh=True, client="stream"
    ),
    *(
        Measurement(
            f"{kind} handshakes, {'one key' if keys == 1 else 'a key each'}",
            CLUSTER,
            HANDSHAKES,
            {"subscribers": 10_000, "keys": keys},
            client=kind.lower(),
        )
        for kind in ("TCP", "WebSocket")
        for keys in (1, 10_000)
    ),
    Measurement(
        "TCP handshakes, 1,000 being served",
        CLUSTER,
        HANDSHAKES,
        {"subscribers": 10_000},
        beside={**_STEADY, "seconds": 8, "prefix": "served"},
    ),
)
