"""Report sections on one model: its metrics as tables, charts and sentences."""

from __future__ import annotations

import math

import numpy as np

from fcos_cli.evaluate.coco import rounded_down
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
from fcos_cli.evaluate.report.metrics import GRID, ReportMetrics
from fcos_cli.evaluate.report.page import bar, figure, format_number, note, pair, prose, table, text

METRIC_DESCRIPTIONS = {
    "AP": "mean over IoU 0.50 … 0.95",
    "AP50": "at IoU 0.50",
    "AP75": "at IoU 0.75",
    "APs": "small, below 32² px",
    "APm": "medium, 32² … 96² px",
    "APl": "large, above 96² px",
    "AR1": "recall, 1 box per image and class",
    "AR10": "recall, 10 boxes",
    "AR100": "recall, 100 boxes",
    "ARs": "recall, small",
    "ARm": "recall, medium",
    "ARl": "recall, large",
}
"""Descriptions of COCO's twelve metrics."""

ERROR_DESCRIPTIONS = {
    "Cls": ("Classification", "correct location, wrong class"),
    "Loc": ("Localization", "correct class, inaccurate box (IoU 0.1 to 0.5)"),
    "Both": ("Both", "wrong class and inaccurate box"),
    "Dupe": ("Duplicate", "object already found by a box with a higher score"),
    "Bkg": ("Background", "no labeled object there"),
    "Miss": ("Missed", "labeled object without a nearby detection"),
}
MAX_MATRIX_CLASSES = 30
"""Maximum number of classes for which the full confusion matrix is shown."""


def tiles(metrics: dict[str, float]) -> str:
    """Return the twelve metrics as tiles."""
    rows = "".join(
        f'<div><dt>{name}</dt><dd><span class="value">{format_number(value)}</span></dd>'
        f'<dd class="what">{text(METRIC_DESCRIPTIONS[name])}</dd></div>'
        for name, value in metrics.items()
    )
    return f'<dl class="tiles">{rows}</dl>'


def summary(metrics: ReportMetrics, suspects: int) -> str:
    """Return a short list of the main results."""
    rows = [row for row in metrics.result.per_class if row.truths]
    lines = []
    if len(rows) > 1:
        best, worst = max(rows, key=lambda r: r.AP), min(rows, key=lambda r: r.AP)
        lines.append(f"Best class: {best.name} (AP {best.AP:.3f}). Worst class: {worst.name} (AP {worst.AP:.3f}).")
    found, missed, false_positives = (
        sum(getattr(c, name) for c in metrics.counts) for name in ("found", "missed", "false_positives")
    )
    if found + missed:
        lines.append(
            f"At the thresholds of `fcos predict`: {found:,} of {found + missed:,} objects found"
            f" ({found / (found + missed):.0%}), {false_positives:,} false positive{'s' * (false_positives != 1)}."
        )
    costly = max(metrics.errors, key=lambda error: error.cost)
    if costly.cost > 0:
        name, meaning = ERROR_DESCRIPTIONS[costly.kind]
        lines.append(f"Most costly error type: {name} ({meaning}), {costly.cost:.3f} AP50.")
    for count, truth, detected, share in confusions(metrics)[:1]:
        lines.append(
            f"Most frequent confusion: {truth} detected as {detected}, {_times(count)} ({share:.0%} of all {truth})."
        )
    if suspects:
        labels = "suspect label is" if suspects == 1 else "suspect labels are"
        lines.append(f"{suspects} {labels} shown at the end.")
    return f'<ul class="short">{"".join(f"<li>{prose(line)}</li>" for line in lines)}</ul>'


def classes_table(metrics: ReportMetrics) -> str:
    rows = []
    for row, count, threshold in zip(metrics.result.per_class, metrics.counts, metrics.thresholds, strict=True):
        rows.append(
            [
                text(row.name),
                format_number(row.AP) + (bar(row.AP, "small") if row.AP >= 0 else ""),
                format_number(row.AP50),
                format_number(rounded_down(row.best_threshold)),
                format_number(row.best_f1),
                f"{row.truths:,}",
                format_number(float(threshold)),
                f"{count.found:,}",
                f"{count.missed:,}",
                f"{count.false_positives:,}",
            ]
        )
    columns = ("class", "AP", "AP50", "best threshold", "best F1", "ground truth", "model threshold", "found", "missed")
    explanation = (
        "Best threshold: the score threshold with the highest F1 on this data. Found, missed and false positives are"
        " counted at the model threshold, which `fcos predict` uses."
    )
    return note(explanation) + table(
        "Per class (click a heading to sort)", (*columns, "false positives"), rows, css="wide", values=True
    )


def curves(metrics: ReportMetrics) -> str:
    """Return precision over recall and F1 over the threshold, with a chooser that highlights one class."""
    rows = metrics.result.per_class
    with_truth = [i for i, row in enumerate(rows) if row.truths]
    if not with_truth:
        return note("No curves: there is no ground truth.")
    precision = [Line(rows[i].name, _points(GRID, metrics.precision[i]), key=f"c{i}") for i in with_truth]
    f1 = [Line(rows[i].name, _points(GRID, metrics.f1[i]), key=f"c{i}") for i in with_truth]
    best = [f"F1 {format_number(row.best_f1)} at {format_number(rounded_down(row.best_threshold))}" for row in rows]
    peaks = []
    for i in with_truth:
        threshold, highest = rows[i].best_threshold, rows[i].best_f1
        if threshold is not None and highest is not None:
            peaks.append(Line(f"{rows[i].name}: {best[i]}", [(threshold, highest)], key=f"c{i}"))
    mean_precision = np.mean(metrics.precision[with_truth], axis=0)
    mean_f1 = np.mean(metrics.f1[with_truth], axis=0)
    top = int(np.argmax(mean_f1))
    all_text = (
        f"Mean over classes: AP50 {mean_precision.mean():.3f};"
        f" best single threshold {GRID[top]:.2f}, mean F1 {mean_f1[top]:.3f}."
    )
    options = [f'<option value="" data-text="{text(all_text)}">mean over classes</option>']
    for i in with_truth:
        row = rows[i]
        summary_text = f"{row.name}: AP50 {format_number(row.AP50)}; best {best[i]}."
        options.append(f'<option value="c{i}" data-text="{text(summary_text)}">{text(row.name)}</option>')
    chooser = (
        f'<div class="controls"><label>Class <select data-curves>{"".join(options)}</select></label>'
        f'<span data-summary aria-live="polite">{text(all_text)}</span></div>'
    )
    mean = [Line("mean over classes", _points(GRID, mean_precision), css="mean")]
    mean_f = [Line("mean over classes", _points(GRID, mean_f1), css="mean")]
    charts = pair(
        figure(
            "Precision over recall at IoU 0.5, interpolated as in COCO. The area under the curve is AP50.",
            line_chart("Precision over recall", precision + mean, x=RECALL, y=PRECISION),
        ),
        figure(
            "F1 over the score threshold at IoU 0.5. The dot marks the best threshold of the selected class.",
            line_chart("F1 over threshold", f1 + mean_f, x=THRESHOLD, y=F1, marks=peaks),
        ),
    )
    return chooser + note("Dark: mean over classes. Grey: individual classes.") + charts


def confusion(metrics: ReportMetrics) -> str:
    names, matrix = metrics.classes.names, metrics.confusion
    explanation = (
        "Rows are ground truth, columns are detections at the model thresholds, matched by IoU 0.5 regardless of class."
        " Blue: correct. Orange: confused or missed, by share of the row. Last row: false positives on background."
    )
    listed = confusions(metrics)[:8]
    items = "".join(
        f"<li>{text(f'{truth} detected as {detected}: {_times(count)}, {share:.0%} of all {truth}')}</li>"
        for count, truth, detected, share in listed
    )
    pairs = f'<h3>Most frequent confusions</h3><ul class="short">{items}</ul>' if items else ""
    if len(names) > MAX_MATRIX_CLASSES:
        return note(f"The matrix is omitted because there are {len(names)} classes.") + pairs
    rows = []
    for i, name in enumerate([*names, "background"]):
        total = max(1, int(matrix[i].sum()))
        cells = ""
        for j in range(len(names) + 1):
            value = int(matrix[i, j])
            share = value / total if i < len(names) else 0.0
            css = ("right " if i == j else "") + ("zero" if not value else "")
            blank = i == j == len(names)
            cells += f'<td class="{css.strip()}" style="--v:{share:.3f}">{"" if blank else f"{value:,}"}</td>'
        rows.append(f'<tr><th scope="row">{text(name)}</th>{cells}</tr>')
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in (*names, "missed"))
    caption = "Rows: ground truth. Columns: detections."
    matrix_table = (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Confusion matrix"><table class="confusion">'
        f"<caption>{text(caption)}</caption>"
        f'<thead><tr><th scope="col">ground truth ╲ detected as</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
    return note(explanation) + (pair(matrix_table, f"<div>{pairs}</div>") if len(names) <= 8 else matrix_table + pairs)


def confusions(metrics: ReportMetrics) -> list[tuple[int, str, str, float]]:
    """Return (count, ground truth, detected as, share of that ground truth), most frequent first."""
    names, matrix = metrics.classes.names, metrics.confusion
    rows = []
    for i, j in zip(*np.nonzero(matrix[:-1, :-1]), strict=True):
        if i != j:
            count = int(matrix[i, j])
            rows.append((count, names[i], names[j], count / int(matrix[i].sum())))
    return sorted(rows, key=lambda row: -row[0])


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def errors(metrics: ReportMetrics) -> str:
    max_cost = max([error.cost for error in metrics.errors] + [1e-9])
    rows = [
        [
            text(ERROR_DESCRIPTIONS[error.kind][0]),
            text(ERROR_DESCRIPTIONS[error.kind][1]),
            format_number(error.cost),
            bar(error.cost / max_cost, "wrong"),
            f"{error.count:,}",
        ]
        for error in metrics.errors
    ]
    explanation = (
        "The cost is the gain in AP50 from fixing one error type alone (TIDE, arXiv:2008.08115). The costs do not add"
        " up, because fixing one type reveals others. The cost includes detections of every score; the count only those"
        " that `fcos predict` shows. An object found with a low score only counts as missed, but costs little."
    )
    columns = ("type", "description", "AP50", "", "count")
    return note(explanation) + table("Cost of each error type", columns, rows, css="text")


def calibration(metrics: ReportMetrics) -> str:
    total = sum(b.count for b in metrics.bins)
    if not total:
        return note("No calibration: there are no detections.")
    chart = reliability_chart(
        "Precision over score", [(b.low, b.high, b.confidence, b.accuracy, b.count) for b in metrics.bins]
    )
    rows = [
        [
            f"{b.low:.1f} – {b.high:.1f}",
            f"{b.count:,}",
            format_number(b.confidence if b.count else None),
            format_number(b.accuracy if b.count else None),
        ]
        for b in metrics.bins
    ]
    explanation = (
        "Of well calibrated detections with a score of 0.7, seven in ten are correct. Columns above the diagonal mean"
        " that the model is underconfident, columns below it that it is overconfident. Expected calibration error:"
        f" {metrics.ece:.3f}, the mean distance from the diagonal over all {total:,} detections, most of which usually"
        " have low scores."
    )
    return note(explanation) + pair(
        figure("Columns: precision at IoU 0.5. Dots: mean score. Faint: fewer than 20 detections.", chart),
        table("By score", ("score", "detections", "mean score", "precision"), rows),
    )


def sizes(metrics: ReportMetrics) -> str:
    buckets = metrics.sizes
    if not buckets:
        return note("No sizes: there is no ground truth.")
    names = [f"from {b.low}" if b.high is None else f"{b.low}–{b.high}" for b in buckets]
    lower_edges = [str(b.low) for b in buckets]
    chart = column_chart(
        "AP over box size",
        lower_edges,
        [("AP50", "light", [b.AP50 for b in buckets]), ("AP", "", [b.AP for b in buckets])],
        x=BOX_SIZE,
    )
    coco = metrics.result.metrics
    coco_sizes = ", ".join(
        f"{word} {format_number(coco[key])}" for key, word in (("APs", "small"), ("APm", "medium"), ("APl", "large"))
    )
    rows = [
        [f"{n} px", f"{b.truths:,}", format_number(b.AP), format_number(b.AP50)]
        for n, b in zip(names, buckets, strict=True)
    ]
    return note(f"COCO’s size ranges: AP {coco_sizes}. In finer ranges, in pixels of the source images:") + pair(
        figure("Blue: AP. Grey: AP50. Ranges with little ground truth are unreliable.", chart),
        table("By size", ("size", "ground truth", "AP", "AP50"), rows),
    )


def _points(xs: Floats, ys: Floats) -> list[tuple[float, float]]:
    """Return the points of a curve without those inside level stretches."""
    points = [(float(x), float(y)) for x, y in zip(xs, ys, strict=True)]
    return [
        p
        for i, p in enumerate(points)
        if i in (0, len(points) - 1)
        or not (math.isclose(points[i - 1][1], p[1]) and math.isclose(p[1], points[i + 1][1]))
    ]
