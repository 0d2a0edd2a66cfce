"""What the calls of a web node take and answer, as JSON Schema has it, and what a row of calls.py is made of. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from gopush.web.envelopes import MAX_PROPERTIES

Schema = Mapping[str, Any]

STRING: Schema = {"type": "string"}
INTEGER: Schema = {"type": "integer", "format": "int64"}
UP_TO_1000: Schema = {"type": "integer", "minimum": 1, "maximum": 1000}
FLAG: Schema = {"type": "boolean"}
PLAIN_KEY: Schema = {"type": "string", "minLength": 1, "maxLength": 255}
ANY: Schema = {}
"""Any JSON value."""


def array_of(items: Schema) -> Schema:
    """The schema of a list."""
    return {"type": "array", "items": items}


def object_of(required: str = "", /, **properties: Schema) -> Schema:
    """The schema of an object; `required`: names, with blanks between them."""
    return {"type": "object", "properties": properties, **({"required": required.split()} if required else {})}


def map_of(values: Schema) -> Schema:
    """The schema of an object with any names."""
    return {"type": "object", "additionalProperties": values}


def one_of(*schemas: Schema) -> Schema:
    """The schema of what has one of these."""
    return {"oneOf": list(schemas)}


def or_null(schema: Schema) -> Schema:
    """The schema of what may be null."""
    return {**schema, "nullable": True}


MESSAGE = object_of(msg=ANY, mid=INTEGER, gid={"type": "integer"})
JOINED_KEYS: Schema = {"type": "string", "minLength": 1, "description": "keys, with commas between them"}
TOKENS = array_of(object_of(digest=STRING, expires=INTEGER))
TIME = object_of(timeid=INTEGER)
SERVER = object_of(server=STRING)
STORED = object_of(mid=INTEGER)
ADDRESSES = array_of(STRING)
PROCESS = object_of(
    **dict.fromkeys(("role", "node", "state"), STRING),
    **dict.fromkeys(("rpc", "tcp", "ws"), ADDRESSES),
    weight={"type": "integer"},
    version=or_null(STRING),
    **dict.fromkeys(("connections", "channels", "deliveries", "age"), or_null(INTEGER)),
)
SLOW = object_of(
    **dict.fromkeys(("node", "rpc", "key", "kind", "peer"), STRING),
    **dict.fromkeys(("messages", "bytes"), INTEGER),
    seconds={"type": "number"},
)
SHOWN_KEY = object_of(
    owner=or_null(STRING),
    ws=ADDRESSES,
    messages=array_of(object_of(mid=INTEGER, size=INTEGER)),
    more=FLAG,
    subscribers=array_of(object_of(node=STRING, rpc=ADDRESSES, count=or_null({"type": "integer"}))),
    tokens=TOKENS,
)
BUSY = object_of(
    key=STRING, connections=INTEGER, rate={"type": "number"}, **dict.fromkeys(("node", "rpc"), or_null(STRING))
)
STATUS = object_of(
    **dict.fromkeys(("version", "cluster"), STRING),
    pushes=map_of(INTEGER),
    lookups=INTEGER,
    reads=INTEGER,
    push_seconds=object_of(bounds=array_of({"type": "number"}), counts=array_of(INTEGER), total={"type": "number"}),
)
PRESENCE = object_of(key=STRING, count=or_null(INTEGER), since=or_null(INTEGER), over=map_of(INTEGER))
FEW_PROPERTIES: Schema = {"maxProperties": MAX_PROPERTIES}
MANY: Schema = {
    **FEW_PROPERTIES,
    **object_of(
        "m k",
        m={"type": "string", "description": "the message: JSON as a string"},
        k=one_of(array_of(PLAIN_KEY), JOINED_KEYS),
    ),
}
MANY_KEYS: Schema = {
    **FEW_PROPERTIES,
    **object_of("k", k=one_of({**array_of(PLAIN_KEY), "minItems": 1, "maxItems": 10_000}, JOINED_KEYS)),
}

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
BYTES = "application/octet-stream"
LINES = "application/x-ndjson"
SCRIPT = "application/javascript"
EVENTS = "text/event-stream"


MAX_EXPIRE = 2**32 - 1


class Parameter(NamedTuple):
    """Of the query, or a header."""

    name: str
    what: str
    schema: Schema = STRING
    required: bool = False
    place: str = "query"


class Body(NamedTuple):
    """What a call is sent."""

    schema: Schema
    content_type: str = JSON


class Call(NamedTuple):
    """A call. `id`: its name for tools; `data`: of its answer, None where it has none.

    `scope` and `named` are what it wants of an API key (keys.KeyUse): "push" or "admin"; "query", "body" or "".
    """

    method: str
    path: str
    id: str
    what: str
    parameters: tuple[Parameter, ...] = ()
    data: Schema | None = None
    body: Body | None = None
    scope: str = "admin"
    named: str = ""
