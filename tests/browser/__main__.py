"""`python -m tests.browser`: the pictures of both pages in docs/, anew."""

from __future__ import annotations

import time
from pathlib import Path

from tests.browser.browser import Browser, browser
from tests.integration.systems import embedded

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
WIDTHS = {"": 1000, "-narrow": 390}
PUSHES = 12


def _admin(page: Browser, address: str) -> None:
    page.open(f"http://{address}/")
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


def _demo(page: Browser, address: str) -> None:
    page.open(f"http://{address}/demo")
    page.click("#subscribe button")
    page.wait_for("#state", "live")
    for _ in range(2):
        page.click("#push button")
    page.until(lambda: len(page.texts("#messages li")) == 2, "the messages do not arrive")


def main() -> None:
    """Both pages, wide and narrow."""
    with embedded() as system, browser() as page:
        for name, show in (("admin", _admin), ("demo", _demo)):
            show(page, system.admin)
            for suffix, width in WIDTHS.items():
                page.picture(str(DOCS / f"{name}{suffix}.png"), width)


if __name__ == "__main__":
    main()
