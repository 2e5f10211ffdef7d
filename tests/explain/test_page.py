"""The HTML pages: their contents and their behaviour in a browser."""

from __future__ import annotations

import base64
import io
import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fcos_cli.explain.heatmaps import mosaic, to_grey
from fcos_cli.explain.page import detections_page
from fcos_cli.explain.points import Explanation, explain
from fcos_cli.explain.targets_page import targets_page
from fcos_cli.model.classes import ClassTable
from fcos_cli.model.config import FINE_STRIDES
from fcos_cli.model.conventions import Conventions
from fcos_cli.runtime.pytorch import facts_of
from tests.browser import Browser
from tests.explain.test_targets import LARGE, SMALL, explained, sample
from tests.tiny import tiny_artifact, tiny_model

NAMES = ClassTable(("circle", "</script>", "Dreieck & <b>"), (1, 2, 3))


@pytest.fixture(scope="module")
def found() -> Explanation:
    artifact = tiny_artifact(classes=NAMES, class_thresholds=(0.06, 0.06, 0.06))
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    return explain(artifact.build(), facts_of(artifact), image)


def facts(page: str) -> dict[str, Any]:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    content: dict[str, Any] = json.loads(text)
    return content


def pixels(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_a_detections_page_has_the_boxes_votes_and_maps(found):
    page = detections_page(found, title="a <b>.jpg", model="tiny")
    document = facts(page)
    assert len(document["detections"]) == len(found.detections) > 0
    for number, row in enumerate(document["detections"]):
        np.testing.assert_allclose(row["box"], found.detections.boxes[number], atol=0.051)
        assert row["score"] == found.detections.scores[number]
        assert row["level"] == found.detections.levels[number]
        assert len(row["votes"]) == len(found.votes.of(number))
    assert [entry["name"] for entry in document["classes"]] == list(NAMES.names)
    assert "<title>a &lt;b&gt;.jpg</title>" in page
    assert page.count("</script>") == 2
    p3 = document["levels"][0]
    assert (p3["name"], p3["stride"], p3["spacing"], p3["w"], p3["h"]) == ("P3", 8, [8, 8], 8, 8)
    np.testing.assert_array_equal(pixels(p3["maps"]["centerness"]["uri"]), to_grey(found.levels[0].centerness))


@pytest.mark.parametrize(
    ("rule", "words", "limit"), [("score", "scores", 0.004), ("class", "class probabilities", 0.008)]
)
def test_the_slider_reaches_down_to_the_lowest_detection(rule, words, limit):
    """If the threshold applies to class probabilities, scores can be lower than it."""
    config = tiny_model(conventions=Conventions(threshold_on=rule, score="product"), score_threshold=limit).config
    artifact = tiny_artifact(config=config)
    found = explain(artifact.build(), facts_of(artifact), np.zeros((48, 64, 3), np.uint8))
    document = facts(detections_page(found, title="a", model="tiny"))
    assert f"with {words} of at least {limit}, after" in document["subtitle"]
    lowest = float(found.detections.scores.min())
    assert document["lowest"] == min(lowest, limit)
    assert (lowest < limit) == (rule == "class")


def test_pages_name_the_levels_of_the_model():
    model = tiny_model(strides=FINE_STRIDES)
    artifact = tiny_artifact(weights=model.state_dict(), config=model.config)
    image = np.zeros((48, 64, 3), np.uint8)
    found = facts(detections_page(explain(model, facts_of(artifact), image), title="a", model="tiny"))
    truth = facts(targets_page(explained(sample(SMALL), strides=FINE_STRIDES), title="a", model="tiny"))
    for document in (found, truth):
        assert [(level["name"], level["stride"]) for level in document["levels"]] == [
            ("P2", 4), ("P3", 8), ("P4", 16), ("P5", 32), ("P6", 64),
        ]  # fmt: skip
        assert [level["w"] for level in document["levels"]] == [16, 8, 4, 2, 1]
    assert "limits between P2 and P6: 16, 32, 64, 128 px" in truth["subtitle"]
    coarse = facts(targets_page(explained(sample(SMALL)), title="a", model="tiny"))
    assert "limits between P3 and P7" in coarse["subtitle"]


def test_a_page_has_no_external_resources(found):
    for page in (
        detections_page(found, title="a", model="tiny"),
        targets_page(explained(sample(LARGE)), title="a", model="t"),
    ):
        assert re.findall(r"""(?:src|href)\s*=\s*["'](?!data:)[^"']""", page) == []
        assert re.findall(r"https?://(?!www\.w3\.org)", page) == []


@pytest.mark.parametrize(("count", "height", "width"), [(1, 3, 5), (7, 8, 8), (80, 20, 34), (3, 1, 1)])
def test_a_mosaic_has_each_map_where_the_page_expects_it(count, height, width):
    maps = np.random.default_rng(0).random((count, height, width)).astype(np.float32)
    sheet = mosaic(maps)
    image = pixels(sheet["uri"])
    for index, values in enumerate(maps):
        left, top = index % sheet["columns"] * width, index // sheet["columns"] * height
        np.testing.assert_array_equal(image[top : top + height, left : left + width], to_grey(values))
    assert max(image.shape) <= 3 * max(height, width) * max(1, count**0.5)


# --- in a browser ----------------------------------------------------------------------------------------------------


def show(browser: Browser, page: str, path: Path, **how: Any) -> None:
    path.write_text(page, encoding="utf-8")
    browser.open(path, **how)
    for _ in range(100):
        if browser.run("return document.body.dataset.ready"):
            return
        time.sleep(0.05)
    raise AssertionError(f"the page did not become ready: {browser.errors()}")


def pick(browser: Browser, name: str, value: str) -> None:
    browser.run("document.querySelector(`input[name=${arguments[0]}][value='${arguments[1]}']`).click()", name, value)


def heat(browser: Browser) -> list[int]:
    """Width and height of the heat map, and the sum of its alpha values; None if hidden."""
    script = """const c = document.getElementById("heat"); if (c.hidden) return null;
        const d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data; let sum = 0;
        for (let i = 3; i < d.length; i += 4) sum += d[i]; return [c.width, c.height, sum]"""
    result: list[int] = browser.run(script)
    return result


def rows(browser: Browser) -> int:
    return len(browser.find_all("ol.boxes button"))


def test_layer_level_class_and_threshold_controls(browser, found, tmp_path):
    show(browser, detections_page(found, title="made", model="tiny"), tmp_path / "found.html")
    expected = int((found.detections.scores >= 0.06).sum())
    assert rows(browser) == expected > 0

    everything = heat(browser)
    assert everything[:2] == [8, 8]
    pick(browser, "level", "1")
    score = heat(browser)
    assert score[:2] == [4, 4]
    pick(browser, "layer", "centerness")
    assert heat(browser)[2] > score[2]  # about 0.5 everywhere in an untrained network
    pick(browser, "layer", "none")
    assert heat(browser) is None

    browser.slide("#threshold", 1)
    assert rows(browser) == 0
    browser.slide("#threshold", 0.05)
    assert rows(browser) == len(found.detections)
    only = browser.run("const e = document.querySelector('#class'); e.value = 2; e.dispatchEvent(new Event('change'))")
    assert only is None
    assert rows(browser) == int((found.detections.classes == 2).sum())
    assert (browser.errors(), browser.requests()) == ([], [])


def point_at(browser: Browser, event: str, x: float, y: float) -> None:
    """Dispatch a pointer event at (x, y) in px of a network input of 64 × 48."""
    script = """const r = document.getElementById("stage").getBoundingClientRect(), [name, x, y] = arguments;
        document.getElementById("drawing").dispatchEvent(new PointerEvent(name, {bubbles: true,
            clientX: r.left + x / 64 * r.width, clientY: r.top + y / 48 * r.height}))"""
    browser.run(script, event, x, y)


def test_hovering_shows_the_values_and_clicking_selects_the_smallest_box(browser, found, tmp_path):
    show(browser, detections_page(found, title="made", model="tiny", score=0.05), tmp_path / "found.html")
    pick(browser, "level", "1")
    point_at(browser, "pointermove", 26, 20)
    p4 = found.levels[1]
    best = int(p4.scores[:, 1, 1].argmax())
    text = browser.find("#readout").text
    assert text.startswith(f"P4, point (24, 24): {NAMES.names[best]} ")
    shown = [float(number) for number in re.findall(r"\b0\.\d\d", text)]
    expected = [p4.classes[best, 1, 1], p4.centerness[1, 1], p4.scores[best, 1, 1]]
    np.testing.assert_allclose(shown, expected, atol=0.008)  # maps have 256 steps, the text has 100

    point_at(browser, "click", 26, 22)
    boxes = np.round(found.detections.boxes.astype(float), 1)
    inside = (boxes[:, 0] <= 26) & (boxes[:, 2] > 26) & (boxes[:, 1] <= 22) & (boxes[:, 3] > 22)
    area = np.where(inside, (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), np.inf)
    pressed = [row.get_attribute("aria-pressed") for row in browser.find_all("ol.boxes button")]
    assert pressed.index("true") == int(area.argmin())
    assert pressed.count("true") == 1


def test_a_selected_detection_shows_its_points_and_their_distances(browser, found, tmp_path):
    show(browser, detections_page(found, title="made", model="tiny", score=0.05), tmp_path / "found.html")
    number = int(np.argmax([len(found.votes.of(n)) for n in range(len(found.detections))]))
    browser.run("document.querySelectorAll('ol.boxes button')[arguments[0]].click()", number)
    voters = len(found.votes.of(number))
    assert voters > 1
    assert len(browser.find_all("#drawing .voter")) == len(browser.find_all("#details tbody tr")) == voters
    arms = browser.find_all("#drawing .arms")
    assert len(arms) == voters  # four distances each, as two lines through the point
    votes = found.votes.of(number)
    (x, y), (left, top, right, bottom) = votes.xy[0].tolist(), np.round(votes.ltrb[0].astype(float), 1).tolist()
    drawn = [float(v) for v in re.findall(r"-?[\d.]+", arms[-1].get_attribute("d"))]
    np.testing.assert_allclose(drawn, [x - left, y, x + right, x, y - top, y + bottom], atol=1e-6)
    assert len(browser.find_all("#tags .distance")) == 4
    browser.run("document.querySelectorAll('#details tbody tr')[1].click()")
    assert len(browser.find_all("#drawing .arms")) == 1  # only those of the selected voter
    browser.slide("#threshold", 0.051)
    assert len(browser.find_all("#drawing .arms")) == 1
    marked = [row.get_attribute("class") for row in browser.find_all("#details tbody tr")]
    assert [index for index, name in enumerate(marked) if name == "chosen"] == [1]
    browser.run("document.querySelectorAll('ol.boxes button')[arguments[0]].click()", number)
    assert browser.find_all("#drawing .voter") == []
    assert browser.errors() == []


def test_a_targets_page_shows_contested_points_and_boxes_without_a_point(browser, tmp_path):
    result = explained(sample(LARGE, SMALL, (1, 1, 3, 3)))
    show(browser, targets_page(result, title="made", model="tiny"), tmp_path / "truth.html")
    assert len(browser.find_all("#drawing .positive")) == len(result.points) == 8
    assert len(browser.find_all("#drawing .contested")) == 4
    assert len(browser.find_all("#drawing .orphan")) == 1
    assert browser.find("#count").text == "1 box gets no point"
    assert browser.find("ol.boxes button").get_attribute("class") == "alarm truth"  # first in the list
    assert "no point of its level" in browser.find("ol.boxes button").text
    browser.run("document.querySelector('#contested').click()")
    assert len(browser.find_all("#drawing .positive")) == 4
    browser.run("document.querySelector('#contested').click()")
    pick(browser, "level", "2")
    assert len(browser.find_all("#drawing .positive")) == 4
    pick(browser, "layer", "centerness")
    assert heat(browser)[:2] == [2, 2]
    browser.run("document.querySelectorAll('ol.boxes button')[1].click()")
    assert "P4: 4 (4 to 2 square)" in browser.find("#details").text
    assert (browser.errors(), browser.requests()) == ([], [])


@pytest.mark.parametrize("kind", ["found", "truth"])
def test_pages_fit_a_phone_in_dark_mode(browser, found, tmp_path, kind):
    truth = explained(sample(LARGE, SMALL, (1, 1, 3, 3)))
    page = (
        detections_page(found, title="m" * 80, model="tiny")
        if kind == "found"
        else targets_page(truth, title="m", model="t")
    )
    show(browser, page, tmp_path / "page.html", width=400, height=800, dark=True)
    browser.find("ol.boxes button").click()
    assert browser.overflow() == 0
    ground, ink = browser.run("const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]")
    brightness = [sum(map(int, re.findall(r"\d+", colour))) for colour in (ground, ink)]
    assert brightness[0] < 150 < 600 < brightness[1]
    assert browser.errors() == []
