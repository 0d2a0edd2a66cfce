"""`python -m tests.browser`: the pictures of both pages in docs/, anew."""

from __future__ import annotations

import time
from pathlib import Path

from tests.browser.browser import Browser, browser
from tests.browser.test_admin import push
from tests.clients import TcpClient
from tests.integration.systems import System, embedded

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
WIDE, NARROW = 1000, 390
PUSHES = 8


def _empty(page: Browser, system: System) -> None:
    page.open(f"http://{system.admin}/")
    page.wait_for("#keys-answer", "No key has connections")
    _picture(page, "admin-empty")
    page.open(f"http://{system.admin}/demo")
    page.wait_for("#state", "live")
    _picture(page, "demo-empty")


def _admin(page: Browser, system: System, tokens: int = 0) -> None:
    """`tokens`: how many there are already."""
    for number in range(6):
        for _ in range(6 - number):
            push(system.webs[0], f"order-{number}", '"pending"')
    page.open(f"http://{system.admin}/")
    page.write("#key", "Terry-Mao")
    page.click("#watch")
    page.until(lambda: page.text("#watching") == "Terry-Mao", "nobody is subscribed")
    page.write("#expire", "0")
    for number in range(PUSHES):
        page.write("#body", f'{{"number": {number}}}')
        for _ in range(1 + number % 3):
            page.click("#push button")
        time.sleep(0.7)
    page.write("#expire", "600")
    page.click("#push button")
    page.click("#look button")
    page.click("#create-token button")
    page.wait_for("#key-answer", f"tokens: {1 + tokens}")
    page.click(".show-body")


def _demo(page: Browser, system: System) -> None:
    page.open(f"http://{system.admin}/demo")
    page.wait_for("#state", "live")
    page.click("#push button")
    page.until(lambda: page.texts("#messages li"), "the message does not arrive")
    page.click("#break")
    page.wait_for("#verdict", "none lost")


def _gone(page: Browser, system: System) -> None:
    """Each page after it was full."""
    (node,) = system.nodes
    _demo(page, system)
    node.kill()
    page.wait_for("#state", "away")
    page.click("#push button")
    page.wait_for("#answer", "does not answer")
    _picture(page, "demo-gone")
    node.start()
    _admin(page, system, 1)
    node.kill()
    page.wait_for("#banner", "does not answer")
    _picture(page, "admin-gone")


def _picture(page: Browser, name: str, width: int = WIDE) -> None:
    page.picture(str(DOCS / f"{name}.png"), width)


def main() -> None:
    """Both pages: empty, full (wide, narrow, dark), and without their server."""
    with embedded() as system, browser() as page:
        _empty(page, system)
        with TcpClient(system.webs[0].ports["tcp"], rcvbuf=4096) as deaf:
            deaf.subscribe("deaf")
            for number in range(20):
                push(system.webs[0], "deaf", f'"{str(number) * 5000}"')
            for name, show in (("admin", _admin), ("demo", _demo)):
                show(page, system)
                _picture(page, name)
                _picture(page, f"{name}-narrow", NARROW)
                page.scheme("dark")
                _picture(page, f"{name}-dark")
                page.scheme("")
            _gone(page, system)


if __name__ == "__main__":
    main()
