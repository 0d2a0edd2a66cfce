"""gopush.js in a browser, on a page of another web site: five lines that receive everything, once and in order."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from urllib.request import urlopen

import pytest

from gopush_client import Publisher
from tests.browser.browser import Browser
from tests.chaos.cluster import Node
from tests.clients import eventually
from tests.clients_js.pages import site
from tests.integration.systems import clustered, embedded

PAGE = """<!doctype html>
<title>somebody's</title>
<link rel="icon" href="data:,">
<script src="@URL@/gopush.js"></script>
<script>
  window.got = [];
  window.states = [];
  const options = {
    onMessage: ({ msg, mid }) => got.push([msg.n, mid]),
    onState: state => states.push(state),
    @OPTIONS@
  };
  window.subscription = gopush.subscribe("@URL@", "page", options);
</script>
"""
MODULE = """<!doctype html>
<title>somebody's</title>
<link rel="icon" href="data:,">
<script type="module">
  import { subscribe } from "@URL@/gopush.mjs";
  window.got = [];
  subscribe("@URL@", "module", { since: 0, onMessage: ({ text }) => got.push(text) });
</script>
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Node]:
    """A gopush that is killed, too."""
    with embedded() as system:
        yield system.webs[0]


def found(page: Browser, name: str) -> list[object]:
    return list(json.loads(page.driver.execute_script(f"return JSON.stringify({name})")))


@pytest.mark.parametrize("transport", ["ws", "sse"])
def test_all_arrives_once_and_in_order_through_a_killed_process(page: Browser, server: Node, transport: str) -> None:
    def kill() -> None:
        server.kill()
        server.start()

    url = f"http://{server.address('http')}"
    html = PAGE.replace("@URL@", url).replace("@OPTIONS@", f'transport: "{transport}"')
    with site(html) as origin, Publisher(f"http://{server.address('admin')}", deadline=60) as publisher:
        publisher.push("page", {"n": -1})
        page.driver.get(origin)
        page.until(lambda: "live" in found(page, "states"), "it is not subscribed")
        mids = [publisher.push("page", {"n": number}) for number in range(5)]
        killing = threading.Thread(target=kill)
        killing.start()
        mids += [publisher.push("page", {"n": number}) for number in range(5, 30)]
        killing.join(60)
        page.until(lambda: len(found(page, "got")) >= 30, "not all has arrived")
        mids.append(publisher.push("page", {"n": 30}))
        page.until(lambda: len(found(page, "got")) >= 31, "it is not live again")
        assert found(page, "got") == [[number, str(mid)] for number, mid in enumerate(mids)]
        assert found(page, "states").count("live") > 1


@pytest.mark.parametrize("transport", ["ws", "sse"])
def test_a_page_cut_before_its_first_message_misses_nothing(page: Browser, server: Node, transport: str) -> None:
    url = f"http://{server.address('http')}"
    key = f"cut-{transport}"
    html = PAGE.replace("@URL@", url).replace("@OPTIONS@", f'transport: "{transport}"').replace('"page"', f'"{key}"')
    with site(html) as origin, Publisher(f"http://{server.address('admin')}") as publisher:
        publisher.push(key, {"n": 0})
        page.driver.get(origin)
        page.until(lambda: "live" in found(page, "states"), "it is not subscribed")
        close = f"http://{server.address('admin')}/1/admin/key/close?key={key}"
        with urlopen(close, b"", timeout=30) as answer:
            assert b'"closed":1' in answer.read()
        mid = publisher.push(key, {"n": 1})
        page.until(lambda: found(page, "got") == [[1, str(mid)]], "what was pushed meanwhile does not arrive")


def test_it_is_an_es_module_too(page: Browser, server: Node) -> None:
    with (
        site(MODULE.replace("@URL@", f"http://{server.address('http')}")) as origin,
        Publisher(f"http://{server.address('admin')}") as publisher,
    ):
        publisher.push("module", b'{"n": 12345678901234567890}')
        page.driver.get(origin)
        page.until(lambda: found(page, "window.got || []"), "nothing arrives")
        assert found(page, "got") == ['{"n": 12345678901234567890}']
        assert page.complaints() == []


@pytest.mark.parametrize("leave", ["subscription.close()", "location = 'about:blank'"])
def test_a_page_that_leaves_costs_nothing(page: Browser, server: Node, leave: str) -> None:
    html = PAGE.replace("@URL@", f"http://{server.address('http')}").replace("@OPTIONS@", "since: 0")
    with site(html.replace('"page"', '"left"')) as origin:
        page.driver.get(origin)
        page.until(lambda: "live" in found(page, "states"), "it is not subscribed")
        assert connections(server, "left") == 1
        page.driver.execute_script(leave)
        eventually(lambda: connections(server, "left") == 0)


@pytest.mark.parametrize("transport", ["ws", "sse"])
def test_a_page_that_was_frozen_is_back_at_once(page: Browser, server: Node, transport: str) -> None:
    """Chromium never resumes the fetch of a stream: the page was deaf until that had been silent for too long."""
    key = f"frozen-{transport}"
    html = PAGE.replace("@URL@", f"http://{server.address('http')}").replace("@OPTIONS@", f'transport: "{transport}"')
    with (
        site(html.replace('"page"', f'"{key}"')) as origin,
        Publisher(f"http://{server.address('admin')}") as publisher,
    ):
        page.driver.get(origin)
        page.until(lambda: "live" in found(page, "states"), "it is not subscribed")
        page.driver.execute_cdp_cmd("Page.setWebLifecycleState", {"state": "frozen"})
        mid = publisher.push(key, {"n": 1})
        eventually(lambda: connections(server, key) == 0)
        page.driver.execute_cdp_cmd("Page.setWebLifecycleState", {"state": "active"})
        page.until(lambda: found(page, "got") == [[1, str(mid)]], "what was pushed meanwhile does not arrive")
        assert found(page, "states") == ["connecting", "live", "away", "connecting", "live"]


def test_a_policy_that_forbids_websockets_costs_no_time(page: Browser, server: Node) -> None:
    url = f"http://{server.address('http')}"
    policy = f'<meta http-equiv="Content-Security-Policy" content="connect-src {url}">'
    html = PAGE.replace("@URL@", url).replace("@OPTIONS@", "since: 0").replace('"page"', '"policy"')
    with site(html.replace("<title>", policy + "<title>")) as origin:
        page.driver.get(origin)
        before = time.monotonic()
        page.until(lambda: "live" in found(page, "states"), "it is not subscribed")
        assert time.monotonic() - before < 8
        assert any("connect-src" in complaint for complaint in page.complaints())


CLUSTER_PAGE = """<!doctype html>
<title>somebody's</title>
<link rel="icon" href="data:,">
<script src="@URL@/gopush.js"></script>
<script>
  window.got = { ws: [], sse: [] };
  window.states = { ws: [], sse: [] };
  for (const transport of ["ws", "sse"]) {
    gopush.subscribe("@URL@", "page", {
      transport,
      onMessage: ({ msg, mid }) => got[transport].push([msg.n, mid]),
      onState: state => states[transport].push(state),
    });
  }
</script>
"""


@pytest.mark.slow
def test_all_arrives_through_a_killed_comet_a_killed_web_and_a_rolling_restart(page: Browser) -> None:
    with clustered() as system:
        web = system.webs[0]
        comets = [node for node in system.nodes if node.role == "comet"]
        url, other = f"http://{web.address('http')}", f"http://{system.webs[1].address('admin')}"
        mids: list[int] = []
        over = threading.Event()

        def push() -> None:
            with Publisher(other, deadline=60) as publisher:
                while not over.is_set():
                    mids.append(publisher.push("page", {"n": len(mids)}))
                    over.wait(0.1)

        def arrived() -> bool:
            return all(len(found(page, f"got.{transport}")) >= len(mids) for transport in ("ws", "sse"))

        with site(CLUSTER_PAGE.replace("@URL@", url)) as origin:
            page.driver.get(origin)
            page.until(
                lambda: all("live" in found(page, f"states.{each}") for each in ("ws", "sse")), "nobody is there"
            )
            pushing = threading.Thread(target=push)
            pushing.start()
            try:
                for node in (*comets, web):
                    node.kill()
                    time.sleep(2)  # pushes go on
                    node.start()
                for node in (*comets, web):
                    node.stop()
                    node.start()
            finally:
                over.set()
                pushing.join(60)
            page.until(arrived, "not all has arrived")
            for transport in ("ws", "sse"):
                assert found(page, f"got.{transport}") == [[number, str(mid)] for number, mid in enumerate(mids)]
                assert found(page, f"states.{transport}").count("live") > 1


def connections(node: Node, key: str) -> int:
    with urlopen(f"http://{node.address('stat')}/stat?type=channel&key={key}", timeout=30) as answer:
        return int(json.load(answer)["channel"]["conn"])
