"""The proof that an exported model answers as PyTorch does, in three layers, so that a fault is found where it is.

a. raw outputs: the network's body, per level and branch, on real pictures;
b. post-processing alone, fed with the reference's raw outputs and with synthetic ones (synthetic.py): decode and NMS;
c. end to end: the pictures in, the detections out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fcos_cli.data.samples import Dataset
from fcos_cli.evaluate.coco import evaluate
from fcos_cli.model.artifact import Artifact
from fcos_cli.parity.inputs import Size, batch_at_size, batches_by_rule, choose_batches, choose_sizes, load_photos
from fcos_cli.parity.layers import LayerResults, end_rows, post_rows, prepare_cases, raw_rows
from fcos_cli.parity.reference import Reference, ReferenceOutput
from fcos_cli.parity.subgraphs import ExportedModel
from fcos_cli.parity.tolerance import POST, Tolerance, tolerance_of
from fcos_cli.parity.verdict import ApParity, MatchRow, Parity, RawRow, judge_matches, judge_raw, worst_of
from fcos_cli.runtime.detector import Detector
from fcos_cli.runtime.facts import Facts

__all__ = ["ApParity", "Parity", "ap_parity", "prove"]

RAW_OUTPUTS, POST_PROCESSING, END_TO_END = "raw outputs", "post-processing", "end to end"


def prove(
    artifact: Artifact,
    cuts: ExportedModel,
    facts: Facts,
    *,
    pictures: Sequence[Path],
    precision: str | None = None,
    sizes: Sequence[Size] | None = None,
    batches: Sequence[int] | None = None,
    tolerance: Tolerance | None = None,
    ap: ApParity | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Parity:
    """Measure how the exported model behind `cuts` agrees with `artifact`; the answer's `passed` is the verdict.

    facts: of the exported file. pictures: at least one; all of them are used end to end, the first few at every size.
    precision: of the exported body, None = what the facts say. sizes, batches: to prove at, the usual ones first;
    None = chosen by what the file takes. tolerance: instead of the precision's own. ap: AP of both, measured before;
    where it is given, int8 is judged by it rather than by matching. on_progress: called with (steps done, in all).
    Raises DataError and UsageError for pictures that cannot be used, never for what the exported model does.
    """
    begun, precision = time.monotonic(), precision or facts.precision
    allowed = tolerance or tolerance_of(precision)
    photos, rule = load_photos(pictures), facts.resize
    sizes = sizes or choose_sizes(cuts.shape, rule, span=cuts.span)
    batches = batches or choose_batches(cuts.shape)
    reference = Reference(artifact, facts)
    raw, post = LayerResults[RawRow](RAW_OUTPUTS), LayerResults[MatchRow](POST_PROCESSING)
    end = LayerResults[MatchRow](END_TO_END)

    plan = [(sizes[0], batch) for batch in batches] + [(size, batches[0]) for size in sizes[1:]]
    used = batches_by_rule(photos, max(batches), rule)
    steps = _counted(len(plan) + len(sizes) + len(used), on_progress)
    last: dict[Size, ReferenceOutput] = {}
    for size, batch in plan:
        last[size] = seen = reference.see(batch_at_size(photos, size, batch, rule))
        with raw.measuring(size, batch):
            raw.rows += raw_rows(seen, cuts.raw(seen.input.images))
        with end.measuring(size, batch):
            end.rows += end_rows(seen, cuts.detect(seen.input.images, seen.input.inside), reference, allowed)
        next(steps)
    for size, seen in last.items():
        posed = prepare_cases(reference, seen)
        for batch in batches if size == sizes[0] else [max(batches)]:
            with post.measuring(size, batch):
                post.rows += post_rows(posed, cuts, reference, size=size, batch=batch)
        next(steps)
    for given in used:
        with end.measuring(given.size, len(given.names)):
            end.rows += end_rows(reference.see(given), cuts.detect(given.images, given.inside), reference, allowed)
        next(steps)

    names, by_ap = reference.names, ap is not None and precision == "int8"
    return Parity(
        precision=precision,
        backend=cuts.backend,
        tolerance=allowed,
        raw=raw.layer(judge_raw(raw.rows, allowed)),
        post=post.layer(judge_matches(post.rows, POST, layer=POST_PROCESSING, names=names)),
        end=end.layer([] if by_ap else judge_matches(end.rows, allowed, layer=END_TO_END, names=names)),
        worst=worst_of(end.rows, names),
        ap=ap,
        facts=tuple(_wrong_facts(artifact, facts)),
        notes=tuple(_notes(post.rows, end.rows, by_ap=by_ap)),
        seconds=time.monotonic() - begun,
    )


def _counted(total: int, on_progress: Callable[[int, int], None] | None) -> Iterator[None]:
    for done in range(1, total + 1):
        if on_progress:
            on_progress(done, total)
        yield


def _wrong_facts(artifact: Artifact, facts: Facts) -> Iterator[str]:
    for what, said, true in (
        ("classes", facts.classes, artifact.classes),
        ("conventions", facts.conventions, artifact.config.conventions),
    ):
        if said != true:
            yield f"facts: the {what} that the file names are not those of the model it was made from"


def _notes(post: Sequence[MatchRow], end: Sequence[MatchRow], *, by_ap: bool) -> Iterator[str]:
    if not any(row.match.reference for row in end):
        yield "the reference found nothing in any picture, so end to end proves little: name pictures of its kind"
    unsettled = sorted({row.case for row in post if not row.settled})
    if unsettled:
        yield f"NMS stopped early and said so (converged = false): {', '.join(unsettled)}; these are not judged"
    if by_ap:
        yield "int8 is judged by AP; matching is reported"


def ap_parity(
    reference: Detector, exported: Detector, dataset: Dataset, *, on_progress: Callable[[int, int], None] | None = None
) -> ApParity:
    """COCO metrics of both detectors on every picture of `dataset`. Raises DataError as `evaluate` does."""
    total = 2 * len(dataset)

    def second(done: int, _: int) -> None:
        if on_progress:
            on_progress(len(dataset) + done, total)

    def first(done: int, _: int) -> None:
        if on_progress:
            on_progress(done, total)

    true = evaluate(reference, dataset, on_progress=first)
    theirs = evaluate(exported, dataset, on_progress=second)
    return ApParity(dataset.source.name, true.images, true.metrics, theirs.metrics)
