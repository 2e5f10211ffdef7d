"""Check a data set for problems before training on it: findings with an id, a severity and a remedy."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from fcos_cli.data.geometry import ResizeRule
from fcos_cli.data.samples import Dataset, Finding

FEW_BOXES = 20  # per class; with fewer boxes a class is hardly learned
IMBALANCE = 50  # ratio of boxes in the largest and the smallest class
TINY = 8.0  # pixels of network input: one cell of the finest level
TINY_SHARE = 0.1
EXTREME_ASPECT = 10.0
EXAMPLES = 3
MIRRORS = re.compile(
    r"^(.|\d+)$|(?<![a-z])(left|right|letter|digit|text|arrow|zero|one|two|three|four|five|six|seven|eight|nine|ten)(?![a-z])",
    re.IGNORECASE,
)
"""Class names of characters, numbers and directions."""


def examine(dataset: Dataset, *, resize: ResizeRule | None = None) -> list[Finding]:
    """Return the reader's findings and those about classes and box sizes, most severe first.

    resize: the network's resize rule, to check box sizes at the input size; without it, source pixels are used. Ignored
    boxes (crowd, difficult) are not counted. No image is opened.
    """
    findings = [*dataset.findings, *_classes(dataset), *_boxes(dataset, resize), *_empty(dataset)]
    return sorted(findings, key=lambda finding: ("error", "warning", "info").index(finding.severity))


def _classes(dataset: Dataset) -> Iterator[Finding]:
    classes = [sample.classes[~sample.ignore] for sample in dataset.samples]
    counts = np.bincount(np.concatenate([*classes, np.zeros(0, np.int64)]), minlength=len(dataset.classes))
    if not counts.any():
        message = f"the {dataset.split} split has no boxes"
        yield Finding("no-boxes", "error", str(dataset.source), message, "check that the labels were found")
        return
    by_class = list(zip(dataset.classes.names, counts.tolist(), strict=True))
    empty = [name for name, count in by_class if count == 0]
    if empty:
        message = f"classes without boxes in the {dataset.split} split: {len(empty)}"
        yield Finding("class-without-boxes", "warning", _some(empty), message, "label some, or remove the classes")
    few = [f"{name} ({count})" for name, count in by_class if 0 < count < FEW_BOXES]
    if few:
        message = f"classes with fewer than {FEW_BOXES} boxes in the {dataset.split} split: {len(few)}"
        yield Finding("few-boxes", "warning", _some(few), message, "metrics of these classes will be noisy; label more")
    most, large = max(by_class, key=lambda item: item[1])
    least, small = min((item for item in by_class if item[1]), key=lambda item: item[1])
    if large >= IMBALANCE * small:
        message = f"{most} has {large} boxes, {least} only {small}"
        yield Finding("imbalance", "warning", f"{most}, {least}", message, "check the AP per class, not only the mean")
    mirrored = [name for name in dataset.classes.names if MIRRORS.search(name)]
    if mirrored:
        message = f"classes that may look different in a mirror: {len(mirrored)}"
        remedy = "if so, train with --set augment.flip=0"
        yield Finding("mirrored-classes", "info", _some(mirrored), message, remedy)


def _boxes(dataset: Dataset, resize: ResizeRule | None) -> Iterator[Finding]:
    """Find boxes too small for the finest level and boxes of extreme aspect ratio."""
    total = tiny = 0
    elongated: list[str] = []
    for sample in dataset.samples:
        boxes = sample.boxes[~sample.ignore]
        if resize is not None:
            boxes = resize.geometry(sample.width, sample.height).forward(boxes)
        sides = boxes[:, 2:] - boxes[:, :2]
        total += len(sides)
        tiny += int((sides.min(axis=1, initial=np.inf) < TINY).sum())
        extreme = int((sides.max(axis=1, initial=0) > EXTREME_ASPECT * sides.min(axis=1, initial=np.inf)).sum())
        elongated += [sample.image.name] * extreme
    if total and tiny / total > TINY_SHARE:
        at = f"at input size {resize.size[0]} x {resize.size[1]} ({resize.mode})" if resize else "in source pixels"
        message = f"{tiny / total:.0%} of {total} boxes are less than {TINY:g} px wide or high {at}"
        yield Finding("tiny-boxes", "warning", dataset.split, message, "use a larger input size or tile the images")
    if elongated:
        message = f"boxes with an aspect ratio above {EXTREME_ASPECT:g}: {len(elongated)}"
        places = list(dict.fromkeys(elongated))
        yield Finding("extreme-aspect", "info", _some(places), message, "check that they are intended")


def _empty(dataset: Dataset) -> Iterator[Finding]:
    names = [sample.image.name for sample in dataset.samples if not len(sample.boxes)]
    if names:
        message = f"images without objects, used as background examples: {len(names)} of {len(dataset)}"
        yield Finding("pictures-without-objects", "info", _some(names), message)


def examine_pair(train: Dataset, val: Dataset) -> list[Finding]:
    """Find problems between two splits: different class tables, and images in both (by file content).

    Only files of equal length are read. Unreadable files are skipped, since the reader reports them.
    """
    findings = []
    if train.classes != val.classes:
        place = f"{train.source}, {val.source}"
        message = "train and val have different class tables"
        findings.append(Finding("class-tables-differ", "error", place, message, "read both from one data set"))
    lengths = _by_length(sample.image for sample in val.samples)
    shared = []
    for length, files in _by_length(sample.image for sample in train.samples).items():
        val_files = {digest: file for file in lengths.get(length, []) if (digest := _digest(file))}
        if val_files:
            shared += [
                f"{file.name} = {val_files[digest].name}" for file in files if (digest := _digest(file)) in val_files
            ]
    if shared:
        message = f"images in both train and val, which makes val metrics too high: {len(shared)}"
        findings.append(Finding("leakage", "error", _some(shared), message, "remove them from one of the splits"))
    return findings


def _by_length(files: Iterable[Path]) -> dict[int, list[Path]]:
    grouped: defaultdict[int, list[Path]] = defaultdict(list)
    for file in dict.fromkeys(files):
        if file.is_file():
            grouped[file.stat().st_size].append(file)
    return grouped


def _digest(file: Path) -> bytes:
    """Hash of the file's content; empty if it cannot be read."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "blake2b").digest()
    except OSError:
        return b""


def _some(names: list[str]) -> str:
    return ", ".join(names[:EXAMPLES]) + (", …" if len(names) > EXAMPLES else "")
