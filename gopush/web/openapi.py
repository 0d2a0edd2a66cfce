"""`GET /openapi.json`: the calls of calls.py as tools read them (OpenAPI 3.0), the event stream, and /health.

`python -m gopush.web.openapi >docs/openapi.json` writes it anew.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

import gopush
from gopush.net.http.request import Response
from gopush.net.http.routes import Routes, always
from gopush.web.calls import ADMIN, CALLS, STREAM
from gopush.web.schemas import BYTES, EVENTS, JSON, LINES, SCRIPT, STRING, Call, Parameter

PATH = "/openapi.json"
_SERVERS = (
    {"url": "http://localhost:8090", "description": "public: [base] http.bind"},
    {"url": "http://localhost:8091", "description": "admin: [base] admin.bind"},
)
_WHY = (
    Parameter("why", "1: an answer that refuses the call says why", {"type": "string", "enum": ["0", "1"]}),
    Parameter("Prefer", "why: as why=1", place="header"),
)
_STATUSES = {
    400: "the head of the request is malformed",
    403: "pages of this web site may not call it",
    414: "the request line is too long",
    431: "the head of the request is too long",
    500: "an internal error of gopush, see its log",
}
_OF_PUBLIC = {429: "this client has as many connections as it may have"}
_OF_ADMIN = {
    401: "API keys are set, and this is none of them",
    403: "the API key is not good for this call or key; or a page of another site calls; or Host names another machine",
    413: "the body is too large",
    429: "the API key's pushes for this second are used up",
}
_OF_STREAM = {
    400: "a parameter is wrong, or the head of the request is malformed",
    401: "auth is on, and the token is missing, or not a valid one of the key",
    403: "auth is on, and nobody created the key; or pages of this web site may not call it",
}
_RET = {
    "type": "integer",
    "enum": [0, 1001, 65534, 65535],
    "description": "0: done. 1001: no node. 65534: a parameter is wrong. 65535: it failed for now; try again.",
}
_SECURITY: list[dict[str, list[str]]] = [{}, {"apiKey": []}, {"bearer": []}]


def document() -> dict[str, Any]:
    """All of it."""
    paths: dict[str, Any] = {}
    for call in CALLS:
        item = paths.setdefault(call.path, {"servers": [_SERVERS[call in ADMIN]]})
        item[call.method.lower()] = _operation(call)
    paths[STREAM.path] = {"servers": [_SERVERS[0]], "get": _operation(STREAM)}
    paths["/health"] = {"servers": list(_SERVERS), "get": _health()}
    return {
        "openapi": "3.0.3",
        "info": {
            "title": "gopush",
            "version": gopush.__version__,
            "description": "The HTTP calls of a web node. docs/protocol.md is the reference.",
            "license": {"name": "MIT", "url": "https://spdx.org/licenses/MIT.html"},
        },
        "servers": list(_SERVERS),
        "tags": [
            {"name": "public", "description": "devices, on http.bind"},
            {"name": "admin", "description": "services and administrators, on admin.bind"},
        ],
        "paths": paths,
        "components": {
            "schemas": {"Ret": _RET},
            "securitySchemes": {
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def render() -> bytes:
    """As JSON."""
    return json.dumps(document(), indent=1, ensure_ascii=False).encode() + b"\n"


def routes() -> Routes:
    """For both ports."""
    return {PATH: {"GET": always(Response(200, "application/json;charset=utf-8", render()))}}


def _operation(call: Call) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": place, "required": required, "description": what, "schema": schema}
        for name, what, schema, required, place in (*call.parameters, *_WHY)
    ]
    found = {"operationId": call.id, "summary": call.what, "tags": ["admin" if call in ADMIN else "public"]}
    operation: dict[str, Any] = {**found, "parameters": parameters, "responses": _responses(call)}
    if call in ADMIN:
        operation["security"] = _SECURITY
    if call.body is not None:
        operation["requestBody"] = {"required": True, "content": {call.body.content_type: {"schema": call.body.schema}}}
    return operation


def _responses(call: Call) -> dict[str, Any]:
    if call is STREAM:
        done = _content("events, until either side ends them", EVENTS, STRING)
    elif call.body is not None and call.body.content_type == BYTES:
        done = _content("lines, in the order of the lines of the request", LINES, call.body.schema)
    else:
        done = _content("see ret", JSON, _answer(call))
        if any(parameter.name in ("cb", "callback") for parameter in call.parameters):
            done["content"][SCRIPT] = {"schema": STRING}
    refusals = {**_STATUSES, **(_OF_ADMIN if call in ADMIN else _OF_STREAM if call is STREAM else _OF_PUBLIC)}
    texts = {str(status): _content(what, "text/plain", STRING) for status, what in sorted(refusals.items())}
    return {"200": done, **texts}


def _answer(call: Call) -> dict[str, Any]:
    given: dict[str, Any] = {"ret": {"$ref": "#/components/schemas/Ret"}}
    if any(parameter.name == "callback" for parameter in call.parameters):  # the form before 1.0
        given["msg"] = STRING
    data = {} if call.data is None else {"data": call.data}
    return {"type": "object", "required": [*given], "properties": {**given, "why": STRING, **data}}


def _content(what: str, content_type: str, schema: Any) -> dict[str, Any]:
    return {"description": what, "content": {content_type: {"schema": schema}}}


def _health() -> dict[str, Any]:
    flags = {"alive": {"type": "boolean"}, "ready": {"type": "boolean"}, "reason": STRING}
    state = {"type": "object", "required": ["alive", "ready"], "properties": flags}
    return {
        "operationId": "getHealth",
        "summary": "Whether this process can do its work",
        "tags": ["public"],
        "parameters": [],
        "responses": {
            "200": _content("it could", JSON, state),
            str(int(HTTPStatus.SERVICE_UNAVAILABLE)): _content("it cannot", JSON, state),
        },
    }


if __name__ == "__main__":
    print(render().decode(), end="")
