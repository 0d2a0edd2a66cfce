"""The pages of README.md, of the client's own README.md and of docs/clients.md receive what is pushed, in Chromium."""

from __future__ import annotations

import json
import re

import pytest

from gopush_client import Publisher
from tests.browser.browser import Browser
from tests.clients_js.pages import site
from tests.integration.systems import embedded
from tests.pages import ROOT, blocks

PAGES = {
    "README.md": blocks("README.md", "html")[0],
    "clients/js/README.md": blocks("clients/js/README.md", "html")[0],
    "docs/clients.md": f"<script>\n{blocks('docs/clients.md', 'js')[0]}</script>",
}
SHOWN = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><ol></ol><script>
const said = [];
console.log = (...words) => { said.push(words); document.querySelector("ol").textContent = JSON.stringify(said); };
</script>"""


@pytest.mark.parametrize("document", ["README.md", "clients/js/README.md"])
def test_a_page_hears_in_words_what_its_callback_throws(page: Browser, document: str) -> None:
    """What comes out of a script of another site, without its leave, is "Script error." to the page."""
    with embedded() as system:
        (node,) = system.webs
        example = PAGES[document].replace("localhost:8090", node.address("http"))
        throwing = example.replace("console.log(message.mid, message.msg)", "{ throw new Error('of the page'); }")
        heard = "<p></p><script>onerror = text => { document.querySelector('p').textContent = text; };</script>"
        with site(heard + throwing) as origin, Publisher(f"http://{node.address('admin')}") as publisher:
            page.driver.get(origin)
            page.until(
                lambda: publisher.push("Terry-Mao", 1, expire=0) and page.texts("p") != [""], "nothing is thrown"
            )
            assert page.text("p") == "Uncaught Error: of the page"
        page.complaints()


@pytest.mark.parametrize("document", PAGES)
def test_a_page_shows_what_is_pushed(page: Browser, document: str) -> None:
    assert (ROOT / document).exists()
    with embedded() as system:
        (node,) = system.webs
        example = re.sub(
            r"https?://(localhost:8090|push\.example\.org)", f"http://{node.address('http')}", PAGES[document]
        )
        key = re.findall(r"Terry-Mao|KEY", example)[0]
        with site(SHOWN + example) as origin, Publisher(f"http://{node.address('admin')}") as publisher:
            page.driver.get(origin)
            pushed: list[int] = []

            def shown() -> bool:
                """It takes what is new: push until it is there."""
                pushed.append(publisher.push(key, len(pushed), expire=0))
                return page.texts("ol") != [""]

            page.until(shown, "nothing arrives")
            (first, *_) = json.loads(page.texts("ol")[0])
            number, mid = first if document == "docs/clients.md" else reversed(first)
            assert pushed[number] == int(mid)
        page.complaints()
