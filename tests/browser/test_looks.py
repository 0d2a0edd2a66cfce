"""How both pages look and read: contrast in light and dark, phones, and what axe finds."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import Any

import pytest

from tests.browser.browser import Browser
from tests.browser.test_admin import push
from tests.chaos.cluster import Node

CONTRAST = """
    const parse = text => (text.match(/[\\d.]+/g) || []).map(Number);
    const lay = ([r, g, b, a = 1], under) => [r, g, b].map((part, i) => part * a + under[i] * (1 - a));
    const linear = part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    const light = rgb => rgb.reduce((sum, part, i) => sum + linear(part / 255) * [0.2126, 0.7152, 0.0722][i], 0);
    const white = [255, 255, 255], paint = node => parse(getComputedStyle(node).backgroundColor);
    const back = node => node === null ? white : lay(paint(node), back(node.parentElement));
    const low = [];
    let seen = 0;
    const look = (node, text, style) => {
      if (!text.trim() || !node.checkVisibility({visibilityProperty: true}) || node.closest("script, style")) return;
      const under = back(node), both = [light(lay(parse(style.color), under)), light(under)];
      const ratio = (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
      seen += 1;
      if (ratio < 4.5) low.push(`${text.trim()}: ${ratio.toFixed(2)} (${style.color} on ${under})`);
    };
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
      const node = texts.currentNode.parentElement;
      look(node, texts.currentNode.data, getComputedStyle(node));
    }
    for (const field of document.querySelectorAll("input")) {
      look(field, field.value || field.placeholder, getComputedStyle(field, field.value ? null : "::placeholder"));
    }
    return [seen, low];
"""
CLIPPED = """
    const wide = document.documentElement.clientWidth;
    const seen = [...document.querySelectorAll("main *")].filter(one => one.checkVisibility());
    const out = seen.filter(one => !one.closest("pre, .u-wrap")).filter(one => {
      const {left, right} = one.getBoundingClientRect();
      return right > wide + 0.5 || left < -0.5;
    });
    return [document.documentElement.scrollWidth - wide, out.map(one => one.outerHTML.slice(0, 80))];
"""
AXE = "axe.run().then(found => arguments[0](found.violations), wrong => arguments[0]([String(wrong)]))"


def full_admin(page: Browser, node: Node) -> None:
    """Something in each of its parts."""
    push(node, "a-long-name-of-a-key-" + "x" * 60, "1")
    page.open(f"http://{node.address('admin')}/")
    page.write("#key", "looks")
    page.click("#watch")
    page.until(lambda: page.text("#watching") == "looks", "nobody is subscribed")
    page.click("#push button")
    page.until(lambda: page.texts("#arrived li") and page.seen(".show-body"), "the message is not shown")
    page.click(".show-body")
    page.click("#create-token button")
    page.until(lambda: page.seen("#tokens .revoke") and page.seen("#messages pre"), "not all is shown")
    page.until(lambda: page.seen("#keys .key"), "no key is busy")
    page.driver.execute_script("tell('nodes-answer', 'drain c1: no answer', false)")


def full_demo(page: Browser, node: Node) -> None:
    page.open(f"http://{node.address('admin')}/demo")
    page.wait_for("#state", "live")
    page.click("#push button")
    page.until(lambda: page.texts("#messages li"), "the message does not arrive")
    page.write("#key", "other")
    page.wait_for("#differs", "The subscriber has the key")


FULL = {"admin": full_admin, "demo": full_demo}


def low_contrast(page: Browser) -> list[str]:
    seen, low = page.driver.execute_script(CONTRAST)
    assert seen > 20
    return list(low)


def serious(page: Browser) -> list[Any]:
    found = page.driver.execute_async_script(AXE)
    return [one for one in found if isinstance(one, str) or one["impact"] in ("serious", "critical")]


@pytest.mark.parametrize("fill", FULL.values(), ids=FULL)
def test_all_is_readable_on_any_screen_and_axe_finds_nothing_serious(
    page: Browser, node: Node, fill: Callable[[Browser, Node], None]
) -> None:
    axe = pytest.importorskip("axe_core_python")
    fill(page, node)
    page.driver.execute_script(files(axe).joinpath("axe.min.js").read_text("utf-8"))
    try:
        for scheme in ("light", "dark"):
            page.scheme(scheme)
            assert low_contrast(page) == []
            assert serious(page) == []
        for width in (320, 390, 700, 1000):
            page.width(width)
            assert page.driver.execute_script(CLIPPED) == [0, []], width
            if width == 390:
                assert serious(page) == []
        if fill is full_admin:
            page.driver.execute_script("away(); sure('Drain it?', 'Drain it')")
            assert serious(page) == []
            page.driver.execute_script("document.getElementById('confirm').close(); drawNothing()")
            for scheme in ("light", "dark"):
                page.scheme(scheme)
                assert low_contrast(page) == []
    finally:
        page.scheme("")
        page.width(0)
    assert page.complaints() == []
