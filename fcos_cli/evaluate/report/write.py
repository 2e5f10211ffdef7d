"""`report.html`: what a model does well and badly on a split, on one page that opens from disk and loads nothing.

numbers.py computes, suspects.py chooses what to look at, charts.py and pictures.py draw, sections.py and comparison.py
write, page.py binds. Here they are put together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fcos_cli import __version__
from fcos_cli.atomic import atomic_write
from fcos_cli.data.samples import Dataset
from fcos_cli.errors import DataError
from fcos_cli.evaluate.coco import CocoResult, thresholds_for
from fcos_cli.evaluate.report import sections
from fcos_cli.evaluate.report.numbers import Numbers, numbers
from fcos_cli.evaluate.report.page import Section, note, page, text
from fcos_cli.evaluate.report.pictures import embed_pictures, suspect_crop, worst_picture
from fcos_cli.evaluate.report.suspects import Suspect, suspects, worst_pictures
from fcos_cli.runtime.detector import Detector
from fcos_cli.runtime.results import Detections

WORST, SUSPECTS = 12, 12
"""Pictures with most errors, and suspect labels of each kind, that a page shows."""


@dataclass(frozen=True)
class EvaluatedModel:
    """A model and what it answered: `detections[i]` in sample i of the data, in the data's class indices.

    thresholds: from which score on its detections are shown, one per class of the data. about: (what, value) rows.
    """

    name: str
    result: CocoResult
    detections: Sequence[Detections]
    thresholds: npt.NDArray[np.float32]
    about: Sequence[tuple[str, str]] = ()

    @classmethod
    def of(
        cls, detector: Detector, result: CocoResult, detections: Sequence[Detections], dataset: Dataset
    ) -> EvaluatedModel:
        """A detector's answers, with what it says of itself."""
        rule = detector.facts.resize
        about = [
            ("runs by", f"{detector.backend}, {detector.precision}, {detector.device}"),
            ("input", f"{rule.size[0]} × {rule.size[1]}, {rule.mode}"),
        ]
        return cls(detector.name, result, detections, thresholds_for(detector.facts, dataset.classes), about)


def write_report(
    path: Path, dataset: Dataset, subjects: Sequence[EvaluatedModel], *, title: str = "", extra: Sequence[Section] = ()
) -> None:
    """Write the page about one or two models on `dataset`. extra: sections before the details (a comparison, a run).

    The file appears whole or not at all. Raises DataError without pictures, UsageError where it cannot be written.
    """
    if not dataset.samples:
        raise DataError("there is no picture to report on", where=dataset.source)
    names = short_names([subject.name for subject in subjects])
    owners = [(chr(ord("a") + i), name) for i, name in enumerate(names)]
    parts = list(extra)
    for (key, _), subject in zip(owners, subjects, strict=True):
        parts += _details(key, subject, dataset)
    heading = title or f"{' against '.join(names)} on {dataset.source.stem}"
    with atomic_write(path) as file:
        file.write(page(heading, _head(dataset, subjects, names), parts, owners=owners))


def short_names(names: Sequence[str]) -> list[str]:
    """The last parts of paths, as many as tell them apart; equal paths get a number."""
    parts = [Path(name).parts or (name,) for name in names]
    for length in range(1, max(len(part) for part in parts) + 1):
        short = ["/".join(part[-length:]) for part in parts]
        if len(set(short)) == len(short):
            return short
    return [f"{name} ({place})" for place, name in enumerate(names, start=1)]


def _head(dataset: Dataset, subjects: Sequence[EvaluatedModel], names: Sequence[str]) -> str:
    boxes = sum(int((~sample.ignore).sum()) for sample in dataset.samples)
    facts = [
        ("data", f"{dataset.source.name} ({dataset.format}), {dataset.split}"),
        ("pictures", f"{len(dataset):,} with {boxes:,} boxes in {len(dataset.classes)} classes"),
    ]
    for subject, name in zip(subjects, names, strict=True):
        prefix = f"{name} " if len(subjects) > 1 else ""
        facts += [(prefix + what, value) for what, value in subject.about]
    facts.append(("written", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC by fcos-cli {__version__}"))
    rows = "".join(f"<div><dt>{text(what)}</dt><dd>{text(value)}</dd></div>" for what, value in facts)
    notes = dict.fromkeys(said for subject in subjects for said in subject.result.notes)
    warnings = "".join(f'<div class="warning" role="note">{text(said)}</div>' for said in notes)
    return f'<dl class="facts">{rows}</dl>{warnings}'


def _details(key: str, subject: EvaluatedModel, dataset: Dataset) -> list[Section]:
    samples, classes = dataset.samples, dataset.classes
    found = numbers(subject.result, subject.detections, samples, classes, thresholds=subject.thresholds)
    labels = suspects(found, samples, count=SUSPECTS)
    rows = [
        ("numbers", "Twelve numbers", sections.tiles(subject.result.metrics) + sections.summary(found, len(labels))),
        ("classes", "Classes", sections.classes_table(found)),
        ("curves", "Precision, recall, F1", sections.curves(found)),
        ("confusion", "Confusion", sections.confusion(found)),
        ("errors", "Kinds of error", sections.errors(found)),
        ("calibration", "Calibration", sections.calibration(found)),
        ("sizes", "Size", sections.sizes(found)),
        ("worst", "Worst pictures", _worst(key, found, dataset)),
        ("labels", "Suspect labels", _labels(found, dataset, labels)),
    ]
    return [Section(f"{key}-{name}", heading, content, owner=key) for name, heading, content in rows]


def _worst(key: str, found: Numbers, dataset: Dataset) -> str:
    rows = worst_pictures(found, count=WORST)
    if not rows:
        return note("No picture has an error at the model’s thresholds.")
    drawn = embed_pictures(
        rows,
        lambda row: worst_picture(row, found, dataset.samples[row.picture], key=f"{key}-picture{row.picture}"),
    )
    says = (
        "The lowest F1 first, of equals the most errors. Blue and solid: right. Orange and broken: missed on the side"
        " of the truth, false alarm on that of the detections. Grey and dotted: ignored."
    )
    controls = (
        f'<div class="controls" data-gallery="{key}-gallery">'
        '<label>Detections from score <input type="range" min="0.05" max="0.95" step="0.01" value="0.5"></label>'
        '<output aria-live="polite">model’s thresholds</output><button type="button">as predict does</button>'
        '<label><input type="checkbox" checked data-css="no-truth" data-when="off">truth</label>'
        '<label><input type="checkbox" checked data-css="no-found" data-when="off">detections</label>'
        '<label><input type="checkbox" data-css="over" data-when="on">overlaid</label></div>'
    )
    return note(says) + controls + f'<div class="gallery" id="{key}-gallery">{"".join(drawn)}</div>'


def _labels(found: Numbers, dataset: Dataset, labels: Sequence[Suspect]) -> str:
    says = (
        "Where model and label disagree most. Some are errors of the model; those that are errors of the labels make"
        " every figure of this page worse than the model is. Blue and solid: the label. Orange and broken: the model."
    )
    headings = {
        "missing": "Seen, but not labelled",
        "class": "Labelled as something else",
        "box": "Labelled, but nothing comes near",
    }
    content = ""
    for kind, heading in headings.items():
        mine = [suspect for suspect in labels if suspect.kind == kind]
        if mine:
            drawn = embed_pictures(mine, lambda s: suspect_crop(s, found, dataset.samples[s.picture]))
            content += f'<h3>{text(heading)}</h3><div class="crops">{"".join(drawn)}</div>'
    return note(says) + content if content else note("Nothing stands out.")
