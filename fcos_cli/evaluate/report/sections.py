"""The sections of a report about one model: its figures as tables, charts and sentences."""

from __future__ import annotations

import math

import numpy as np

from fcos_cli.evaluate.matches import Floats
from fcos_cli.evaluate.report.charts import (
    BOX_SIZE,
    F1,
    PRECISION,
    RECALL,
    THRESHOLD,
    Line,
    column_chart,
    line_chart,
    reliability_chart,
)
from fcos_cli.evaluate.report.numbers import GRID, Numbers
from fcos_cli.evaluate.report.page import bar, figure, note, number, pair, prose, table, text

MEANING = {
    "AP": "mean over IoU 0.50 … 0.95",
    "AP50": "at IoU 0.50",
    "AP75": "at IoU 0.75",
    "APs": "small, below 32² px",
    "APm": "medium, 32² … 96² px",
    "APl": "large, above 96² px",
    "AR1": "recall, 1 box a picture and class",
    "AR10": "recall, 10 boxes",
    "AR100": "recall, 100 boxes",
    "ARs": "recall, small",
    "ARm": "recall, medium",
    "ARl": "recall, large",
}
"""COCO's twelve numbers in words."""

ERROR_TEXTS = {
    "Cls": ("Class", "right place, wrong class"),
    "Loc": ("Place", "right class, box off (IoU 0.1 to 0.5)"),
    "Both": ("Class and place", "wrong class and box off"),
    "Dupe": ("Twice", "found before by a surer box"),
    "Bkg": ("Background", "nothing is labelled there"),
    "Miss": ("Missed", "a labelled object that no box comes near"),
}
LARGEST_MATRIX = 30
"""Classes up to which the confusion matrix is shown whole."""


def tiles(metrics: dict[str, float]) -> str:
    """The twelve numbers."""
    rows = "".join(
        f'<div><dt>{name}</dt><dd><span class="value">{number(value)}</span></dd>'
        f'<dd class="what">{text(MEANING[name])}</dd></div>'
        for name, value in metrics.items()
    )
    return f'<dl class="tiles">{rows}</dl>'


def summary(numbers: Numbers, suspects: int) -> str:
    """What a reader would say of the figures, in a few sentences."""
    rows = [row for row in numbers.result.per_class if row.truths]
    lines = []
    if len(rows) > 1:
        best, least = max(rows, key=lambda r: r.AP), min(rows, key=lambda r: r.AP)
        lines.append(f"Best at {best.name} (AP {best.AP:.3f}), weakest at {least.name} ({least.AP:.3f}).")
    found, missed, false = (sum(getattr(c, name) for c in numbers.counts) for name in ("found", "missed", "false"))
    if found + missed:
        lines.append(
            f"As `fcos predict` shows it: {found:,} of {found + missed:,} objects found"
            f" ({found / (found + missed):.0%}) and {false:,} false alarms."
        )
    costly = max(numbers.errors, key=lambda error: error.cost)
    if costly.cost > 0:
        name, meaning = ERROR_TEXTS[costly.kind]
        lines.append(f"The costliest errors are of the kind “{name}”: {meaning}; they cost {costly.cost:.3f} AP50.")
    for count, truth, seen, share in confusions(numbers)[:1]:
        lines.append(f"Most confused: {truth} taken for {seen}, {_times(count)} ({share:.0%} of all {truth}).")
    if suspects:
        lines.append(f"{suspects} labels that model and data disagree on most are shown at the end.")
    return f'<ul class="short">{"".join(f"<li>{prose(line)}</li>" for line in lines)}</ul>'


def classes_table(numbers: Numbers) -> str:
    rows = []
    for row, count, threshold in zip(numbers.result.per_class, numbers.counts, numbers.thresholds, strict=True):
        rows.append(
            [
                text(row.name),
                number(row.AP) + (bar(row.AP, "small") if row.AP >= 0 else ""),
                number(row.AP50),
                number(row.best_threshold, 2),
                number(row.best_f1),
                f"{row.truths:,}",
                number(float(threshold), 2),
                f"{count.found:,}",
                f"{count.missed:,}",
                f"{count.false:,}",
            ]
        )
    columns = ("class", "AP", "AP50", "best threshold", "F1 there", "truths", "model’s threshold", "found", "missed")
    says = (
        "Best threshold: the score with the highest F1 on this data. Found, missed and false alarms count at the"
        " model’s own threshold, from which on `fcos predict` shows a box."
    )
    return note(says) + table(
        "Per class; click a heading to sort", (*columns, "false alarms"), rows, css="wide", values=True
    )


def curves(numbers: Numbers) -> str:
    """Precision over recall, and F1 over the threshold; a chooser brings one class to the front."""
    rows = numbers.result.per_class
    known = [i for i, row in enumerate(rows) if row.truths]
    if not known:
        return note("No truth, no curves.")
    precision = [Line(rows[i].name, _points(GRID, numbers.precision[i]), key=f"c{i}") for i in known]
    f1 = [Line(rows[i].name, _points(GRID, numbers.f1[i]), key=f"c{i}") for i in known]
    peaks = []
    for i in known:
        threshold, best = rows[i].best_threshold, rows[i].best_f1
        if threshold is not None and best is not None:
            peaks.append(Line(f"{rows[i].name}: F1 {best:.3f} at {threshold:.2f}", [(threshold, best)], key=f"c{i}"))
    mean_precision = np.mean(numbers.precision[known], axis=0)
    mean_f1 = np.mean(numbers.f1[known], axis=0)
    top = int(np.argmax(mean_f1))
    all_text = (
        f"Mean of the classes: AP50 {mean_precision.mean():.3f};"
        f" best single threshold {GRID[top]:.2f}, mean F1 {mean_f1[top]:.3f}."
    )
    options = [f'<option value="" data-text="{text(all_text)}">mean of all classes</option>']
    for i in known:
        row = rows[i]
        says = f"{row.name}: AP50 {number(row.AP50)}; best F1 {number(row.best_f1)} at {number(row.best_threshold, 2)}."
        options.append(f'<option value="c{i}" data-text="{text(says)}">{text(row.name)}</option>')
    chooser = (
        f'<div class="controls"><label>Class <select data-curves>{"".join(options)}</select></label>'
        f'<span data-said aria-live="polite">{text(all_text)}</span></div>'
    )
    mean = [Line("mean of all classes", _points(GRID, mean_precision), css="mean")]
    mean_f = [Line("mean of all classes", _points(GRID, mean_f1), css="mean")]
    charts = pair(
        figure(
            "Precision over recall at IoU 0.5, as COCO interpolates it: the area below is AP50.",
            line_chart("Precision over recall", precision + mean, x=RECALL, y=PRECISION),
        ),
        figure(
            "F1 over the score threshold, at IoU 0.5. The dot is the best threshold of the chosen class.",
            line_chart("F1 over threshold", f1 + mean_f, x=THRESHOLD, y=F1, marks=peaks),
        ),
    )
    return chooser + note("Dark: the mean. Grey: each class.") + charts


def confusion(numbers: Numbers) -> str:
    names, matrix = numbers.classes.names, numbers.confusion
    says = (
        "Rows are what is there, columns what was seen, at the model’s thresholds, matched by place alone (IoU 0.5)."
        " Blue: right. Orange: the share of the row that went elsewhere. The last row: false alarms where nothing is."
    )
    listed = confusions(numbers)[:8]
    worst = "".join(
        f"<li>{text(f'{truth} taken for {seen}: {_times(count)}, {share:.0%} of all {truth}')}</li>"
        for count, truth, seen, share in listed
    )
    pairs = f'<h3>Most confused</h3><ul class="short">{worst}</ul>' if worst else ""
    if len(names) > LARGEST_MATRIX:
        return note(f"{len(names)} classes are too many for a matrix that can be read; these pairs matter.") + pairs
    rows = []
    for i, name in enumerate([*names, "nothing"]):
        total = max(1, int(matrix[i].sum()))
        cells = ""
        for j in range(len(names) + 1):
            value = int(matrix[i, j])
            share = value / total if i < len(names) else 0.0
            css = ("right " if i == j else "") + ("zero" if not value else "")
            blank = i == j == len(names)
            cells += f'<td class="{css.strip()}" style="--v:{share:.3f}">{"" if blank else f"{value:,}"}</td>'
        rows.append(f'<tr><th scope="row">{text(name)}</th>{cells}</tr>')
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in (*names, "not found"))
    caption = "Rows: truth. Columns: detections."
    matrix_table = (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Confusion matrix"><table class="confusion">'
        f'<caption>{text(caption)}</caption><thead><tr><th scope="col">truth ╲ seen as</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
    return note(says) + (pair(matrix_table, f"<div>{pairs}</div>") if len(names) <= 8 else matrix_table + pairs)


def confusions(numbers: Numbers) -> list[tuple[int, str, str, float]]:
    """(count, truth, seen as, share of that truth), most often first."""
    names, matrix = numbers.classes.names, numbers.confusion
    rows = []
    for i, j in zip(*np.nonzero(matrix[:-1, :-1]), strict=True):
        if i != j:
            count = int(matrix[i, j])
            rows.append((count, names[i], names[j], count / int(matrix[i].sum())))
    return sorted(rows, key=lambda row: -row[0])


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def errors(numbers: Numbers) -> str:
    most = max([error.cost for error in numbers.errors] + [1e-9])
    rows = [
        [
            text(ERROR_TEXTS[error.kind][0]),
            text(ERROR_TEXTS[error.kind][1]),
            number(error.cost),
            bar(error.cost / most, "wrong"),
            f"{error.count:,}",
        ]
        for error in numbers.errors
    ]
    says = (
        "What AP50 would gain if errors of one kind alone were mended (TIDE, arXiv:2008.08115). The gains do not add"
        " up: mending one kind uncovers others. The cost looks at detections of every score, however unsure; how often"
        " looks at those that `fcos predict` shows: what only an unsure box finds is often missed, but costs little."
    )
    return note(says) + table("Cost of each kind of error", ("kind", "what", "AP50", "", "how often"), rows, css="text")


def calibration(numbers: Numbers) -> str:
    sure = [b for b in numbers.bins if b.count]
    total = sum(b.count for b in sure)
    if not total:
        return note("No detections, nothing to calibrate.")
    chart = reliability_chart(
        "Share of hits over score", [(b.low, b.high, b.confidence, b.accuracy, b.count) for b in numbers.bins]
    )
    rows = [
        [
            f"{b.low:.1f} – {b.high:.1f}",
            f"{b.count:,}",
            number(b.confidence if b.count else None),
            number(b.accuracy if b.count else None),
        ]
        for b in numbers.bins
    ]
    says = (
        f"Does a score of 0.7 mean that seven of ten are right? On the diagonal it does; a column above it means scores"
        f" that are too modest, below it too bold. Expected calibration error {numbers.ece:.3f}: the mean distance over"
        f" all {total:,} detections, most of which are unsure ones."
    )
    return note(says) + pair(
        figure("Columns: hits at IoU 0.5. Dots: mean score. Faint: fewer than 20 detections.", chart),
        table("By score", ("score", "detections", "mean score", "hits"), rows),
    )


def sizes(numbers: Numbers) -> str:
    buckets = numbers.sizes
    if not buckets:
        return note("No truth, no sizes.")
    names = [str(b.low) if b.high is None else f"{b.low}–{b.high}" for b in buckets]
    starts = [str(b.low) for b in buckets]
    chart = column_chart(
        "AP over box size",
        starts,
        [("AP50", "light", [b.AP50 for b in buckets]), ("AP", "", [b.AP for b in buckets])],
        x=BOX_SIZE,
    )
    metrics = numbers.result.metrics
    says = ", ".join(
        f"{word} {number(metrics[key])}" for key, word in (("APs", "small"), ("APm", "medium"), ("APl", "large"))
    )
    rows = [[f"{n} px", f"{b.truths:,}", number(b.AP), number(b.AP50)] for n, b in zip(names, buckets, strict=True)]
    return note(f"COCO’s three buckets: AP {says}. Finer, in pixels of the source pictures:") + pair(
        figure("Blue: AP. Grey: AP50. Sizes with few truths say little.", chart),
        table("By size", ("size", "truths", "AP", "AP50"), rows),
    )


def _points(xs: Floats, ys: Floats) -> list[tuple[float, float]]:
    """Points of a curve, without those in the middle of level stretches."""
    points = [(float(x), float(y)) for x, y in zip(xs, ys, strict=True)]
    return [
        p
        for i, p in enumerate(points)
        if i in (0, len(points) - 1)
        or not (math.isclose(points[i - 1][1], p[1]) and math.isclose(p[1], points[i + 1][1]))
    ]
