"""The page for newcomers, in a browser: every button does what it says."""

from __future__ import annotations

from tests.browser.browser import Browser
from tests.chaos.cluster import Node

SUBSCRIBE, PUSH, BREAK, ARRIVED = "#subscribe button", "#push button", "#break", "#messages li"


def test_a_pushed_message_arrives_and_a_broken_connection_resumes(page: Browser, node: Node) -> None:
    page.open(f"http://{node.address('admin')}/demo")
    page.click(SUBSCRIBE)
    page.wait_for("#state", "live")
    page.write("#message", '{"number": 1}')
    page.click(PUSH)
    page.until(lambda: len(page.texts(ARRIVED)) == 1, "the message does not arrive")
    assert page.texts(ARRIVED)[0].startswith('{"number": 1}')

    page.click(BREAK)
    page.wait_for("#state", "away")
    page.write("#message", '{"number": 2}')
    page.click(PUSH)
    page.wait_for("#answer", '"ret":0')
    page.until(lambda: len(page.texts(ARRIVED)) == 2, "what was missed does not arrive")
    assert page.texts(ARRIVED)[0].startswith('{"number": 2}')
    assert page.text("#state") == "live"
    assert page.complaints() == []


def test_what_is_no_json_is_answered_so(page: Browser, node: Node) -> None:
    page.open(f"http://{node.address('admin')}/demo")
    page.write("#message", "{")
    page.click(PUSH)
    page.wait_for("#answer", "the message is not JSON")
    assert page.complaints() == []
