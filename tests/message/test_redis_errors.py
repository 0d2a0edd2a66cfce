"""What a Redis server's refusals mean, whichever version says them."""

from __future__ import annotations

import pytest
from txredisapi import ResponseError

from gopush.message.redis.connection import error_kind


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
        ("NOSCRIPT No matching script. Please use EVAL.", "NOSCRIPT"),
        ("ERR wrong number of arguments - READONLY is no reason", "ERR"),
        ("", ""),
    ],
)
def test_the_kind_of_an_error(said: str, kind: str) -> None:
    assert error_kind(ResponseError(said)) == kind
