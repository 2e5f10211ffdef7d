"""Parity check: measure how closely an exported model agrees with PyTorch, in three layers that localize a fault.

a. raw outputs: the network on real images, per level and branch;
b. post-processing alone (decode and NMS), on the reference's raw outputs and on synthetic ones (synthetic.py);
c. end to end: from images to detections.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from fcos_cli.console import warn
from fcos_cli.data.samples import Dataset
from fcos_cli.data.tiling import Tiling
from fcos_cli.evaluate.coco import collect_detections, score
from fcos_cli.model.artifact import Artifact
from fcos_cli.parity.inputs import (
    Size,
    batch_at_size,
    batches_by_rule,
    choose_batches,
    choose_runs,
    choose_sizes,
    fitting,
    load_photos,
)
from fcos_cli.parity.layers import LayerResults, end_rows, post_rows, prepare_cases, raw_rows
from fcos_cli.parity.reference import Reference, ReferenceOutput
from fcos_cli.parity.subgraphs import ExportedModel
from fcos_cli.parity.tolerance import POST, tolerance_of
from fcos_cli.parity.verdict import (
    END_TO_END,
    ApParity,
    MatchRow,
    Parity,
    RawRow,
    judge_matches,
    judge_raw,
    worst_of,
)
from fcos_cli.predict.pipeline import Failure
from fcos_cli.runtime.detector import Detector
from fcos_cli.runtime.facts import Facts

__all__ = ["ApParity", "Parity", "ap_parity", "prove"]

RAW_OUTPUTS, POST_PROCESSING = "raw outputs", "post-processing"


def prove(
    artifact: Artifact,
    model: ExportedModel,
    facts: Facts,
    *,
    pictures: Sequence[Path],
    stored: Facts | None = None,
    precision: str | None = None,
    sizes: Sequence[Size] | None = None,
    batches: Sequence[int] | None = None,
    ap: ApParity | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Parity:
    """Measure how closely the exported `model` agrees with `artifact`; `passed` of the result is the verdict.

    facts: that the exported file should have. pictures: at least one; all are used end to end, the first few at every
    size. stored: the facts that are in the file; None = not compared. precision: of the exported network; None = as in
    the facts. sizes, batches: to check, the most common first; None = chosen by what the file accepts. ap: AP of both
    sides, measured before; int8 is judged by it instead of by matching, if it is not too low. on_progress: called with
    (steps done, total). Raises DataError and UsageError for unusable images, never for failures of the exported model.
    """
    start, precision = time.monotonic(), precision or facts.precision
    tolerance = tolerance_of(precision)
    photos, rule = load_photos(pictures), facts.resize
    sizes = sizes or choose_sizes(model.shape, rule, span=model.span)
    batches = batches or choose_batches(model.shape)
    reference = Reference(artifact, facts)
    raw, post = LayerResults[RawRow](RAW_OUTPUTS), LayerResults[MatchRow](POST_PROCESSING)
    end = LayerResults[MatchRow](END_TO_END)

    runs = choose_runs(sizes, batches)
    plan = [(size, batch) for size, group in runs.items() for batch in group]
    inputs = batches_by_rule(photos, max(runs[sizes[0]]), rule)
    steps = _report_steps(len(plan) + len(sizes) + len(inputs), on_progress)
    last: dict[Size, ReferenceOutput] = {}
    for size, batch in plan:
        last[size] = expected = reference.run(batch_at_size(photos, size, batch, rule))
        images, inside = expected.input.images, expected.input.inside
        with raw.measuring(size, batch):
            raw.rows += raw_rows(expected, model.raw(images), strides=reference.config.strides)
        with end.measuring(size, batch):
            end.rows += end_rows(expected, model.detect(images, inside), reference, tolerance)
        next(steps)
    for size, expected in last.items():
        cases = prepare_cases(reference, expected)
        for batch in runs[size] if size == sizes[0] else [max(fitting(batches, size))]:
            with post.measuring(size, batch):
                post.rows += post_rows(cases, model, reference, size=size, batch=batch)
        next(steps)
    for item in inputs:
        with end.measuring(item.size, len(item.names)):
            end.rows += end_rows(reference.run(item), model.detect(item.images, item.inside), reference, tolerance)
        next(steps)

    names, by_ap = reference.names, _judges(ap, precision)
    return Parity(
        precision=precision,
        backend=model.backend,
        tolerance=tolerance,
        raw=raw.layer(judge_raw(raw.rows, tolerance)),
        post=post.layer(judge_matches(post.rows, POST, layer=POST_PROCESSING, names=names)),
        end=end.layer([] if by_ap else judge_matches(end.rows, tolerance, layer=END_TO_END, names=names)),
        worst=worst_of(end.rows, names),
        ap=ap,
        facts=tuple(_wrong_facts(artifact, facts, stored or facts)),
        notes=tuple(_notes(post.rows, end.rows, ap, precision=precision)),
        seconds=time.monotonic() - start,
    )


def _report_steps(total: int, on_progress: Callable[[int, int], None] | None) -> Iterator[None]:
    for done in range(1, total + 1):
        if on_progress:
            on_progress(done, total)
        yield


def _wrong_facts(artifact: Artifact, facts: Facts, stored: Facts) -> Iterator[str]:
    for what, actual, expected in (
        ("classes", facts.classes, artifact.classes),
        ("conventions", facts.conventions, artifact.config.conventions),
    ):
        if actual != expected:
            yield f"facts: the {what} in the file differ from those of the model it was exported from"
    for name in [field.name for field in fields(Facts) if field.name != "verified"]:
        written, meant = getattr(stored, name), getattr(facts, name)
        # in JSON, a tuple is a list, and NaN is equal to itself
        if json.dumps(written) != json.dumps(meant) if isinstance(meant, dict) else written != meant:
            values = f": {written}, not {meant}"
            yield f"facts: {name} in the file is not what was to be written{values if len(values) < 80 else ''}"


def _judges(ap: ApParity | None, precision: str) -> bool:
    """Whether the AP is the verdict, in place of matching."""
    return ap is not None and precision == "int8" and ap.judges(precision)


def _notes(post: Sequence[MatchRow], end: Sequence[MatchRow], ap: ApParity | None, *, precision: str) -> Iterator[str]:
    if not any(row.match.reference for row in end):
        yield "the reference found nothing in any image; use images like those the model is for"
    unconverged = sorted({row.case for row in post if not row.converged})
    if unconverged:
        yield f"NMS reported that it stopped early (converged = false), not judged: {', '.join(unconverged)}"
    if _judges(ap, precision):
        yield "int8 is judged by AP; matching is only reported"
    elif ap is not None and precision == "int8":
        yield f"an AP of {ap.reference['AP']:.4f} is too low to judge int8 by; it is judged by matching"
    if ap is not None and precision != "fp32" and ap.difference > tolerance_of(precision).ap:
        yield f"the AP is {ap.difference:.4f} higher than PyTorch's: rounding may help by chance"


def ap_parity(
    reference: Detector, exported: Detector, dataset: Dataset, *, on_progress: Callable[[int, int], None] | None = None
) -> ApParity:
    """Evaluate the COCO metrics of both detectors on every image of `dataset`, in tiles if they were trained on tiles.

    In an image that cannot be read, which is warned of, neither finds anything. Raises DataError if the model and the
    data set have no class in common.
    """
    tiling = Tiling(exported.facts.tile) if exported.facts.tile else None

    def metrics_of(detector: Detector, *, before: int) -> dict[str, float]:
        def update(done: int, total: int) -> None:
            if on_progress:
                on_progress(before + done, 2 * total)

        def unreadable(failure: Failure) -> None:
            if before == 0:  # the same images for both
                warn(f"no detections in an image: {failure.error.brief}")

        found, _ = collect_detections(detector, dataset, tiling=tiling, on_progress=update, on_unreadable=unreadable)
        return score(found, dataset.samples, dataset.classes).metrics

    expected, actual = metrics_of(reference, before=0), metrics_of(exported, before=len(dataset))
    return ApParity(dataset.name, len(dataset), expected, actual)
