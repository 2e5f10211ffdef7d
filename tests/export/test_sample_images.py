"""The images that an export is compared and calibrated with."""

from __future__ import annotations

from pathlib import Path

from fcos_cli.export.sample_images import PARITY_IMAGES, SampleImages, read_sample_images
from fcos_cli.model.classes import ClassTable
from fcos_cli.resources import demo_photos
from fcos_cli.runtime.facts import Facts
from tests.runtime.onnx_files import FACTS


def images_of_a_run(folder: Path, data: Path, *, int8: bool) -> SampleImages:
    (folder / "config.toml").write_text(f'[data]\npath = "{data}"\n', encoding="utf-8")
    return read_sample_images(None, limit=None, model=FACTS, weights=folder / "best.safetensors", int8=int8)


def test_int8_is_compared_on_the_images_it_is_calibrated_with(shapes: Path, tmp_path: Path) -> None:
    found = images_of_a_run(tmp_path, shapes, int8=True)
    assert len(found.calibration) == 12
    assert len(found.parity) == PARITY_IMAGES
    assert set(found.parity) < set(found.calibration)
    assert (found.parity[0], found.parity[-1]) == (found.calibration[0], found.calibration[-1])


def test_other_precisions_are_compared_on_the_bundled_photos(shapes: Path, tmp_path: Path) -> None:
    found = images_of_a_run(tmp_path, shapes, int8=False)
    assert (found.parity, found.calibration, found.val) == (demo_photos(), [], None)


def test_all_images_of_a_small_val_split_are_compared(shapes: Path, tmp_path: Path) -> None:
    model = Facts(ClassTable.from_names(["circle", "square", "triangle"]), FACTS.resize)
    found = read_sample_images(shapes, limit=1, model=model, weights=tmp_path / "best.safetensors", int8=False)
    assert len(set(found.parity)) == 4
    assert found.val is not None
    assert len(found.val) == 1
