"""Plot a benchmark: time per stage, and the Pareto front of accuracy and speed if AP was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from textwrap import fill, shorten
from typing import TYPE_CHECKING, Any

from fcos_cli.atomic import atomic_write, check_writable
from fcos_cli.bench.results import BenchResult, pareto_front
from fcos_cli.bench.tables import number, short_names, threads_text
from fcos_cli.errors import MissingExtra, UsageError
from fcos_cli.predict.mark import PLOT_MARK, check_marked

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")
MARK_KEYS = {"png": "Comment", "svg": "Description", "pdf": "Subject"}
"""Key of the metadata that holds PLOT_MARK."""
STAGES = {
    "open": ("open file", "#999999"),
    "preprocess": ("resize, pad", "#56B4E9"),
    "network": ("network", "#0072B2"),
    "decode_nms": ("decode + NMS", "#E69F00"),
    "network_decode_nms": ("network, decode + NMS in one graph", "#009E73"),
}
"""Stage → label and color, from Okabe and Ito's palette, which is safe for color blindness."""

FRONT_COLOR = "#D55E00"


def check_plot_path(path: Path) -> None:
    """Raise MissingExtra if matplotlib is missing; UsageError for an unsupported file type, a path that cannot be
    written, or somebody's file.
    """
    check_writable(path)
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"cannot write a plot as {path.suffix or 'a file without a suffix'}", where=path,
                         remedy=f"use {', '.join(FORMATS)}")  # fmt: skip
    check_marked(path, mark=PLOT_MARK, kind="plot of fcos bench")
    if find_spec("matplotlib") is None:
        raise MissingExtra("the plot needs matplotlib, which is not installed", extra="report")


def draw_plot(rows: Sequence[BenchResult], facts: Mapping[str, Any], path: Path) -> None:
    """Write the plot of the measured rows; the others are listed below it. facts: the environment."""
    from matplotlib import rc_context

    with rc_context({"text.parse_math": False}), atomic_write(path, binary=True) as stream:  # a name may contain $
        kind = path.suffix.lower().removeprefix(".")
        _figure(rows, facts).savefig(stream, format=kind, metadata={MARK_KEYS[kind]: PLOT_MARK})


def _figure(rows: Sequence[BenchResult], facts: Mapping[str, Any]) -> Figure:
    from matplotlib.figure import Figure

    measured = [row for row in rows if row.measured]
    with_ap = any(row.ap is not None for row in measured)
    height = 1.9 + 0.5 * max(len(measured), 1)
    panels = 2 if with_ap else 1
    figure = Figure(figsize=(9, height + 4.2 * (panels - 1)), dpi=150, layout="constrained")
    ratios = [height, 4.2][:panels]
    axes = figure.subplots(panels, 1, squeeze=False, height_ratios=ratios)[:, 0]
    _bars(axes[0], measured, numbered=with_ap)
    if with_ap:
        _front(axes[1], measured)
    figure.suptitle(_title(facts), fontsize=9, x=0.01, ha="left")
    if skipped := [row for row in rows if row.skipped is not None]:
        lines = [shorten(f"not measured: {row.label}: {row.skipped}", 130) for row in skipped]
        figure.supxlabel("\n".join(lines), fontsize=7, x=0.01, ha="left", color="#555555")
    return figure


def _title(facts: Mapping[str, Any]) -> str:
    gpus = "".join(f", {gpu}" for gpu in facts["gpus"])
    return fill(
        f"{facts['cpu']}, {threads_text(facts)}{gpus}; medians of {facts['rounds']} alternating rounds, "
        f"{facts['pictures']} images",
        120,
    )


def _bars(axes: Axes, rows: Sequence[BenchResult], *, numbered: bool) -> None:
    """Draw a bar per row: stacked medians of the stages, per image, with a line to the 95th percentile.

    Outliers do not set the scale: a line that would leave the plot ends in an arrow.
    """
    limit = 1.6 * max((row.ms_per_image or 0.0 for row in rows), default=1.0)
    for y, row in enumerate(rows):
        left = 0.0
        for stage, (_, color) in STAGES.items():
            width = (row.stage(stage) or {}).get("p50", 0.0) / row.batch
            axes.barh(y, width, left=left, color=color, height=0.62)
            left += width
        p95 = (row.stage("total") or {})["p95"] / row.batch
        end = max(min(p95, limit), left)
        axes.plot([left, end], [y, y], color="black", linewidth=1)
        if p95 > limit:
            axes.plot(end, y, marker=">", color="black", markersize=4)
        text = f"{number(row.ms_per_image)} ms  {number(row.images_per_s)}/s"
        axes.annotate(text, (end, y), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), _names(rows, numbered=numbered), fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.3 * limit)
    axes.set_xlabel("ms per image: median per stage, line to the 95th percentile", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    used = [stage for stage in STAGES if any(row.stage(stage) for row in rows)]
    handles = [axes.barh(0, 0, color=STAGES[stage][1], label=STAGES[stage][0]) for stage in used]
    if handles:
        axes.legend(
            handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(handles), frameon=False, fontsize=8
        )


def _front(axes: Axes, rows: Sequence[BenchResult]) -> None:
    """Plot AP over milliseconds per image, each row as its number; the line is the Pareto front."""
    front = pareto_front(rows)
    points = [(row.ms_per_image or 0.0, row.ap or 0.0) for row in front]
    axes.step(*zip(*points, strict=True), where="post", color=FRONT_COLOR, linewidth=1.2, label="Pareto front")
    for index, row in enumerate(rows, 1):
        if row.ap is None or row.ms_per_image is None:
            continue
        point = (row.ms_per_image, row.ap)
        axes.plot(*point, "o", color=FRONT_COLOR if row in front else "#555555", markersize=13, zorder=3)
        axes.annotate(str(index), point, ha="center", va="center", fontsize=8, color="white", weight="bold", zorder=4)
    axes.set_xlabel("ms per image (median)", fontsize=8)
    axes.set_ylabel("AP", fontsize=8)
    axes.margins(0.12)
    axes.set_xlim(left=max(axes.get_xlim()[0], 0))
    axes.tick_params(labelsize=8)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("AP and speed; the line is the Pareto front", fontsize=8, loc="left")


def _names(rows: Sequence[BenchResult], *, numbered: bool) -> list[str]:
    """Return a two-line label per row: the file, and how it ran."""
    batches = ["" if row.batch == 1 else f", batch {row.batch}" for row in rows]
    return [
        (f"({index}) " if numbered else "")
        + f"{name if len(name) <= 36 else '…' + name[-35:]}\n{row.backend} {row.precision}{batch}"
        for index, (name, row, batch) in enumerate(zip(short_names(rows), rows, batches, strict=True), 1)
    ]
