"""A headless Chromium on one page, with waits that say what was there instead."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from selenium.common.exceptions import JavascriptException, StaleElementReferenceException
from selenium.webdriver import ActionChains, Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By

PATIENCE_SECONDS = 30.0
COLOURED = """
    const canvas = document.querySelector(arguments[0]), found = [];
    const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", {willReadFrequently: true});
    copy.drawImage(canvas, 0, 0);
    const data = copy.getImageData(0, 0, canvas.width, canvas.height).data;
    for (let i = 0; i < data.length; i += 4) {
      const most = Math.max(data[i], data[i + 1], data[i + 2]), least = Math.min(data[i], data[i + 1], data[i + 2]);
      if (data[i + 3] > 200 && most - least > 40) found.push(i / 4);
    }
    return found.join();
"""
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-lcd-text",  # pictures are smaller, and the same on any screen
)


class Browser:
    """What a person can do with a page, by CSS selectors."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        """Load a page in a tab that remembers nothing."""
        self.driver.get(url)
        self.driver.execute_script("sessionStorage.clear()")
        self.driver.get(url)

    def click(self, selector: str) -> None:
        """Click what is seen."""
        self.until(lambda: self.seen(selector), f"{selector} is not seen")
        self.driver.find_element(By.CSS_SELECTOR, selector).click()

    def write(self, selector: str, text: str) -> None:
        """Put text into a field in the place of what stands there."""
        self.until(lambda: self.seen(selector), f"{selector} is not seen")
        field = self.driver.find_element(By.CSS_SELECTOR, selector)
        field.clear()
        field.send_keys(text)

    def seen(self, selector: str) -> bool:
        """Whether there is such a thing, and it is shown."""
        return any(found.is_displayed() for found in self.driver.find_elements(By.CSS_SELECTOR, selector))

    def text(self, selector: str) -> str:
        """What one reads there."""
        return self.driver.find_element(By.CSS_SELECTOR, selector).text

    def texts(self, selector: str) -> list[str]:
        """What one reads in all of them, from above."""
        return [found.text for found in self.driver.find_elements(By.CSS_SELECTOR, selector)]

    def wait_for(self, selector: str, expected: str) -> None:
        """Wait until `expected` is part of what one reads there."""
        self.until(lambda: expected in self.text(selector), f"{selector} does not show {expected!r}")

    def until(self, condition: Callable[[], object], otherwise: str) -> None:
        """Wait for it."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self._holds(condition):
            if time.monotonic() > deadline:
                raise AssertionError(f"{otherwise}; the page:\n{self.text('body')}")
            time.sleep(0.05)

    def drawn(self, selector: str) -> str:
        """The coloured part of the picture in a canvas: all but grey axes and letters; empty where there is none."""
        found: str = self.driver.execute_script(COLOURED, selector)
        return found

    def value(self, selector: str) -> str:
        """What stands in a field."""
        return str(self.driver.find_element(By.CSS_SELECTOR, selector).get_property("value"))

    def hover(self, selector: str) -> None:
        """Put the pointer into its middle."""
        found = self.driver.find_element(By.CSS_SELECTOR, selector)
        ActionChains(self.driver).scroll_to_element(found).move_to_element(found).perform()

    def scheme(self, name: str) -> None:
        """Prefer "light" or "dark", and that nothing fades, which is neither; "" as before."""
        wanted = {"prefers-color-scheme": name, "prefers-reduced-motion": "reduce"} if name else {}
        features = [{"name": feature, "value": value} for feature, value in wanted.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def width(self, pixels: int) -> None:
        """Be a screen as wide as this; 0: as before."""
        if pixels:
            size = {"width": pixels, "height": 800, "deviceScaleFactor": 1, "mobile": False}
            self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        else:
            self.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})

    def complaints(self) -> list[str]:
        """What the browser itself found wrong since the last call: errors of scripts, what a policy forbade."""
        return [pending["message"] for pending in self.driver.get_log("browser")]  # type: ignore[no-untyped-call]

    def picture(self, path: str, width: int) -> None:
        """A picture of the page from above, as wide as this."""
        self.width(width)
        time.sleep(1.5)  # the charts are drawn anew
        height = self.driver.execute_script("return Math.ceil(scrollY + document.body.getBoundingClientRect().bottom)")
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        self.driver.execute_script("scrollTo(0, 0)")
        assert self.driver.save_screenshot(path)

    @staticmethod
    def _holds(condition: Callable[[], object]) -> bool:
        try:
            return bool(condition())
        except (StaleElementReferenceException, JavascriptException):  # the page has changed meanwhile
            return False


@contextmanager
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    with tempfile.TemporaryDirectory(prefix="gopush-browser-", ignore_cleanup_errors=True) as profile:
        options = ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = Chrome(options=options, service=ChromeService("/usr/bin/chromedriver"))
        try:
            driver.set_page_load_timeout(PATIENCE_SECONDS)
            driver.set_window_size(1100, 1000)
            yield Browser(driver)
        finally:
            driver.quit()
