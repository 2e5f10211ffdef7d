"""Run the test vectors of an exported file on this machine, and compare with what PyTorch found. No torch."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from fcos_cli.errors import ModelError, first_line
from fcos_cli.parity.matching import Limits
from fcos_cli.parity.outputs import check_form, match_row
from fcos_cli.parity.subgraphs import ModelOutput
from fcos_cli.parity.tolerance import TOLERANCES, Tolerance, tolerance_of
from fcos_cli.parity.vectors import LARGEST_INPUT, Vector, read_vectors
from fcos_cli.parity.verdict import END_TO_END, Layer, MatchRow, Parity, judge_matches, worst_of
from fcos_cli.runtime.detector import Detector
from fcos_cli.runtime.facts import Facts


def vectors_of(facts: Facts, *, where: Path) -> list[Vector]:
    """The test vectors of an exported file. Raises ModelError, with a remedy, if it has none or they are damaged."""
    vectors = read_vectors(facts, where=where)
    if not vectors:
        raise ModelError(
            "this file has no test vectors, so there is nothing to compare with here",
            where=where,
            remedy="fcos export RUN writes them, with this version, without --no-verify and for inputs of up to "
            f"{LARGEST_INPUT >> 20} megapixels; or compare its metrics: fcos eval MODEL DATA",
        )
    return vectors


def verify(detector: Detector, vectors: Sequence[Vector]) -> Parity:
    """Run `detector` on the pictures, one by one and all at once; `passed` of the result is the verdict.

    It is judged as `fcos export` judges this precision: that of the file or of the computation, whichever is coarser.
    Errors of the runtime are failures.
    """
    start, facts = time.monotonic(), detector.facts
    precision = _coarser(facts.precision, detector.precision)
    tolerance, names = tolerance_of(precision), facts.classes.names
    rows: list[MatchRow] = []
    failures: list[str] = []
    for batch in _batches(vectors):
        try:
            rows += _rows(detector, batch, tolerance, all_known=precision == facts.precision)
        except Exception as error:  # runtimes raise all kinds of exceptions
            what = f"{type(error).__name__}: {first_line(error)}"
            failures.append(f"{END_TO_END}: {batch[0].name}, batch {len(batch)}: {what}")
    failures += judge_matches(rows, tolerance, layer=END_TO_END, names=names)
    notes = [] if any(row.match.reference for row in rows) else ["the reference found nothing in any picture"]
    return Parity(
        precision=precision,
        backend=detector.backend,
        tolerance=tolerance,
        raw=Layer("raw outputs"),
        post=Layer("post-processing"),
        end=Layer(END_TO_END, tuple(rows), tuple(failures)),
        worst=worst_of(rows, names),
        notes=tuple(notes if not failures else ()),
        seconds=time.monotonic() - start,
    )


def _coarser(stored: str, computed: str) -> str:
    """The coarser one of two precisions. Runtimes name some that are not judged, such as `mixed`."""
    order = list(TOLERANCES)
    return max((name for name in (computed, stored) if name in TOLERANCES), key=order.index, default=stored)


def _batches(vectors: Sequence[Vector]) -> Iterator[list[Vector]]:
    """Each alone, then those of one size together, unless they are large."""
    yield from ([vector] for vector in vectors)
    for (height, width), group in groupby(vectors, lambda vector: vector.size):
        same = list(group)
        if 1 < len(same) <= LARGEST_INPUT // (height * width):
            yield same


def _rows(detector: Detector, batch: Sequence[Vector], tolerance: Tolerance, *, all_known: bool) -> list[MatchRow]:
    """Compare one call of the detector, one row per picture. Raises ValueError for malformed outputs.

    all_known: whether the vectors hold all that may be a candidate at this tolerance.
    """
    facts = detector.facts
    images = np.concatenate([vector.images(facts.resize) for vector in batch])
    found = detector(images, np.concatenate([vector.inside for vector in batch]))
    limits = [
        Limits.of(facts, tolerance, topk_scores=v.cuts, candidates=v.candidates if all_known else None) for v in batch
    ]
    check_form(found, len(batch), limits[0], classes=len(facts.classes))
    return [
        match_row(
            vector.name,
            vector.expected,
            ModelOutput(found),
            limits[index],
            size=vector.size,
            index=index,
            image=vector.picture,
        )
        for index, vector in enumerate(batch)
    ]
