"""The images that models are measured on, and those that training used.

Where the data set has no val split, `read_split` reads the images that training held out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fcos_cli.console import warn
from fcos_cli.data.formats.read import read_dataset
from fcos_cli.data.samples import Dataset, Division, fingerprint
from fcos_cli.runtime.facts import Facts


def read_split(path: Path, models: Sequence[Facts], *, split: str | None = None) -> Dataset:
    """Read a split of the data set at `path` as `read_dataset` does, divided as for the training of `models`.

    Models whose file does not say how their data was divided do not matter; if no file does, the division is the
    default. If models were trained with different divisions, that of the last one is used, with a warning; there also
    is one for a whole file, without `split`, that was divided for training. Raises DataError.
    """
    divisions = list(dict.fromkeys(facts.division for facts in reversed(models) if facts.division is not None))
    dataset = read_dataset(path, split=split, **(divisions or [Division()])[0]._asdict())
    if dataset.division is not None and len(divisions) > 1:
        used, *others = (f"{division.val_fraction:g} with seed {division.seed}" for division in divisions)
        warn(
            f"the models were trained on different divisions of their data (val: {used}; {'; '.join(others)}): an "
            f"image of this {dataset.split} split may be one that another model was trained on"
        )
    if split is None and dataset.split == "all" and any(_was_divided(dataset, facts) for facts in models):
        warn(f"training held out a part of {dataset.name}, and these are all its images: --split val is that part")
    return dataset


def _was_divided(dataset: Dataset, model: Facts) -> bool:
    return model.division is not None and model.data.get("name") == dataset.name


def may_be_training_images(dataset: Dataset, model: Facts) -> bool:
    """Whether training may have used some of these images: the train split, or all images of the same data set.

    Data of another name than the training data's counts as images that were kept aside.
    """
    if dataset.split in ("train", "trainval") or fingerprint(dataset) == model.data.get("sha256"):
        return True
    return dataset.split == "all" and model.data.get("name") == dataset.name


def split_held_out(path: Path, model: Facts) -> str | None:
    """`val` for a whole file that training divided, of which only a part was held out; None for other data."""
    divided = model.division is not None and path.is_file() and model.data.get("name") == path.name
    return "val" if divided else None
