"""`python -m tests.browser`: the pictures of both pages in docs/, anew."""

from __future__ import annotations

import time
from pathlib import Path

from tests.browser.browser import Browser, browser
from tests.browser.test_admin import push
from tests.clients import TcpClient
from tests.integration.systems import System, embedded

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
WIDTHS = {"": 1000, "-narrow": 390}
PUSHES = 12


def _admin(page: Browser, system: System) -> None:
    page.open(f"http://{system.admin}/")
    page.write("#key", "Terry-Mao")
    page.click("#watch")
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
    page.wait_for("#key-answer", "messages kept: 1, tokens: 1")


def _demo(page: Browser, system: System) -> None:
    page.open(f"http://{system.admin}/demo")
    page.click("#subscribe button")
    page.wait_for("#state", "live")
    for _ in range(2):
        page.click("#push button")
    page.until(lambda: len(page.texts("#messages li")) == 2, "the messages do not arrive")


def main() -> None:
    """Both pages, wide and narrow."""
    with embedded() as system, browser() as page, TcpClient(system.webs[0].ports["tcp"], rcvbuf=4096) as deaf:
        deaf.subscribe("deaf")
        for number in range(20):
            push(system.webs[0], "deaf", f'"{str(number) * 5000}"')
        for name, show in (("admin", _admin), ("demo", _demo)):
            show(page, system)
            for suffix, width in WIDTHS.items():
                page.picture(str(DOCS / f"{name}{suffix}.png"), width)


if __name__ == "__main__":
    main()
