"""The tables that `fcos eval` prints: the metrics of one model, or the comparison of two."""

from __future__ import annotations

from collections.abc import Sequence

from fcos_cli.console import say, table
from fcos_cli.evaluate.coco import CocoResult, rounded_down
from fcos_cli.evaluate.compare import Comparison, Difference


def print_result(result: CocoResult, *, title: str) -> None:
    """Print the twelve metrics, and those of each class."""
    table(tuple(result.metrics), [tuple(result.metrics.values())], title=title)
    rows = [(r.name, r.category_id, r.AP, r.AP50, rounded_down(r.best_threshold), r.truths) for r in result.per_class]
    table(("class", "id", "AP", "AP50", "best threshold", "ground truth"), rows)


def print_comparison(comparison: Comparison, models: Sequence[str], *, place: str) -> None:
    """Print both models' metrics and their differences, and the AP of each class. place: the data, for the title."""
    from fcos_cli.evaluate.report.comparison import summarize
    from fcos_cli.evaluate.report.write import short_names

    name_a, name_b = short_names(models)
    columns = ("A", "B", "B - A", "low", "high")
    title = f"A: {name_a}, B: {name_b} on {place}; {comparison.confidence:.0%} intervals"
    table(("", *columns), [_cells(name, row) for name, row in comparison.metrics.items()], title=title)
    table(("AP of class", *columns), [_cells(row.name, row.AP) for row in comparison.per_class])
    say(summarize(comparison, (name_a, name_b)))


def _cells(name: str, row: Difference) -> tuple[object, ...]:
    """The differences as texts: `table` takes -1.0, which is a possible value, for a metric that was not measured."""
    differences = (row.difference, row.low, row.high)
    return (name, row.a, row.b, *(None if value is None else f"{value:+.3f}" for value in differences))
