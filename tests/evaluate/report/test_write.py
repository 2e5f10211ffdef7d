"""The report in a browser, opened from disk."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fcos_cli.data.formats.read import read_dataset
from fcos_cli.data.samples import Dataset
from fcos_cli.errors import DataError, UsageError
from fcos_cli.evaluate.coco import score
from fcos_cli.evaluate.compare import compare
from fcos_cli.evaluate.report.comparison import comparison_section
from fcos_cli.evaluate.report.write import EvaluatedModel, short_names, write_report
from fcos_cli.model.classes import ClassTable
from fcos_cli.runtime.results import Detections
from tests.browser import Browser

THRESHOLDS = np.array([0.5, 0.4, 0.5], np.float32)


@pytest.fixture(scope="module")
def data(shapes: Path) -> Dataset:
    return read_dataset(shapes, split="train")


def detections_of(data: Dataset, *, shift: float, seed: int = 0) -> list[Detections]:
    """Return the ground truth moved by up to `shift` pixels, with some wrong classes, misses and false positives."""
    rng = np.random.default_rng(seed)
    found, number = [], 0
    for sample in data.samples:
        boxes, scores, classes = [[1, 1, 9, 9]], [0.55], [0]
        for box, index in zip(sample.boxes, sample.classes, strict=True):
            number += 1
            if number % 7:
                boxes.append(np.clip(box + rng.uniform(-shift, shift, 4), 0, 64).tolist())
                scores.append(float(rng.uniform(0.2, 0.95)))
                classes.append(int(index + (number % 5 == 0)) % 3)
        found.append(Detections(np.array(boxes, np.float32), np.array(scores, np.float32), np.array(classes)))
    return found


def evaluated(name: str, data: Dataset, detections: list[Detections]) -> EvaluatedModel:
    return EvaluatedModel(name, score(detections, data.samples, data.classes), detections, THRESHOLDS)


@pytest.fixture(scope="module")
def page(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, data, [evaluated("runs/one", data, detections_of(data, shift=2))])
    return path


@pytest.fixture(scope="module")
def two(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "two.html"
    both = [evaluated(n, data, detections_of(data, shift=s)) for n, s in (("runs/a", 2), ("runs/b", 6))]
    comparison = compare(
        (both[0].result, both[1].result),
        (both[0].detections, both[1].detections),
        data.samples,
        data.classes,
        rounds=20,
    )
    write_report(path, data, both, extra=[comparison_section(comparison, ("a", "b"))])
    return path


def column(browser: Browser, index: int) -> list[str]:
    script = (
        "return [...document.querySelectorAll('table.sortable tbody tr')].map(r => r.cells[arguments[0]].textContent)"
    )
    cells: list[str] = browser.run(script, index)
    return cells


# --- the file ---------------------------------------------------------------------------------------------------------


def test_the_page_is_self_contained_and_small(page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    assert "default-src 'none'" in html
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", html)
    assert page.stat().st_size < 1_000_000
    for heading in (
        "Classes",
        "Confusion",
        "Error types",
        "Calibration",
        "Size",
        "Worst images",
        "Suspect labels",
    ):
        assert f">{heading}</h2>" in html


def test_the_page_shows_the_same_metrics_as_eval(page: Path, data: Dataset) -> None:
    html, result = page.read_text(encoding="utf-8"), evaluated("x", data, detections_of(data, shift=2)).result
    shown = dict(re.findall(r'<dt>(\w+)</dt><dd><span class="value">([^<]+)', html))
    assert shown == {name: "–" if value == -1 else f"{value:.3f}" for name, value in result.metrics.items()}


def test_class_and_file_names_are_escaped(data: Dataset, tmp_path: Path) -> None:
    names = ClassTable(("<script>alert(1)</script>", 'a"b', "c&d"), (1, 2, 3))
    samples = [replace(s, image=tmp_path / f"<u>{s.image.name}") for s in data.samples]
    for before, after in zip(data.samples[:6], samples, strict=False):  # the others do not exist
        shutil.copy(before.image, after.image)
    odd = replace(data, classes=names, samples=samples)
    write_report(tmp_path / "r.html", odd, [evaluated("<b>", odd, detections_of(odd, shift=9))], title="<i>")
    html = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert "<i>" not in html
    assert "<u>" not in html
    assert "<figcaption>&lt;u&gt;" in html
    assert "does not exist: " in html
    assert html.count("<script>") == 1


@pytest.mark.parametrize("name", ["birds.v1i.coco", "val.json"])
def test_the_heading_names_the_data(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    for source in (Path(), Path(name)):
        here = replace(data, source=source)
        write_report(tmp_path / "r.html", here, [evaluated("m.onnx", here, detections_of(here, shift=2))])
        text = (tmp_path / "r.html").read_text(encoding="utf-8")
        assert f"<h1>m.onnx on {name}</h1>" in text
        assert f"<dd>{name} (coco), train</dd>" in text


def test_many_classes_are_listed_as_pairs_instead_of_a_matrix(data: Dataset, tmp_path: Path) -> None:
    names = ClassTable(tuple(f"class {i}" for i in range(40)), tuple(range(40)))
    many = replace(data, classes=names)
    found = detections_of(many, shift=2)
    limits = np.full(40, 0.5, np.float32)
    result = score(found, many.samples, names)
    write_report(tmp_path / "r.html", many, [EvaluatedModel("x", result, found, limits)])
    html = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert 'class="confusion"' not in html
    assert "detected as" in html


def test_a_missing_image_only_affects_its_own_figure(data: Dataset, tmp_path: Path) -> None:
    gone = replace(data, samples=[replace(s, image=tmp_path / s.image.name) for s in data.samples])
    write_report(tmp_path / "r.html", gone, [evaluated("x", gone, detections_of(gone, shift=9))])
    html = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert f"<figure><p>the image does not exist: {tmp_path}" in html
    assert "\\n" not in html.partition("<main")[2].partition("<script")[0]


def test_without_detections_the_page_is_still_written(data: Dataset, tmp_path: Path, browser: Browser) -> None:
    nothing = [Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))] * len(data)
    write_report(tmp_path / "r.html", data, [evaluated("x", data, nothing)])
    browser.open(tmp_path / "r.html")
    assert browser.errors() == []
    assert "there are no detections" in browser.find("main").text


def test_no_images_and_an_unwritable_path_are_errors(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images"):
        write_report(tmp_path / "r.html", replace(data, samples=[]), [])
    with pytest.raises(UsageError):
        write_report(tmp_path, data, [evaluated("x", data, detections_of(data, shift=2))])


def test_models_are_named_by_the_shortest_distinct_part_of_their_path() -> None:
    assert short_names(["runs/train/x/best.onnx"]) == ["best.onnx"]
    assert short_names(["runs/x/best.onnx", "runs/y/best.onnx"]) == ["x/best.onnx", "y/best.onnx"]
    assert short_names(["default", "default"]) == ["default (1)", "default (2)"]


# --- in the browser ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [400, 1200])
@pytest.mark.parametrize("name", ["page", "two"])
def test_it_opens_from_disk_makes_no_requests_and_fits_the_window(
    browser: Browser, request: pytest.FixtureRequest, name: str, width: int
) -> None:
    browser.open(request.getfixturevalue(name), width=width)
    assert browser.errors() == []
    assert browser.requests() == []
    assert browser.overflow() == 0


def test_dark_pages_are_dark_and_light_ones_light(browser: Browser, page: Path) -> None:
    backgrounds = []
    for dark in (False, True):
        browser.open(page, dark=dark)
        backgrounds.append(browser.run("return getComputedStyle(document.body).backgroundColor"))
    assert backgrounds == ["rgb(255, 255, 255)", "rgb(20, 23, 27)"]


def test_clicking_a_heading_sorts_and_clicking_again_reverses(browser: Browser, page: Path) -> None:
    browser.open(page)
    heading = browser.find("table.sortable th:nth-child(3)")
    before = column(browser, 2)
    heading.find_element("css selector", "button").click()
    assert column(browser, 2) == sorted(before, key=float, reverse=True)
    assert heading.get_attribute("aria-sort") == "descending"
    heading.find_element("css selector", "button").click()
    assert column(browser, 2) == sorted(before, key=float)
    assert heading.get_attribute("aria-sort") == "ascending"
    browser.find("table.sortable th:nth-child(1) button").click()
    assert column(browser, 0) == ["circle", "square", "triangle"]
    assert heading.get_attribute("aria-sort") is None


def test_the_chooser_highlights_one_class_in_both_charts(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.find_all("path.line.on") == []
    browser.run("const e = document.querySelector('select'); e.value = 'c1'; e.dispatchEvent(new Event('change'))")
    assert [e.get_attribute("data-key") for e in browser.find_all("path.line.on")] == ["c1", "c1"]
    assert len(browser.find_all("circle.dot.on[data-key=c1]")) == 1
    assert browser.find("[data-summary]").text.startswith("square: AP50 ")


def shown(browser: Browser) -> list[float]:
    """Return the scores of the visible detections."""
    script = """return [...document.querySelectorAll(".gallery .box.found")]
        .filter(b => getComputedStyle(b).display !== "none").map(b => Number(b.dataset.score))"""
    scores: list[float] = browser.run(script)
    return scores


def test_the_slider_selects_detections_and_marks_missed_ground_truth(browser: Browser, page: Path) -> None:
    browser.open(page)
    as_predicted, missed = shown(browser), len(browser.find_all(".gallery .truth.bad"))
    assert as_predicted
    assert min(as_predicted) >= 0.4
    browser.slide(".controls input[type=range]", 0.05)
    assert len(shown(browser)) > len(as_predicted)
    assert len(browser.find_all(".gallery .truth.bad")) < missed
    browser.slide(".controls input[type=range]", 0.8)
    assert shown(browser)
    assert min(shown(browser)) >= 0.8
    assert browser.find(".controls output").text == "0.80"
    assert len(browser.find_all(".gallery .truth.bad")) > missed
    browser.find(".controls button").click()
    assert shown(browser) == as_predicted
    assert len(browser.find_all(".gallery .truth.bad")) == missed


def test_layers_can_be_switched_and_overlaid(browser: Browser, page: Path) -> None:
    browser.open(page)

    def visible(selector: str) -> int:
        return sum(element.is_displayed() for element in browser.find_all(selector))

    panels = len(browser.find_all(".shots"))
    assert visible(".shots > div") == 2 * panels
    browser.find("input[data-css=no-found]").click()
    assert shown(browser) == []
    browser.find("input[data-css=no-found]").click()
    assert shown(browser)
    truths = visible(".gallery .truth rect.edge")
    browser.find("input[data-css=no-truth]").click()
    assert visible(".gallery .truth rect.edge") == 0
    browser.find("input[data-css=no-truth]").click()
    browser.find("input[data-css=over]").click()
    assert visible(".shots > div") == panels
    assert visible(".gallery .truth rect.edge") == truths
    assert shown(browser)


def test_images_are_drawn_on_both_sides(browser: Browser, page: Path, tmp_path: Path) -> None:
    from PIL import Image

    browser.open(page)
    for index in (1, 2):
        panel = tmp_path / f"{index}.png"
        browser.screenshot(panel, part=f".shots > div:nth-child({index}) svg")
        with Image.open(panel) as panel_image:
            assert len(set(panel_image.convert("RGB").resize((40, 40)).get_flattened_data())) > 100


def test_with_two_models_details_are_shown_one_at_a_time(browser: Browser, two: Path) -> None:
    browser.open(two)
    assert "a" in browser.find(".verdict").text
    parts = browser.find_all(".owner")
    assert [part.is_displayed() for part in parts] == [True, False]
    browser.find("input[name=owner][value=b]").click()
    assert [part.is_displayed() for part in parts] == [False, True]
    assert browser.errors() == []
    assert len(browser.find_all("svg.interval")) >= 3


def test_tables_and_charts_have_names_and_headings(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.run("return [...document.querySelectorAll('table')].every(t => t.caption && t.tHead)")
    assert browser.run("return [...document.querySelectorAll('th')].every(h => h.scope)")
    assert browser.run(
        "return [...document.querySelectorAll('svg[role=img]')].every(s => s.getAttribute('aria-label'))"
    )
    ids: list[str] = browser.run("return [...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    links: list[str] = browser.run("return [...document.querySelectorAll('nav a')].map(a => a.hash.slice(1))")
    assert links
    assert set(links) <= set(ids)
