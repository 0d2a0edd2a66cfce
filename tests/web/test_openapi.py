"""/openapi.json names every call of a web node, and nothing else, as tools that make clients of it need it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gopush.web.keys import make
from gopush.web.openapi import document, render
from tests.http.client import Client
from tests.web.conftest import MakeWorld, World

ROOT = Path(__file__).resolve().parent.parent.parent
PATHS: dict[str, dict[str, Any]] = document()["paths"]
NO_CALLS = ("/pages/", "/openapi.json", "/gopush.js", "/gopush.mjs", "/demo")
METHODS = ("get", "post", "delete")


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in PATHS.items():
        for method in METHODS:
            if method in item:
                yield path, method, item[method]


def served(world: World) -> set[tuple[str, str]]:
    sites = (world.web.public, world.web.admin)
    found = {
        (path.decode(), method.decode().lower())
        for site in sites
        for path, resource in site.paths.items()
        for method in resource.methods
    }
    return {
        (path, method) for path, method in found if method != "head" and path != "/" and not path.startswith(NO_CALLS)
    }


def test_every_call_that_is_served_is_described_and_no_other(world: World) -> None:
    assert served(world) == {(path, method) for path, method, _ in operations()}


def test_the_file_among_the_documents_is_the_same() -> None:
    """`python -m gopush.web.openapi >docs/openapi.json` writes it."""
    assert (ROOT / "docs" / "openapi.json").read_bytes() == render()


def test_both_ports_serve_it(make_world: MakeWorld, tmp_path: Path) -> None:
    """Where there are API keys, each of them opens it on the admin port; on the public port it wants none."""
    key, line = make("a")
    (tmp_path / "keys").write_text(f"{line}::push:shop-\n")
    open_world, locked = make_world(), make_world(api_keys=str(tmp_path / "keys"))
    for port, fields, status in (
        (open_world.public.port, "", 200),
        (open_world.admin.port, "", 200),
        (locked.public.port, "", 200),
        (locked.admin.port, "", 401),
        (locked.admin.port, f"X-Api-Key: {key}\r\n", 200),
    ):
        with Client(port) as client:
            answer = client.request("GET", "/openapi.json", b"", fields)
        assert answer.status == status
        if status == 200:
            assert answer.headers["content-type"] == "application/json;charset=utf-8"
            assert answer.body == render()


def test_every_described_call_is_there(world: World) -> None:
    for path, method, call in operations():
        (tag,) = call["tags"]
        ask = world.call_admin if tag == "admin" else lambda method, path: world.get(path)
        assert ask(method.upper(), path).status == (400 if path == "/sub" else 200), path


def test_what_must_be_given_must_be_given(world: World) -> None:
    for path, method, call in operations():
        if any(parameter["required"] for parameter in call["parameters"]):
            ask = world.call_admin if call["tags"] == ["admin"] else lambda method, path: world.get(path)
            answer = ask(method.upper(), path)
            assert answer.status == 400 if path == "/sub" else json.loads(answer.body)["ret"] == 65534, path


def test_each_operation_has_a_name_of_its_own() -> None:
    names = [call["operationId"] for _, _, call in operations()]
    assert len(set(names)) == len(names)
    assert all(name.isidentifier() for name in names)


def test_each_call_has_the_server_of_its_port() -> None:
    ports = {"public": "http://localhost:8090", "admin": "http://localhost:8091"}
    for path, _, call in operations():
        urls = [server["url"] for server in PATHS[path]["servers"]]
        assert urls == ([*ports.values()] if path == "/health" else [ports[call["tags"][0]]])


def test_bodies_are_typed_and_so_are_answers() -> None:
    for path, method, call in operations():
        body = call.get("requestBody")
        assert (body is not None) == ("push" in path or path.endswith(("msg/del", "msg/clean", "presence"))), path
        if body is not None:
            (content_type,) = body["content"]
            assert content_type in ("application/json", "application/x-www-form-urlencoded", "application/octet-stream")
        statuses = set(call["responses"])
        assert statuses >= ({"200", "503"} if path == "/health" else {"200", "400", "403", "414", "431", "500"})
        assert ("429" in statuses) == (path not in ("/health", "/sub"))
        assert (statuses >= {"401", "413"}) == (call["tags"] == ["admin"])
        for status, response in call["responses"].items():
            scripted = status == "200" and {"cb", "callback"} & {parameter["name"] for parameter in call["parameters"]}
            assert len(response["content"]) == (2 if scripted else 1)
            assert ("application/javascript" in response["content"]) == bool(scripted)
            assert response["description"]
        if path.endswith("bulk"):
            assert [*call["responses"]["200"]["content"]] == ["application/x-ndjson"]
        assert ("security" in call) == (call["tags"] == ["admin"])
        assert method != "get" or body is None


def test_an_event_stream_is_described() -> None:
    """protocol.md, section 10: with the statuses that end it for good."""
    responses = PATHS["/sub"]["get"]["responses"]
    assert [*responses["200"]["content"]] == ["text/event-stream"]
    assert responses.keys() >= {"400", "401", "403"}


def test_headers_are_declared_where_they_count() -> None:
    for path, method, call in operations():
        headers = {parameter["name"] for parameter in call["parameters"] if parameter["in"] == "header"}
        assert ("Prefer" in headers) == (path != "/health"), path
        assert ("Idempotency-Key" in headers) == (method == "post" and "push" in path and "bulk" not in path), path
        assert ("Last-Event-ID" in headers) == (path == "/sub"), path


@pytest.mark.parametrize("path", ["/1/admin/push/mprivate", "/1/admin/presence"])
def test_keys_are_a_list_or_a_text_with_commas(world: World, path: str) -> None:
    schema = PATHS[path]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]["k"]
    assert [one["type"] for one in schema["oneOf"]] == ["array", "string"]
    for keys in (["a", "b"], "a,b"):
        answer = world.post(path, json.dumps({"m": "1", "k": keys}), expire="0")
        assert json.loads(answer.body)["ret"] == 0


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        for name, value in part.items():
            if name == "$ref":
                yield value
            yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def test_it_has_the_form_of_openapi() -> None:
    """What the specification, 3.0.3, wants of each object that is used here."""
    spec = json.loads(render())
    assert spec["openapi"] == "3.0.3"
    assert spec["info"].keys() >= {"title", "version"}
    for reference in references(spec):
        part = spec
        for name in reference.removeprefix("#/").split("/"):
            part = part[name]
    names = {tag["name"] for tag in spec["tags"]}
    schemes = spec["components"]["securitySchemes"]
    for path, method, call in operations():
        assert path.startswith("/")
        assert "{" not in path
        assert set(call["tags"]) <= names
        assert all(scheme in schemes for wanted in call.get("security", ()) for scheme in wanted)
        given = [(parameter["name"], parameter["in"]) for parameter in call["parameters"]]
        assert len(set(given)) == len(given), (path, method)
        for parameter in call["parameters"]:
            assert parameter.keys() == {"name", "in", "required", "description", "schema"}
    for schema in schemas(spec):
        assert schema.get("type", "object") in ("object", "array", "string", "integer", "number", "boolean")
        assert ("items" in schema) == (schema.get("type") == "array")
        assert set(schema.get("required", ())) <= set(schema.get("properties", ()))


def schemas(part: Any) -> Iterator[dict[str, Any]]:
    """All schemas, those within others too."""
    if isinstance(part, list):
        for value in part:
            yield from schemas(value)
    elif isinstance(part, dict):
        for name, value in part.items():
            if name in ("schema", "items", "additionalProperties"):
                yield value
            elif name == "oneOf":
                yield from value
            elif name in ("properties", "schemas"):
                yield from value.values()
            yield from schemas(value)


@pytest.mark.parametrize(
    ("target", "answered"),
    [
        ("/1/server/get?k=k&p=1", "/1/server/get"),
        ("/1/msg/get?k=k&m=0", "/1/msg/get"),
        ("/1/msg/get?k=k&m=0&head=1", "/1/msg/get"),
        ("/1/time/get", "/1/time/get"),
        ("/server/get?key=k&proto=1", "/server/get"),
        ("/msg/get?key=k&mid=0", "/msg/get"),
        ("/time/get", "/time/get"),
    ],
)
def test_answers_have_the_described_form(world: World, target: str, answered: str) -> None:
    world.messages.append("k", b"1")
    answer = json.loads(world.get(target).body)
    schema = PATHS[answered]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert answer.keys() <= schema["properties"].keys()
    assert answer.keys() - {"data"} == set(schema["required"])
    assert answer["data"].keys() == schema["properties"]["data"]["properties"].keys()


@pytest.mark.parametrize(
    "target", ["/1/admin/nodes", "/1/admin/status", "/1/admin/slowest", "/1/admin/key?key=k", "/1/admin/token?key=k"]
)
def test_admin_answers_have_the_described_form(world: World, target: str) -> None:
    world.messages.append("k", b"1")
    answer = json.loads(
        world.call_admin("GET", target.partition("?")[0], **({"key": "k"} if "?" in target else {})).body
    )
    schema = PATHS[target.partition("?")[0]]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    compare(answer["data"], schema["properties"]["data"])


def compare(value: Any, schema: dict[str, Any]) -> None:
    """Fail where a value has names that its schema has not, or lacks some."""
    if value is None:
        assert schema.get("nullable")
    elif "properties" in schema:
        assert value.keys() == schema["properties"].keys()
        for name, inner in schema["properties"].items():
            compare(value[name], inner)
    elif schema.get("type") == "array":
        for one in value:
            compare(one, schema["items"])
