"""Synthetic raw outputs that exercise the edge cases of post-processing.

Real images show what is common. These cases cover what is rare, for any model, trained or not: overlaps 0.005 from the
NMS threshold, scores at the score threshold, more boxes than fit, more candidates than a level keeps, chains of
suppressions, equal scores, boxes beyond the edge, several classes in one place.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fcos_cli.model.config import ModelConfig
from fcos_cli.model.head import RawOutputs

BACKGROUND_LOGIT = -30.0
"""Class logit with a probability far below any threshold."""

CERTAIN_LOGIT = 8.0
"""Centerness logit that barely lowers a score."""

Sizes = Sequence[tuple[int, int]]


class Case(NamedTuple):
    """Raw outputs of one image, [1, ·, h, w] per level.

    exact: whether both sides must find the same number of detections. With equal scores that overlap or are cut off,
    either box may stay, so the number may differ.
    """

    name: str
    raw: RawOutputs
    exact: bool = True


def synthetic_cases(sizes: Sizes, *, classes: int, config: ModelConfig) -> list[Case]:
    """All cases that fit maps of these (height, width), finest level first."""
    return [*_thresholds(sizes, classes, config), *_crowds(sizes, classes, config), *_ties(sizes, classes, config)]


def perturbed_cases(raw: RawOutputs, *, config: ModelConfig) -> Iterator[Case]:
    """Raw outputs of one image [1, …], as they are and with modified class logits.

    Logits are raised until the best (point, class) pairs are almost certain, lowered until nothing is left, and rounded
    to quarters, which makes many scores equal.
    """
    best = torch.cat([level.flatten() for level in raw.cls])
    count = min(len(best), 4 * config.max_detections)
    yield Case("real", raw, exact=False)
    yield Case("real, raised", _shift(raw, 2.0 - float(best.topk(count).values[-1])), exact=False)
    yield Case("real, lowered to none", _shift(raw, BACKGROUND_LOGIT - float(best.max())))
    rounded = [[(level * 4).round() / 4 for level in levels] for levels in (raw.cls, raw.ctr)]
    yield Case("real, rounded", RawOutputs(rounded[0], list(raw.ltrb), rounded[1]), exact=False)


def _shift(raw: RawOutputs, by: float) -> RawOutputs:
    return RawOutputs([level + by for level in raw.cls], list(raw.ltrb), list(raw.ctr))


class _Builder:
    """Builds raw outputs, starting from a network that detects nothing."""

    def __init__(self, sizes: Sizes, classes: int, config: ModelConfig) -> None:
        self.config, self.classes, self.sizes, self.strides = config, classes, sizes, config.strides
        self.raw = RawOutputs(
            [torch.full((1, classes, h, w), BACKGROUND_LOGIT) for h, w in sizes],
            [torch.zeros(1, 4, h, w) for h, w in sizes],
            [torch.full((1, 1, h, w), CERTAIN_LOGIT) for h, w in sizes],
        )

    def set_point(self, level: int, row: int, column: int, *, ltrb: Sequence[float], scores: dict[int, float]) -> None:
        """Set one point: distances in strides of its level, and scores by class, as `logits` takes them."""
        self.raw.ltrb[level][0, :, row, column] = torch.tensor(ltrb) * self.strides[level]
        for index, score in scores.items():
            self.raw.cls[level][0, index, row, column] = self.logits(torch.tensor(score))

    def logits(self, scores: Tensor) -> Tensor:
        """Class logits that result in these final scores, or class probabilities if those are what is thresholded."""
        rules = self.config.conventions
        if rules.threshold_on == "class":
            return scores.double().clamp(1e-12, 1 - 1e-6).logit().float()
        product = scores.double() ** 2 if rules.score == "sqrt" else scores.double()
        return (product / torch.tensor(CERTAIN_LOGIT).double().sigmoid()).clamp(1e-12, 1 - 1e-6).logit().float()

    def scores(self, count: int) -> Tensor:
        """`count` distinct scores well above the threshold, highest first."""
        low = self.config.score_threshold
        return torch.linspace(low + 0.9 * (1 - low), low + 0.2 * (1 - low), count)


def _thresholds(sizes: Sizes, classes: int, config: ModelConfig) -> Iterator[Case]:
    yield Case("none", _Builder(sizes, classes, config).raw)
    yield Case("one", _one(sizes, classes, config))
    yield Case("one per level, beyond the edge", _levels(sizes, classes, config))
    yield Case("all classes in one place", _classes(sizes, classes, config))
    yield Case("overlaps around the NMS threshold", _overlaps(sizes, classes, config))
    yield Case("scores around the threshold", _scores(sizes, classes, config))
    chain = _chain(sizes, classes, config)
    if chain is not None:
        yield Case("chain of suppressions", chain)


def _one(sizes: Sizes, classes: int, config: ModelConfig) -> RawOutputs:
    builder = _Builder(sizes, classes, config)
    (height, width), score = sizes[0], float(builder.scores(1)[0])
    builder.set_point(0, height // 2, width // 2, ltrb=(1.16, 0.96, 1.51, 0.74), scores={classes - 1: score})
    return builder.raw


def _levels(sizes: Sizes, classes: int, config: ModelConfig) -> RawOutputs:
    """A box at the last point of each level that extends beyond the right and bottom edges, at fractional pixels."""
    builder = _Builder(sizes, classes, config)
    for level, score in enumerate(builder.scores(len(sizes)).tolist()):
        height, width = sizes[level]
        place = (level, height - 1, width - 1)
        builder.set_point(*place, ltrb=(0.71, 0.83, 3.0, 2.0), scores={level % classes: score})
    return builder.raw


def _classes(sizes: Sizes, classes: int, config: ModelConfig) -> RawOutputs:
    builder = _Builder(sizes, classes, config)
    used = min(classes, config.candidates, 20)
    builder.set_point(0, 1, 1, ltrb=(0.69, 0.56, 0.81, 0.94), scores=dict(enumerate(builder.scores(used).tolist())))
    return builder.raw


def _overlaps(sizes: Sizes, classes: int, config: ModelConfig) -> RawOutputs:
    """Pairs of nested boxes of one class on the finest level; the smaller fills a given share of the larger, their IoU.

    The shares are 0.005, 0.015, 0.025 … above and below the NMS threshold, the nearest first, as many as fit. An NMS
    threshold that is off by 0.01 changes the result.
    """
    builder = _Builder(sizes, classes, config)
    steps = [sign * (0.005 + 0.01 * step) for step in range(20) for sign in (1, -1)]
    shares = [config.nms_iou + step for step in steps if 0.1 < config.nms_iou + step < 0.999]
    height, width = sizes[0]
    places = [(row, column) for row in range(1, height - 2, 3) for column in range(1, width - 3, 4)]
    pairs = min(len(places), len(shares), config.candidates // 2)
    scores = builder.scores(2 * pairs).tolist()
    for number, ((row, column), share) in enumerate(zip(places[:pairs], shares[:pairs], strict=True)):
        # 3 × 1.5 strides around two neighbouring points
        large, small = (1.25, 0.375, 1.75, 1.125), (0.25, 0.375, 3.0 * share - 0.25, 1.125)
        builder.set_point(0, row, column + 1, ltrb=large, scores={number % classes: scores[2 * number]})
        builder.set_point(0, row, column, ltrb=small, scores={number % classes: scores[2 * number + 1]})
    return builder.raw


def _scores(sizes: Sizes, classes: int, config: ModelConfig) -> RawOutputs:
    """Separate boxes on the finest level with scores 0.001, 0.002, 0.004 … above and below the score threshold."""
    builder = _Builder(sizes, classes, config)
    steps = [sign * 0.001 * 2**step for step in range(6) for sign in (1, -1)]
    scores = [config.score_threshold + step for step in steps if 1e-4 < config.score_threshold + step < 0.999]
    height, width = sizes[0]
    places = [(row, column) for row in range(height) for column in range(width)]
    for number, (score, (row, column)) in enumerate(zip(scores, places, strict=False)):
        builder.set_point(0, row, column, ltrb=(0.375, 0.25, 0.375, 0.25), scores={number % classes: score})
    return builder.raw


def _chain(sizes: Sizes, classes: int, config: ModelConfig) -> RawOutputs | None:
    """Boxes in a row, each suppressed by the previous one if that one stays, so that every second one stays.

    None if the row is too short for three of them, or if NMS suppresses nothing.
    """
    builder = _Builder(sizes, classes, config)
    height, width = sizes[0]
    # boxes of width w shifted by d have IoU (w - d) / (w + d): above the threshold for one step, below it for two
    step = 0.75 * (1 - config.nms_iou) / (1 + config.nms_iou)
    if not step:  # nothing is suppressed
        return None
    side = 0.5 / step
    margin = math.ceil(side)
    columns = range(margin, width - margin)
    if len(columns) < 3:
        return None
    for column, score in zip(columns, builder.scores(min(len(columns), config.candidates)).tolist(), strict=False):
        builder.set_point(0, height // 2, column, ltrb=(side, 0.5, side, 0.5), scores={0: score})
    return builder.raw


def _crowds(sizes: Sizes, classes: int, config: ModelConfig) -> Iterator[Case]:
    yield Case("a small box at every point", _crowd(sizes, classes, config, spread=(0.3, 0.45)))
    yield Case("a large box at every point", _crowd(sizes, classes, config, spread=(0.5, 3.0)))
    cut = _cut(sizes, classes, config)
    if cut is not None:
        yield Case("more candidates than a level keeps", cut)


def _crowd(sizes: Sizes, classes: int, config: ModelConfig, *, spread: tuple[float, float]) -> RawOutputs:
    """A box at every point of every level, of one class each, all with distinct scores.

    spread: smallest and largest distance to an edge, in strides. The result is the same for the same sizes.
    """
    builder, generator = _Builder(sizes, classes, config), torch.Generator().manual_seed(7)
    points = [height * width for height, width in sizes]
    order = torch.randperm(sum(points), generator=generator)
    scores = torch.split(builder.scores(sum(points))[order], points)
    for level, (stride, count) in enumerate(zip(config.strides, points, strict=True)):
        low, high = spread
        ltrb = builder.raw.ltrb[level]
        ltrb.copy_((low + (high - low) * torch.rand(ltrb.shape, generator=generator)) * stride)
        index = torch.randint(min(classes, 5), (1, count), generator=generator)
        builder.raw.cls[level][0].flatten(1).scatter_(0, index, builder.logits(scores[level])[None])
    return builder.raw


def _cut(sizes: Sizes, classes: int, config: ModelConfig) -> RawOutputs | None:
    """More candidates on the finest level than it keeps: almost all share one box, those around the top-k cut do not.

    NMS keeps the shared box and the separate boxes just inside the cut, so keeping one candidate more or less changes
    the result. None if the level has fewer (point, class) pairs than candidates are kept.
    """
    height, width = sizes[0]
    builder, used, keep = _Builder(sizes, classes, config), min(classes, 3), config.candidates
    if height * width * used < keep + 3 * used:
        return None
    count = math.ceil(keep / used) + 3
    scores = torch.full((used, height * width), -1.0)
    scores[:, :count] = builder.scores(count * used).view(count, used).T
    cls = builder.raw.cls[0][0].flatten(1)  # a view: [C, points]
    cls[:used] = torch.where(scores > 0, builder.logits(scores.clamp(min=0.01)), cls[:used])
    first, offset = keep // used - 3, config.conventions.point_offset
    for point in range(count):
        row, column = divmod(point, width)
        x, y = column + offset, row + offset
        shared = (x, y, width - x, height - y)
        builder.set_point(0, row, column, ltrb=shared if point < first else (0.375,) * 4, scores={})
    return builder.raw


def _ties(sizes: Sizes, classes: int, config: ModelConfig) -> Iterator[Case]:
    builder = _Builder(sizes, classes, config)
    height, width = sizes[0]
    count = max(2, min(config.candidates, config.max_detections, height * width) // 2)
    score = float(builder.scores(1)[0])
    for point in range(count):
        row, column = divmod(point * (height * width // count), width)
        builder.set_point(0, row, column, ltrb=(0.4375,) * 4, scores={point % classes: score})
    yield Case("all scores equal, all fit", builder.raw)

    small = _crowd(sizes, classes, config, spread=(0.3, 0.45))
    uniform = [torch.full_like(level, 1.0) for level in small.cls]
    yield Case("all scores equal, too many", RawOutputs(uniform, small.ltrb, small.ctr))

    large = _crowd(sizes, classes, config, spread=(0.5, 3.0))
    rounded = [level.round() for level in large.cls]
    yield Case("many scores equal", RawOutputs(rounded, large.ltrb, large.ctr), exact=False)
