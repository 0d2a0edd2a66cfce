"""A page of another origin, with nothing but the browser's own EventSource."""

from __future__ import annotations

import json
import urllib.request

import pytest

from tests.browser.browser import Browser
from tests.chaos.cluster import Node
from tests.clients_js.pages import site
from tests.integration.systems import embedded

PAGE = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><ol></ol><p></p><script>
const events = new EventSource("http://%b/sub?key=k&heartbeat=30");
const show = text => Object.assign(document.createElement("li"), {textContent: text});
events.onmessage = event => document.querySelector("ol").append(show(event.data));
events.onopen = () => { document.querySelector("p").textContent = "open"; };
events.onerror = () => { document.querySelector("p").textContent = "error " + events.readyState; };
</script>"""


def push(node: Node, body: bytes) -> None:
    url = f"http://{node.address('admin')}/1/admin/push/private?key=k&expire=600"
    with urllib.request.urlopen(urllib.request.Request(url, body), timeout=30) as answer:
        assert json.load(answer) == {"ret": 0}


@pytest.mark.parametrize("listed", [True, False])
def test_two_lines_receive_what_is_pushed_through_a_restart(page: Browser, listed: bool) -> None:
    with embedded() as system:
        (node,) = system.webs
        with site(PAGE.replace("%b", node.address("http"))) as origin:
            if listed:
                node.set({"connections": {"origins": origin}})
                node.stop()
                node.start()
            page.driver.get(origin)
            page.wait_for("p", "open")
            node.kill()  # before its first message
            page.wait_for("p", "error 0")
            node.start()
            push(node, b'"missed"')
            page.until(lambda: len(page.texts("li")) == 1, "what was missed does not arrive")
            push(node, b'{"n":2}')
            page.until(lambda: len(page.texts("li")) == 2, "what is new does not arrive")
            assert [json.loads(text)["msg"] for text in page.texts("li")] == ["missed", {"n": 2}]
        page.complaints()


def test_pages_that_are_not_listed_get_nothing_and_stop(page: Browser) -> None:
    with embedded({"connections": {"origins": "https://www.example.org"}}) as system:
        (node,) = system.webs
        with site(PAGE.replace("%b", node.address("http"))) as origin:
            page.driver.get(origin)
            page.wait_for("p", "error 2")
        page.complaints()
