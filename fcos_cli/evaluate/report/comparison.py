"""The comparison of two models as a section of the report."""

from __future__ import annotations

from fcos_cli.evaluate.compare import Comparison, Difference
from fcos_cli.evaluate.report.charts import interval
from fcos_cli.evaluate.report.page import Section, note, number, table, text


def comparison_section(comparison: Comparison, names: tuple[str, str]) -> Section:
    """Both models' figures, their difference with its interval, over all and per class."""
    a, b = names
    says = (
        f"Difference: {b} minus {a}, with its {comparison.confidence:.0%} interval by a paired bootstrap over pictures"
        f" ({comparison.rounds:,} draws): what another sample of such pictures would do. Blue: {b} is better beyond"
        f" that luck; orange: {a} is; grey: cannot be told from this data."
    )
    columns = (a, b, "difference", "from", "to", "")
    metrics = list(comparison.metrics.items())
    whole = [[text(name), *_cells(row, _reach([d for _, d in metrics]))] for name, row in metrics]
    reach = _reach([row.AP for row in comparison.per_class])
    classes = [[text(row.name), *_cells(row.AP, reach)] for row in comparison.per_class]
    return Section(
        "comparison",
        "Comparison",
        f'<p class="verdict">{text(summarize(comparison, names))}</p>'
        + note(says)
        + table("Twelve numbers", ("", *columns), whole, css="wide")
        + table("AP per class; click a heading to sort", ("class", *columns), classes, css="wide", values=True),
    )


def summarize(comparison: Comparison, names: tuple[str, str]) -> str:
    """One sentence: who is better, and whether that is more than the luck of the pictures."""
    whole = comparison.metrics["AP"]
    if whole.difference is None or whole.low is None or whole.high is None:
        return "AP cannot be compared: there is no truth."
    if not whole.sure:
        return (
            f"AP {whole.a:.3f} and {whole.b:.3f}: on these pictures the two cannot be told apart"
            f" (difference {whole.difference:+.3f}, interval {whole.low:+.3f} … {whole.high:+.3f})."
        )
    better, by = (names[1], whole.difference) if whole.difference > 0 else (names[0], -whole.difference)
    low, high = sorted((abs(whole.low), abs(whole.high)))
    return f"{better} is better by {by:.3f} AP (interval {low:.3f} … {high:.3f}): more than the luck of the pictures."


def _cells(row: Difference, reach: float) -> list[str]:
    plain = [number(row.a), number(row.b)]
    if row.difference is None or row.low is None or row.high is None:
        return [*plain, "–", "–", "–", ""]
    signed = [f"{value:+.3f}" for value in (row.difference, row.low, row.high)]
    return [*plain, *signed, interval(row.low, row.difference, row.high, reach=reach)]


def _reach(rows: list[Difference]) -> float:
    ends = [abs(end) for row in rows for end in (row.low, row.high) if end is not None]
    return max(ends, default=0.0) or 1.0
