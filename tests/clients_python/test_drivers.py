"""How the Python client takes its steps, in threads and in asyncio: with sockets of whoever does not behave."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gopush_client import asynchronous, blocking
from gopush_client.steps import Open, Step, Steps

WAYS = ("threads", "asyncio")


def take(way: str, step: Step) -> Any:
    """What the step gives."""

    def steps() -> Steps[Any]:
        return (yield step)

    if way == "asyncio":
        return asyncio.run(asynchronous.Driver(asynchronous.Connections(None)).run(steps()))
    return blocking.Driver(blocking.Connections(None)).run(steps())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("host", ["push..example", "a" * 70, "\ud800", "\u00e9" * 80])
def test_a_name_that_no_resolver_can_know_is_as_one_that_none_knows(way: str, host: str) -> None:
    with pytest.raises(OSError, match="is no name of a host"):
        take(way, Open(host, 6969, False, 10))
