"""`report.html` of a run: how the training went, what the network was shown, and how good the best weights are.

Made after the end, from the run folder and the data: the curves from metrics.jsonl, the first batches from the run's
own data set, order and seeds, which give the same pictures again. Nothing of the run is touched, and a report that
fails costs nothing but itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fcos_cli.config import Config
from fcos_cli.console import progress, say, warn
from fcos_cli.data.samples import Dataset, Sample
from fcos_cli.data.training_set import EpochBatches, Example
from fcos_cli.evaluate.coco import collect_detections, score
from fcos_cli.evaluate.report.charts import Line, legend, line_chart, nice_ticks, unit
from fcos_cli.evaluate.report.page import Section, bar, figure, note, pair, table, text
from fcos_cli.evaluate.report.pictures import box, jpeg, svg
from fcos_cli.evaluate.report.write import EvaluatedModel, write_report
from fcos_cli.model.classes import ClassTable
from fcos_cli.runtime.open import open_detector
from fcos_cli.train.run import training_set, without_empty

SHOWN, SIDE = 16, 240
"""Pictures of the first batches, and their longer side in the page."""

STYLES = ("first", "second", "third", "fourth")


def write_run_report(
    config: Config, train_set: Dataset, val_set: Dataset, *, folder: Path, world: int = 1
) -> Path | None:
    """Write `folder`/report.html about the finished run there; None where that failed, which is said.

    world: processes that trained; the batches shown are those of the first.
    """
    path = folder / "report.html"
    try:
        _write(path, config, train_set, val_set, folder=folder, world=world)
    except Exception as error:  # whatever it is: the weights are there, and worth more than a page about them
        warn(f"the run is complete, but its report could not be written: {type(error).__name__}: {error}")
        return None
    say(f"report: {path}")
    return path


def _write(path: Path, config: Config, train_set: Dataset, val_set: Dataset, *, folder: Path, world: int) -> None:
    detector = open_detector(folder, device=config.train.device)
    unreadable: list[str] = []
    with progress("report", total=len(val_set)) as update:
        detections, notes = collect_detections(
            detector,
            val_set,
            on_progress=update,
            on_unreadable=lambda failure: unreadable.append(f"nothing found in a picture: {failure.error}"),
        )
    result = score(detections, val_set.samples, val_set.classes, notes=[*notes, *unreadable])
    if config.data.drop_empty:
        train_set = without_empty(train_set)
    extra = [
        Section("training", "Training", curves(read_rows(folder / "metrics.jsonl"))),
        Section("labels", "What was learned from", histogram(train_set, val_set)),
        Section("batches", "First batches", first_batches(config, train_set.samples, train_set.classes, world=world)),
    ]
    subject = EvaluatedModel.of(detector, result, detections, val_set)
    title = f"{folder.resolve().name}: trained on {train_set.source.stem}"
    write_report(path, val_set, [subject], title=title, extra=extra)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl; a last line that was cut off is left out."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]


def curves(rows: Sequence[dict[str, Any]]) -> str:
    """Loss terms, AP on val, learning rate and length of the gradient over the steps."""
    steps = nice_ticks("step", 0, max([row["step"] for row in rows], default=1), whole=True)
    train = [row for row in rows if row["kind"] == "train"]
    val = [row for row in rows if row["kind"] == "val"]

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
            "Loss and its terms, each point the mean since the one before.", train, ("loss", "cls", "box", "centerness")
        ),
        chart("COCO numbers on the val split after epochs.", val, ("AP", "AP50", "AP75"), y=unit("")),
        chart("Learning rate.", train, ("lr",)),
        chart("Length of the gradient, before it is clipped.", train, ("grad_norm",)),
    ]
    drawn = [item for item in charts if item]
    best = max(val, key=lambda row: (row["AP"], row["step"]), default=None)  # as validate keeps it
    said = (
        ""
        if best is None
        else note(
            f"{rows[-1]['step']:,} steps in {rows[-1]['epoch']} epochs; best AP on val {best['AP']:.3f} after epoch"
            f" {best['epoch']}. The rest of this page is about these weights, `best.safetensors`."
        )
    )
    return said + pair(*drawn)


def histogram(train_set: Dataset, val_set: Dataset) -> str:
    """Boxes and pictures of each class in both splits."""
    sides = [_counts(dataset) for dataset in (train_set, val_set)]
    most = max([int(boxes.max()) for boxes, _ in sides if len(boxes)] + [1])
    rows = []
    for index, name in enumerate(train_set.classes.names):
        (boxes, pictures), (val_boxes, val_pictures) = ((int(b[index]), int(p[index])) for b, p in sides)
        rows.append(
            [text(name), f"{boxes:,}", bar(boxes / most), f"{pictures:,}", f"{val_boxes:,}", f"{val_pictures:,}"]
        )
    empty = sum(not len(sample.boxes) for sample in train_set.samples)
    says = (
        f"{len(train_set):,} pictures to learn from, {empty:,} of them without a box; {len(val_set):,} to validate on."
    )
    columns = ("class", "boxes", "", "pictures", "val boxes", "val pictures")
    return note(says) + table("Labels per class, ignored ones left out", columns, rows)


def _counts(dataset: Dataset) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Boxes and pictures per class, ignored boxes left out, [C] each."""
    boxes, pictures = (np.zeros(len(dataset.classes), int) for _ in range(2))
    for sample in dataset.samples:
        classes = sample.classes[~sample.ignore]
        np.add.at(boxes, classes, 1)
        pictures[np.unique(classes)] += 1
    return boxes, pictures


def first_batches(config: Config, samples: Sequence[Sample], classes: ClassTable, *, world: int = 1) -> str:
    """The first pictures of the run as the network saw them: augmented, with the boxes that were left."""
    drawn = [
        f"<figure>{_picture(example, classes)}</figure>" for example in first_examples(config, samples, world=world)
    ]
    says = (
        f"The first {len(drawn)} pictures of the run after augmentation,"
        f" {config.data.size[0]} × {config.data.size[1]} px, {config.train.batch} to a step."
        " Grey is padding; a dotted box is ignored."
    )
    return note(says) + f'<div class="seen">{"".join(drawn)}</div>'


def first_examples(config: Config, samples: Sequence[Sample], *, world: int = 1) -> list[Example]:
    """The first SHOWN pictures of the run's first process, the unreadable ones left out. No random state is touched."""
    train = config.train
    keys = EpochBatches(len(samples), batch=train.batch, seed=train.seed, epoch=0, world=world)
    source = training_set(config, samples)
    examples = [source[key] for key in [key for group in keys for key in group][:SHOWN]]
    return [example for example in examples if isinstance(example, Example)]


def _picture(example: Example, classes: ClassTable) -> str:
    image = np.ascontiguousarray(example.image.numpy().transpose(1, 2, 0))
    view = (0.0, 0.0, float(image.shape[1]), float(image.shape[0]))
    content = f'<image href="{jpeg(image, SIDE)}" width="{view[2]:g}" height="{view[3]:g}"/>'
    rows = zip(example.boxes.tolist(), example.classes.tolist(), example.ignore.tolist(), strict=True)
    taken: list[tuple[float, float, float, float]] = []
    for place, index, ignored in rows:
        css = "ignored" if ignored else ""
        content += box(tuple(place), classes.names[index], view, css=css, taken=taken)
    return svg(f"{Path(example.name).name} after augmentation", view, content)
