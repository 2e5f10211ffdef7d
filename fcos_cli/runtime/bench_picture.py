"""A benchmark as a picture: time by stage, and the front of accuracy and speed where AP was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from textwrap import fill, shorten
from typing import TYPE_CHECKING, Any

from fcos_cli.errors import MissingExtra, UsageError
from fcos_cli.files import replacing
from fcos_cli.runtime.bench_rows import Row, front
from fcos_cli.runtime.bench_show import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".png", ".svg", ".pdf")
STAGES = {
    "open": ("open file", "#999999"),
    "preprocess": ("resize, pad", "#56B4E9"),
    "network": ("network", "#0072B2"),
    "decode_nms": ("decode + NMS", "#E69F00"),
    "network_decode_nms": ("network, decode + NMS in one graph", "#009E73"),
}
"""Stage → what it is called and its colour, of Okabe and Ito's palette for all kinds of colour vision."""

FRONT = "#D55E00"


def check(path: Path) -> None:
    """Before anything is measured: MissingExtra without matplotlib, UsageError for another kind of file."""
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"no picture can be written as {path.suffix or 'a file without a suffix'}", where=path,
                         remedy=f"use {', '.join(FORMATS)}")  # fmt: skip
    if find_spec("matplotlib") is None:
        raise MissingExtra("the picture needs matplotlib, which is not installed", extra="report")


def draw(rows: Sequence[Row], facts: Mapping[str, Any], path: Path) -> None:
    """Write the picture of `rows` (those that were measured; the others are named below). facts: the environment."""
    from matplotlib.figure import Figure

    measured = [row for row in rows if row.measured]
    with_ap = any(row.ap is not None for row in measured)
    height = 1.9 + 0.5 * max(len(measured), 1)
    panels = 2 if with_ap else 1
    figure = Figure(figsize=(9, height + 4.2 * (panels - 1)), dpi=150, layout="constrained")
    ratios = [height, 4.2][:panels]
    axes = figure.subplots(panels, 1, squeeze=False, height_ratios=ratios)[:, 0]
    _bars(axes[0], measured)
    if with_ap:
        _front(axes[1], measured)
    figure.suptitle(_title(facts), fontsize=9, x=0.01, ha="left")
    if skipped := [row for row in rows if row.skipped is not None]:
        lines = [shorten(f"not measured: {row.label}: {row.skipped}", 130) for row in skipped]
        figure.supxlabel("\n".join(lines), fontsize=7, x=0.01, ha="left", color="#555555")
    with replacing(path, binary=True) as stream:
        figure.savefig(stream, format=path.suffix.lower().removeprefix("."))


def _title(facts: Mapping[str, Any]) -> str:
    gpus = "".join(f", {gpu}" for gpu in facts["gpus"])
    return fill(
        f"{facts['cpu']}, {facts['threads']} threads{gpus}; medians of {facts['rounds']} alternating rounds, "
        f"{facts['pictures']} pictures",
        120,
    )


def _bars(axes: Axes, rows: Sequence[Row]) -> None:
    """A bar per row: medians of the stages end to end, per picture, with a whisker to the 95th percentile."""
    for place, row in enumerate(rows):
        left = 0.0
        for stage, (_, colour) in STAGES.items():
            took = (row.stage(stage) or {}).get("p50", 0.0) / row.batch
            axes.barh(place, took, left=left, color=colour, height=0.62)
            left += took
        slow = (row.stage("total") or {})["p95"] / row.batch
        axes.plot([left, max(slow, left)], [place, place], color="black", linewidth=1)
        text = f"{number(row.ms_per_image)} ms  {number(row.images_per_s)}/s"
        axes.annotate(
            text, (max(slow, left), place), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8
        )
    axes.set_yticks(range(len(rows)), [_name(row) for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.22)
    axes.set_xlim(left=0)
    axes.set_xlabel("ms per picture: median by stage, line to the 95th percentile", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    used = [stage for stage in STAGES if any(row.stage(stage) for row in rows)]
    marks = [axes.barh(0, 0, color=STAGES[stage][1], label=STAGES[stage][0]) for stage in used]
    if marks:
        axes.legend(handles=marks, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(marks), frameon=False, fontsize=8)


def _front(axes: Axes, rows: Sequence[Row]) -> None:
    """AP over milliseconds per picture; the line joins those that no other row beats in both."""
    known = [(row.ms_per_image, row.ap, row) for row in rows if row.ap is not None and row.ms_per_image is not None]
    best = front(rows)
    axes.step(
        [row.ms_per_image or 0 for row in best],
        [row.ap or 0 for row in best],
        where="post",
        color=FRONT,
        linewidth=1.2,
        label="no other row is both faster and better",
    )
    for took, ap, row in known:
        axes.plot(took, ap, "o", color=FRONT if row in best else "#777777", markersize=7)
        axes.annotate(_name(row), (took, ap), xytext=(7, 5), textcoords="offset points", fontsize=7)
    axes.set_xlabel("ms per picture (median)", fontsize=8)
    axes.set_ylabel("AP", fontsize=8)
    axes.margins(x=0.3, y=0.25)
    axes.tick_params(labelsize=8)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False, fontsize=8)


def _name(row: Row) -> str:
    """Two short lines: the file, and how it ran."""
    batch = "" if row.batch == 1 else f", batch {row.batch}"
    return f"{shorten(Path(row.model).name, 34)}\n{row.backend} {row.precision}{batch}"
