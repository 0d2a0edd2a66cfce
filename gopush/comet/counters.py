"""What a comet counts (protocol.md, section 6)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class CometCounters:
    """Plain integers: counting must cost nothing. All only grow."""

    channels_accessed: int = 0
    channels_created: int = 0
    channels_deleted: int = 0
    connections_added: int = 0
    connections_removed: int = 0
    messages_succeeded: int = 0
    messages_failed: int = 0
    deliveries: int = 0
    rounds: int = 0
    catch_ups: int = 0
    gaps: int = 0
    slow_closed: int = 0
    deaf_closed: int = 0
    overflows: int = 0
    moved: int = 0
    cut_off_closed: int = 0
    cut_off_refused: int = 0
    notices_sent: int = 0
    notices_received: int = 0
    refused_parameter: int = 0
    refused_token: int = 0
    refused_key: int = 0
    refused_node: int = 0
    refused_limit: int = 0
    refused_address: int = 0
    refused_proxy: int = 0
    refused_origin: int = 0
    refused_handshake: int = 0
    accept_waits: int = 0
    errors: int = 0
    timed_out: int = 0
    handshake_timed_out: int = 0
