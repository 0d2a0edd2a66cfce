"""Every call of a web node in one table: what it is called by, takes and answers, and what API key it wants. Pure.

A row here is what documentation (openapi.py) and API keys (keys.py) know of a call; its route has the function.
"""

from __future__ import annotations

from functools import partial

from gopush.model import LEAST_HEARTBEAT_SECONDS
from gopush.web import schemas
from gopush.web.schemas import (
    ANY,
    BYTES,
    FLAG,
    FORM,
    INTEGER,
    MAX_EXPIRE,
    PLAIN_KEY,
    STRING,
    Body,
    Call,
    Parameter,
    array_of,
    map_of,
    object_of,
)


def _callback(name: str) -> Parameter:
    what = "a JavaScript function: the answer is JavaScript, which calls it"
    return Parameter(name, what, {"type": "string", "maxLength": 64})


def _key(name: str) -> Parameter:
    return Parameter(name, "the key: 1 to 255 bytes of UTF-8 without control characters", PLAIN_KEY, True)


def _proto(name: str) -> Parameter:
    return Parameter(name, "1: WebSocket, 2: TCP", {"type": "string", "enum": ["1", "2"]}, True)


def _mid(name: str) -> Parameter:
    return Parameter(name, "the mid of the last message seen; 0: none", {**INTEGER, "minimum": 0}, True)


def _token(name: str) -> Parameter:
    return Parameter(name, "the subscriber's token, where auth is on")


_WAIT = Parameter(
    "wait", "seconds to wait for a message where there is none yet", {**INTEGER, "minimum": 0, "maximum": 60}
)
_HEAD = Parameter(
    "head", "1: the last mid alone, with null for its message; no waiting", {"type": "string", "enum": ["0", "1"]}
)
_EXPIRE = Parameter(
    "expire", "seconds to keep the message; 0: not at all", {**INTEGER, "minimum": 0, "maximum": MAX_EXPIRE}, True
)
_ID = Parameter("id", "a repeat with the same id is not stored again", PLAIN_KEY)
_ID_HEADER = Parameter("Idempotency-Key", "as id, which wins", PLAIN_KEY, place="header")
_WITH_MID = Parameter("mid", "1: answer with the mid", {"type": "string", "enum": ["0", "1"]})
_PUSH = (_key("key"), _EXPIRE, _ID, _ID_HEADER, _WITH_MID)
_NODE = Parameter("node", "a node's name, or the RPC address of one process", {"type": "string", "minLength": 1}, True)
_LOOK_UP = (_key("k"), _proto("p"), _callback("cb"))
_OF_KEY = (_key("key"),)
KEY_FORM = Body(object_of("key", key=PLAIN_KEY), FORM)
_get, _post = partial(Call, "GET"), partial(Call, "POST")

PUBLIC = (
    _get("/1/server/get", "getServer", "Which comet holds a key", _LOOK_UP, schemas.SERVER),
    _get(
        "/2/server/get",
        "getServers",
        "All addresses of the comet that holds a key",
        _LOOK_UP,
        object_of(server=schemas.ADDRESSES),
    ),
    _get(
        "/server/get",
        "getServerOld",
        "As /1/server/get, old form",
        (_key("key"), _proto("proto"), _callback("callback")),
        schemas.SERVER,
    ),
    _get(
        "/1/msg/get",
        "getMessages",
        "The kept messages after a mid",
        (_key("k"), _mid("m"), _token("t"), _WAIT, _HEAD, _callback("cb")),
        object_of(msgs=array_of(schemas.MESSAGE)),
    ),
    _get(
        "/msg/get",
        "getMessagesOld",
        "As /1/msg/get, old form: messages as strings",
        (_key("key"), _mid("mid"), Parameter("pmid", "ignored"), _token("token"), _callback("callback")),
        object_of(msgs=array_of(STRING), pmsgs=array_of(STRING)),
    ),
    _get("/1/time/get", "getTime", "Now, as a mid", (_callback("cb"),), schemas.TIME),
    _get("/time/get", "getTimeOld", "As /1/time/get, old form", (_callback("callback"),), schemas.TIME),
)
ADMIN = (
    _post(
        "/1/admin/push/private", "push", "Push a message to a key", _PUSH, schemas.STORED, Body(ANY), "push", "query"
    ),
    _post("/admin/push", "pushOld", "As /1/admin/push/private", _PUSH, schemas.STORED, Body(ANY), "push", "query"),
    _post(
        "/1/admin/push/mprivate",
        "pushMany",
        "Push a message to many keys",
        (_EXPIRE, _ID, _ID_HEADER, _WITH_MID),
        object_of(fk=array_of(STRING), mids=map_of(INTEGER)),
        Body(schemas.MANY),
        "push",
        "body",
    ),
    _post(
        "/1/admin/push/bulk",
        "pushBulk",
        'Push any number of messages: lines of {"k":…,"m":…,"expire":…,"id":…}, each answered by a line',
        (),
        None,
        Body({"type": "string", "format": "binary"}, BYTES),
        "push",
        "body",
    ),
    _post(
        "/1/admin/msg/del",
        "deleteMessages",
        "Delete a key's messages, and close its subscribers",
        body=KEY_FORM,
        named="body",
    ),
    _post("/admin/msg/clean", "deleteMessagesOld", "As /1/admin/msg/del", body=KEY_FORM, named="body"),
    _post(
        "/1/admin/token",
        "createToken",
        "Create a token for a key's subscribers",
        (_key("key"), Parameter("life", "seconds", {**INTEGER, "minimum": 0, "maximum": MAX_EXPIRE})),
        object_of(token=STRING, expires=INTEGER),
        named="query",
    ),
    _get(
        "/1/admin/token",
        "listTokens",
        "A key's live tokens, by digest",
        _OF_KEY,
        object_of(tokens=schemas.TOKENS),
        named="query",
    ),
    Call(
        "DELETE",
        "/1/admin/token",
        "revokeToken",
        "Revoke a token",
        (_key("key"), Parameter("token", "it"), Parameter("digest", "or its SHA-256, as listed")),
        object_of(revoked=FLAG),
        named="query",
    ),
    _get("/1/admin/nodes", "listNodes", "The processes of the cluster", (), object_of(nodes=array_of(schemas.PROCESS))),
    _post(
        "/1/admin/node/weight",
        "setWeight",
        "Change a node's share, until it ends",
        (_NODE, Parameter("weight", "from 1 to 1000", schemas.UP_TO_1000, True)),
    ),
    _post("/1/admin/node/drain", "drainNode", "Have a node hand over all that it has", (_NODE,)),
    _post("/1/admin/node/undrain", "undrainNode", "Take a node back", (_NODE,)),
    _post(
        "/1/admin/key/close", "closeKey", "Close a key's connections", _OF_KEY, object_of(closed=INTEGER), named="query"
    ),
    _get("/1/admin/key", "showKey", "What there is of a key", _OF_KEY, schemas.SHOWN_KEY, named="query"),
    _get(
        "/1/admin/key/message",
        "showMessage",
        "One of a key's kept messages",
        (_key("key"), _mid("mid")),
        schemas.MESSAGE,
        named="query",
    ),
    _get(
        "/1/admin/keys",
        "listKeys",
        "The busiest keys: with most pushes now, or most connections",
        (Parameter("prefix", "the prefix of the keys"), Parameter("most", "how many at most; 50", schemas.UP_TO_1000)),
        object_of(keys=array_of(schemas.BUSY), silent=array_of(STRING)),
        named="body",
    ),
    _post(
        "/1/admin/presence",
        "getPresence",
        "Who is connected to each of many keys",
        (),
        object_of(presence=array_of(schemas.PRESENCE)),
        Body(schemas.MANY_KEYS),
        named="body",
    ),
    _post(
        "/1/admin/backup",
        "backUp",
        "Copy the SQLite store to a new file while it serves; with the same id again: how far the copy is",
        (
            Parameter("file", "its absolute path, on the machine of the process that has the database", STRING, True),
            Parameter("id", "tells this backup from others", PLAIN_KEY, True),
        ),
        object_of(state={"type": "string", "enum": ["running", "done"]}, copied=INTEGER, size=INTEGER),
    ),
    _get("/1/admin/status", "getStatus", "What this web node has done", (), schemas.STATUS),
    _get(
        "/1/admin/slowest",
        "listSlowest",
        "The connections that are furthest behind",
        data=object_of(slowest=array_of(schemas.SLOW)),
    ),
)
CALLS = (*PUBLIC, *ADMIN)
STREAM = _get(
    "/sub",
    "openStream",
    "The messages of a key as they come, as server-sent events",
    (
        _key("key"),
        Parameter("heartbeat", "seconds between two comments", {**INTEGER, "minimum": LEAST_HEARTBEAT_SECONDS}, True),
        _token("token"),
        Parameter("mid", "the mid of the last message seen; 0: none; without it, what comes from now on", INTEGER),
        Parameter("Last-Event-ID", "as mid, and wins", INTEGER, place="header"),
    ),
)
