"""A headless Chromium for tests of the pages that we write: fixture `browser`, skipping where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")


class Browser:
    """A driver (selenium's, as `driver`) that opens pages from disk and knows what their consoles said."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, page: Path, *, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        """Show `page`, a file, in a viewport of `width` × `height` CSS pixels; `dark`: what the system prefers."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        preferred = {"prefers-color-scheme": "dark" if dark else "light", "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": value} for name, value in preferred.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.driver.get(page.resolve().as_uri())

    def find(self, selector: str) -> Any:
        """The first element of a CSS selector; raises where there is none."""
        return self.driver.find_element("css selector", selector)

    def find_all(self, selector: str) -> list[Any]:
        """Every element of a CSS selector, in the order of the page."""
        return list(self.driver.find_elements("css selector", selector))

    def run(self, script: str, *arguments: Any) -> Any:
        """What `return …` in a script returns; arguments[0] and so on are what is passed."""
        return self.driver.execute_script(script, *arguments)

    def slide(self, selector: str, value: float) -> None:
        """Move a range input to `value`, with the events that a hand would cause."""
        script = """const e = document.querySelector(arguments[0]); e.value = arguments[1];
            for (const name of ["input", "change"]) e.dispatchEvent(new Event(name, {bubbles: true}))"""
        self.run(script, selector, value)

    def errors(self) -> list[str]:
        """What the console was told since the last call: errors and warnings, uncaught exceptions, failed loads."""
        return [f"{entry['level']}: {entry['message']}" for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """The addresses that the page asked for beside itself: a page that needs no network has only data: ones."""
        script = "return performance.getEntriesByType('resource').map(entry => entry.name)"
        return [name for name in self.run(script) if not name.startswith(("data:", "blob:"))]

    def overflow(self) -> int:
        """By how many pixels the page is wider than the window; 0 where nothing must be scrolled sideways."""
        return int(self.run("const e = document.documentElement; return e.scrollWidth - e.clientWidth"))

    def screenshot(self, path: Path, *, whole: bool = True, part: str | None = None) -> None:
        """A PNG of the window, or of the `whole` page, or of the first element of a CSS selector."""
        import base64

        how = {"format": "png", "captureBeyondViewport": whole}
        if part:
            script = """const r = document.querySelector(arguments[0]).getBoundingClientRect();
                return {x: r.x + scrollX, y: r.y + scrollY, width: r.width, height: r.height, scale: 1}"""
            how["clip"] = self.run(script, part)
        elif whole:
            size = self.driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
            how["clip"] = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        answer = self.driver.execute_cdp_cmd("Page.captureScreenshot", how)
        path.write_bytes(base64.b64decode(answer["data"]))


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """One driver for all tests; starting it takes about a second."""
    selenium = pytest.importorskip("selenium", reason="selenium is not installed (extra dev)")
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    service = shutil.which("chromedriver")
    if binary is None or service is None:
        pytest.skip("no chromium and chromedriver here (Debian: apt install chromium chromium-driver)")
    assert selenium
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = binary
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "WARNING"})
    try:
        driver = Chrome(options=options, service=Service(service))
    except WebDriverException as error:
        pytest.skip(f"chromium does not start: {error.msg}")
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture
def browser(chromium: Any) -> Browser:
    """The shared Chromium on an empty page with an empty console."""
    chromium.get("about:blank")
    shown = Browser(chromium)
    shown.errors()
    return shown
