"""What the proof of parity found, and whether that is good enough: results per layer, failures in words, the worst."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from fcos_cli.parity.matching import Answer, Match
from fcos_cli.parity.tolerance import Tolerance

Row = TypeVar("Row")


@dataclass(frozen=True)
class RawRow:
    """One raw output (`ltrb_p4`) of one batch. relative: L2 of the difference / L2 of the reference; inf where one
    side is not finite or has another shape. largest: the largest single difference, in the output's own unit.
    """

    size: tuple[int, int]
    batch: int
    output: str
    relative: float
    largest: float


@dataclass(frozen=True)
class MatchRow:
    """One picture's detections on both sides.

    case: the picture's name, or that of the made raw outputs. size: (height, width) of the input in pixels. batch:
    pictures in the same call; place: of this one among them. reference, exported: in pixels of network input.
    exact: equally many must be found. settled: False where NMS said itself that it could not finish. image: what
    both sides saw, uint8 [H, W, 3], where it was a real picture.
    """

    case: str
    size: tuple[int, int]
    batch: int
    place: int
    match: Match
    reference: Answer = field(repr=False)
    exported: Answer = field(repr=False)
    exact: bool = False
    settled: bool = True
    image: npt.NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)

    @property
    def at(self) -> str:
        return f"{self.case} at {self.size[0]}×{self.size[1]}, {self.place + 1} of a batch of {self.batch}"


@dataclass(frozen=True)
class Layer(Generic[Row]):
    """One layer of the proof. skipped: why it was not measured, None = it was. failures: what is out of tolerance."""

    name: str
    rows: tuple[Row, ...] = ()
    failures: tuple[str, ...] = ()
    skipped: str | None = None


@dataclass(frozen=True)
class ApParity:
    """COCO metrics (0…1, -1 where there is nothing to measure) of both sides on the same pictures of `data`."""

    data: str
    images: int
    reference: dict[str, float]
    exported: dict[str, float]

    @property
    def difference(self) -> float:
        return self.exported["AP"] - self.reference["AP"]


@dataclass(frozen=True)
class Worst:
    """The detection on which the two sides differ most, end to end; one that only one side has counts as more.

    picture: the file. label: the class. Boxes are float [4] xyxy in pixels of network input, None on the side that
    lacks it; px: largest difference of an edge. image: what both sides saw, uint8 [H, W, 3].
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
    """The proof's outcome: `passed`, or the `failures` in words, layer by layer.

    raw, post, end: the three layers. tolerance: of raw outputs and end to end; post-processing has its own (`POST`).
    facts: what the file says of itself and is not so. notes: what a reader must know to judge the result.
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
        if self.ap is None or abs(self.ap.difference) <= self.tolerance.ap:
            return []
        return [
            f"AP: {self.ap.exported['AP']:.4f} on {self.ap.data}, the reference has {self.ap.reference['AP']:.4f}; "
            f"allowed difference {self.tolerance.ap:g}"
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


def judge_matches(rows: Sequence[MatchRow], tolerance: Tolerance, *, layer: str, names: Sequence[str]) -> list[str]:
    """Failures of a layer: of all its pictures together by share and median, of each by its worst."""
    rows = [row for row in rows if row.settled or layer == "end to end"]
    failures: list[str] = []
    lost = sum(_lost(row.match, tolerance.sure) for row in rows)
    total = lost + sum(int((row.reference.scores[_mine(row.match)] >= tolerance.sure).sum()) for row in rows)
    if lost > tolerance.missing(total):
        failures += [f"{layer}: {lost} of {total} detections do not match, allowed {tolerance.missing(total)}"]
        failures += [f"{layer}: {row.at}: {_unexplained(row, names)}" for row in rows if row.match.unexplained]
    if tolerance.median_px is not None and total:
        median = float(np.median(np.concatenate([row.match.px for row in rows])))
        if median > tolerance.median_px:
            failures.append(f"{layer}: median box difference {median:.3g} px, allowed {tolerance.median_px:g}")
    for row in rows:
        failures += [f"{layer}: {row.at}: {problem}" for problem in _problems(row, tolerance, names)]
    return failures


def _mine(match: Match) -> list[int]:
    return [mine for mine, _ in match.pairs]


def _lost(match: Match, sure: float) -> int:
    """Detections without partner or excuse; one that moved too far is missing on both sides, and is counted once."""
    sides = [one.side for one in match.unexplained if one.score >= sure]
    return max(sides.count("reference"), sides.count("exported"))


def _problems(row: MatchRow, tolerance: Tolerance, names: Sequence[str]) -> list[str]:
    match, found = row.match, []
    if row.exact and match.reference != match.exported:
        found.append(f"{match.exported} detections, the reference has {match.reference}")
    if tolerance.max_px is not None and match.max_px > tolerance.max_px and match.worst is not None:
        mine, theirs = match.worst
        found.append(
            f"{_named(row.exported, theirs, names)} lies {match.max_px:.3g} px from the reference's "
            f"{_box(row.reference.boxes[mine])}, allowed {tolerance.max_px:g}"
        )
    if tolerance.max_score is not None and match.max_score > tolerance.max_score:
        found.append(f"a score differs by {match.max_score:.2g}, allowed {tolerance.max_score:g}")
    if not match.order_excused:
        found.append("the order differs by more than ties")
    return found


def _unexplained(row: MatchRow, names: Sequence[str]) -> str:
    told = []
    for one in row.match.unexplained[:2]:
        answer = row.reference if one.side == "reference" else row.exported
        owner = "the reference" if one.side == "reference" else "the exported model"
        told.append(f"only {owner} finds {_named(answer, one.index, names)}")
    more = len(row.match.unexplained) - len(told)
    return "; ".join(told) + (f"; and {more} more" if more else "")


def _named(answer: Answer, index: int, names: Sequence[str]) -> str:
    return (
        f"{name_of(int(answer.classes[index]), names)} {float(answer.scores[index]):.4f} at {_box(answer.boxes[index])}"
    )


def name_of(index: int, names: Sequence[str]) -> str:
    return names[index] if 0 <= index < len(names) else f"class {index}"


def _box(box: npt.NDArray[np.float32]) -> str:
    return f"[{', '.join(f'{edge:.2f}' for edge in box.tolist())}]"


def worst_of(rows: Sequence[MatchRow], names: Sequence[str]) -> Worst | None:
    """Of unexplained detections the surest, else the matched one whose box differs most; None where nothing is."""
    alone = [(one.score, place, one) for place, row in enumerate(rows) for one in row.match.unexplained]
    if alone:
        _, place, one = max(alone, key=lambda entry: entry[0])
        mine, theirs = (one.index, None) if one.side == "reference" else (None, one.index)
        return _worst(rows[place], mine, theirs, names, px=None)
    paired = [(row.match.max_px, place) for place, row in enumerate(rows) if row.match.worst is not None]
    if not paired:
        return None
    px, place = max(paired)
    pair = rows[place].match.worst
    assert pair is not None
    return _worst(rows[place], *pair, names, px=px)


def _worst(row: MatchRow, mine: int | None, theirs: int | None, names: Sequence[str], *, px: float | None) -> Worst:
    reference, exported = _picked(row.reference, mine), _picked(row.exported, theirs)
    shown = reference or exported
    assert shown is not None
    return Worst(
        picture=row.case,
        label=name_of(shown.label, names),
        reference_box=reference and reference.box,
        exported_box=exported and exported.box,
        reference_score=reference and reference.score,
        exported_score=exported and exported.score,
        px=px,
        at=row.at,
        image=row.image,
    )


class _One(NamedTuple):
    box: tuple[float, ...]
    score: float
    label: int


def _picked(answer: Answer, index: int | None) -> _One | None:
    if index is None:
        return None
    return _One(tuple(answer.boxes[index].tolist()), float(answer.scores[index]), int(answer.classes[index]))
