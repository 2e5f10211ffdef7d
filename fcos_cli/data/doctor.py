"""What is odd about a data set before a training is spent on it: findings with an id, a severity and a remedy."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from fcos_cli.data.geometry import ResizeRule
from fcos_cli.data.samples import Dataset, Finding

FEW_BOXES = 20  # per class; below that a class is hardly learned
IMBALANCE = 50  # times as many boxes in the largest class as in the smallest
TINY = 8.0  # pixels of network input: one cell of the finest level
TINY_SHARE = 0.1
EXTREME_ASPECT = 10.0
EXAMPLES = 3


def examine(dataset: Dataset, *, resize: ResizeRule | None = None) -> list[Finding]:
    """The reader's findings, then those about classes and sizes of boxes, the gravest first.

    resize: the network's rule, for judging how large boxes will be; without it they are judged at their own size.
    Ignored boxes (crowd, difficult) are not counted. No picture is opened.
    """
    found = [*dataset.findings, *_classes(dataset), *_boxes(dataset, resize), *_empty(dataset)]
    return sorted(found, key=lambda finding: ("error", "warning", "info").index(finding.severity))


def _classes(dataset: Dataset) -> Iterator[Finding]:
    learned = [sample.classes[~sample.ignore] for sample in dataset.samples]
    counts = np.bincount(np.concatenate([*learned, np.zeros(0, np.int64)]), minlength=len(dataset.classes))
    if not counts.any():
        message = f"the {dataset.split} split has no box at all"
        yield Finding("no-boxes", "error", str(dataset.source), message, "check that the labels were found")
        return
    named = list(zip(dataset.classes.names, counts.tolist(), strict=True))
    without = [name for name, count in named if count == 0]
    if without:
        message = f"classes without a box in the {dataset.split} split: {len(without)}"
        yield Finding("class-without-boxes", "warning", _some(without), message, "label some, or remove the classes")
    few = [f"{name} ({count})" for name, count in named if 0 < count < FEW_BOXES]
    if few:
        message = f"classes with fewer than {FEW_BOXES} boxes in the {dataset.split} split: {len(few)}"
        yield Finding(
            "few-boxes", "warning", _some(few), message, "figures for these classes will be noise; label more"
        )
    (most, large), (least, small) = max(named, key=lambda n: n[1]), min((n for n in named if n[1]), key=lambda n: n[1])
    if large >= IMBALANCE * small:
        message = f"{most} has {large} boxes, {least} only {small}"
        yield Finding("imbalance", "warning", f"{most}, {least}", message, "look at each class's AP, not at the mean")


def _boxes(dataset: Dataset, resize: ResizeRule | None) -> Iterator[Finding]:
    """Boxes too small for the finest level, and boxes like threads."""
    total = tiny = 0
    threads: list[str] = []
    for sample in dataset.samples:
        boxes = sample.boxes[~sample.ignore]
        if resize is not None:
            boxes = resize.geometry(sample.width, sample.height).forward(boxes)
        sides = boxes[:, 2:] - boxes[:, :2]
        total += len(sides)
        tiny += int((sides.min(axis=1, initial=np.inf) < TINY).sum())
        extreme = int((sides.max(axis=1, initial=0) > EXTREME_ASPECT * sides.min(axis=1, initial=np.inf)).sum())
        threads += [sample.image.name] * extreme
    if total and tiny / total > TINY_SHARE:
        at = f"at network size {resize.size[0]} x {resize.size[1]} ({resize.mode})" if resize else "in source pixels"
        message = f"{tiny / total:.0%} of {total} boxes are less than {TINY:g} px wide or high {at}"
        yield Finding("tiny-boxes", "warning", dataset.split, message, "use a larger network size, or cut into tiles")
    if threads:
        message = f"boxes more than {EXTREME_ASPECT:g} times as long as wide: {len(threads)}"
        places = list(dict.fromkeys(threads))
        yield Finding("extreme-aspect", "info", _some(places), message, "check that they are meant so")


def _empty(dataset: Dataset) -> Iterator[Finding]:
    names = [sample.image.name for sample in dataset.samples if not len(sample.boxes)]
    if names:
        message = f"pictures without objects, which teach what is background: {len(names)} of {len(dataset)}"
        yield Finding("pictures-without-objects", "info", _some(names), message)


def examine_pair(train: Dataset, val: Dataset) -> list[Finding]:
    """What is wrong between two splits: differing class tables, and pictures that are in both (by their bytes).

    Only files of equal length are read. Files that cannot be read are passed over: the reader tells of those.
    """
    found = []
    if train.classes != val.classes:
        place = f"{train.source}, {val.source}"
        message = "train and val do not have the same class table"
        found.append(Finding("class-tables-differ", "error", place, message, "read both from one data set"))
    lengths = _by_length(sample.image for sample in val.samples)
    shared = []
    for length, files in _by_length(sample.image for sample in train.samples).items():
        held = {digest: file for file in lengths.get(length, []) if (digest := _digest(file))}
        if held:
            shared += [f"{file.name} = {held[digest].name}" for file in files if (digest := _digest(file)) in held]
    if shared:
        message = f"pictures of train that are in val too, so that val's figures flatter: {len(shared)}"
        found.append(Finding("leakage", "error", _some(shared), message, "take them out of one of the splits"))
    return found


def _by_length(files: Iterable[Path]) -> dict[int, list[Path]]:
    grouped: defaultdict[int, list[Path]] = defaultdict(list)
    for file in dict.fromkeys(files):
        if file.is_file():
            grouped[file.stat().st_size].append(file)
    return grouped


def _digest(file: Path) -> bytes:
    """Empty where the file cannot be read."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "blake2b").digest()
    except OSError:
        return b""


def _some(names: list[str]) -> str:
    return ", ".join(names[:EXAMPLES]) + (", …" if len(names) > EXAMPLES else "")
