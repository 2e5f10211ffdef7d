"""fcos predict never replaces a source, or a file that it did not write."""

import hashlib
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli_runner import Fcos


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with `photo.jpg`, an unrelated `y.jpg` and `y.png`."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    rng = np.random.default_rng(0)
    for name in ("photo.jpg", "y.jpg", "y.png"):
        Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(home / name)
    return home


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_outputs_beside_the_sources_get_other_names(fcos: Fcos, model_file: Path, folder: Path) -> None:
    before = digests(folder)
    for flags in (("--viz",), ("--viz", "--crops"), ("--viz", "--explain")):
        assert fcos("predict", "photo.jpg", "y.png", "--model", model_file, "--out", ".", *flags).code == 0
        assert before.items() <= digests(folder).items()
    assert {"photo-2.jpg", "y-2.png", "photo.explain.html"} <= digests(folder).keys()
    assert "photo-3.jpg" not in digests(folder)  # the second run replaced what the first one drew


def test_a_source_of_another_format_does_not_replace_its_neighbor(fcos: Fcos, model_file: Path, folder: Path) -> None:
    Image.open(folder / "y.png").save(folder / "y.tif")
    before = digests(folder)
    assert fcos("predict", "y.tif", "--model", model_file, "--viz", "--out", ".").code == 0
    assert before.items() <= digests(folder).items()
    assert set(digests(folder)) - set(before) == {"y-2.jpg"}


def test_a_folder_can_be_drawn_into_itself_again_and_again(fcos: Fcos, model_file: Path, folder: Path) -> None:
    before = digests(folder)
    for _ in range(3):
        result = fcos("predict", ".", "--model", model_file, "--viz", "--out", ".", "--json")
        assert len(result.document["results"]) == 3
        assert before.items() <= digests(folder).items()


def test_the_output_folder_is_not_a_source(fcos: Fcos, model_file: Path, folder: Path) -> None:
    for _ in range(2):
        result = fcos("predict", ".", "--model", model_file, "--viz", "--crops", "--json")
        assert [Path(found["source"]).name for found in result.document["results"]] == ["photo.jpg", "y.jpg", "y.png"]
    assert len(list((folder / "predictions").glob("*.*"))) == 3


def test_what_was_drawn_is_no_source_of_later_runs(
    fcos: Fcos, model_file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(source: str, *flags: str) -> list[str]:
        listed = "\n".join(str(path) for path in sorted(Path().rglob("*.*g")))
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(listed.encode()))))
        result = fcos("predict", source, "--model", model_file, "--json", *flags)
        return [Path(found["source"]).as_posix() for found in result.document["results"]]

    photos = ["photo.jpg", "y.jpg", "y.png"]
    for source, out in ((".", "predictions"), ("**/*.*g", "predictions"), ("-", "predictions"), ("-", "."), (".", ".")):
        assert run(source, "--viz", "--crops", "--out", out) == photos
        drawn = digests(folder).keys()
        assert run(source, "--viz", "--crops", "--out", out) == photos
        assert digests(folder).keys() == drawn
        assert run(source, "--out", out) == photos
        shutil.rmtree("predictions", ignore_errors=True)


@pytest.mark.parametrize("name", ["labels.json", "labels.coco.json", "labels.jsonl", "labels.csv"])
def test_results_replace_results_and_nothing_else(fcos: Fcos, model_file: Path, folder: Path, name: str) -> None:
    command = ("predict", "photo.jpg", "--model", model_file, "--save", name)
    assert [fcos(*command).code for _ in range(2)] == [0, 0]
    (folder / name).write_text('{"images": [], "annotations": []}')
    result = fcos(*command)
    assert result.code == 2
    assert "not a result of fcos in this format" in result.err
    assert name in result.err
    assert (folder / name).read_text() == '{"images": [], "annotations": []}'


@pytest.mark.parametrize(
    "flags", ["--viz --out s3://bucket/out", "--save gs://bucket/a.csv", "--label coco --out s3://b"]
)
def test_outputs_at_an_address_need_the_other_engine(fcos: Fcos, model_file: Path, folder: Path, flags: str) -> None:
    before = digests(folder)
    result = fcos("predict", "photo.jpg", "--model", model_file, *flags.split())
    assert result.code == 2
    assert "--engine ray can write to s3://" in result.err
    assert digests(folder) == before


def test_long_names_are_shortened(fcos: Fcos, model_file: Path, folder: Path) -> None:
    (folder / "photo.jpg").rename(folder / f"{'x' * 240}.jpg")
    result = fcos("predict", f"{'x' * 240}.jpg", "--model", model_file, "--viz", "--crops", "--explain", "--json")
    assert result.code == 0
    assert len(result.document["results"]) == 1


def test_images_too_wide_for_jpeg_are_drawn_as_png(fcos: Fcos, model_file: Path, folder: Path) -> None:
    Image.new("RGB", (66_000, 8)).save(folder / "wide.png")
    (folder / "wide.png").rename(folder / "wide.bmp")
    result = fcos("predict", "wide.bmp", "photo.jpg", "--model", model_file, "--viz", "--json")
    assert result.code == 0
    assert len(result.document["results"]) == 2
    assert (folder / "predictions" / "wide.png").is_file()
