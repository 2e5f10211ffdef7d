"""Check a data set for problems before training on it: findings with an id, a severity and a remedy."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from fcos_cli.console import say, warn
from fcos_cli.data.geometry import ResizeRule
from fcos_cli.data.samples import Dataset, Finding
from fcos_cli.data.tiny_boxes import find_tiny

FEW_BOXES = 20  # per class; with fewer boxes a class is hardly learned
SMALL_VAL_BOXES, SMALL_VAL_IMAGES = 50, 10  # the standard error of a recall of 0.5 is 0.07 with 50 boxes
LARGER_VAL = 0.3  # what to hold out instead
IMBALANCE = 50  # ratio of boxes in the largest and the smallest class
EXTREME_ASPECT = 10.0
EXAMPLES = 3
MOST_DETECTIONS = 100  # of ModelConfig.max_detections, and of COCO's AP
MIRRORS = re.compile(
    r"^(.|\d+)$|(?<![a-z])(left|right|letter|digit|text|arrow|zero|one|two|three|four|five|six|seven|eight|nine|ten)(?![a-z])",
    re.IGNORECASE,
)
"""Class names of characters, numbers and directions."""


def examine(dataset: Dataset, *, resize: ResizeRule | None = None, stride: int = 8) -> list[Finding]:
    """Return the reader's findings and those about classes and box sizes, most severe first.

    resize: the network's resize rule, to check box sizes at the input size; without it, source pixels are used. stride:
    of the finest level, in pixels of network input: a smaller box can lie between its points. Ignored boxes (crowd,
    difficult) are not counted. No image is opened.
    """
    findings = [*dataset.findings, *_classes(dataset), *find_tiny(dataset, resize=resize, stride=stride)]
    findings += [*_elongated(dataset), *_crowded(dataset), *_empty(dataset)]
    return sorted(findings, key=lambda finding: ("error", "warning", "info").index(finding.severity))


def print_findings(findings: Iterable[Finding], *, split: str = "") -> None:
    """Print one line per finding, with its remedy. split: name to begin the lines with."""
    for finding in findings:
        text = f"{finding.id}: {finding.message} ({finding.place}) {finding.remedy}".rstrip()
        text = f"{split}: {text}" if split else text
        warn(text) if finding.severity != "info" else say(text)


def _classes(dataset: Dataset) -> Iterator[Finding]:
    classes = [sample.classes[~sample.ignore] for sample in dataset.samples]
    counts = np.bincount(np.concatenate([*classes, np.zeros(0, np.int64)]), minlength=len(dataset.classes))
    if not counts.any():
        ignored = sum(len(sample.boxes) for sample in dataset.samples)
        message, remedy = f"the {dataset.split} split has no boxes", "check that the labels were found"
        if ignored:
            message = f"all {ignored} boxes of the {dataset.split} split are ignored"
            remedy = "check `difficult` (VOC) or `iscrowd` (COCO) in the annotations"
        yield Finding("no-boxes", "error", str(dataset.source), message, remedy)
        return
    by_class = list(zip(dataset.classes.names, counts.tolist(), strict=True))
    empty = [name for name, count in by_class if count == 0]
    if empty:
        message = f"classes without boxes in the {dataset.split} split: {len(empty)}"
        yield Finding("class-without-boxes", "warning", some(empty), message, "label some, or remove the classes")
    few = [f"{name} ({count})" for name, count in by_class if 0 < count < FEW_BOXES]
    if few:
        message = f"classes with fewer than {FEW_BOXES} boxes in the {dataset.split} split: {len(few)}"
        effect = "too few to learn well" if dataset.split == "train" else "their metrics will be noisy"
        yield Finding("few-boxes", "warning", some(few), message, f"{effect}; label more")
    most, large = max(by_class, key=lambda item: item[1])
    least, small = min((item for item in by_class if item[1]), key=lambda item: item[1])
    if large >= IMBALANCE * small:
        message = f"{most} has {large} boxes, {least} only {small}"
        yield Finding("imbalance", "warning", f"{most}, {least}", message, "check the AP per class, not only the mean")
    mirrored = [name for name in dataset.classes.names if MIRRORS.search(name)]
    if mirrored:
        message = f"classes that may look different in a mirror: {len(mirrored)}"
        remedy = "if so, train with --set augment.flip=0"
        yield Finding("mirrored-classes", "info", some(mirrored), message, remedy)


def _elongated(dataset: Dataset) -> Iterator[Finding]:
    """Find boxes of extreme aspect ratio."""
    elongated: list[str] = []
    for sample in dataset.samples:
        boxes = sample.boxes[~sample.ignore]
        sides = boxes[:, 2:] - boxes[:, :2]
        extreme = int((sides.max(axis=1, initial=0) > EXTREME_ASPECT * sides.min(axis=1, initial=np.inf)).sum())
        elongated += [sample.image.name] * extreme
    if elongated:
        message = f"boxes with an aspect ratio above {EXTREME_ASPECT:g}: {len(elongated)}"
        places = list(dict.fromkeys(elongated))
        yield Finding("extreme-aspect", "info", some(places), message, "check that they are intended")


def _crowded(dataset: Dataset) -> Iterator[Finding]:
    counts = [int(np.sum(~sample.ignore)) for sample in dataset.samples]
    names = [
        sample.image.name for sample, count in zip(dataset.samples, counts, strict=True) if count > MOST_DETECTIONS
    ]
    if names:
        enough = 100 * -(-max(counts) // 100)
        message = f"images with more than {MOST_DETECTIONS} boxes: {len(names)}"
        remedy = (
            f"a model returns {MOST_DETECTIONS} per image by default: use --max-detections {enough} in predict and"
            f" export, or train with --set model.max_detections={enough}; COCO's AP counts {MOST_DETECTIONS} per image"
            " and class"
        )
        yield Finding("crowded-images", "warning", some(names), message, remedy)


def _empty(dataset: Dataset) -> Iterator[Finding]:
    names = [sample.image.name for sample in dataset.samples if not len(sample.boxes)]
    if names:
        message = f"images without objects, used as background examples: {len(names)} of {len(dataset)}"
        remedy = "label them if they show objects of these classes; otherwise nothing needs to be done"
        yield Finding("images-without-objects", "info", some(list(dict.fromkeys(names))), message, remedy)


def examine_splits(
    train: Dataset, val: Dataset, *, resize: ResizeRule | None = None, stride: int = 8
) -> list[tuple[str, Finding]]:
    """Return (split, finding) of all problems of a data set, as `fcos train` and `fcos doctor` list them.

    resize, stride: as in `examine`. For val, these are the reader's findings that train does not have too (both may
    come from one file), and that it has few boxes or none. Findings about both splits are listed under `train`.
    """
    findings = [*examine(train, resize=resize, stride=stride), *find_leakage(train, val)]
    of_val = [finding for finding in val.findings if finding not in findings]
    of_val += _small_val(val)
    return [*(("train", finding) for finding in findings), *(("val", finding) for finding in of_val)]


def _small_val(val: Dataset) -> Iterator[Finding]:
    """Find a val split that is too small to choose weights and thresholds by."""
    counts = [count for sample in val.samples if (count := int(np.sum(~sample.ignore)))]
    if not counts:
        message = "the val split has no boxes: there will be no AP, and best.safetensors will be the last weights"
        yield Finding("no-val-boxes", "warning", str(val.source), message, "label images in val")
    elif sum(counts) < SMALL_VAL_BOXES or len(counts) < SMALL_VAL_IMAGES:
        message = (
            f"the val split is small (boxes: {sum(counts)}, images with boxes: {len(counts)}): AP, and the weights and "
            "score thresholds that are chosen by it, depend largely on chance"
        )
        remedy = "label more images"
        if val.division is not None and val.division.val_fraction < LARGER_VAL:
            remedy += f", or hold out more of them: train with --set data.val_fraction={LARGER_VAL}"
        yield Finding("small-val", "warning", str(val.source), message, remedy)


def find_leakage(train: Dataset, val: Dataset) -> Iterator[Finding]:
    """Find images in both splits, by file content.

    Only files that agree in length, and then in a part from their middle, are read in full: uncompressed images of one
    size all have the same length. Unreadable files are skipped, since the reader reports them.
    """
    pairs = _shared([sample.image for sample in train.samples], [sample.image for sample in val.samples])
    shared = [f"{file.name} = {other.name}" for file, other in pairs]
    if shared:
        message = f"images in both train and val, which makes val metrics too high: {len(shared)}"
        yield Finding("leakage", "error", some(shared), message, "remove them from one of the splits")


def _shared(train: Iterable[Path], val: Iterable[Path]) -> Iterator[tuple[Path, Path]]:
    """Yield each file of `train` whose content is also in `val`, with the last such file there."""
    groups = [(list(dict.fromkeys(train)), list(dict.fromkeys(val)))]
    for key in (_length, _middle, _digest):
        groups = [pair for group in groups for pair in _agreeing(*group, key=key)]
    for files, others in groups:
        yield from ((file, others[-1]) for file in files)


def _agreeing(
    train: Sequence[Path], val: Sequence[Path], *, key: Callable[[Path], object]
) -> Iterator[tuple[list[Path], list[Path]]]:
    """Yield the files of both splits for each key that both have; files with the key None are left out."""
    theirs, ours = defaultdict[object, list[Path]](list), defaultdict[object, list[Path]](list)
    for file in val:
        theirs[key(file)].append(file)
    for file in train:
        ours[key(file)].append(file)
    yield from ((files, theirs[value]) for value, files in ours.items() if value is not None and value in theirs)


def _length(file: Path) -> int | None:
    return file.stat().st_size if file.is_file() else None


def _middle(file: Path) -> bytes | None:
    """4 KB from the middle of a file; None if it cannot be read."""
    try:
        with file.open("rb") as stream:
            stream.seek(file.stat().st_size // 2)
            return stream.read(4096)
    except OSError:
        return None


def _digest(file: Path) -> bytes | None:
    """Hash of the file's content; None if it cannot be read."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "blake2b").digest()
    except OSError:
        return None


def same_content(file: Path, other: Path) -> bool:
    """Whether two files hold the same bytes; unreadable ones do not."""
    digest = _digest(file)
    return digest is not None and file.stat().st_size == other.stat().st_size and digest == _digest(other)


def some(names: list[str]) -> str:
    """The first few names, and `…` for the others."""
    return ", ".join(names[:EXAMPLES]) + (", …" if len(names) > EXAMPLES else "")
