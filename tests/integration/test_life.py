"""The stations of a push and of a subscription are those that docs/architecture.md names, and stay few."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.life import Life, Stations, documented, life, sizes

MOST = {"The life of a push": (30, 120), "The life of a subscription": (26, 130)}
"""Files and functions of gopush, in all processes together."""


@pytest.mark.parametrize("title", MOST)
def test_few_stations_are_named(title: str) -> None:
    files, functions = sizes(documented(title))
    most_files, most_functions = MOST[title]
    assert 20 <= files <= most_files
    assert 60 <= functions <= most_functions


def test_the_stations_are_those_that_are_named() -> None:
    """A timer that is due meanwhile is seen too: one of many traces has nothing else in it."""
    asyncio.run(_compare())


async def _compare() -> None:
    async with life() as running:
        for title, happens in (
            ("The life of a push", running.push),
            ("The life of a subscription", running.subscription),
        ):
            await _find(running, happens, title)


async def _find(running: Life, happens: Any, title: str) -> None:
    named = documented(title)
    nearest: Stations = {}
    async for stations in running.traces(happens):
        if stations == named:
            return
        if not nearest or sum(map(len, stations.values())) < sum(map(len, nearest.values())):
            nearest = stations
    assert nearest == named, f"docs/architecture.md, {title}: `python -m tests.life` writes it anew"
