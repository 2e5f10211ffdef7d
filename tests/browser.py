"""A headless Chromium for testing the generated pages. The fixture `browser` skips the test if there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")


class Browser:
    """Opens pages from disk and reads their console. `driver` is selenium's."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, page: Path, *, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        """Show the file `page` in a viewport of `width` × `height` CSS pixels. dark: the preferred colour scheme."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        preferred = {"prefers-color-scheme": "dark" if dark else "light", "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": value} for name, value in preferred.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.driver.get(page.resolve().as_uri())

    def find(self, selector: str) -> Any:
        """Return the first element matching a CSS selector. Raises if there is none."""
        return self.driver.find_element("css selector", selector)

    def find_all(self, selector: str) -> list[Any]:
        """Return all elements matching a CSS selector, in page order."""
        return list(self.driver.find_elements("css selector", selector))

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a script and return its `return` value. The arguments are arguments[0] and so on in the script."""
        return self.driver.execute_script(script, *arguments)

    def slide(self, selector: str, value: float) -> None:
        """Set a range input to `value` and dispatch the events of a user's action."""
        script = """const e = document.querySelector(arguments[0]); e.value = arguments[1];
            for (const name of ["input", "change"]) e.dispatchEvent(new Event(name, {bubbles: true}))"""
        self.run(script, selector, value)

    def errors(self) -> list[str]:
        """Return console messages since the last call: errors, warnings, uncaught exceptions, failed loads."""
        return [f"{entry['level']}: {entry['message']}" for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Return the URLs that the page requested, without data: and blob: URLs."""
        script = "return performance.getEntriesByType('resource').map(entry => entry.name)"
        return [name for name in self.run(script) if not name.startswith(("data:", "blob:"))]

    def overflow(self) -> int:
        """By how many pixels the page is wider than the window."""
        return int(self.run("const e = document.documentElement; return e.scrollWidth - e.clientWidth"))

    def screenshot(self, path: Path, *, whole: bool = True, part: str | None = None) -> None:
        """Save a PNG of the window, of the `whole` page, or of the first element matching the selector `part`."""
        import base64

        options = {"format": "png", "captureBeyondViewport": whole}
        if part:
            script = """const r = document.querySelector(arguments[0]).getBoundingClientRect();
                return {x: r.x + scrollX, y: r.y + scrollY, width: r.width, height: r.height, scale: 1}"""
            options["clip"] = self.run(script, part)
        elif whole:
            size = self.driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
            options["clip"] = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        result = self.driver.execute_cdp_cmd("Page.captureScreenshot", options)
        path.write_bytes(base64.b64decode(result["data"]))


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """One driver for all tests, because starting it takes about a second."""
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
    """Return the shared Chromium on an empty page with an empty console."""
    chromium.get("about:blank")
    page = Browser(chromium)
    page.errors()  # empty the console
    return page
