"""Measure the three layers of the parity check: each compares one part of an exported file with the reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from fcos_cli.errors import first_line
from fcos_cli.model.head import RawOutputs
from fcos_cli.parity.inputs import Size
from fcos_cli.parity.matching import ImageDetections, Limits, image_detections
from fcos_cli.parity.outputs import check_form, match_row
from fcos_cli.parity.reference import Reference, ReferenceOutput
from fcos_cli.parity.subgraphs import ExportedModel, ModelOutput, NoSubgraph, Raw
from fcos_cli.parity.synthetic import Case, perturbed_cases, synthetic_cases
from fcos_cli.parity.tolerance import POST, Tolerance
from fcos_cli.parity.verdict import Layer, MatchRow, RawRow, Row
from fcos_cli.runtime.graph_io import raw_names

MIN_RMS = 1e-2
"""Lower bound of the root mean square (logits; distances in strides) in the denominator of a relative error.

If a ReLU leaves values near zero, an error relative to them is meaningless."""


class LayerResults(Generic[Row]):
    """Rows of one layer, collected as they are measured. Errors of the exported model become failures."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows: list[Row] = []
        self.failures: list[str] = []
        self.skipped: str | None = None

    @contextmanager
    def measuring(self, size: Size, batch: int) -> Iterator[None]:
        try:
            yield
        except NoSubgraph as error:
            self.skipped = error.what
        except Exception as error:  # runtimes raise all kinds of exceptions
            what = f"{type(error).__name__}: {first_line(error)}"
            self.failures.append(f"{self.name}: at {size[0]}×{size[1]}, batch {batch}: {what}")

    def layer(self, failures: Sequence[str]) -> Layer[Row]:
        failed = tuple(dict.fromkeys([*self.failures, *failures]))
        return Layer(self.name, tuple(self.rows), failed, None if self.rows or failed else self.skipped)


def raw_rows(expected: ReferenceOutput, exported: Raw, *, strides: Sequence[int]) -> list[RawRow]:
    """Compare the raw outputs of one batch, one row each. strides: of the model's levels."""
    rows = []
    for name, values in by_name(expected.raw, strides=strides).items():
        relative, largest = _difference(values, exported[name], unit=_unit(name))
        rows.append(RawRow(expected.input.size, len(values), name, relative, largest))
    return rows


def by_name(raw: RawOutputs, *, strides: Sequence[int]) -> Raw:
    """Raw outputs under their tensor names in a file."""
    return dict(zip(raw_names(strides), (level.numpy() for levels in raw for level in levels), strict=True))


def _unit(name: str) -> float:
    branch, level = name.split("_p")
    return 2.0 ** int(level) if branch == "ltrb" else 1.0  # the level's stride


def _difference(
    reference: npt.NDArray[np.float32], exported: npt.NDArray[np.float32], *, unit: float
) -> tuple[float, float]:
    if reference.shape != exported.shape or not np.isfinite(exported).all():
        return float("inf"), float("inf")
    expected, error = reference.astype(np.float64), np.abs(exported.astype(np.float64) - reference)
    floor = MIN_RMS * unit * np.sqrt(expected.size)
    return float(np.linalg.norm(error) / max(float(np.linalg.norm(expected)), floor)), float(error.max(initial=0.0))


def end_rows(
    expected: ReferenceOutput, exported: ModelOutput, reference: Reference, tolerance: Tolerance
) -> list[MatchRow]:
    """Match the detections of one batch, one row per image. Raises ValueError for malformed outputs."""
    given = expected.input
    batch, limits = len(given.images), reference.limits(expected.raw, given.size, tolerance, given.inside)
    check_form(exported.detections, batch, limits[0], classes=len(reference.names))
    return [
        match_row(
            name,
            image_detections(expected.detections, index),
            exported,
            limits[index],
            size=given.size,
            index=index,
            image=given.shown[index],
        )
        for index, name in enumerate(given.names)
    ]


class PreparedCase(NamedTuple):
    """A case with the reference's detections and matching limits."""

    case: Case
    expected: ImageDetections
    limits: Limits


def prepare_cases(reference: Reference, output: ReferenceOutput) -> list[PreparedCase]:
    """The post-processing cases at one input size.

    They are the raw outputs of every image in `output`, perturbed ones of the first image, and synthetic ones.
    """
    size, sizes = output.input.size, output.raw.sizes()
    images = [
        RawOutputs(*([level[i : i + 1] for level in part] for part in output.raw))
        for i in range(len(output.detections.counts))
    ]
    cases = list(perturbed_cases(images[0], config=reference.config))
    cases += [Case("real", raw, exact=False) for raw in images[1:]]
    cases += synthetic_cases(sizes, classes=len(reference.names), config=reference.config)
    return [
        PreparedCase(
            case, image_detections(reference.post(case.raw, size), 0), reference.limits(case.raw, size, POST)[0]
        )
        for case in cases
    ]


def post_rows(
    cases: Sequence[PreparedCase], model: ExportedModel, reference: Reference, *, size: Size, batch: int
) -> list[MatchRow]:
    """Run the file's post-processing on all cases, `batch` at a time; the last batch is filled with the first ones."""
    rows = []
    images = np.zeros((batch, 3, *size), reference.facts.resize.dtype)
    for start in range(0, len(cases), batch):
        group = [cases[(start + i) % len(cases)] for i in range(batch)]
        raw = RawOutputs(*(_stack([item.case.raw[part] for item in group]) for part in range(3)))
        exported = model.post(by_name(raw, strides=reference.config.strides), images)
        check_form(exported.detections, batch, group[0].limits, classes=len(reference.names))
        rows += [
            match_row(
                item.case.name, item.expected, exported, item.limits, size=size, index=index, exact=item.case.exact
            )
            for index, item in enumerate(group)
        ]
    return rows


def _stack(images: Sequence[list[torch.Tensor]]) -> list[torch.Tensor]:
    return [torch.cat(levels) for levels in zip(*images, strict=True)]
