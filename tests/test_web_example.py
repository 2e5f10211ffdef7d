"""examples/web in a headless Chromium: the page finds what `fcos verify` and `fcos predict` find."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fcos_cli.resources import ASSETS
from tests.browser import Browser
from tests.cli_runner import Fcos

ROOT = Path(__file__).parent.parent
WEB = ROOT / "examples" / "web"
DEFAULT = ASSETS / "default.onnx"
PHOTO = ROOT / "examples" / "photos" / "astronaut.jpg"

pytestmark = pytest.mark.skipif(
    not (WEB / "node_modules/onnxruntime-web").is_dir(),
    reason="no onnxruntime-web (cd examples/web && npm install)",
)


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def site(fcos: Fcos, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder with the example, the bundled detector and its vectors, and the address of a server of it."""
    folder = tmp_path / "site"
    folder.mkdir()
    for file in WEB.iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "model.onnx").symlink_to(DEFAULT)
    assert fcos("verify", DEFAULT, "--save", folder / "vectors").code == 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield folder, f"http://127.0.0.1:{server.server_port}/index.html"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def wait_for(browser: Browser, script: str) -> Any:
    """The value of a script as soon as it is true."""
    from selenium.webdriver.support.wait import WebDriverWait

    return WebDriverWait(browser.driver, 120, poll_frequency=0.05).until(lambda _: browser.run(script))


def open_page(browser: Browser, address: str) -> str:
    """The state of the verdict, once the page has one."""
    browser.driver.get(address)
    state = "const state = document.querySelector('#verdict').dataset.state; return state !== 'running' && state"
    return str(wait_for(browser, state))


def found_in(browser: Browser, picture: Path) -> list[tuple[str, float, list[float]]]:
    """Class, score and box of what the page finds in a picture that its user chooses."""
    browser.find("#file").send_keys(str(picture))
    texts = wait_for(browser, "return [...document.querySelectorAll('#found li')].map(item => item.textContent)")
    parts = [text.split(maxsplit=2) for text in texts if text != "no objects"]
    return [(name, float(score), json.loads(box)) for name, score, box in parts]


def test_the_page_finds_what_pytorch_and_predict_found(browser: Browser, site: tuple[Path, str], fcos: Fcos) -> None:
    folder, address = site
    assert open_page(browser, address) == "passed"
    assert browser.find("#verdict").text == "The same as PyTorch on 3 images"
    rows = [[cell.text for cell in row.find_elements("css selector", "td")] for row in browser.find_all("#rows tr")]
    assert [row[0] for row in rows] == ["matched", "largest box difference", "largest score difference"]
    assert rows[0][1:] == ["300 of 300", "100%"]
    assert float(rows[1][1].removesuffix(" px")) < 0.01
    assert "cat" in browser.find("#model").text

    wide = folder / "wide.png"
    with Image.open(PHOTO) as image:
        image.crop((0, 0, 512, 401)).save(wide)
    (result,) = fcos("predict", wide, "--json").document["results"]
    (found,) = found_in(browser, wide)
    (expected,) = result["detections"]
    assert (found[0], found[1]) == (expected["class"], pytest.approx(expected["score"], abs=0.0051))
    assert found[2] == pytest.approx(expected["box"], abs=0.051)  # printed with one decimal
    assert all(name.startswith("http://127.0.0.1:") for name in browser.requests())
    assert browser.errors() == []


def test_a_wrong_expected_box_fails_and_is_named(browser: Browser, site: tuple[Path, str]) -> None:
    folder, address = site
    index = folder / "vectors/vectors.json"
    content = json.loads(index.read_text())
    content["vectors"][1]["boxes"][0][0] += 0.1
    index.write_text(json.dumps(content))
    assert open_page(browser, address) == "failed"
    assert "different results" in browser.find("#verdict").text
    (problem,) = browser.find_all("#problems li")
    assert problem.text.startswith(content["vectors"][1]["name"])


def test_without_a_sure_detection_there_is_nothing_to_judge_int8_by(browser: Browser, site: tuple[Path, str]) -> None:
    folder, address = site
    index = folder / "vectors/vectors.json"
    content = json.loads(index.read_text())
    content["tolerance"] |= {"sure": 0.9999, "max_px": None, "max_score": None, "matched": 0.8}
    index.write_text(json.dumps(content))
    assert open_page(browser, address) == "failed"
    (problem,) = browser.find_all("#problems li")
    assert problem.text == "no detection of 0.9999 or more on both sides: nothing to judge"


@pytest.mark.parametrize("damage", ["missing", "foreign", "no vectors"])
def test_what_cannot_be_used_is_one_error(browser: Browser, site: tuple[Path, str], damage: str) -> None:
    folder, address = site
    path = folder / ("vectors/vectors.json" if damage == "no vectors" else "model.onnx")
    path.unlink()
    if damage == "foreign":
        path.write_bytes(DEFAULT.read_bytes()[:1000])
    assert open_page(browser, address) == "failed"
    error = browser.find("#error").text
    assert path.name in error
    assert ("cannot be loaded (404)" in error) == (damage != "foreign")
    browser.errors()  # the browser reports the 404 too
