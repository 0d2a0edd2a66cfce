"""The page for newcomers, in a browser: every button does what it says."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from tests.browser.browser import Browser
from tests.browser.conftest import Locked
from tests.browser.test_admin import push, refused
from tests.chaos.cluster import Node
from tests.clients_js.pages import site
from tests.integration.systems import clustered, embedded
from tests.servers import free_port
from tests.servers.authority import Authority
from tests.servers.balancers import STREAM, nginx

SUBSCRIBE, PUSH, BREAK, ARRIVED = "#subscribe button", "#push button", "#break", "#messages li"


def demo(node: Node) -> str:
    return f"http://{node.address('admin')}/demo"


def arrived(page: Browser) -> list[str]:
    """The messages, the last one first."""
    return [text.split("\n")[0] for text in page.texts(ARRIVED)]


def test_a_pushed_message_arrives_and_a_broken_connection_resumes(page: Browser, node: Node) -> None:
    """It subscribes at once; what somebody pushes besides in the meantime is caught up, too."""
    page.open(demo(node))
    page.wait_for("#state", "live")
    page.write("#message", '{"number": 1}')
    page.click(PUSH)
    page.until(lambda: arrived(page) == ['{"number": 1}'], "the message does not arrive")

    page.click(BREAK)
    page.wait_for("#state", "away")
    page.wait_for("#verdict", "3 messages caught up, none lost")
    away = [f'{{"pushed while you were away":{number}}}' for number in (3, 2, 1)]
    assert arrived(page) == [*away, '{"number": 1}']
    assert page.text("#state") == "live"

    page.click(BREAK)
    page.wait_for("#state", "away")
    push(node, "demo", '"somebody else"')
    page.wait_for("#verdict", "4 messages caught up, none lost")
    assert set(arrived(page)[:4]) == {*away, '"somebody else"'}
    assert page.complaints() == []


def test_what_is_wrong_is_said_in_words(page: Browser, node: Node) -> None:
    page.open(demo(node))
    page.write("#message", "{")
    page.click(PUSH)
    page.wait_for("#answer", "not possible: the message is not JSON")
    assert "65534" not in page.text("body")
    assert page.complaints() == []


def test_another_key_in_the_field_is_warned_of(page: Browser, node: Node) -> None:
    page.open(demo(node))
    page.wait_for("#state", "live")
    page.write("#key", "other")
    page.wait_for("#differs", "The subscriber has the key demo: what you push now goes to other")
    page.click(PUSH)
    page.wait_for("#answer", "stored, for the key other")
    page.click(SUBSCRIBE)
    page.until(lambda: page.text("#differs") == "" and page.text("#state") == "live", "it is not subscribed anew")
    page.click(PUSH)
    page.until(lambda: len(page.texts(ARRIVED)) == 1, "the message does not arrive")
    assert page.complaints() == []


def test_who_breaks_the_connection_and_takes_another_key_has_nothing_pushed_to_it(page: Browser, node: Node) -> None:
    page.open(demo(node))
    page.wait_for("#state", "live")
    page.driver.execute_script("at('break').click(); at('key').value = 'next'; at('subscribe').requestSubmit()")
    page.wait_for("#state", "live")
    page.until(lambda: page.texts("#pushed li"), "nothing was pushed while it was broken")
    page.write("#message", '"my own"')
    page.click(PUSH)
    page.until(lambda: '"my own"' in arrived(page), "the message does not arrive")
    assert arrived(page) == ['"my own"']
    assert page.complaints() == []


def test_the_five_lines_that_it_shows_are_a_subscriber(page: Browser, node: Node) -> None:
    page.open(demo(node))
    page.write("#key", '</script>"lines')
    page.until(lambda: "lines" in page.text("#code"), "the code does not follow")
    page.write("#key", "lines")
    page.until(lambda: '"lines"' in page.text("#code"), "the code does not follow")
    code = page.text("#code")
    assert len(code.splitlines()) == 5
    with site(f"<!doctype html><title>mine</title><link rel=icon href=data:,><body>{code}") as origin:
        page.driver.get(origin)

        def logged() -> bool:
            push(node, "lines", '"to the console"')
            return any("to the console" in line for line in page.complaints())

        page.until(logged, "the code receives nothing")


def test_where_subscribers_need_tokens_the_page_makes_one(page: Browser, locked: Locked) -> None:
    page.open(f"{locked.url}demo")
    page.until(lambda: page.seen("#login"), "it asks for no API key")
    page.write("#api-key", "wrong")
    page.click("#login button")
    page.wait_for("#login-answer", "not known")
    page.write("#api-key", locked.key)
    page.click("#login button")
    page.wait_for("#state", "live")
    assert page.text("#detail") == "with a token that the page made for it"
    page.click(PUSH)
    page.until(lambda: len(page.texts(ARRIVED)) == 1, "the message does not arrive")
    assert refused(page)


@pytest.mark.skipif(not (shutil.which("nginx") and STREAM.exists()), reason="wants nginx-light, libnginx-mod-stream")
def test_behind_https_it_finds_the_public_port_at_its_own_address(page: Browser, tmp_path: Path) -> None:
    """nginx ends TLS, and leads to both ports; the comet's own cannot be reached so: a stream takes its place."""
    port, issued = free_port(), Authority(tmp_path).issue("page")
    origin = f"https://127.0.0.1:{port}"
    with embedded({"admin": {"origins": origin}}) as system:
        (node,) = system.webs
        to = "proxy_http_version 1.1; proxy_buffering off; proxy_set_header Host $http_host; proxy_pass http://"
        server = (
            f"server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {issued.certificate}; "
            f"ssl_certificate_key {issued.key}; location / {{ {to}{node.address('http')}; }} "
            f"location ~ ^/(demo|pages/|1/admin/) {{ {to}{node.address('admin')}; }} }}"
        )
        with nginx(server, "", port):
            page.driver.execute_cdp_cmd("Security.setIgnoreCertificateErrors", {"ignore": True})
            page.open(f"{origin}/demo")
            page.wait_for("#state", "live")
            page.click(PUSH)
            page.until(lambda: len(page.texts(ARRIVED)) == 1, "the message does not arrive")
            assert f"{origin}/gopush.js" in page.text("#code")
    page.driver.execute_cdp_cmd("Security.setIgnoreCertificateErrors", {"ignore": False})
    page.complaints()


def test_where_the_public_port_cannot_be_reached_the_page_names_it(page: Browser) -> None:
    """As through a tunnel that leads to the admin port alone."""
    public = f"http://127.0.0.1:{free_port()}"
    with embedded({"admin": {"public": public}}) as system:
        page.open(demo(system.webs[0]))
        page.wait_for("#detail", f"The browser must reach {public}, ")
    page.complaints()


@pytest.mark.slow
def test_in_a_cluster_nothing_is_lost_when_a_comet_dies(page: Browser) -> None:
    with clustered() as system:
        page.open(demo(system.webs[0]))
        page.wait_for("#state", "live")
        comets = [node for node in system.nodes if node.role == "comet"]
        killing = threading.Thread(target=lambda: [node.kill() or node.start() for node in comets])  # type: ignore[func-returns-value]
        killing.start()
        page.until(lambda: page.text("#state") != "live", "nobody has noticed")
        for _ in range(3):
            page.click(PUSH)
        killing.join(60)
        page.wait_for("#verdict", "none lost")
        page.until(lambda: len(page.texts(ARRIVED)) == len(page.texts("#pushed li")), "not all has arrived")
    page.complaints()
