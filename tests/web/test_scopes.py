"""API keys that are good for some calls and for some keys (protocol.md, section 10)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from gopush.client.cli import main
from gopush.errors import SettingsError
from gopush.web.keys import make, parse
from tests.http.client import Client
from tests.web.conftest import MakeWorld, World

PUSHES = (
    ("POST", "/1/admin/push/private?key=shop-1&expire=0", b"1"),
    ("POST", "/admin/push?key=shop-1&expire=0", b"1"),
    ("POST", "/1/admin/push/mprivate?expire=0", b'{"m":"1","k":"shop-1,shop-2"}'),
    ("POST", "/1/admin/push/bulk", b'{"k":"shop-1","m":1,"expire":0}\n'),
)
OF_A_KEY = (
    ("POST", "/1/admin/msg/del", b"key=shop-1"),
    ("POST", "/admin/msg/clean", b"key=shop-1"),
    ("POST", "/1/admin/token?key=shop-1", b""),
    ("GET", "/1/admin/token?key=shop-1", b""),
    ("DELETE", "/1/admin/token?key=shop-1&token=t", b""),
    ("GET", "/1/admin/key?key=shop-1", b""),
    ("GET", "/1/admin/key/message?key=shop-1&mid=16", b""),
    ("GET", "/1/admin/keys?prefix=shop-1", b""),
    ("POST", "/1/admin/key/close?key=shop-1", b""),
    ("POST", "/1/admin/presence", b'{"k":["shop-1"]}'),
)
OF_ALL = (
    ("GET", "/1/admin/nodes", b""),
    ("GET", "/1/admin/status", b""),
    ("GET", "/1/admin/slowest", b""),
    ("POST", "/1/admin/node/weight?node=n&weight=1", b""),
    ("POST", "/1/admin/node/drain?node=n", b""),
    ("POST", "/1/admin/node/undrain?node=n", b""),
    ("POST", "/1/admin/backup?file=/f&id=1", b""),
)
Ask = Callable[..., tuple[int, bytes]]
Keyed = Callable[[str], Ask]


@pytest.fixture
def keyed(make_world: MakeWorld, tmp_path: Path) -> Callable[[str], tuple[World, Ask]]:
    """A world whose one API key has a line that ends so, and how it is asked with the key."""

    def make_one(line_end: str) -> tuple[World, Ask]:
        key, line = make("shop")
        (tmp_path / "keys").write_text(f"{line}{line_end}\n")
        world = make_world(api_keys=str(tmp_path / "keys"))

        def ask(method: str, target: str, body: bytes = b"") -> tuple[int, bytes]:
            with Client(world.admin.port) as client:
                answer = client.request(method, target, body, f"Authorization: Bearer {key}\r\n")
                return answer.status, answer.body

        return world, ask

    return make_one


def allowed(ask: Ask, calls: tuple[tuple[str, str, bytes], ...]) -> set[int]:
    return {ask(*call)[0] for call in calls}


def test_every_admin_call_is_listed_above(keyed: Callable[[str], tuple[World, Ask]]) -> None:
    world, _ = keyed("")
    every = {(method, target.partition("?")[0]) for method, target, _ in (*PUSHES, *OF_A_KEY, *OF_ALL)}
    served = {
        (method.decode(), path.decode())
        for path, resource in world.web.admin.paths.items()
        for method in resource.methods
        if b"/admin/" in path and method != b"HEAD"
    }
    assert {(method, path) for method, path in served if "/pages/" not in path} == every


@pytest.mark.parametrize(
    ("line_end", "pushes", "of_a_key", "of_all"),
    [
        ("", 200, 200, 200),
        (":1000", 200, 200, 200),
        (":::", 200, 200, 200),
        ("::push", 200, 403, 403),
        ("::push:", 200, 403, 403),
        ("::admin", 403, 200, 200),
        (":::shop-", 200, 200, 403),
        (":1000:push:shop-", 200, 403, 403),
        ("::admin:shop-", 403, 200, 403),
        (":::other-", 403, 403, 403),
    ],
)
def test_a_scope_and_a_prefix_let_some_calls_pass(
    keyed: Callable[[str], tuple[World, Ask]], line_end: str, pushes: int, of_a_key: int, of_all: int
) -> None:
    world, ask = keyed(line_end)
    bulk = PUSHES[3]
    assert allowed(ask, PUSHES[:3]) == {pushes}
    assert allowed(ask, OF_A_KEY) == {of_a_key}
    assert allowed(ask, OF_ALL) == {of_all}
    if line_end == ":::other-":
        assert ask(*bulk) == (200, b'{"ret":65534}\n')
        assert not world.comets.pushes
    else:
        assert ask(*bulk)[0] == pushes
    assert (world.web.counters.outside_scope > 0) == (403 in (pushes, of_a_key, of_all))
    assert world.web.counters.wrong_keys == 0


def test_one_key_outside_refuses_all_of_a_call_but_only_its_own_line(
    keyed: Callable[[str], tuple[World, Ask]],
) -> None:
    world, ask = keyed(":::shop-")
    for target, body in (
        ("/1/admin/push/mprivate?expire=0&why=1", b'{"m":"1","k":["shop-1","else"]}'),
        ("/1/admin/presence?why=1", b'{"k":["shop-1","else"]}'),
    ):
        assert ask("POST", target, body) == (403, b"Forbidden: this API key is for keys with another prefix\n")
    assert not world.comets.pushes
    lines = b'{"k":"shop-1","m":1,"expire":0}\n{"k":"else","m":1,"expire":0}\n{"k":"shop-2","m":1,"expire":0}\n'
    status, answer = ask("POST", "/1/admin/push/bulk", lines)
    assert (status, [json.loads(line)["ret"] for line in answer.splitlines()]) == (200, [0, 65534, 0])
    assert [push.key for push in world.comets.pushes] == ["shop-1", "shop-2"]


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("GET", "/1/admin/nodes?key=shop-1", b""),
        ("GET", "/1/admin/%6Eodes?key=shop-1", b""),
        ("POST", "/1/admin/push/private?key=else&key=shop-1&expire=0", b"1"),
        ("POST", "/1/admin/push/private?expire=0", b"1"),
        ("POST", "/1/admin/push/%70rivate?key=else&expire=0", b"1"),
        ("POST", "/1/admin/push/private?key=%73hop&expire=0", b"1"),
        ("POST", "/1/admin/push/private?key=%ff&expire=0", b"1"),
        ("POST", "/1/admin/msg/del?key=shop-1", b"key=else"),
        ("POST", "/1/admin/msg/del?key=shop-1", b"key=else&key=shop-1"),
        ("HEAD", "/1/admin/nodes", b""),
        ("GET", "/1/admin/keys", b""),
        ("GET", "/1/admin/keys?prefix=shop", b""),
        ("GET", "/1/admin/keys?prefix=&key=shop-1", b""),
        ("GET", "/1/admin/keys?prefix=&prefix=shop-1", b""),
        ("GET", "/1/admin/key/message?key=else&mid=16&key=shop-1", b""),
    ],
)
def test_a_prefix_is_not_passed_by(
    keyed: Callable[[str], tuple[World, Ask]], method: str, target: str, body: bytes
) -> None:
    """By naming another key beside, an encoded path, or the first of two."""
    world, ask = keyed(":::shop-")
    assert ask(method, target, body)[0] == 403
    assert not world.comets.pushes
    assert not world.comets.closed


def test_a_prefix_may_hold_colons_and_any_text(keyed: Callable[[str], tuple[World, Ask]]) -> None:
    _, ask = keyed(":::a:\u00fc ")
    assert ask("POST", "/1/admin/push/private?key=a:%C3%BC+1&expire=0", b"1")[0] == 200
    assert ask("POST", "/1/admin/push/private?key=a:%C3%BC1&expire=0", b"1")[0] == 403


@pytest.mark.parametrize("line_end", ["::read", "::push,admin", ":0", "::PUSH", "::push:\x01", ":::" + "k" * 256])
def test_a_line_of_another_form_is_refused_without_showing_it(line_end: str) -> None:
    _, line = make("shop")
    with pytest.raises(SettingsError, match="line 2 is not name:sha256") as refused:
        parse(f"# all\n{line}{line_end}\n".encode(), "keys", float)
    assert line[5:] not in str(refused.value)


@pytest.mark.parametrize("prefix", ["shop-\n", "\u00fc\r\n", "\n", "a\x85", "a\u2028b", "a\tb"])
def test_a_line_is_one_line(prefix: str) -> None:
    with pytest.raises(SettingsError, match=f"^the prefix {re.escape(repr(prefix))} is not"):
        make("shop", prefix=prefix)
    with pytest.raises(SettingsError, match="is no name for a key"):
        make("\nshop")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--limit", "0"), "the limit '0' is not a number of pushes per second from 1 to 9999999"),
        (("--limit", "x", "--prefix", "shop-"), "the limit 'x' is not"),
        (("--limit", "5:push"), "the limit '5:push' is not"),
        (("--limit", ""), "the limit '' is not"),
        (("--limit", "5", "--prefix", ""), "the prefix '' is not what a key begins with"),
    ],
)
def test_what_makes_no_line_is_named(options: Sequence[str], said: str, capfd: pytest.CaptureFixture[str]) -> None:
    """An empty one counted as none: a key for all pushes, where a script's variable was not set."""
    assert main(["key", "shop", *options]) == 3
    assert capfd.readouterr().err.startswith(f"gopush: {said}")


@pytest.mark.parametrize("option", ["--limit", "--scope", "--prefix"])
def test_a_key_that_is_shown_takes_no_bounds(option: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["key", "show", "k", option, "push"])
    assert ended.value.code == 2
    assert f"show takes no {option}" in capfd.readouterr().err


def test_all_that_gopush_key_prints_may_stand_in_the_file(
    make_world: MakeWorld, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also in the caller's; a key without its line is none."""
    assert main(["key", "billing"]) == 0
    printed = capfd.readouterr().out
    (tmp_path / "keys").write_text(printed)
    world = make_world(api_keys=str(tmp_path / "keys"))
    key = printed.splitlines()[1]
    push = ["push", "k", "1", "--admin", f"127.0.0.1:{world.admin.port}", "--api-key-file"]
    assert main([*push, str(tmp_path / "keys")]) == 0
    (tmp_path / "key").write_text(f"{key}\n")
    assert main([*push, str(tmp_path / "key")]) == 0
    for text in (f"{key}\n", f"{key}\n{make('other')[1]}\n"):
        with pytest.raises(SettingsError, match="line 1"):
            parse(text.encode(), "keys", float)
