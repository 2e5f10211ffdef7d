"""The images that an export is compared and calibrated with. They are read before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fcos_cli.config import read_toml
from fcos_cli.console import warn
from fcos_cli.data.doctor import print_findings
from fcos_cli.data.geometry import Pixels, ResizeRule
from fcos_cli.data.images import open_image
from fcos_cli.data.samples import Dataset
from fcos_cli.data.tiling import Tiling
from fcos_cli.errors import DataError, UsageError
from fcos_cli.evaluate.coco import match_classes
from fcos_cli.evaluate.split import read_split, split_held_out
from fcos_cli.resources import demo_photos
from fcos_cli.runtime.facts import Facts

PARITY_IMAGES, CALIBRATION_IMAGES = 6, 128
"""Number of the user's images for the parity check and for int8 calibration."""


@dataclass(frozen=True)
class SampleImages:
    """val: what AP is compared on; None without `--data`. parity, calibration: image files; the latter for int8.

    Without `--data`, those for parity are taken from the calibration images, or else are the bundled photos.
    """

    val: Dataset | None
    parity: list[Path]
    calibration: list[Path]


def read_sample_images(
    data: Path | None, *, limit: int | None, model: Facts, weights: Path, int8: bool, compare: bool
) -> SampleImages:
    """Read the val split of `data`, and for int8 its train split or that of the run folder of `weights`.

    limit: number of images for AP; None = all. compare: whether the export is to be compared; if not, only images for
    calibration are read. Raises DataError if the data cannot be read, has no images or none of the model's classes;
    UsageError if there are no images for calibration, or the run's config.toml is damaged.
    """
    calibration = _calibration_images(data, model=model, weights=weights) if int8 else []
    if not compare:
        return SampleImages(None, [], calibration)
    if data is None:
        return SampleImages(None, _evenly(calibration) or demo_photos(), calibration)
    val = read_split(data, [model], split=split_held_out(data, model))
    print_findings(val.findings)
    if not len(val):
        raise DataError(f"the {val.split} split has no images to compare the exported model on", where=data)
    match_classes(model.classes, val.classes)
    parity = _evenly([sample.image for sample in val.samples])
    if not parity:
        raise DataError(f"no image of the {val.split} split can be read", where=data, remedy=_see_doctor(data))
    return SampleImages(replace(val, samples=val.samples[:limit]), parity, calibration)


def _evenly(paths: Sequence[Path]) -> list[Path]:
    """PARITY_IMAGES of those that can be read, evenly spaced if all can be; fewer if there are no more."""
    spaced = np.linspace(0, len(paths) - 1, min(len(paths), PARITY_IMAGES)).astype(int).tolist()
    order = dict.fromkeys([*spaced, *range(len(paths))])
    return [paths[i] for i in sorted(islice((i for i in order if _is_readable(paths[i])), PARITY_IMAGES))]


def _calibration_images(data: Path | None, *, model: Facts, weights: Path) -> list[Path]:
    """A seeded sample of the train split of `data`, or of the data set named in the run folder of `weights`: only
    images that can be opened.
    """
    data = data or _training_data(weights.parent)
    if data is None:
        raise UsageError(
            "int8 export needs images for calibration",
            where="--data",
            remedy="use --data FOLDER with the data set that the model was trained on",
        )
    samples = read_split(data, [model], split="train").samples
    order = np.random.default_rng(0).permutation(len(samples))
    chosen = sorted(islice((i for i in order if _is_readable(samples[i].image)), CALIBRATION_IMAGES))
    if not chosen:
        what = "no image of the train split can be read, and int8 needs some"
        raise DataError(what, where=data, remedy=_see_doctor(data))
    return [samples[i].image for i in chosen]


def _is_readable(image: Path) -> bool:
    try:
        open_image(image)
    except DataError as error:
        warn(f"left out: {error.brief}")
        return False
    return True


def _see_doctor(data: Path) -> str:
    return f"see what fcos doctor {data} finds"


def _training_data(folder: Path) -> Path | None:
    config = folder / "config.toml"
    if not config.is_file():
        return None
    section = read_toml(config).get("data")
    path = section.get("path") if isinstance(section, dict) else None
    return Path(path) if isinstance(path, str) and Path(path).exists() else None


def network_inputs(paths: Sequence[Path], rule: ResizeRule, *, tile: int = 0) -> list[Pixels]:
    """Each image as a network input of batch size one, [1, 3, H, W].

    tile: side of the tiles that the model was trained on, pixels; 0 = none. Of every second image, one tile is taken.
    """
    return [rule.batch([_shown(path, tile if n % 2 else 0, n // 2)])[0] for n, path in enumerate(paths)]


def _shown(path: Path, tile: int, number: int) -> npt.NDArray[np.uint8]:
    """An image, or its tile of this number, modulo the number of tiles."""
    image = open_image(path)
    if not tile:
        return image
    height, width = image.shape[:2]
    tiles = Tiling(tile).tiles(width, height)
    left, top, right, bottom = tiles[number % len(tiles)]
    return image[top:bottom, left:right]
