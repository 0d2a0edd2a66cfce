"""Server-sent events: what is written into a stream, as the HTML standard has it (section "Server-sent events"). Pure.

A message is one line of JSON, so one `data` line; its mid is the event's id, by which a browser resumes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from gopush.model import GAP, Format, Message, raw_json

CONTENT_TYPE = "text/event-stream"
"""Event streams are UTF-8 by definition."""

HEADERS = (("Cache-Control", "no-store, no-transform"), ("X-Accel-Buffering", "no"))
"""No proxy may store, compress or buffer it (X-Accel-Buffering: nginx)."""

COMMENT = b":\n"
"""A heartbeat."""

GAP_EVENT = b"event: gap\ndata: {}\n\n"

EVENT = re.compile(rb"(?:[0-9a-f]+\r\n)?id: ([0-9]+)\ndata: ")
"""How a message begins, in a chunk or not, and its mid. A line of JSON holds no line's end, so no message has it."""


def opening(retry_ms: int, cursor: int | None) -> bytes:
    """The beginning of a stream: when to come back, and from where. An id without data is no event, but is kept."""
    return b"retry: %d\n%b\n" % (retry_ms, b"" if cursor is None else b"id: %d\n" % cursor)


def event(message: Message) -> bytes:
    """A message."""
    return b"id: %d\ndata: %b\n\n" % (message.mid, raw_json(message))


def refusal(reason: str) -> bytes:
    """Why nothing more comes."""
    return b"event: refused\ndata: %b\n\n" % json.dumps({"reason": reason}, separators=(",", ":")).encode()


def event_format(framed: Callable[[bytes], bytes]) -> Format:
    """How messages and gaps are written where each piece is framed so (chunks of HTTP)."""
    gap = framed(GAP_EVENT)
    return Format(lambda message: framed(event(message)), lambda reply: gap if reply == GAP else reply)
