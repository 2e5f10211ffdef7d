"""Decoding: one point computed by hand, the conventions, and comparison with torchvision."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.models.detection import fcos as torchvision_fcos
from torchvision.models.detection._utils import BoxLinearCoder

from fcos_cli.model.config import FINE_STRIDES, STRIDES, ModelConfig
from fcos_cli.model.conventions import Conventions
from fcos_cli.model.decode import Candidates, decode
from fcos_cli.model.head import RawOutputs
from fcos_cli.model.nms import suppress
from fcos_cli.model.points import Grid
from fcos_cli.model.topk import combine_scores

NOTHING = -30.0
"""A logit with a probability far below every threshold."""


def silent(
    height: int, width: int, *, classes: int = 2, batch: int = 1, strides: tuple[int, ...] = STRIDES
) -> RawOutputs:
    """Outputs of a network that detects nothing: no class, distances 0, centerness 0.5."""
    sizes = [(-(-height // s), -(-width // s)) for s in strides]
    return RawOutputs(
        [torch.full((batch, classes, h, w), NOTHING) for h, w in sizes],
        [torch.zeros(batch, 4, h, w) for h, w in sizes],
        [torch.zeros(batch, 1, h, w) for h, w in sizes],
    )


def say(
    raw: RawOutputs, level: int, row: int, column: int, *, cls: dict[int, float], ltrb: list[float], ctr: float
) -> None:
    for index, logit in cls.items():
        raw.cls[level][0, index, row, column] = logit
    raw.ltrb[level][0, :, row, column] = torch.tensor(ltrb)
    raw.ctr[level][0, 0, row, column] = ctr


def config_of(**changes: object) -> ModelConfig:
    conventions = Conventions(**{k: changes.pop(k) for k in ("score", "point_offset") if k in changes})  # type: ignore[arg-type]
    return ModelConfig(**{"candidates": 10, "conventions": conventions, **changes})  # type: ignore[arg-type]


def found(candidates: Candidates, picture: int = 0) -> list[tuple[list[float], float, int]]:
    """Return (box, score, class) of the slots that are not empty, best first."""
    order = candidates.scores[picture].argsort(descending=True, stable=True)
    full = order[candidates.scores[picture, order] > 0]
    boxes, scores, classes = (part[picture][full].tolist() for part in candidates)
    return list(zip(boxes, scores, classes, strict=True))


LN3 = math.log(3)  # the logit of 3/4


def test_box_and_score_of_one_point() -> None:
    raw = silent(64, 64)
    # row 1, column 2 of the level with stride 8: the point (20, 12)
    say(raw, 0, 1, 2, cls={1: LN3}, ltrb=[4, 5, 6, 7], ctr=0.0)
    ((box, score, index),) = found(decode(raw, height=64, width=64, config=config_of()))
    assert box == [16, 7, 26, 19]
    assert score == pytest.approx(math.sqrt(0.75 * 0.5))
    assert index == 1


def test_product_score() -> None:
    raw = silent(64, 64)
    say(raw, 0, 1, 2, cls={1: LN3}, ltrb=[4, 5, 6, 7], ctr=0.0)
    ((_, score, _),) = found(decode(raw, height=64, width=64, config=config_of(score="product")))
    assert score == pytest.approx(0.375)


def test_point_with_offset_zero_is_at_the_corner_of_its_cell() -> None:
    raw = silent(64, 64)
    say(raw, 1, 1, 2, cls={0: LN3}, ltrb=[4, 5, 6, 7], ctr=0.0)  # stride 16: (32, 16)
    ((box, _, _),) = found(decode(raw, height=64, width=64, config=config_of(point_offset=0.0)))
    assert box == [28, 11, 38, 23]


@pytest.mark.parametrize("strides", [STRIDES, FINE_STRIDES])
@pytest.mark.parametrize("level", range(5))
def test_points_of_each_level(level: int, strides: tuple[int, ...]) -> None:
    raw, stride = silent(256, 512, strides=strides), strides[level]
    say(raw, level, 1, 2, cls={0: LN3}, ltrb=[8, 8, 8, 8], ctr=0.0)
    ((box, _, _),) = found(decode(raw, height=256, width=512, config=config_of(strides=strides)))
    assert box == [2.5 * stride - 8, max(1.5 * stride - 8, 0), 2.5 * stride + 8, 1.5 * stride + 8]


def test_point_can_give_detections_of_several_classes() -> None:
    raw = silent(64, 64, classes=3)
    say(raw, 0, 3, 3, cls={0: 2.0, 2: LN3, 1: -1.0}, ltrb=[9, 9, 9, 9], ctr=LN3)
    answers = found(decode(raw, height=64, width=64, config=config_of()))
    assert [index for _, _, index in answers] == [0, 2, 1]
    assert [score for _, score, _ in answers] == pytest.approx(
        [math.sqrt(0.75 / (1 + math.exp(-logit))) for logit in (2.0, LN3, -1.0)]
    )
    assert all(box == answers[0][0] for box, _, _ in answers)


def test_best_candidates_are_chosen_by_final_score() -> None:
    raw = silent(64, 64)
    say(raw, 0, 0, 0, cls={0: 3.0}, ltrb=[1, 1, 1, 1], ctr=-3.0)
    say(raw, 0, 5, 5, cls={0: 1.0}, ltrb=[2, 2, 2, 2], ctr=3.0)
    ((box, _, _),) = found(decode(raw, height=64, width=64, config=config_of(candidates=1)))
    assert box == [42, 42, 46, 46]


def test_threshold_applies_to_the_final_score() -> None:
    raw = silent(64, 64)
    say(raw, 0, 0, 0, cls={0: LN3}, ltrb=[1, 1, 1, 1], ctr=0.0)  # 0.612; the product is 0.375
    for threshold, count in ((0.61, 1), (0.62, 0)):
        config = config_of(score_threshold=threshold)
        assert len(found(decode(raw, height=64, width=64, config=config))) == count
    for threshold, count in ((0.37, 1), (0.38, 0)):
        config = config_of(score_threshold=threshold, score="product")
        assert len(found(decode(raw, height=64, width=64, config=config))) == count


def test_score_exactly_at_the_threshold_passes() -> None:
    raw = silent(64, 64)
    say(raw, 0, 0, 0, cls={0: 0.0}, ltrb=[1, 1, 1, 1], ctr=0.0)
    assert len(found(decode(raw, height=64, width=64, config=config_of(score_threshold=0.5)))) == 1


def test_boxes_are_clipped_to_the_input() -> None:
    raw = silent(40, 64)
    say(raw, 0, 0, 0, cls={0: LN3}, ltrb=[100, 100, 100, 100], ctr=0.0)
    ((box, _, _),) = found(decode(raw, height=40, width=64, config=config_of()))
    assert box == [0, 0, 64, 40]


@pytest.mark.parametrize("side", [(64, 64), (72, 200), (8, 8)])
def test_number_of_candidates_does_not_depend_on_the_input_size(side: tuple[int, int]) -> None:
    height, width = side
    candidates = decode(silent(height, width, batch=3), height=height, width=width, config=config_of(candidates=7))
    assert candidates.boxes.shape == (3, 35, 4)
    assert candidates.scores.shape == candidates.classes.shape == (3, 35)
    assert float(candidates.scores.sum()) == 0
    assert candidates.classes.dtype == torch.int64
    assert bool(((candidates.classes >= 0) & (candidates.classes < 2)).all())


def test_unused_candidate_slots_are_empty() -> None:
    raw = silent(64, 64)  # the last level is one point of two classes
    say(raw, 4, 0, 0, cls={0: LN3, 1: 0.0}, ltrb=[9, 9, 9, 9], ctr=0.0)
    candidates = decode(raw, height=64, width=64, config=config_of(candidates=1000))
    assert candidates.scores.shape == (1, 5000)
    assert [index for _, _, index in found(candidates)] == [0, 1]


def test_candidates_are_selected_per_level() -> None:
    raw = silent(64, 64)
    for column, logit in enumerate((1.0, 2.0, 3.0)):
        say(raw, 0, 0, column, cls={0: logit}, ltrb=[1, 1, 1, 1], ctr=5.0)
    say(raw, 1, 0, 0, cls={1: -1.0}, ltrb=[2, 2, 2, 2], ctr=5.0)
    answers = found(decode(raw, height=64, width=64, config=config_of(candidates=2)))
    assert [(box[0], index) for box, _, index in answers] == [(19, 0), (11, 0), (6, 1)]


def test_ties_keep_their_order() -> None:
    raw = silent(64, 64)
    raw.cls[0][:] = 0.0  # every class of every point of P3 alike: 64 points, 2 classes, 10 places
    candidates = decode(raw, height=64, width=64, config=config_of())
    assert candidates.classes[0, :10].tolist() == [0, 1] * 5
    centres = (candidates.boxes[0, :10, :2] + candidates.boxes[0, :10, 2:]) / 2
    assert centres.tolist() == [[4 + 8 * (i // 2), 4] for i in range(10)]


def test_better_score_comes_before_ties() -> None:
    raw = silent(64, 64)
    raw.cls[0][:] = 0.0
    raw.cls[0][0, 1, 7, 7] = 1.0
    candidates = decode(raw, height=64, width=64, config=config_of())
    assert candidates.classes[0, :4].tolist() == [1, 0, 1, 0]
    assert candidates.boxes[0, :2, 0].tolist() == [60, 4]


def test_images_of_a_batch_are_independent() -> None:
    raw = silent(64, 64, batch=2)
    say(raw, 0, 1, 2, cls={1: LN3}, ltrb=[4, 5, 6, 7], ctr=0.0)
    candidates = decode(raw, height=64, width=64, config=config_of())
    assert len(found(candidates, 0)) == 1
    assert found(candidates, 1) == []


def test_half_precision_outputs_are_decoded_in_float32() -> None:
    raw = silent(64, 2080)
    say(raw, 0, 1, 257, cls={1: LN3}, ltrb=[4, 5, 6, 7], ctr=0.0)  # x = 2060: bfloat16 steps by 16 there
    halves = RawOutputs(*([level.bfloat16() for level in levels] for levels in raw))
    ((box, score, _),) = found(decode(halves, height=64, width=2080, config=config_of()))
    assert box == [2056, 7, 2066, 19]
    assert score == pytest.approx(math.sqrt(0.375), rel=3e-3)
    assert decode(halves, height=64, width=2080, config=config_of()).boxes.dtype == torch.float32


@settings(max_examples=50, deadline=None)
@given(st.floats(-50, 50), st.floats(-50, 50))
def test_final_scores_are_between_0_and_1_and_the_root_is_larger(logit: float, ctr: float) -> None:
    product = combine_scores(torch.tensor(logit), torch.tensor(ctr), rule="product")
    root = combine_scores(torch.tensor(logit), torch.tensor(ctr), rule="sqrt")
    assert 0 <= float(product) <= float(root) <= 1
    assert float(root) == pytest.approx(math.sqrt(product))


def anchors_of(raw: RawOutputs, offset: float) -> list[Tensor]:
    """Return torchvision's anchors: squares of one stride around each point."""
    squares = []
    for (height, width), stride in zip(raw.sizes(), STRIDES, strict=True):
        xy = Grid(height, width, (stride, stride), offset, stride).xy()
        squares.append(torch.cat((xy - stride / 2, xy + stride / 2), 1))
    return squares


def torchvision_detections(raw: RawOutputs, config: ModelConfig, side: int) -> list[dict[str, Tensor]]:
    """Return torchvision's own postprocessing of the same outputs."""
    oracle = torchvision_fcos.FCOS.__new__(torchvision_fcos.FCOS)
    torch.nn.Module.__init__(oracle)
    oracle.box_coder = BoxLinearCoder(normalize_by_size=True)
    oracle.score_thresh, oracle.topk_candidates = config.score_threshold, config.candidates
    oracle.nms_thresh, oracle.detections_per_img = config.nms_iou, config.max_detections

    def split(levels: list[Tensor]) -> list[Tensor]:
        return [level.flatten(2).transpose(1, 2) for level in levels]

    scaled = [level / stride for level, stride in zip(raw.ltrb, STRIDES, strict=True)]
    outputs = {"cls_logits": split(raw.cls), "bbox_regression": split(scaled), "bbox_ctrness": split(raw.ctr)}
    count = len(raw.cls[0])
    anchors = [anchors_of(raw, config.conventions.point_offset)] * count
    answers: list[dict[str, Tensor]] = oracle.postprocess_detections(outputs, anchors, [(side, side)] * count)
    return answers


@pytest.mark.parametrize("offset", [0.0, 0.5])
@pytest.mark.parametrize("seed", range(5))
def test_torchvision_gives_the_same_detections(seed: int, offset: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    raw = silent(256, 256, classes=5, batch=2)
    raw = RawOutputs(
        [torch.randn(level.shape, generator=generator) * 2 - 2 for level in raw.cls],
        [
            torch.rand(level.shape, generator=generator) * 6 * stride
            for level, stride in zip(raw.ltrb, STRIDES, strict=True)
        ],
        [torch.randn(level.shape, generator=generator) for level in raw.ctr],
    )
    config = config_of(point_offset=offset, candidates=300, score_threshold=0.2, nms_iou=0.6)
    ours = suppress(decode(raw, height=256, width=256, config=config), iou=0.6, max_detections=100)
    theirs = torchvision_detections(raw, config, 256)
    for picture, their in enumerate(theirs):
        count = int(ours.counts[picture])
        assert count == len(their["scores"]) > 50
        assert ours.classes[picture, :count].tolist() == their["labels"].tolist()
        torch.testing.assert_close(ours.scores[picture, :count], their["scores"], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(ours.boxes[picture, :count], their["boxes"], rtol=1e-5, atol=1e-3)
