"""The three layers of the proof, measured: each compares one part of an exported file with the reference's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from fcos_cli.model.config import STRIDES
from fcos_cli.model.head import RawOutputs
from fcos_cli.parity.inputs import Size
from fcos_cli.parity.matching import Answer, Limits, answer_of, match
from fcos_cli.parity.reference import Reference, ReferenceOutput
from fcos_cli.parity.subgraphs import ExportedModel, ModelOutput, NoSubgraph, Raw
from fcos_cli.parity.synthetic import Case, perturbed_cases, synthetic_cases
from fcos_cli.parity.tolerance import POST, Tolerance
from fcos_cli.parity.verdict import Layer, MatchRow, RawRow, Row
from fcos_cli.runtime.graph_io import RAW

MIN_MEAN_SQUARE = 1e-2
"""Raw outputs whose mean square lies below this (logits; distances in strides) are compared with it instead: where a
ReLU left next to nothing, a relative error would say nothing."""


class LayerResults(Generic[Row]):
    """The rows of one layer as they are measured. What the exported model cannot do is a failure, not a crash."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows: list[Row] = []
        self.failures: list[str] = []
        self.skipped: str | None = None

    @contextmanager
    def measuring(self, size: Size, batch: int) -> Iterator[None]:
        try:
            yield
        except NoSubgraph as reason:
            self.skipped = reason.what
        except Exception as error:  # runtimes raise what they like; whatever it is, the file failed here
            first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
            self.failures.append(f"{self.name}: at {size[0]}×{size[1]}, batch {batch}: {type(error).__name__}: {first}")

    def layer(self, failures: Sequence[str]) -> Layer[Row]:
        told = tuple(dict.fromkeys([*self.failures, *failures]))
        return Layer(self.name, tuple(self.rows), told, None if self.rows or told else self.skipped)


def raw_rows(seen: ReferenceOutput, exported: Raw) -> list[RawRow]:
    """One row per raw output."""
    rows = []
    for name, values in named(seen.raw).items():
        relative, largest = _difference(values, exported[name], unit=_unit(name))
        rows.append(RawRow(seen.input.size, len(values), name, relative, largest))
    return rows


def named(raw: RawOutputs) -> Raw:
    """Raw outputs under the names they have in a file."""
    return dict(zip(RAW, (level.numpy() for levels in raw for level in levels), strict=True))


def _unit(name: str) -> float:
    branch, level = name.split("_p")
    return float(STRIDES[int(level) - 3]) if branch == "ltrb" else 1.0


def _difference(
    reference: npt.NDArray[np.float32], exported: npt.NDArray[np.float32], *, unit: float
) -> tuple[float, float]:
    if reference.shape != exported.shape or not np.isfinite(exported).all():
        return float("inf"), float("inf")
    true, gap = reference.astype(np.float64), np.abs(exported.astype(np.float64) - reference)
    floor = MIN_MEAN_SQUARE * unit * np.sqrt(true.size)
    return float(np.linalg.norm(gap) / max(float(np.linalg.norm(true)), floor)), float(gap.max(initial=0.0))


def end_rows(
    seen: ReferenceOutput, exported: ModelOutput, reference: Reference, tolerance: Tolerance
) -> list[MatchRow]:
    """One row per picture of the batch. Raises ValueError for an answer that is not even well-formed."""
    batch, limits = len(seen.input.images), reference.limits(seen.raw, seen.input.size, tolerance, seen.input.inside)
    check_form(exported, batch, limits[0], classes=len(reference.names))
    return [
        _row(
            name,
            answer_of(seen.found, place),
            exported,
            limits[place],
            size=seen.input.size,
            place=place,
            image=seen.input.shown[place],
        )
        for place, name in enumerate(seen.input.names)
    ]


class PreparedCases(NamedTuple):
    """A case with the reference's answer."""

    case: Case
    answer: Answer
    limits: Limits


def prepare_cases(reference: Reference, seen: ReferenceOutput) -> list[PreparedCases]:
    """The cases for the sizes of `seen`: its pictures' raw outputs, the first one's altered, and the made ones."""
    size, sizes = seen.input.size, seen.raw.sizes()
    pictures = [
        RawOutputs(*([level[i : i + 1] for level in part] for part in seen.raw)) for i in range(len(seen.found.counts))
    ]
    cases = list(perturbed_cases(pictures[0], config=reference.config))
    cases += [Case("real", raw, exact=False) for raw in pictures[1:]]
    cases += synthetic_cases(sizes, classes=len(reference.names), config=reference.config)
    return [
        PreparedCases(case, answer_of(reference.post(case.raw, size), 0), reference.limits(case.raw, size, POST)[0])
        for case in cases
    ]


def post_rows(
    posed: Sequence[PreparedCases], cuts: ExportedModel, reference: Reference, *, size: Size, batch: int
) -> list[MatchRow]:
    """The file's post-processing of all cases, `batch` of them at a time; the last batch begins anew."""
    rows = []
    images = np.zeros((batch, 3, *size), reference.dtype)
    for start in range(0, len(posed), batch):
        group = [posed[(start + i) % len(posed)] for i in range(batch)]
        together = RawOutputs(*(_stacked([one.case.raw[part] for one in group]) for part in range(3)))
        exported = cuts.post(named(together), images)
        check_form(exported, batch, group[0].limits, classes=len(reference.names))
        rows += [
            _row(one.case.name, one.answer, exported, one.limits, size=size, place=place, exact=one.case.exact)
            for place, one in enumerate(group)
        ]
    return rows


def _stacked(pictures: Sequence[list[torch.Tensor]]) -> list[torch.Tensor]:
    return [torch.cat(levels) for levels in zip(*pictures, strict=True)]


def _row(
    case: str,
    reference: Answer,
    exported: ModelOutput,
    limits: Limits,
    *,
    size: Size,
    place: int,
    exact: bool = False,
    image: npt.NDArray[np.uint8] | None = None,
) -> MatchRow:
    answer = answer_of(exported.detections, place)
    return MatchRow(
        case=case,
        size=size,
        batch=len(exported.detections.counts),
        place=place,
        match=match(reference, answer, limits=limits),
        reference=reference,
        exported=answer,
        exact=exact,
        settled=exported.converged is None or bool(exported.converged[place]),
        image=image,
    )


def check_form(found: ModelOutput, batch: int, limits: Limits, *, classes: int) -> None:
    """Raises ValueError for an answer that breaks the promises of `RawDetections`."""
    boxes, scores, index, counts = found.detections
    places = scores.shape[1] if scores.ndim == 2 else -1
    expected = ((batch, places, 4), (batch, places), (batch, places), (batch,))
    if tuple(part.shape for part in found.detections) != expected:
        raise ValueError(f"outputs have shapes {[part.shape for part in found.detections]}, expected {expected}")
    if counts.min() < 0 or counts.max() > min(places, limits.max_detections):
        raise ValueError(f"counts {counts.tolist()} do not lie in 0…{min(places, limits.max_detections)}")
    full = np.arange(places)[None] < counts[:, None]
    for broken, what in (
        (~np.isfinite(boxes).all(-1) | ~np.isfinite(scores), "numbers that are not finite"),
        (full & ((index < 0) | (index >= classes)), f"classes outside 0…{classes - 1}"),
        (~full & ((index != -1) | (scores != 0)), "something in places that should be empty"),
        (full & (scores <= 0), "detections without a score"),
    ):
        if broken.any():
            raise ValueError(f"the answer holds {what}")
    if ((np.diff(scores, axis=1) > 0) & full[:, 1:]).any():
        raise ValueError("scores do not descend")
