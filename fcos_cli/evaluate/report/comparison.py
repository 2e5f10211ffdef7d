"""Report section that compares two models."""

from __future__ import annotations

from fcos_cli.evaluate.compare import Comparison, Difference
from fcos_cli.evaluate.report.charts import interval
from fcos_cli.evaluate.report.page import Section, format_number, note, table, text


def comparison_section(comparison: Comparison, names: tuple[str, str]) -> Section:
    """Return the section with both models' metrics and the intervals of their difference, overall and per class."""
    a, b = names
    explanation = (
        f"The difference is {b} minus {a}. Its {comparison.confidence:.0%} interval comes from a paired bootstrap over"
        f" images ({comparison.rounds:,} resamples): it shows how much the metrics would vary with another sample of"
        f" such images. Blue: {b} is significantly better. Orange: {a} is significantly better. Grey: not significant."
        " Without interval: too few images have ground truth of that kind."
    )
    columns = (a, b, "difference", "low", "high", "")
    metrics = list(comparison.metrics.items())
    overall = [[text(name), *_cells(row, _reach([d for _, d in metrics]))] for name, row in metrics]
    reach = _reach([row.AP for row in comparison.per_class])
    classes = [[text(row.name), *_cells(row.AP, reach)] for row in comparison.per_class]
    return Section(
        "comparison",
        "Comparison",
        f'<p class="verdict">{text(summarize(comparison, names))}</p>'
        + note(explanation)
        + table("Twelve metrics", ("", *columns), overall, css="wide")
        + table("AP per class (click a heading to sort)", ("class", *columns), classes, css="wide", values=True),
    )


def summarize(comparison: Comparison, names: tuple[str, str]) -> str:
    """Return one sentence on which model is better, and whether the difference is significant."""
    ap = comparison.metrics["AP"]
    if ap.difference is None:
        return "AP cannot be compared: there is no ground truth."
    if ap.low is None or ap.high is None:
        return f"AP {ap.a:.3f} and {ap.b:.3f}: too few images with ground truth to compare them by ({ap.images})."
    if not ap.significant:
        return (
            f"AP {ap.a:.3f} and {ap.b:.3f}: the difference is not significant on these images"
            f" (difference {ap.difference:+.3f}, interval {ap.low:+.3f} … {ap.high:+.3f})."
        )
    better, by = (names[1], ap.difference) if ap.difference > 0 else (names[0], -ap.difference)
    low, high = sorted((abs(ap.low), abs(ap.high)))
    return f"{better} is better by {by:.3f} AP (interval {low:.3f} … {high:.3f}). The difference is significant."


def _cells(row: Difference, reach: float) -> list[str]:
    values = [format_number(row.a), format_number(row.b)]
    if row.difference is None or row.low is None or row.high is None:
        return [*values, "–" if row.difference is None else f"{row.difference:+.3f}", "–", "–", ""]
    signed = [f"{value:+.3f}" for value in (row.difference, row.low, row.high)]
    return [*values, *signed, interval(row.low, row.difference, row.high, reach=reach)]


def _reach(rows: list[Difference]) -> float:
    ends = [abs(end) for row in rows for end in (row.low, row.high) if end is not None]
    return max(ends, default=0.0) or 1.0
