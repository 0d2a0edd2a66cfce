"""What a Redis server's refusals mean, whichever version says them."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from txredisapi import ResponseError

from gopush.message.redis.connection import UnfitError, error_kind, error_text, refuses
from gopush.message.redis.fitness import prepare
from gopush.message.redis.settings import RedisSettings, sources


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("READONLY You can't write against a read only replica.", "READONLY"),
        ("READONLY You can't write against a read only replica. script: f1, on @user_script:1.", "READONLY"),
        (
            "ERR Error running script (call to f_c8df): @user_script:1: @user_script: 1: "
            "-READONLY You can't write against a read only replica.",
            "READONLY",
        ),
        ("ERR Error running script (call to f_c8df): @user_script:1: user_script:1: attempt to index a nil", "ERR"),
        ("LOADING Redis is loading the dataset in memory", "LOADING"),
        ("ERR max number of clients reached", "MAXCLIENTS"),
        ("ERR WAIT cannot be used with replica instances. Please also note that ...", "UNBLOCKED"),
        ("NOSCRIPT No matching script. Please use EVAL.", "NOSCRIPT"),
        ("ERR wrong number of arguments - READONLY is no reason", "ERR"),
        ("", ""),
    ],
)
def test_the_kind_of_an_error(said: str, kind: str) -> None:
    assert error_kind(ResponseError(said)) == kind


@pytest.mark.parametrize(
    ("said", "passes"),
    [
        ("LOADING Redis is loading the dataset in memory", True),
        ("BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.", True),
        ("ERR max number of clients reached", True),
        ("ERR unknown command 'SCAN'", False),
        ("NOAUTH Authentication required.", False),
        ("WRONGPASS invalid username-password pair or user is disabled.", False),
        ("NOPERM No permissions to access a key", False),
    ],
)
def test_what_may_pass_refuses_no_server(said: str, passes: bool) -> None:
    assert refuses(ResponseError(said)) == (not passes)


@pytest.mark.parametrize(
    "said",
    [
        "OOM command not allowed when used memory > 'maxmemory'.",
        "OOM command not allowed when used memory > 'maxmemory'. script: 2ee3f418be84, on @user_script:29.",
        "ERR Error running script (call to f_2ee3f418be84): @user_script:29: @user_script: 29: "
        "-OOM command not allowed when used memory > 'maxmemory'.",
    ],
)
def test_the_text_of_an_error_is_one_for_all_scripts(said: str) -> None:
    """Each of them told another line of the log, again and again."""
    assert error_text(ResponseError(said)) == "OOM command not allowed when used memory > 'maxmemory'."


class OfVersion:
    """A connection to a server that says this version."""

    def __init__(self, version: bytes) -> None:
        self._version = version

    def execute_command(self, *words: str) -> Deferred[bytes]:
        return succeed(b"# Server\r\nredis_version:%b\r\n" % self._version if words == ("INFO", "server") else b"")


@pytest.mark.parametrize(
    ("version", "refused"), [(b"5.0.14", True), (b"6.0.0", False), (b"7.2.4", False), (b"10", False)]
)
def test_a_redis_that_is_too_old_is_refused(version: bytes, refused: bool) -> None:
    """It would take the first push to a key, and fail halfway through the second."""
    connection: Any = OfVersion(version)
    settings = RedisSettings(sources=sources("node1:1 unix@/nowhere"))
    prepared = Deferred.fromCoroutine(prepare(connection, settings.sources[0], settings, []))
    failed: list[Any] = []
    prepared.addErrback(failed.append)
    assert [failure.type for failure in failed] == [UnfitError] * refused
    assert all("it is Redis 5.0.14, which is too old (6.0 is needed)" in str(failure.value) for failure in failed)
