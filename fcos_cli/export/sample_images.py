"""The images that an export is compared and calibrated with. They are read before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from fcos_cli.config import read_toml
from fcos_cli.console import warn
from fcos_cli.data.doctor import print_findings
from fcos_cli.data.geometry import Pixels, ResizeRule
from fcos_cli.data.images import open_image
from fcos_cli.data.samples import Dataset
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

    Without `--data`, those for parity are of the calibration images, or else the bundled photos.
    """

    val: Dataset | None
    parity: list[Path]
    calibration: list[Path]


def read_sample_images(
    data: Path | None, *, limit: int | None, model: Facts, weights: Path, int8: bool
) -> SampleImages:
    """Read the val split of `data`, and for int8 its train split or that of the run folder of `weights`.

    limit: number of images for AP; None = all. Raises DataError if the data cannot be read, has no images or none of
    the model's classes; UsageError if there are no images for calibration, or the run's config.toml is damaged.
    """
    calibration = _calibration_pictures(data, model=model, weights=weights) if int8 else []
    if data is None:
        return SampleImages(None, _evenly(calibration) or demo_photos(), calibration)
    val = read_split(data, [model], split=split_held_out(data, model))
    print_findings(val.findings)
    if not len(val):
        raise DataError(f"the {val.split} split has no images to compare the exported model on", where=data)
    match_classes(model.classes, val.classes)
    parity = _evenly([sample.image for sample in val.samples])
    return SampleImages(replace(val, samples=val.samples[:limit]), parity, calibration)


def _evenly(paths: Sequence[Path]) -> list[Path]:
    """PARITY_IMAGES of them, evenly spaced, or all if there are no more."""
    indices = np.linspace(0, len(paths) - 1, min(len(paths), PARITY_IMAGES)).astype(int)
    return [paths[index] for index in indices]


def _calibration_pictures(data: Path | None, *, model: Facts, weights: Path) -> list[Path]:
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
        remedy = f"see what fcos doctor {data} finds"
        raise DataError("no image of the train split can be read, and int8 needs some", where=data, remedy=remedy)
    return [samples[i].image for i in chosen]


def _is_readable(image: Path) -> bool:
    try:
        open_image(image)
    except DataError as error:
        warn(f"not used for calibration: {error.brief}")
        return False
    return True


def _training_data(folder: Path) -> Path | None:
    config = folder / "config.toml"
    if not config.is_file():
        return None
    path = read_toml(config).get("data", {}).get("path")
    return Path(path) if path and Path(path).exists() else None


def network_inputs(paths: Sequence[Path], rule: ResizeRule) -> list[Pixels]:
    """Each image as a network input of batch size one, [1, 3, H, W]."""
    return [rule.batch([open_image(path)])[0] for path in paths]
