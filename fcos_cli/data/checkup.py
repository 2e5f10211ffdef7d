"""`fcos doctor`: read both splits of a data set and print what `fcos train` would find in them, and more. No torch."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np

from fcos_cli.console import emit_json, progress, say
from fcos_cli.data.decoded import decode_all, examine_decoded
from fcos_cli.data.doctor import examine_splits
from fcos_cli.data.formats.read import read_dataset
from fcos_cli.data.geometry import ResizeRule
from fcos_cli.data.samples import Dataset, Finding, Severity
from fcos_cli.data.unlisted import unlisted_images

STYLES: dict[Severity, str | None] = {"error": "red", "warning": "yellow", "info": None}
ORDER: tuple[Severity, ...] = ("error", "warning", "info")


def check_data(path: Path, *, size: tuple[int, int] | None, images: bool, as_json: bool) -> set[Severity]:
    """Print the splits and findings of a data set: lines for people, or one JSON document. Return the severities.

    size: (height, width) of the network input, letterboxed; None: boxes are judged in source pixels. images: also
    decode all images. Raises DataError if the data cannot be read.
    """
    train, val = read_dataset(path, split="train"), read_dataset(path, split="val")
    resize = None if size is None else ResizeRule("letterbox", size)
    findings = examine_splits(train, val, resize=resize)
    findings += [("train", finding) for finding in unlisted_images(path, [train, val])]
    if images:
        findings = _with_decoded(findings, train, val)
    findings.sort(key=lambda item: ORDER.index(item[1].severity))
    if as_json:
        emit_json(
            {
                "data": path,
                "classes": list(train.classes.names),
                "splits": [_counts(dataset) for dataset in (train, val)],
                "findings": [{"split": split, **asdict(finding)} for split, finding in findings],
            }
        )
        return {finding.severity for _, finding in findings}
    for counts in map(_counts, (train, val)):
        say("{split}: {images} images, {boxes} boxes, {ignored} ignored ones ({format}; {origin})".format(**counts))
    say(f"classes: {', '.join(train.classes.names)}")
    for split, finding in findings:
        say(f"{finding.severity}: {finding.id} in {split}: {finding.message}", style=STYLES[finding.severity])
        say(f"  where: {finding.place}")
        if finding.remedy:
            say(f"  do:    {finding.remedy}")
    say("no problems found" if not findings else "1 finding" if len(findings) == 1 else f"{len(findings)} findings")
    return {finding.severity for _, finding in findings}


def _with_decoded(findings: list[tuple[str, Finding]], train: Dataset, val: Dataset) -> list[tuple[str, Finding]]:
    """Add what decoding shows. Its finding about sizes, from all images, replaces the reader's, which is from some."""
    files = [sample.image for dataset in (train, val) for sample in dataset.samples]
    with progress("decoding", total=len(set(files))) as update:
        decoded = decode_all(files, on_progress=update)
    return [item for item in findings if item[1].id != "size-mismatch"] + examine_decoded(train, val, decoded)


def _counts(dataset: Dataset) -> dict[str, object]:
    ignored = sum(int(np.sum(sample.ignore)) for sample in dataset.samples)
    return {
        "split": dataset.split,
        "images": len(dataset),
        "boxes": sum(len(sample.boxes) for sample in dataset.samples) - ignored,
        "ignored": ignored,
        "format": dataset.format,
        "origin": dataset.origin,
    }
