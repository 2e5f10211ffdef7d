"""Results of the parity check and the verdict: measurements per layer, failures in words, the worst detection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from fcos_cli.parity.matching import ImageDetections, Match
from fcos_cli.parity.tolerance import Tolerance

Row = TypeVar("Row")

END_TO_END = "end to end"
"""Name of the layer from pixels to boxes."""

LEAST_AP = 0.1
"""AP of the reference (0…1) from which int8 is judged by AP: of a lower one, the allowed loss is too large a share."""


@dataclass(frozen=True)
class RawRow:
    """One raw output (`ltrb_p4`) of one batch.

    relative: L2 norm of the difference / L2 norm of the reference; inf if the exported one is not finite or the shapes
    differ. largest: largest absolute difference, in the output's own unit.
    """

    size: tuple[int, int]
    batch: int
    output: str
    relative: float
    largest: float


@dataclass(frozen=True)
class MatchRow:
    """The detections of both sides in one image.

    case: name of the image or of the synthetic case. size: (height, width) of the input in pixels. batch: images in the
    same call. index: of this image in the batch. reference, exported: in pixels of network input. exact: whether both
    must find the same number. converged: False if NMS reported that it stopped early. image: what both sides saw, uint8
    [H, W, 3]; None for synthetic cases.
    """

    case: str
    size: tuple[int, int]
    batch: int
    index: int
    match: Match
    reference: ImageDetections = field(repr=False)
    exported: ImageDetections = field(repr=False)
    exact: bool = False
    converged: bool = True
    image: npt.NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)

    @property
    def at(self) -> str:
        return f"{self.case} at {self.size[0]}×{self.size[1]}, {self.index + 1} of a batch of {self.batch}"


@dataclass(frozen=True)
class Layer(Generic[Row]):
    """One layer of the parity check.

    skipped: why it was not measured; None if it was. failures: what is out of tolerance.
    """

    name: str
    rows: tuple[Row, ...] = ()
    failures: tuple[str, ...] = ()
    skipped: str | None = None


@dataclass(frozen=True)
class ApParity:
    """COCO metrics (0…1, or -1 if undefined) of both sides on the same images of `data`."""

    data: str
    images: int
    reference: dict[str, float]
    exported: dict[str, float]

    @property
    def difference(self) -> float:
        return self.exported["AP"] - self.reference["AP"]

    @property
    def is_measurable(self) -> bool:
        """Whether there are boxes to measure the AP of; without them both sides are -1."""
        return min(self.exported["AP"], self.reference["AP"]) >= 0

    def judges(self, precision: str) -> bool:
        """Whether the allowed loss means something."""
        return precision != "int8" or self.reference["AP"] >= LEAST_AP


@dataclass(frozen=True)
class Worst:
    """The detection that differs most between the two sides end to end; unmatched detections rank first.

    picture: file name. label: class name. Boxes are float [4] xyxy in pixels of network input, None on the side that
    lacks it. px: largest difference of an edge. image: what both sides saw, uint8 [H, W, 3].
    """

    picture: str
    label: str
    reference_box: tuple[float, ...] | None
    exported_box: tuple[float, ...] | None
    reference_score: float | None
    exported_score: float | None
    px: float | None
    at: str
    image: npt.NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Parity:
    """Outcome of the parity check: `passed`, and the `failures` in words, layer by layer.

    raw, post, end: the three layers. tolerance: of raw outputs and end to end (post-processing has its own, `POST`).
    facts: failures of the facts in the file's header. notes: remarks needed to interpret the result.
    """

    precision: str
    backend: str
    tolerance: Tolerance
    raw: Layer[RawRow]
    post: Layer[MatchRow]
    end: Layer[MatchRow]
    worst: Worst | None = None
    ap: ApParity | None = None
    facts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def failures(self) -> list[str]:
        return [*self.facts, *self.raw.failures, *self.post.failures, *self.end.failures, *self._ap_failures()]

    @property
    def passed(self) -> bool:
        return not self.failures

    def _ap_failures(self) -> list[str]:
        if self.ap is None or not self.ap.judges(self.precision):
            return []
        both = self.precision == "fp32"  # the rounding of other precisions may help by chance
        if (abs(self.ap.difference) if both else -self.ap.difference) <= self.tolerance.ap:
            return []
        return [
            f"AP: {self.ap.exported['AP']:.4f} on {self.ap.data}, reference {self.ap.reference['AP']:.4f}; "
            f"allowed {'difference' if both else 'loss'} {self.tolerance.ap:g}"
        ]


def judge_raw(rows: Sequence[RawRow], tolerance: Tolerance) -> list[str]:
    if tolerance.raw is None:
        return [_raw_failure(row, None) for row in rows if not np.isfinite(row.relative)]
    return [_raw_failure(row, tolerance.raw) for row in rows if not row.relative <= tolerance.raw]


def _raw_failure(row: RawRow, allowed: float | None) -> str:
    branch, level = row.output.split("_")
    return (
        f"raw outputs: {branch} of {level.upper()} at {row.size[0]}×{row.size[1]}, batch {row.batch}: relative error "
        f"{row.relative:.2g}{'' if allowed is None else f', allowed {allowed:g}'} "
        f"(largest difference {row.largest:.3g})"
    )


def count_sure(rows: Sequence[MatchRow], sure: float) -> tuple[int, int]:
    """Number of detections with scores of at least `sure` that match, and of those that do not and have no excuse."""
    matched = sum(int((row.reference.scores[_matched(row.match)] >= sure).sum()) for row in rows)
    return matched, sum(_count_missing(row.match, sure) for row in rows)


def judge_matches(rows: Sequence[MatchRow], tolerance: Tolerance, *, layer: str, names: Sequence[str]) -> list[str]:
    """Failures of a layer: share and median over all its images, worst values per image."""
    rows = [row for row in rows if row.converged or layer == END_TO_END]
    failures: list[str] = []
    matched, missing = count_sure(rows, tolerance.sure)
    total = matched + missing
    if missing > tolerance.missing(total):
        failures += [f"{layer}: {missing} of {total} detections do not match, allowed {tolerance.missing(total)}"]
        failures += [f"{layer}: {row.at}: {_unexplained(row, names)}" for row in rows if row.match.unexplained]
    if tolerance.sure and rows and not matched:
        failures.append(f"{layer}: no detection of {tolerance.sure:g} or more on both sides: nothing to judge")
    if tolerance.median_px is not None and matched:
        median = float(np.median(np.concatenate([row.match.px for row in rows])))
        if median > tolerance.median_px:
            failures.append(f"{layer}: median box difference {median:.3g} px, allowed {tolerance.median_px:g}")
    for row in rows:
        failures += [f"{layer}: {row.at}: {problem}" for problem in _problems(row, tolerance, names)]
    return failures


def _matched(match: Match) -> list[int]:
    return [index for index, _ in match.pairs]


def _count_missing(match: Match, sure: float) -> int:
    """Number of unexplained detections; one that moved too far is missing on both sides but counted once."""
    sides = [item.side for item in match.unexplained if item.score >= sure]
    return max(sides.count("reference"), sides.count("exported"))


def _problems(row: MatchRow, tolerance: Tolerance, names: Sequence[str]) -> list[str]:
    match, problems = row.match, []
    if row.exact and match.reference != match.exported:
        problems.append(f"{match.exported} detections instead of {match.reference}")
    if tolerance.max_px is not None and match.max_px > tolerance.max_px and match.worst is not None:
        expected, actual = match.worst
        problems.append(
            f"{_describe(row.exported, actual, names)} is {match.max_px:.3g} px off the reference "
            f"{_box(row.reference.boxes[expected])}, allowed {tolerance.max_px:g}"
        )
    if tolerance.max_score is not None and match.max_score > tolerance.max_score:
        problems.append(f"a score differs by {match.max_score:.2g}, allowed {tolerance.max_score:g}")
    if not match.order_excused:
        problems.append("the order differs beyond ties")
    return problems


def _unexplained(row: MatchRow, names: Sequence[str]) -> str:
    texts = []
    for item in row.match.unexplained[:2]:
        detections = row.reference if item.side == "reference" else row.exported
        owner = "the reference" if item.side == "reference" else "the exported model"
        texts.append(f"only {owner} finds {_describe(detections, item.index, names)}")
    more = len(row.match.unexplained) - len(texts)
    return "; ".join(texts) + (f"; and {more} more" if more else "")


def _describe(detections: ImageDetections, index: int, names: Sequence[str]) -> str:
    name = name_of(int(detections.classes[index]), names)
    return f"{name} {float(detections.scores[index]):.4f} at {_box(detections.boxes[index])}"


def name_of(index: int, names: Sequence[str]) -> str:
    return names[index] if 0 <= index < len(names) else f"class {index}"


def _box(box: npt.NDArray[np.float32]) -> str:
    return f"[{', '.join(f'{edge:.2f}' for edge in box.tolist())}]"


def worst_of(rows: Sequence[MatchRow], names: Sequence[str]) -> Worst | None:
    """The unexplained detection with the highest score, else the matched one whose box differs most.

    None if there are no detections.
    """
    unexplained = [(item.score, number, item) for number, row in enumerate(rows) for item in row.match.unexplained]
    if unexplained:
        _, number, item = max(unexplained, key=lambda entry: entry[0])
        expected, actual = (item.index, None) if item.side == "reference" else (None, item.index)
        return _worst(rows[number], expected, actual, names, px=None)
    paired = [(row.match.max_px, number) for number, row in enumerate(rows) if row.match.worst is not None]
    if not paired:
        return None
    px, number = max(paired)
    pair = rows[number].match.worst
    assert pair is not None
    return _worst(rows[number], *pair, names, px=px)


def _worst(row: MatchRow, expected: int | None, actual: int | None, names: Sequence[str], *, px: float | None) -> Worst:
    reference, exported = _detection(row.reference, expected), _detection(row.exported, actual)
    either = reference or exported
    assert either is not None
    return Worst(
        picture=row.case,
        label=name_of(either.label, names),
        reference_box=reference and reference.box,
        exported_box=exported and exported.box,
        reference_score=reference and reference.score,
        exported_score=exported and exported.score,
        px=px,
        at=row.at,
        image=row.image,
    )


class _Detection(NamedTuple):
    box: tuple[float, ...]
    score: float
    label: int


def _detection(detections: ImageDetections, index: int | None) -> _Detection | None:
    if index is None:
        return None
    box, score = tuple(detections.boxes[index].tolist()), float(detections.scores[index])
    return _Detection(box, score, int(detections.classes[index]))
