"""`report.html`: strengths and weaknesses of a model on a split, in one page that works offline.

This module combines the others: metrics.py computes, suspects.py selects what to review, charts.py and pictures.py
draw, sections.py and comparison.py write the sections, and page.py writes the page.
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
from fcos_cli.data.tiling import Tiling
from fcos_cli.errors import DataError
from fcos_cli.evaluate.coco import CocoResult, thresholds_for
from fcos_cli.evaluate.report import sections
from fcos_cli.evaluate.report.metrics import ReportMetrics, compute_metrics
from fcos_cli.evaluate.report.page import Section, note, page, text
from fcos_cli.evaluate.report.pictures import parallel_map, suspect_figure, worst_image_figure
from fcos_cli.evaluate.report.suspects import Suspect, suspects, worst_images
from fcos_cli.runtime.detector import Detector
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.results import Detections

WORST_IMAGES, SUSPECTS_PER_KIND = 12, 12
"""Maximum number of worst images, and of suspect labels of each kind, in a report."""


@dataclass(frozen=True)
class EvaluatedModel:
    """A model and its detections on a data set.

    detections: `detections[i]` in sample i, in the data set's class indices. thresholds: score threshold of each class
    of the data set. about: (name, value) rows shown at the top of the report.
    """

    name: str
    result: CocoResult
    detections: Sequence[Detections]
    thresholds: npt.NDArray[np.float32]
    about: Sequence[tuple[str, str]] = ()

    @classmethod
    def of(
        cls,
        detector: Detector,
        result: CocoResult,
        detections: Sequence[Detections],
        dataset: Dataset,
        *,
        tiling: Tiling | None = None,
    ) -> EvaluatedModel:
        """Return the results of a detector, with the detector's description."""
        about = [
            ("runs on", f"{detector.backend}, {detector.precision}, {detector.device}"),
            ("input", describe_input(detector.facts, tiling)),
        ]
        return cls(detector.name, result, detections, thresholds_for(detector.facts, dataset.classes), about)


def describe_input(facts: Facts, tiling: Tiling | None) -> str:
    """`320 × 320, letterbox`, and the tiles that it was used with."""
    rule = facts.resize
    text = f"{rule.size[0]} × {rule.size[1]}, {rule.mode}"
    return text if tiling is None else f"{text}, of the image and of {tiling}"


def write_report(
    path: Path, dataset: Dataset, models: Sequence[EvaluatedModel], *, title: str = "", extra: Sequence[Section] = ()
) -> None:
    """Write a report on one or two models evaluated on `dataset`.

    extra: sections before the per-model ones (a comparison, a training run). The file is written atomically. Raises
    DataError if there are no images, and UsageError if the file cannot be written.
    """
    if not dataset.samples:
        raise DataError("no images to report on", where=dataset.source)
    names = short_names([model.name for model in models])
    owners = [(chr(ord("a") + i), name) for i, name in enumerate(names)]
    parts = list(extra)
    for (key, _), model in zip(owners, models, strict=True):
        parts += _details(key, model, dataset)
    heading = title or f"{' vs. '.join(names)} on {dataset.name}"
    with atomic_write(path) as file:
        file.write(page(heading, _head(dataset, models, names), parts, owners=owners))


def short_names(names: Sequence[str]) -> list[str]:
    """Return the shortest trailing parts of paths that distinguish them; equal paths are numbered."""
    parts = [Path(name).parts or (name,) for name in names]
    for length in range(1, max(len(part) for part in parts) + 1):
        short = ["/".join(part[-length:]) for part in parts]
        if len(set(short)) == len(short):
            return short
    return [f"{name} ({number})" for number, name in enumerate(names, start=1)]


def _head(dataset: Dataset, models: Sequence[EvaluatedModel], names: Sequence[str]) -> str:
    boxes = sum(int((~sample.ignore).sum()) for sample in dataset.samples)
    facts = [
        ("data set", f"{dataset.name} ({dataset.format}), {dataset.split}"),
        ("images", f"{len(dataset):,} with {boxes:,} boxes in {len(dataset.classes)} classes"),
    ]
    for model, name in zip(models, names, strict=True):
        prefix = f"{name} " if len(models) > 1 else ""
        facts += [(prefix + key, value) for key, value in model.about]
    facts.append(("written", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC by fcos-cli {__version__}"))
    rows = "".join(f"<div><dt>{text(key)}</dt><dd>{text(value)}</dd></div>" for key, value in facts)
    notes = dict.fromkeys(line for model in models for line in model.result.notes)
    warnings = "".join(f'<div class="warning" role="note">{text(line)}</div>' for line in notes)
    return f'<dl class="facts">{rows}</dl>{warnings}'


def _details(key: str, model: EvaluatedModel, dataset: Dataset) -> list[Section]:
    samples, classes = dataset.samples, dataset.classes
    metrics = compute_metrics(model.result, model.detections, samples, classes, thresholds=model.thresholds)
    labels = suspects(metrics, samples, count=SUSPECTS_PER_KIND)
    rows = [
        ("numbers", "Twelve metrics", sections.tiles(model.result.metrics) + sections.summary(metrics, len(labels))),
        ("classes", "Classes", sections.classes_table(metrics)),
        ("curves", "Precision, recall, F1", sections.curves(metrics)),
        ("confusion", "Confusion", sections.confusion(metrics)),
        ("errors", "Error types", sections.errors(metrics)),
        ("calibration", "Calibration", sections.calibration(metrics)),
        ("sizes", "Size", sections.sizes(metrics)),
        ("worst", "Worst images", _worst(key, metrics, dataset)),
        ("labels", "Suspect labels", _labels(metrics, dataset, labels)),
    ]
    return [Section(f"{key}-{name}", heading, content, owner=key) for name, heading, content in rows]


def _worst(key: str, metrics: ReportMetrics, dataset: Dataset) -> str:
    rows = worst_images(metrics, count=WORST_IMAGES)
    if not rows:
        return note("No image has an error at the model thresholds.")
    drawn = parallel_map(
        rows,
        lambda row: worst_image_figure(
            row, metrics, dataset.samples[row.image_index], key=f"{key}-picture{row.image_index}"
        ),
    )
    explanation = (
        "Lowest F1 first; ties are broken by the number of errors. Solid blue: correct. Dashed orange: missed (ground"
        " truth) or false positive (detections). Dotted grey: ignored."
    )
    controls = (
        f'<div class="controls" data-gallery="{key}-gallery">'
        '<label>Score threshold <input type="range" min="0.05" max="0.95" step="0.01" value="0.5"></label>'
        '<output aria-live="polite">model thresholds</output><button type="button">Reset</button>'
        '<label><input type="checkbox" checked data-css="no-truth" data-when="off">ground truth</label>'
        '<label><input type="checkbox" checked data-css="no-found" data-when="off">detections</label>'
        '<label><input type="checkbox" data-css="over" data-when="on">overlaid</label></div>'
    )
    return note(explanation) + controls + f'<div class="gallery" id="{key}-gallery">{"".join(drawn)}</div>'


def _labels(metrics: ReportMetrics, dataset: Dataset, labels: Sequence[Suspect]) -> str:
    explanation = (
        "The strongest disagreements between the model and the labels. Some are errors of the model. Others are label"
        " errors, which lower every metric in this report. Solid blue: label. Dashed orange: model."
    )
    headings = {
        "missing": "Detected, but not labeled",
        "class": "Labeled as another class",
        "box": "Labeled, but no detection nearby",
    }
    content = ""
    for kind, heading in headings.items():
        of_kind = [suspect for suspect in labels if suspect.kind == kind]
        if of_kind:
            drawn = parallel_map(of_kind, lambda s: suspect_figure(s, metrics, dataset.samples[s.image_index]))
            content += f'<h3>{text(heading)}</h3><div class="crops">{"".join(drawn)}</div>'
    return note(explanation) + content if content else note("No suspect labels.")
