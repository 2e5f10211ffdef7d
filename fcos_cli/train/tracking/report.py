"""`report.html` of a run: training curves, the first batches, and the evaluation of the best weights.

It is written after each validation: the curves from metrics.jsonl, the first batches from the run's data, order and
seeds, which reproduce the same images. A report that fails does not affect the run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fcos_cli.atomic import atomic_write
from fcos_cli.config import Config, Origins, flatten
from fcos_cli.console import progress, warn
from fcos_cli.data.samples import Dataset
from fcos_cli.data.training_set import EpochBatches, Example
from fcos_cli.evaluate.coco import collect_detections, score, thresholds_for
from fcos_cli.evaluate.report.charts import Line, legend, line_chart, nice_ticks, unit
from fcos_cli.evaluate.report.page import Section, bar, figure, note, pair, table, text
from fcos_cli.evaluate.report.pictures import box, jpeg, svg
from fcos_cli.evaluate.report.write import EvaluatedModel, describe_input, write_report
from fcos_cli.model.classes import ClassTable
from fcos_cli.runtime.open import open_detector
from fcos_cli.train.run import repeats_of, tiles_of, training_set
from fcos_cli.train.tracking.listener import Evaluation, Listener, Row
from fcos_cli.train.tracking.metrics import read_rows

SHOWN, SIDE = 16, 240
"""Number of images shown from the first batches, and their longer side in the page, in pixels."""

ORIGINS = "origins.json"
"""In a run folder: where each setting came from, or why it was chosen, as {dotted key: text}."""

STYLES = ("first", "second", "third", "fourth", "fifth")


class RunReport(Listener):
    """Writes `folder`/report.html about the best weights after each validation, so that a browser shows how a run is
    doing.

    world: number of processes that train; the batches shown are those of the first. origins: where the settings came
    from.
    """

    def __init__(
        self,
        config: Config,
        train_set: Dataset,
        val_set: Dataset,
        *,
        folder: Path,
        world: int = 1,
        origins: Origins | None = None,
    ) -> None:
        self.origins = origins or {}
        self.config, self.folder, self.world = config, folder, world
        self.train_set, self.val_set, self.tiling = train_set, val_set, tiles_of(config)
        self.best: EvaluatedModel | None = None
        self.best_epoch: int | None = None  # from 1
        self.first_batches = ""  # they are always the same

    def begun(self) -> None:
        with atomic_write(self.folder / ORIGINS) as file:
            file.write(json.dumps(self.origins, indent=1, ensure_ascii=False) + "\n")

    def resumed(self, evaluation: Evaluation) -> None:
        thresholds = thresholds_for(evaluation.facts, self.val_set.classes)
        about = [("input", describe_input(evaluation.facts, self.tiling))]
        self.best = EvaluatedModel("best", evaluation.result, evaluation.detections, thresholds, about)
        self.best_epoch = evaluation.facts.provenance.get("epoch")

    def validated(self, row: Row, evaluation: Evaluation) -> None:  # noqa: ARG002 (the interface)
        if evaluation.best:
            self.resumed(evaluation)
        if self.best is not None:
            self.write()

    def write(self) -> Path | None:
        """Write the report. Return its path, or None (with a warning) if that failed: the run does not depend on it."""
        path = self.folder / "report.html"
        try:
            self._write(path)
        except Exception as error:  # no error in the report may end the run, or hide that it is complete
            warn(f"the report could not be written: {type(error).__name__}: {error}")
            return None
        return path

    def _write(self, path: Path) -> None:
        model = self.best or self._evaluate_best()
        self.first_batches = self.first_batches or first_batches(self.config, self.train_set, world=self.world)
        rows = read_rows(self.folder / "metrics.jsonl")
        training = summary(rows, ap=model.result.metrics["AP"], epoch=self.best_epoch) + curves(rows)
        extra = [
            Section("training", "Training", training),
            Section("labels", "Training data", histogram(self.train_set, self.val_set)),
            Section("batches", "First batches", self.first_batches),
            Section("settings", "Settings", settings(self.config, self.origins)),
        ]
        title = f"{self.folder.resolve().name}: trained on {self.train_set.name}"
        write_report(path, self.val_set, [model], title=title, extra=extra)

    def _evaluate_best(self) -> EvaluatedModel:
        """Evaluate best.safetensors, if another session wrote it."""
        detector = open_detector(self.folder, device=self.config.train.device)
        unreadable: list[str] = []
        with progress("report", total=len(self.val_set)) as update:
            detections, notes = collect_detections(
                detector,
                self.val_set,
                tiling=self.tiling,
                on_progress=update,
                on_unreadable=lambda failure: unreadable.append(f"no detections in an image: {failure.error.brief}"),
            )
        self.best_epoch = detector.facts.provenance.get("epoch")
        result = score(detections, self.val_set.samples, self.val_set.classes, notes=[*notes, *unreadable])
        return EvaluatedModel.of(detector, result, detections, self.val_set, tiling=self.tiling)


def summary(rows: Sequence[dict[str, Any]], *, ap: float, epoch: int | None) -> str:
    """How long the run is so far, and the best weights. Rows of other val data, say, may have a higher AP."""
    if not rows:
        return ""
    best = f"best AP on val {ap:.3f} after epoch {epoch}" if ap >= 0 else "no AP, since val has no boxes"
    return note(
        f"{rows[-1]['step']:,} steps in {rows[-1]['epoch']} epochs; {best}."
        " The rest of this page is about these weights, `best.safetensors`."
    )


def curves(rows: Sequence[dict[str, Any]]) -> str:
    """Charts of the loss terms, AP on val, learning rate and gradient norm over the steps."""
    steps = nice_ticks("step", 0, max([row["step"] for row in rows], default=1), whole=True)
    train = [row for row in rows if row["kind"] == "train"]
    val = [row for row in rows if row["kind"] == "val" and row["AP"] >= 0]

    def chart(title: str, source: list[dict[str, Any]], names: Sequence[str], **axis: Any) -> str:
        known = [name for name in names if any(name in row for row in source)]
        values = [row[name] for row in source for name in known if row.get(name) is not None]
        if not values:
            return ""
        y = axis.get("y") or nice_ticks("", 0, max(values))
        lines = [
            Line(name, [(row["step"], row[name]) for row in source if name in row], css=css)
            for name, css in zip(known, STYLES, strict=False)
        ]
        dots = [
            Line(f"{line.name} {value:.3f} at step {step:,}", [(step, value)], css=line.css)
            for line in lines
            for step, value in line.points
        ]
        marks = dots if source is val else []
        return figure(
            title,
            legend([(line.name, line.css) for line in lines]) + line_chart(title, lines, x=steps, y=y, marks=marks),
        )

    charts = [
        chart(
            "Loss and its terms. Each point is the mean since the previous one.",
            train,
            ("loss", "cls", "box", "centerness", "teacher"),
        ),
        chart("COCO metrics on the val split.", val, ("AP", "AP50", "AP75"), y=unit("")),
        chart("Learning rate.", train, ("lr",)),
        chart("Gradient norm, before clipping.", train, ("grad_norm",)),
    ]
    return pair(*filter(None, charts))


def histogram(train_set: Dataset, val_set: Dataset) -> str:
    """Number of boxes and images of each class in both splits."""
    sides = [_counts(dataset) for dataset in (train_set, val_set)]
    most = max([int(boxes.max()) for boxes, _ in sides if len(boxes)] + [1])
    rows = []
    for index, name in enumerate(train_set.classes.names):
        (boxes, pictures), (val_boxes, val_pictures) = ((int(b[index]), int(p[index])) for b, p in sides)
        rows.append(
            [text(name), f"{boxes:,}", bar(boxes / most), f"{pictures:,}", f"{val_boxes:,}", f"{val_pictures:,}"]
        )
    empty = sum(not len(sample.boxes) for sample in train_set.samples)
    summary = (
        f"{len(train_set):,} training images, {empty:,} of them without boxes; {len(val_set):,} validation images."
    )
    columns = ("class", "boxes", "", "images", "val boxes", "val images")
    return note(summary) + table("Labels per class, without ignored ones", columns, rows)


def settings(config: Config, origins: Origins) -> str:
    """The settings that were chosen or given, with where each came from; all others have their defaults."""
    values = flatten(config.model_dump(mode="json"))
    rows = [[text(key), text(str(values[key])), text(origin)] for key, origin in origins.items() if key in values]
    return note("All other settings have their defaults.") + table("Settings", ("setting", "value", "from"), rows)


def _counts(dataset: Dataset) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Number of boxes and of images per class, without ignored boxes, [C] each."""
    boxes, pictures = (np.zeros(len(dataset.classes), int) for _ in range(2))
    for sample in dataset.samples:
        classes = sample.classes[~sample.ignore]
        np.add.at(boxes, classes, 1)
        pictures[np.unique(classes)] += 1
    return boxes, pictures


def first_batches(config: Config, dataset: Dataset, *, world: int = 1) -> str:
    """The first images of the run as the network saw them: augmented, with the boxes that remained."""
    figures = [
        f"<figure>{_picture(example, dataset.classes)}</figure>"
        for example in first_examples(config, dataset, world=world)
    ]
    summary = (
        f"The first {len(figures)} images of the run after augmentation,"
        f" {config.data.size[0]} × {config.data.size[1]} px, {config.train.batch} per step."
        " Padding is grey; ignored boxes are dotted."
    )
    return note(summary) + f'<div class="seen">{"".join(figures)}</div>'


def first_examples(config: Config, dataset: Dataset, *, world: int = 1) -> list[Example]:
    """Return the first readable images of the run's first process, SHOWN at most. No random state is changed."""
    train, repeats = config.train, repeats_of(config, dataset)
    keys = EpochBatches(len(dataset), batch=train.batch, seed=train.seed, epoch=0, world=world, repeats=repeats)
    source = training_set(config, dataset.samples)
    alone = config.augment.close_mosaic >= 1
    examples = [source[key._replace(alone=alone)] for key in [key for group in keys for key in group][:SHOWN]]
    return [example for example in examples if isinstance(example, Example)]


def _picture(example: Example, classes: ClassTable) -> str:
    image = np.ascontiguousarray(example.image.numpy().transpose(1, 2, 0))
    view = (0.0, 0.0, float(image.shape[1]), float(image.shape[0]))
    content = f'<image href="{jpeg(image, SIDE)}" width="{view[2]:g}" height="{view[3]:g}"/>'
    rows = zip(example.boxes.tolist(), example.classes.tolist(), example.ignore.tolist(), strict=True)
    occupied: list[tuple[float, float, float, float]] = []
    for place, index, ignored in rows:
        css = "ignored" if ignored else ""
        content += box(tuple(place), classes.names[index], view, css=css, taken=occupied)
    return svg(f"{Path(example.name).name} after augmentation", view, content)
