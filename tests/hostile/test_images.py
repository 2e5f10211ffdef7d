"""Image files that are wrong on purpose, read by `open_image`, `image_size` and `fcos predict`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from fcos_cli.data.images import image_size, open_image, read_image
from fcos_cli.errors import DataError, FcosError
from fcos_cli.predict.progress import MAX_ERRORS
from tests.cli_runner import Fcos
from tests.hostile.contract import READ, Case, contents, names, outcome
from tests.hostile.image_cases import IMAGES, encode, noise
from tests.runtime.onnx_files import write_onnx

RIGHT = re.compile(r"(\d+)x(\d+) #(\w\w)(\w\w)(\w\w)")


def expectations(case: Case) -> tuple[str | None, str]:
    """The right result (None if there is none), and the text of the error."""
    parts = case.expect.split("|")
    right = parts[0] if RIGHT.fullmatch(parts[0]) else None
    return right, "|".join(parts[1:] if right else parts)


def check_pixels(pixels: Any, right: str) -> None:
    width, height, *colour = RIGHT.fullmatch(right).groups()  # type: ignore[union-attr]
    assert pixels.shape == (int(height), int(width), 3)
    assert abs(pixels[0, 0].astype(int) - [int(part, 16) for part in colour]).max() <= 3


@pytest.mark.parametrize("case", IMAGES, ids=names(IMAGES))
def test_images(tmp_path: Path, case: Case) -> None:
    """expect: as the table in image_cases.py says."""
    path = case.make(tmp_path)
    right, words = expectations(case)

    def read() -> Any:
        try:
            return open_image(path)
        except FcosError as error:
            if right and words:
                return [error]  # either is allowed
            raise

    found = outcome(read, kind=DataError, expect=READ if right else words, folder=tmp_path)
    if isinstance(found, list | FcosError):
        error = found[0] if isinstance(found, list) else found
        assert re.search(words, str(error))
        assert str(path)[:300] in str(error.where)
    else:
        check_pixels(found, right or "")
        assert image_size(path) == found.shape[1::-1]


@pytest.mark.parametrize("case", IMAGES, ids=names(IMAGES))
def test_the_size_alone(tmp_path: Path, case: Case) -> None:
    """Only the header is read, so a damaged body may go unnoticed."""
    path = case.make(tmp_path)
    try:
        width, height = outcome(lambda: image_size(path), kind=DataError, expect=READ, folder=tmp_path)
    except AssertionError as error:
        assert "refused: " in str(error)  # noqa: PT017
    else:
        assert width >= 0
        assert height >= 0


def test_predict_names_each_image_it_cannot_use_and_goes_on(tmp_path: Path, fcos: Fcos) -> None:
    """All cases in one folder: one result or one error for each, exit code 1 and no traceback."""
    (tmp_path / "in").mkdir()
    chosen = [case for case in IMAGES if not case.name.startswith(("png-rgba", "name-", "png-rows"))]
    for number, case in enumerate(chosen):
        (tmp_path / f"{number}").mkdir()
        made = case.make(tmp_path / f"{number}")
        made.rename(tmp_path / "in" / f"{number:03}-{case.name}{made.suffix or '.png'}")
    before = contents(tmp_path / "in")
    result = fcos("predict", tmp_path / "in", "--model", write_onnx(tmp_path / "model.onnx"), "--json")
    assert result.code == 1
    assert "Traceback" not in result.err
    files = [case for case in chosen if case.name != "folder-named-jpg"]
    failed = {row["source"] for row in result.document["failed"]}
    done = {row["source"] for row in result.document["results"]}
    assert not failed & done
    assert len(failed | done) == len(files)
    assert result.err.count("error: ") == MAX_ERRORS < len(failed)  # the document has all of them
    for case in files:
        right, words = expectations(case)
        if not (right and words):  # one of the two is allowed
            assert any(f"-{case.name}." in name for name in (done if right else failed)), case.name
    assert contents(tmp_path / "in") == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(encode(noise(), "PNG"))
    path.chmod(0)
    with pytest.raises(DataError, match="cannot be read"):
        open_image(path)


def test_a_file_that_vanishes_after_it_was_listed(tmp_path: Path, fcos: Fcos, monkeypatch: pytest.MonkeyPatch) -> None:
    for stem in "ab":
        (tmp_path / f"{stem}.png").write_bytes(encode(noise(), "PNG"))
    from fcos_cli.predict import pipeline

    def open_late(path: Path) -> Any:
        (tmp_path / "b.png").unlink(missing_ok=True)
        return read_image(path)

    monkeypatch.setattr(pipeline, "read_image", open_late)
    model = write_onnx(tmp_path / "model.onnx")
    result = fcos("predict", tmp_path / "a.png", tmp_path / "b.png", "--model", model)
    assert result.code == 1
    assert result.err.count("the image does not exist") == 1
    assert "a.png: " in result.err
