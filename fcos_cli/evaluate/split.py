"""The images that models are measured on, and those that training used.

Where the data set has no val split, `read_split` reads the images that training held out, or all of them if no model
was trained on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fcos_cli.console import say, warn
from fcos_cli.data.formats.read import is_divided, read_dataset, whole_split
from fcos_cli.data.samples import Dataset, Division, fingerprint, name_of
from fcos_cli.errors import DataError
from fcos_cli.runtime.facts import Facts

_FILES = {"train": ("train", "trainval"), "val": ("val", "valid", "validation")}
"""Single files of these names are a split as a whole, unless training divided them."""


def read_split(path: Path, models: Sequence[Facts], *, split: str | None = None) -> Dataset:
    """Read a split of the data set at `path` as `read_dataset` does, divided as for the training of `models`.

    Data without a val split that no model was trained on is not divided: without `split`, all its images are read, and
    a file named like `split` is that split. If the models' files do not say what they were trained on, the division is
    the default, with a warning. If models were trained with different divisions of this data, that of the last one is
    used, with a warning. Without `split`, there is also a warning for a whole file that was divided for training, and
    for data that only has the name of the training data. Raises DataError.
    """
    if not is_divided(path, split=split):
        dataset = read_dataset(path, split=split)
        if split is None and dataset.split == "all" and any(_was_divided(dataset.name, facts) for facts in models):
            warn(
                f"training held out a part of data named {dataset.name}, but all its images are evaluated; --split val "
                "evaluates only that part"
            )
        return dataset
    found = [_division_of(path, facts) for facts in reversed(models)]
    divisions = list(dict.fromkeys(division for division in found if division is not None))
    if not divisions:
        return _read_unused(path, models, split=split)
    dataset = read_dataset(path, split=split, **divisions[0]._asdict())
    if len(divisions) > 1:
        used, *others = (f"{division.val_fraction:g} with seed {division.seed}" for division in divisions)
        warn(
            f"the models were trained on different divisions of their data (val: {used}; {'; '.join(others)}): an "
            f"image of this {dataset.split} split may be one that another model was trained on"
        )
    if split is None and any(_has_only_the_name(path, facts) for facts in models):
        warn(
            f"{dataset.name} has the name of data that a model was trained on, but not its images or labels: only the "
            "part that training would hold out is evaluated; --split all evaluates all"
        )
    return dataset


def _read_unused(path: Path, models: Sequence[Facts], *, split: str | None) -> Dataset:
    """What `read_split` reads of data that would be divided, but is not known to have been divided for training."""
    name = name_of(path)
    if split is not None:
        whole = _split_of_file(path) in _FILES[split]
        return replace(read_dataset(path, split="all"), split=split) if whole else read_dataset(path, split=split)
    if models and all(_knows_others(facts, name) for facts in models):
        say(f"{name} has no val split, and no model here is known to have used it: all its images are evaluated")
        return read_dataset(path, split="all")
    warn(
        f"{name} has no val split, and it is not known which of its images training used: only the part that it would "
        "hold out is evaluated; --split all evaluates all"
    )
    return read_dataset(path)


def _knows_others(model: Facts, name: str) -> bool:
    """Whether the file shows that training used other data. Tiles cannot be compared, if that data was divided."""
    return model.data.get("name") not in (None, name) and not (model.tile and model.division)


def _division_of(path: Path, model: Facts) -> Division | None:
    """How training divided the data at `path`; None if the file does not say, or the model was trained on other data.

    The data set may have been renamed since, so the images that training used are compared as well. Labels may have
    been corrected since, so the name suffices.
    """
    if _was_divided(name_of(path), model):
        return model.division
    return (model.division or Division()) if _was_used(path, model) else None


def _was_divided(name: str, model: Facts) -> bool:
    """Whether training divided data of this name."""
    return model.division is not None and model.data.get("name") == name


def _has_only_the_name(path: Path, model: Facts) -> bool:
    return _was_divided(name_of(path), model) and _was_used(path, model) is False


def _was_used(path: Path, model: Facts) -> bool | None:
    """Whether the images and boxes of the train part are those of the training; None if they cannot be compared."""
    if "sha256" not in model.data or model.tile:
        return None
    try:
        used = read_dataset(path, split="train", **(model.division or Division())._asdict())
    except DataError:  # a single image, which cannot be divided
        return None
    return model.data["sha256"] in _hashes(used)


def _hashes(dataset: Dataset) -> tuple[str, str]:
    """Hashes of a data set that training may have recorded: with and without images that have no boxes."""
    with_boxes = [sample for sample in dataset.samples if len(sample.boxes)]
    return fingerprint(dataset), fingerprint(replace(dataset, samples=with_boxes))


def _split_of_file(path: Path) -> str | None:
    """See `whole_split`; None also if `path` does not exist."""
    return whole_split(path) if path.exists() else None


def may_be_training_images(dataset: Dataset, model: Facts) -> bool:
    """Whether training may have used some of these images: the train split, or all images of the same data set.

    dataset: all images of the split. Data with another name than the training data counts as held out, except a file
    that is named like a train split.
    """
    split = dataset.split if dataset.split != "all" else _split_of_file(dataset.source) or "all"
    if split in _FILES["train"] or model.data.get("sha256") in _hashes(dataset):
        return True
    return dataset.split == "all" and model.data.get("name") == dataset.name


def split_held_out(path: Path, model: Facts) -> str | None:
    """`val`, except for a whole COCO file that is not known to have been divided for training: None."""
    return None if _split_of_file(path) is not None and not _was_divided(path.name, model) else "val"
