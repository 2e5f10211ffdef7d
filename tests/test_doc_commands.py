"""The `fcos` commands in the documentation: all are understood, and the quick ones are run on two photos.

Commands that train, export or convert are only parsed here; the tests of these commands run them. A command with
`untested` in its comment needs what a test cannot have: a GPU, a camera or a download.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import typer
from PIL import Image

from fcos_cli.cli import app
from fcos_cli.resources import ASSETS
from tests.cli_runner import Fcos
from tests.predict.clips import write_clip

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "examples/walkthrough.md", *ROOT.glob("docs/*.md")])
QUICK = ("predict", "eval", "doctor", "verify", "info")
OTHER_NAMES = {"WBC": "cat", "RBC": "person", "val_00035.jpg": "cat.jpg", "7.jpg": "cat.jpg"}
"""Names in the pages that differ from those in the files here."""
EXPECTED = {"--require": {0, 6}, "--not-worse": {0, 6}, "--promise": {0, 6}, "--strict": {0, 3}}
"""Exit codes that two photos may give; all other commands end with 0."""


class Line(NamedTuple):
    """A command of a page. where: page and line. arguments: those of `fcos`, without redirections."""

    where: str
    shell: str
    arguments: list[str]
    comment: str

    @property
    def is_pipeline(self) -> bool:
        return "|" in self.shell

    @property
    def runs(self) -> bool:
        slow = {"--explain", "--targets", "--engine"} & set(self.arguments)  # they need torch or a cluster
        return self.arguments[0] in QUICK and "untested" not in self.comment and not slow


def lines_of(page: Path) -> Iterator[Line]:
    """Yield the `fcos` commands in the code blocks of a page that name no other language."""
    for block in re.finditer(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        if block[1] not in ("", "sh", "bash"):
            continue
        first = block.string.count("\n", 0, block.start(2)) + 1
        text = block[2].replace("\\\n", "  ")
        for number, line in enumerate(text.splitlines(), first):
            shell, _, comment = line.partition(" #")
            found = re.search(r"^(?:[A-Z_]+=\S+ )?fcos( [a-z].*)$|\| fcos( [a-z].*)$", shell)
            if found:
                words = re.split(r" [|>] ", found[1] or found[2])[0]
                yield Line(f"{page.name}:{number}", shell.strip(), shlex.split(words), comment)


LINES = [line for page in PAGES for line in lines_of(page)]


def test_every_page_is_read() -> None:
    pages = {line.where.partition(":")[0] for line in LINES}
    assert {"README.md", "data.md", "deployment.md", "evaluation.md", "prediction.md", "training.md"} <= pages
    assert len(LINES) > 70
    assert sum(line.runs for line in LINES) > 30


@pytest.mark.parametrize("line", LINES, ids=[line.where for line in LINES])
def test_commands_are_understood(line: Line) -> None:
    name, *arguments = line.arguments
    group = typer.main.get_command(app)
    context = group.make_context("fcos", [name], resilient_parsing=True)
    command = group.get_command(context, name)
    assert command is not None
    command.make_context(name, arguments, parent=context).close()  # raises an error for what it does not know


def write_labelme(image: Path) -> None:
    """Write a .json beside the image, with one box of a cat."""
    with Image.open(image) as opened:
        width, height = opened.size
    shape = {"label": "cat", "shape_type": "rectangle", "points": [[10, 20], [90, 80]]}
    facts = {"imagePath": image.name, "imageWidth": width, "imageHeight": height, "shapes": [shape]}
    image.with_suffix(".json").write_text(json.dumps(facts))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the commands name: photos, a clip, data sets, and runs that hold the bundled detector."""
    root = tmp_path_factory.mktemp("docs") / "folder"
    photos = ASSETS / "photos"
    for name in ("holiday", "folder", "examples/photos", "new", "data/images", "runs/demo-data/images"):
        shutil.copytree(photos, root / name)
    annotations = (ROOT / "tests/two_photos.json").read_text()
    for name in ("data", "runs/demo-data"):
        (root / name / "val.json").write_text(annotations)
        train = json.loads(annotations)
        for image in train["images"]:  # the same photos upside down
            with Image.open(photos / image["file_name"]) as photo:
                image["file_name"] = f"turned-{image['file_name']}"
                photo.transpose(Image.Transpose.ROTATE_180).save(root / name / "images" / image["file_name"])
        (root / name / "train.json").write_text(json.dumps(train))
    for split, prefix in (("train", "turned-"), ("val", "")):  # labelled with LabelMe
        (root / "photos" / split).mkdir(parents=True)
        for image in json.loads(annotations)["images"]:
            name = f"{prefix}{image['file_name']}"
            shutil.copy(root / "data/images" / name, root / "photos" / split / name)
            write_labelme(root / "photos" / split / name)
    for run in ("data", "demo", "photos"):
        (root / "runs/train" / run).mkdir(parents=True)
        shutil.copy(ASSETS / "default.onnx", root / "runs/train" / run / "best.onnx")
        shutil.copy(ASSETS / "default.safetensors", root / "runs/train" / run / "best.safetensors")
    for name in ("old", "new", "model", "best"):
        shutil.copy(ASSETS / "default.onnx", root / f"{name}.onnx")
    shutil.copy(photos / "cat.jpg", root / "photo.jpg")
    (root / "list.txt").write_text("photo.jpg\n")
    with Image.open(photos / "astronaut.jpg") as image:
        (root / "more").mkdir()
        image.save(root / "more" / "a.png")
        image.resize((720, 720)).save(root / "aerial.tif")
    write_clip(root / "clip.mp4", 10)
    return root


@pytest.mark.parametrize("page", [page for page in PAGES if any(line.runs for line in lines_of(page))], ids=str)
def test_quick_commands_run(page: Path, folder: Path, fcos: Fcos, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av")
    here = Path.cwd()
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    shutil.copytree(folder, here, dirs_exist_ok=True)
    for line in filter(lambda line: line.runs, lines_of(page)):
        if "--label" in line.arguments:
            shutil.rmtree("more", ignore_errors=True)
        shell = line.shell
        for old, new in OTHER_NAMES.items():
            shell = shell.replace(old, new)
        if line.is_pipeline:
            if "jq" not in shell or shutil.which("jq"):
                done = subprocess.run(["bash", "-ec", shell], capture_output=True, text=True, check=False)
                assert (done.returncode, "error:" in done.stderr) == (0, False), (line.where, done.stderr)
            continue
        words = re.split(r" [>] ", shell)[0]
        split = subprocess.run(["bash", "-c", f'printf "%s\\0" {words}'], capture_output=True, text=True, check=True)
        result = fcos(*split.stdout.split("\0")[1:-1])
        allowed = {0}.union(*(codes for flag, codes in EXPECTED.items() if flag in line.arguments))
        assert result.code in allowed, (line.where, shell, result.err)
