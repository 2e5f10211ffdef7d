"""The images that an export is compared and calibrated with."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fcos_cli.data.formats.read import read_dataset
from fcos_cli.data.geometry import Pixels, ResizeRule
from fcos_cli.data.images import open_image
from fcos_cli.errors import DataError, UsageError
from fcos_cli.resources import demo_photos

PARITY_IMAGES, CALIBRATION_IMAGES = 6, 128
"""Number of the user's images for the parity check and for int8 calibration."""


def parity_pictures(data: Path | None) -> list[Path]:
    """Evenly spaced images of the val split of `data`, or the bundled ones if `data` is None."""
    if data is None:
        return demo_photos()
    paths = [sample.image for sample in read_dataset(data).samples]
    if not paths:
        raise DataError("the val split has no images for the parity check", where=data)
    return [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, PARITY_IMAGES).astype(int))]


def calibration_pictures(data: Path | None, *, weights: Path) -> list[Path]:
    """A seeded sample of the train split of `data`, or of the data set named in the run folder of `weights`."""
    data = data or _training_data(weights.parent)
    if data is None:
        raise UsageError(
            "int8 export needs images for calibration",
            where="--data",
            remedy="use --data FOLDER with the data set that the model was trained on",
        )
    samples = read_dataset(data, split="train").samples
    order = np.random.default_rng(0).permutation(len(samples))
    return [samples[i].image for i in sorted(order[:CALIBRATION_IMAGES])]


def _training_data(folder: Path) -> Path | None:
    config = folder / "config.toml"
    if not config.is_file():
        return None
    path = tomllib.loads(config.read_text(encoding="utf-8")).get("data", {}).get("path")
    return Path(path) if path and Path(path).exists() else None


def network_inputs(paths: Sequence[Path], rule: ResizeRule) -> list[Pixels]:
    """Each image as a network input of batch size one, [1, 3, H, W]."""
    return [rule.batch([open_image(path)])[0] for path in paths]
