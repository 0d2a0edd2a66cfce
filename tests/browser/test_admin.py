"""The administrators' page, in a browser (protocol.md, section 10): every button does what it says."""

from __future__ import annotations

import json
from functools import partial
from urllib.request import urlopen

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

import gopush
from gopush.membership.view import View
from gopush.model import NodeInfo
from gopush.reports import Status
from tests.browser.browser import Browser
from tests.browser.conftest import Locked
from tests.chaos.cluster import Node
from tests.clients import TcpClient
from tests.integration.systems import embedded
from tests.web.conftest import World
from tests.web.fakes import FakeNode

CHARTS = ("connections", "pushes", "deliveries", "latency")
COMETS = (
    NodeInfo("node1", 0, ("c1:6970",), ("c1:6969",), ("c1:6968",), weight=2),
    NodeInfo("node2", 0, ("c2:6970",), ("c2:6969",), draining=True),
    NodeInfo("node3", 0, ("c3:6970",), ("c3:6969",)),
)
SHOW, CREATE, PUSH = "#look button", "#create-token button", "#push button"
ARRIVED, MESSAGES, TOKENS = "#arrived li", "#messages tbody tr", "#tokens tbody tr"


def admin(node: Node) -> str:
    return f"http://{node.address('admin')}/"


def agree(page: Browser, question: str) -> None:
    """Say yes to this question."""
    page.wait_for("#question", question)
    page.click("#do-it")


# --- nodes ---


@pytest.fixture
def cluster(world: World) -> World:
    """Three comets, of which node3 is silent."""
    world.in_reactor(world.coordination.adopt, View(COMETS, ()))
    world.comets.nodes["c1:6970"] = FakeNode(Status("1.0", 7200, 5, 4, 100))
    world.comets.nodes["c2:6970"] = FakeNode(Status("1.0", 60, 0, 0, 10))
    return world


def row(name: str) -> str:
    return f'tr[data-id^="comet "][data-id*=" {name}:6970"]'


def test_nodes_are_shown_as_they_are(page: Browser, cluster: World) -> None:
    page.open(f"http://127.0.0.1:{cluster.admin.port}/")
    page.wait_for("#state", "3 processes, 1 silent")
    first, second, third = page.texts("#nodes tbody tr")
    for part in ("node1", "active", "5", "4", "2 h", "rpc c1:6970", "tcp c1:6969", "ws c1:6968", "Drain"):
        assert part in first
    assert "draining" in second
    assert "Undrain" in second
    assert "active, silent" in third
    cluster.in_reactor(cluster.coordination.adopt, View(COMETS[:1], ()))
    page.until(lambda: len(page.texts("#nodes tbody tr")) == 1, "who is gone is still shown")
    assert page.complaints() == []


def test_a_process_that_is_another_node_at_its_address_is_shown_as_that(page: Browser, cluster: World) -> None:
    page.open(f"http://127.0.0.1:{cluster.admin.port}/")
    page.wait_for("#nodes", "tcp c1:6969")
    for renamed, shown in (
        (COMETS[0]._replace(node="node9"), "comet node9"),
        (COMETS[0]._replace(node="node9", tcp=("c1:7969",)), "tcp c1:7969"),
    ):
        cluster.in_reactor(cluster.coordination.adopt, View((renamed, *COMETS[1:]), ()))
        page.wait_for("#nodes", shown)
        assert len(page.texts("#nodes tbody tr")) == 3
    page.write(f"{row('c1')} input", "7")
    page.click(f"{row('c1')} .weigh")
    page.wait_for("#nodes-answer", "weight node9: done")
    assert cluster.comets.nodes["c1:6970"].reported == [7]
    assert page.complaints() == []


def test_a_node_is_drained_taken_back_and_weighed(page: Browser, cluster: World) -> None:
    def reported(name: str) -> list[int | bool]:
        return cluster.comets.nodes[f"{name}:6970"].reported

    page.open(f"http://127.0.0.1:{cluster.admin.port}/")
    page.click(f"{row('c1')} .drain")
    agree(page, "Drain node1 (c1:6970)?")
    page.wait_for("#nodes-answer", "drain c1:6970: done")
    page.click(f"{row('c2')} .undrain")
    page.wait_for("#nodes-answer", "undrain c2:6970: done")
    page.write(f"{row('c1')} input", "7")
    page.click(f"{row('c1')} .weigh")
    page.wait_for("#nodes-answer", "weight node1: done")
    assert (reported("c1"), reported("c2")) == ([True, 7], [False])
    page.click(f"{row('c3')} .drain")
    agree(page, "Drain node3 (c3:6970)?")
    page.wait_for("#nodes-answer", "no answer in time")
    assert page.complaints() == []


def test_the_last_comet_cannot_be_drained_and_the_page_says_so(page: Browser, node: Node) -> None:
    page.open(admin(node))
    page.click(".drain")
    agree(page, "Drain embedded?")
    page.wait_for("#nodes-answer", "not possible: the last comets")
    page.write("#nodes input", "3")
    page.click(".weigh")
    page.wait_for("#nodes-answer", "weight embedded: done")
    assert page.complaints() == []


def test_a_process_that_is_all_is_one_row_and_named_with_its_version(page: Browser, node: Node) -> None:
    page.open(admin(node))
    page.wait_for("#state", "1 process")
    (only,) = page.texts("#nodes tbody tr")
    assert only.startswith("comet, message embedded")
    assert page.text("#about") == f"one process alone, version {gopush.__version__}"
    links = {"#docs": b"# Administration", "#metrics": b"gopush_", "#api": b"openapi", "nav a": b"try it"}
    for link, found in links.items():
        target = page.driver.find_element(By.CSS_SELECTOR, link).get_attribute("href")
        assert target is not None
        with urlopen(target, timeout=30) as answer:
            assert found in answer.read(), target


def test_buttons_are_named_for_their_node_and_ask_first(page: Browser, cluster: World) -> None:
    page.open(f"http://127.0.0.1:{cluster.admin.port}/")
    page.until(lambda: page.seen(f"{row('c1')} .drain"), "no node is shown")
    named = {
        found.accessible_name
        for found in page.driver.find_elements(By.CSS_SELECTOR, "#nodes button, #nodes input")
        if found.is_displayed()
    }
    for name in ("node1", "node2", "node3"):
        assert {f"weight of {name}", f"Set the weight of {name}"} <= named
    assert {"Drain node1 (c1:6970)", "Undrain node2 (c2:6970)", "Drain node3 (c3:6970)"} <= named
    page.click(f"{row('c1')} .drain")
    page.wait_for("#question", "Drain node1 (c1:6970)?")
    page.click("#do-not")
    page.write(f"{row('c1')} input", "5000")
    page.click(f"{row('c1')} .weigh")
    page.wait_for("#nodes-answer", "not possible: weight is not a whole number from 1 to 1000 (found: '5000')")
    assert cluster.comets.nodes["c1:6970"].reported == []
    page.driver.execute_script("GOOD_MS = 50")
    page.write(f"{row('c1')} input", "5")
    page.click(f"{row('c1')} .weigh")
    page.wait_for("#nodes-answer", "weight node1: done")
    page.until(lambda: page.text("#nodes-answer") == "", "success does not fade")
    assert cluster.comets.nodes["c1:6970"].reported == [5]


# --- keys ---


def test_the_busiest_keys_are_listed_found_and_shown_with_bodies(page: Browser, node: Node) -> None:
    page.open(admin(node))
    body = '{"big": 12345678901234567890, "mid": 5}'
    push(node, "shop-7", body)
    page.write("#prefix", "nobody-")
    page.click("#find button")
    page.wait_for("#keys-answer", "No key that begins with nobody-")
    page.write("#prefix", "shop-")
    page.click("#find button")
    page.until(lambda: page.texts("#keys .key") == ["shop-7"], "the key is not found")
    assert page.texts("#keys tbody td")[1] == "0"
    assert page.texts("#keys tbody td")[2].endswith("/min")
    page.click("#keys .key")
    page.wait_for("#shown-key", "shop-7")
    page.click(".show-body")
    page.until(lambda: page.texts("#messages pre") == [body], "the body is not shown")
    page.click(".show-body")
    page.until(lambda: not page.seen("#messages pre"), "the body stays")
    assert page.complaints() == []


def test_buttons_act_on_the_key_that_is_shown(page: Browser, node: Node) -> None:
    """And on nothing where that is not agreed to."""
    for key in ("shown", "typed"):
        push(node, key, "1")
    page.open(admin(node))
    page.write("#key", "shown")
    page.click(SHOW)
    page.wait_for("#key-answer", "shown: messages kept: 1")
    page.write("#key", "typed")
    page.wait_for("#differs", "The page shows shown")
    page.click("#delete")
    page.wait_for("#question", "kept messages of shown,")
    page.click("#do-not")
    page.until(lambda: not page.seen("#question"), "it still asks")
    assert (messages(node, "shown"), messages(node, "typed")) == (1, 1)
    page.click("#delete")
    agree(page, "kept messages of shown,")
    page.wait_for("#key-answer", "deleted. shown: messages kept: 0")
    assert (messages(node, "shown"), messages(node, "typed")) == (0, 1)
    page.click(PUSH)
    page.wait_for("#push-answer", "stored as ")
    assert (messages(node, "shown"), messages(node, "typed")) == (1, 1)
    page.click(CREATE)
    page.until(lambda: page.seen("#copy-token"), "no token is shown")
    page.click("#copy-token")
    page.wait_for("#copied", "copied")
    page.driver.find_element(By.ID, "body").send_keys(Keys.CONTROL, "av")
    assert page.value("#body") == page.value("#token")
    assert page.complaints() == []


def test_a_key_that_cannot_be_shown_takes_the_one_before_away(page: Browser, node: Node) -> None:
    """Its buttons, too: they would act on another key than the one above them."""
    push(node, "before", "1")
    page.open(admin(node))
    page.write("#key", "before")
    page.click(SHOW)
    page.wait_for("#key-answer", "before: messages kept: 1")
    page.write("#key", "k" * 256)
    page.click(SHOW)
    page.wait_for("#key-answer", "not possible: ")
    assert not page.seen("#shown-key")
    assert not page.seen("#delete")
    page.write("#key", "before")
    assert page.text("#differs") == ""
    page.click(SHOW)
    page.wait_for("#shown-key", "before")
    page.click(PUSH)
    page.wait_for("#push-answer", "stored as ")
    assert messages(node, "before") == 2
    assert page.complaints() == []


def messages(node: Node, key: str) -> int:
    with urlopen(f"http://{node.address('admin')}/1/admin/key?key={key}", timeout=30) as answer:
        return len(json.load(answer)["data"]["messages"])


# --- a key ---


def test_a_message_pushed_in_the_page_arrives_in_the_page(page: Browser, node: Node) -> None:
    page.open(admin(node))
    page.write("#key", "watched")
    page.click("#watch")
    page.wait_for("#watching", "watched")
    page.until(lambda: "connecting" not in page.text("#watching"), "nobody is subscribed")
    page.write("#body", '{"number": 12345678901234567890}')
    page.click(PUSH)
    page.wait_for("#push-answer", "stored as ")
    page.until(lambda: len(page.texts(ARRIVED)) == 1, "the message does not arrive")
    mid = page.text("#push-answer").removeprefix("stored as ")
    assert page.texts(ARRIVED) == ['{"number": 12345678901234567890}\nmid ' + mid]

    page.click(SHOW)
    page.wait_for("#subscribers", "embedded (embedded): 1")
    page.click("#watch")
    page.wait_for("#watching", "nothing")
    page.write("#body", "{")
    page.click(PUSH)
    page.wait_for("#push-answer", "not possible")
    assert len(page.texts(ARRIVED)) == 1
    assert page.complaints() == []


def test_watching_that_is_stopped_before_it_began_does_not_begin(page: Browser, node: Node) -> None:
    page.open(admin(node))
    page.write("#key", "twice")
    page.driver.execute_script("at('watch').click(); at('watch').click()")
    page.wait_for("#watching", "nothing")
    assert page.text("#watch") == "Watch"
    page.click("#watch")
    page.until(lambda: page.text("#watching") == "twice", "nobody is subscribed")
    page.click(PUSH)
    page.until(lambda: page.texts(ARRIVED), "the message does not arrive")
    page.click(SHOW)
    page.wait_for("#subscribers", "embedded (embedded): 1")
    assert len(page.texts(ARRIVED)) == 1
    assert page.complaints() == []


def test_a_keys_messages_and_tokens_are_shown_and_taken_away(page: Browser, node: Node) -> None:
    page.open(admin(node))
    page.write("#key", "kept")
    page.click(SHOW)
    page.wait_for("#key-answer", "kept: messages kept: 0, tokens: 0")
    page.write("#body", '"six"')
    page.click(PUSH)
    page.until(lambda: len(page.texts(MESSAGES)) == 1, "the message is not shown")
    mid = page.text("#push-answer").removeprefix("stored as ")
    assert page.texts(f"{MESSAGES} td")[0::2] == [mid, "5"]

    page.write("#life", "600")
    page.click(CREATE)
    page.until(lambda: len(page.texts(TOKENS)) == 1, "the token is not listed")
    assert len(page.value("#token")) == 43
    page.click("#tokens .revoke")
    agree(page, "Revoke the token")
    page.wait_for("#key-answer", "revoked. kept: messages kept: 1, tokens: 0")

    page.click("#delete")
    agree(page, "Delete all kept messages of kept")
    page.wait_for("#key-answer", "deleted. kept: messages kept: 0, tokens: 0")
    assert page.complaints() == []


def test_closing_a_key_closes_its_connections(page: Browser, node: Node) -> None:
    page.open(admin(node))
    page.write("#key", "closed")
    page.click("#watch")
    page.until(lambda: page.text("#watching") == "closed", "nobody is subscribed")
    page.click(SHOW)
    page.click("#close")
    page.wait_for("#key-answer", "closed 1.")
    page.wait_for("#watching", "ended")


def test_the_charts_move(page: Browser, node: Node) -> None:
    page.open(admin(node))
    page.write("#key", "charted")
    page.click("#watch")
    page.until(lambda: page.text("#watching") == "charted", "nobody is subscribed")
    for _ in range(3):
        page.click(PUSH)
    highest: dict[str, float] = dict.fromkeys(CHARTS, 0.0)

    def moved() -> bool:
        for name in CHARTS:
            text = page.text(f"#chart-{name} b")
            highest[name] = max(highest[name], float(text.split("/")[0].split(" ")[0] or 0))
        return all(highest.values())

    page.until(moved, f"a chart shows nothing: {highest}")
    for name in CHARTS:
        page.until(partial(page.drawn, f"#chart-{name} canvas"), f"nothing is drawn of {name}")
    page.hover("#chart-connections canvas")
    page.wait_for("#chart-connections b", " at ")
    before = page.drawn("#chart-pushes canvas")
    page.until(lambda: page.drawn("#chart-pushes canvas") != before, "what is drawn stands still")
    assert page.complaints() == []


# --- slow connections ---


def test_a_client_that_does_not_read_is_shown_until_it_does(page: Browser, node: Node) -> None:
    page.open(admin(node))
    page.wait_for("#slowest-answer", "Nobody is behind")
    with TcpClient(node.ports["tcp"], rcvbuf=4096) as client:
        client.subscribe("deaf")
        for number in range(30):
            push(node, "deaf", json.dumps(str(number) * 5000))
        page.until(lambda: len(page.texts("#slowest tbody tr")) == 1, "the slow connection is not shown")
        host, port = client.socket.getsockname()
        key, index, address, messages, waiting, behind = page.texts("#slowest tbody td")
        assert (key, index, address) == ("deaf", "embedded", f"{host}:{port}\ntcp")
        assert 0 < int(messages) <= 30
        assert int(waiting) > 5000
        assert behind.endswith("s")
        page.until(lambda: page.texts("#slowest tbody td")[5] not in (behind, "0 s"), "it does not grow older")
        for _ in range(30):
            client.message()
        page.wait_for("#slowest-answer", "Nobody is behind")
        assert not page.seen("#slowest")
    assert page.complaints() == []


def push(node: Node, key: str, body: str) -> None:
    url = f"http://{node.address('admin')}/1/admin/push/private?key={key}&expire=600"
    with urlopen(url, body.encode(), timeout=30) as answer:
        assert answer.read() == b'{"ret":0}'


# --- a server that goes, and comes back ---


def test_a_server_that_is_gone_is_said_and_watching_resumes(page: Browser) -> None:
    with embedded() as system:
        (node,) = system.webs
        page.open(admin(node))
        page.write("#key", "k")
        page.click("#watch")
        page.until(lambda: page.text("#watching") == "k", "nobody is subscribed")
        node.kill()
        page.wait_for("#banner", "The server does not answer, since ")
        page.wait_for("#watching", "k: ")
        grey = page.driver.execute_script("return getComputedStyle(document.getElementById('all')).filter")
        assert (grey, page.text("#state")) == ("grayscale(1)", "gone")
        node.start()
        page.until(lambda: not page.seen("#banner"), "the banner stays")
        push(node, "k", '"missed"')
        page.until(
            lambda: page.texts(ARRIVED)[:1] and page.texts(ARRIVED)[0].startswith('"missed"'), "it is not watched"
        )
        page.wait_for("#watching", "k (resumed: ")
        page.wait_for("#state", "1 process")
    page.complaints()


# --- API keys ---


def refused(page: Browser) -> bool:
    """The browser itself notes each 401; it has nothing else to complain of."""
    return all("401" in complaint for complaint in page.complaints())


def test_a_wrong_api_key_is_turned_away_and_the_right_one_let_in(page: Browser, locked: Locked) -> None:
    page.open(locked.url)
    page.wait_for("#state", "locked")
    assert not page.seen("#all")
    assert page.text("#login-answer") == ""
    page.write("#api-key", "wrong")
    page.click("#login button")
    page.wait_for("#login-answer", "not known")
    assert not page.seen("#all")
    assert page.driver.execute_script("return sessionStorage.length") == 0

    page.write("#api-key", locked.key)
    page.click("#login button")
    page.wait_for("#state", "1 process")
    assert page.seen("#all")
    assert not page.seen("#login")
    page.driver.refresh()
    page.wait_for("#state", "1 process")
    assert locked.key not in page.driver.page_source
    assert page.driver.execute_script("return localStorage.length + document.cookie.length") == 0

    page.driver.execute_script("sessionStorage.setItem('gopush-api-key', 'revoked meanwhile')")
    page.wait_for("#login-answer", "not known")
    assert not page.seen("#all")
    page.write("#api-key", locked.key)
    page.click("#login button")
    page.wait_for("#state", "1 process")

    page.click("#logout")
    page.wait_for("#state", "locked")
    assert not page.seen("#all")
    assert refused(page)


@pytest.mark.parametrize("path", ["", "demo"])
def test_an_api_key_that_no_request_can_carry_is_turned_away(page: Browser, locked: Locked, path: str) -> None:
    """No server ever says so: a browser makes no request with a header beyond Latin-1."""
    page.open(locked.url + path)
    page.write("#api-key", "ключ")
    page.click("#login button")
    page.wait_for("#login-answer", "not known")
    assert page.driver.execute_script("return sessionStorage.length") == 0
    page.driver.execute_script("sessionStorage.setItem('gopush-api-key', 'ключ')")
    page.driver.refresh()
    page.wait_for("#login-answer", "not known")
    page.write("#api-key", locked.key)
    page.click("#login button")
    page.until(lambda: page.seen("#all"), "the right key is not let in")
    assert refused(page)


@pytest.mark.parametrize("path", ["", "demo"])
def test_where_the_browser_forbids_storage_the_page_keeps_the_key_itself(
    page: Browser, locked: Locked, path: str
) -> None:
    forbid = {"source": "Object.defineProperty(window, 'sessionStorage', { get() { throw new Error('forbidden'); } })"}
    added = page.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", forbid)
    try:
        page.driver.get(locked.url + path)
        page.write("#api-key", "wrong")
        page.click("#login button")
        page.wait_for("#login-answer", "not known")
        page.write("#api-key", locked.key)
        page.click("#login button")
        page.until(lambda: page.seen("#all"), "the right key is not let in")
        page.click("#logout")
        page.until(lambda: page.seen("#login"), "it asks for no API key")
        assert refused(page)
    finally:
        page.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


def test_where_subscribers_need_tokens_watching_makes_one(page: Browser, locked: Locked) -> None:
    page.open(locked.url)
    page.write("#api-key", locked.key)
    page.click("#login button")
    page.write("#key", "guarded")
    page.click("#watch")
    page.until(lambda: page.text("#watching") == "guarded", "nobody is subscribed")
    page.click(PUSH)
    page.until(lambda: len(page.texts(ARRIVED)) == 1, "the message does not arrive")
    page.click(SHOW)
    page.wait_for("#key-answer", "guarded: messages kept: 1, tokens: 1")
    assert refused(page)
