"""A Chromium for all tests of pages, and the gopush whose pages they are."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gopush.web.keys import make
from tests.browser.browser import Browser, browser
from tests.chaos.cluster import Node
from tests.integration.systems import embedded
from tests.web.conftest import make_world, world  # noqa: F401


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture
def page(chromium: Browser) -> Iterator[Browser]:
    """The browser; a test that is done has left it nothing to complain of."""
    chromium.complaints()
    yield chromium
    chromium.driver.get("about:blank")


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """All of gopush in one process, without API keys."""
    yield from _running({})


class Locked:
    """A gopush that wants API keys, and tokens of its subscribers."""

    def __init__(self, node: Node, key: str) -> None:
        self.url = f"http://{node.address('admin')}/"
        self.key = key


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Locked]:
    key, line = make("administrator")
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(line + "\n")
    for node in _running({"admin": {"keys": str(keys)}, "channel": {"auth": "yes"}}):
        yield Locked(node, key)


def _running(ini: dict[str, dict[str, str]]) -> Iterator[Node]:
    with embedded(ini) as system:
        yield system.webs[0]
