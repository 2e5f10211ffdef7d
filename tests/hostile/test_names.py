"""Names of classes and files are text: in terminals, pages, pictures, tables and logs."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcos_cli.console import visible
from fcos_cli.data.demo_shapes import write_shapes
from fcos_cli.model.artifact import save
from fcos_cli.model.classes import ClassTable
from fcos_cli.predict.draw import draw
from fcos_cli.runtime.results import Detections
from tests.cli_runner import Fcos
from tests.hostile.contract import bounded
from tests.runtime.onnx_files import FACTS, write_onnx
from tests.tiny import tiny_artifact

NAMES = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "\x1b[31m\x1b[2J\x9b1m\x07\r\nerror: forged",
    "{{data}} ${title} `code` [bold]x[/bold]",
    "a\u202ecod.exe \u2028 \ud800 \udcff",
    "=cmd|' /C calc'!A0",
)
TRICKS = ClassTable(NAMES[:3], (10, 20, 30))
FILE = "<img src=x onerror=alert(1)>\x1b[31m\n=1+1.png"
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")


class Page(HTMLParser):
    """The elements of a page, and its attributes that would run something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


def check_page(path: Path, *, scripts: int, images: int | None = None) -> None:
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert page.tags.count("script") == scripts
    assert page.handlers == []
    assert "alert(1)" in text  # the name is there, as text
    assert not CONTROL.search(text)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (96, 64), (250, 0, 0)).save(tmp_path / "in" / FILE)
    return tmp_path / "in" / FILE


def one_model(folder: Path, names: tuple[str, ...]) -> Path:
    return write_onnx(folder / "m.onnx", facts=replace(FACTS, classes=ClassTable(names, (10, 20, 30)), threshold=0.1))


@pytest.mark.parametrize("name", NAMES)
def test_text_is_visible(name: str) -> None:
    shown = visible(name)
    assert not CONTROL.search(shown)
    assert "\n" not in shown
    shown.encode("utf-8")
    assert visible(shown) == shown
    if name.isprintable():
        assert shown == name


def test_no_letter_of_any_script_is_escaped() -> None:
    text = "größe 犬 собака كلب कुत्ता 👩‍🚀 naïve 'quotes' \\ <b>"
    assert visible(text) == text


@pytest.mark.parametrize("names", [NAMES[:3], NAMES[3:]])
def test_lines_and_tables_on_a_terminal(tmp_path: Path, photo: Path, fcos: Fcos, names: tuple[str, ...]) -> None:
    model = one_model(tmp_path, names)
    lines = fcos("predict", photo, "--model", model).err
    assert not CONTROL.search(lines)
    assert len(lines.splitlines()) == 1
    assert "3 " in lines or names[0][:4] in lines
    table = fcos("info", model).err
    assert not CONTROL.search(table)
    failure = fcos("predict", tmp_path / "no\x1b[31m\nerror: forged.png", "--model", model).err
    assert not CONTROL.search(failure)
    assert len(re.findall("^error: ", failure, re.MULTILINE)) == 1
    image, category = {"id": 1, "file_name": photo.name}, {"id": 1, "name": "\nerror: forged"}
    content = {"images": [image], "annotations": [], "categories": [category]}
    photo.with_name("x.json").write_text(json.dumps(content), encoding="utf-8")
    failure = fcos("eval", model, photo.with_name("x.json")).err
    assert "data set: \\nerror: forged" in failure
    assert len(re.findall("^error: ", failure, re.MULTILINE)) == 1


@pytest.mark.parametrize("names", [NAMES[:3], NAMES[3:]])
def test_json_and_csv(tmp_path: Path, photo: Path, fcos: Fcos, names: tuple[str, ...]) -> None:
    model = one_model(tmp_path, names)
    table = tmp_path / "x.csv"
    result = fcos("predict", photo, "--model", model, "--json", "--save", table)
    assert result.code == 0
    assert not CONTROL.search(result.out)
    found = [visible(row["class"]) for row in result.document["results"][0]["detections"]]
    with table.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["class"].removeprefix("'") for row in rows] == found
    assert not [cell for row in rows for cell in row.values() if cell[:1] in tuple("=+-@\t\r\n")]
    assert float(rows[0]["score"]) > 0
    assert rows[0]["category_id"] == "10"


@pytest.mark.parametrize(
    ("start", "shown"),
    [("=", "'="), ("+", "'+"), ("-", "'-"), ("@", "'@"), ("'", "''"), ("\t=", "\\t="), ("\r", "\\r"), ("\n", "\\n")],
)
def test_no_cell_is_a_formula(tmp_path: Path, photo: Path, fcos: Fcos, start: str, shown: str) -> None:
    names = (f"{start}1+1", "plain", "'quoted'")
    fcos("predict", photo, "--model", one_model(tmp_path, names), "--save", tmp_path / "x.csv")
    with (tmp_path / "x.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["class"] for row in rows] == [f"{shown}1+1", "plain", "''quoted'"]
    assert [row["class"].removeprefix("'") for row in rows] == [visible(name) for name in names]


def test_a_source_is_no_formula(tmp_path: Path, fcos: Fcos) -> None:
    Image.new("RGB", (96, 64), (250, 0, 0)).save("=1+1.png")
    fcos("predict", "=1+1.png", "--model", write_onnx(tmp_path / "m.onnx"), "--save", tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_text(encoding="utf-8").splitlines()[1].startswith("'=1+1.png,")


def test_pictures_and_crops(tmp_path: Path, photo: Path, fcos: Fcos) -> None:
    with bounded():
        result = fcos(
            "predict", photo, "--model", one_model(tmp_path, NAMES[:3]), "--viz", "--crops", "--out", tmp_path / "o"
        )
    assert result.code == 0
    crops = [path for path in (tmp_path / "o/crops").rglob("*") if path.is_dir()]
    assert len(crops) == 3
    assert all(re.fullmatch(r"[\w.-]+", path.name) for path in crops)


def test_a_label_shows_the_escape() -> None:
    image = np.zeros((200, 800, 3), np.uint8)
    found = Detections(np.array([[300, 100, 500, 180]], np.float32), np.ones(1, np.float32), np.zeros(1, np.int64))
    drawn = [draw(image, found, ClassTable((name,), (1,))) for name in ("a\nb", r"a\nb")]
    np.testing.assert_array_equal(*drawn)


def test_the_pages_of_explain(tmp_path: Path, photo: Path, fcos: Fcos) -> None:
    save(tmp_path / "m.safetensors", tiny_artifact(classes=TRICKS))
    result = fcos("predict", photo, "--model", tmp_path / "m.safetensors", "--explain", "--out", tmp_path / "o")
    assert result.code == 0
    (page,) = (tmp_path / "o").glob("*.html")
    check_page(page, scripts=2)


def test_the_report_of_eval(tmp_path: Path, fcos: Fcos) -> None:
    data = write_shapes(tmp_path / "data", train=2, val=4, size=64)
    for file in data.rglob("*.json"):
        content = json.loads(file.read_text(encoding="utf-8"))
        for row, name in zip(content["categories"], NAMES, strict=False):
            row["name"] = name
        for row in content["images"][:1]:
            (picture,) = data.rglob(row["file_name"])
            row["file_name"] = FILE
            picture.rename(picture.with_name(FILE))
        file.write_text(json.dumps(content), encoding="utf-8")
    save(tmp_path / "m.safetensors", tiny_artifact(classes=TRICKS))
    result = fcos(
        "eval", tmp_path / "m.safetensors", data, "--report", tmp_path / "r.html", "--save", tmp_path / "r.json"
    )
    assert result.code == 0
    assert not CONTROL.search(result.err)
    check_page(tmp_path / "r.html", scripts=1)
