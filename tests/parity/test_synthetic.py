"""Synthetic cases trigger what they were made for, so that a deviating export would show."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fcos_cli.data.boxes import box_iou
from fcos_cli.model.config import FINE_STRIDES, REALTIME_STRIDES, STRIDES, ModelConfig
from fcos_cli.model.conventions import Conventions
from fcos_cli.model.decode import decode
from fcos_cli.model.nms import BatchDetections, suppress
from fcos_cli.model.presets import PRESETS
from fcos_cli.parity.synthetic import Case, perturbed_cases, synthetic_cases
from tests.tiny import tiny_config, tiny_model

HEIGHT, WIDTH = 192, 256

all_strides = pytest.mark.parametrize(
    "strides", [STRIDES, FINE_STRIDES, REALTIME_STRIDES], ids=["8…128", "4…64", "8…32"]
)


def cases(config: ModelConfig | None = None, *, classes: int = 3) -> dict[str, Case]:
    config = config or tiny_config()
    sizes = [(-(-HEIGHT // s), -(-WIDTH // s)) for s in config.strides]
    return {case.name: case for case in synthetic_cases(sizes, classes=classes, config=config)}


def found(case: Case, config: ModelConfig | None = None) -> BatchDetections:
    config = config or tiny_config()
    candidates = decode(case.raw, height=HEIGHT, width=WIDTH, config=config)
    return suppress(candidates, iou=config.nms_iou, max_detections=config.max_detections)


def count(case: Case, config: ModelConfig | None = None) -> int:
    return int(found(case, config).counts[0])


@all_strides
def test_simple_cases_have_the_expected_detections(strides: tuple[int, ...]) -> None:
    config = tiny_config(strides=strides)
    made = cases(config)
    assert count(made["none"], config) == 0
    assert count(made["one"], config) == 1
    levels = len(strides)
    assert count(made["one per level, beyond the edge"], config) == levels
    assert count(made["all classes in one place"], config) == 3
    boxes = found(made["one per level, beyond the edge"], config).boxes[0, :levels]
    assert boxes[:, 2:].tolist() == [[WIDTH, HEIGHT]] * levels
    assert bool((boxes[:, :2] > 0).all())


@all_strides
def test_cases_have_more_boxes_than_fit_and_fewer(strides: tuple[int, ...]) -> None:
    config = tiny_config(strides=strides)
    made = cases(config)
    for name in ("a small box at every point", "a large box at every point", "all scores equal, too many"):
        assert count(made[name], config) == 100
    assert 0 < count(made["all scores equal, all fit"], config) < 100
    scores = found(made["all scores equal, all fit"], config).scores[0]
    assert len(scores[scores > 0].unique()) == 1
    ties = found(made["many scores equal"], config).scores[0]
    assert len(ties.unique()) < 10 < int((ties > 0).sum())


@pytest.mark.parametrize("classes", [1, 3, 80])
@pytest.mark.parametrize("nms_iou", [0.3, 0.5, 0.6, 0.75])
@pytest.mark.parametrize("off", [-0.01, 0.01])
@all_strides
def test_an_nms_threshold_off_by_a_hundredth_changes_the_result(
    nms_iou: float, off: float, classes: int, strides: tuple[int, ...]
) -> None:
    config = tiny_config(nms_iou=nms_iou, max_detections=300, strides=strides)
    case = cases(config, classes=classes)["overlaps around the NMS threshold"]
    other = tiny_config(nms_iou=nms_iou + off, max_detections=300, strides=strides)
    assert count(case, other) - count(case, config) == (1 if off > 0 else -1)


def test_no_overlap_is_close_enough_to_the_threshold_for_rounding_to_matter() -> None:
    case = cases()["overlaps around the NMS threshold"]
    candidates = decode(case.raw, height=HEIGHT, width=WIDTH, config=tiny_config())
    valid = candidates.scores[0] > 0
    boxes, classes = candidates.boxes[0, valid].numpy(), candidates.classes[0, valid].numpy()
    overlap = box_iou(boxes, boxes)[classes[:, None] == classes[None]]
    assert np.abs(overlap - 0.6).min() == pytest.approx(0.005, abs=1e-5)


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.9])
@pytest.mark.parametrize("rule", ["sqrt", "product"])
@pytest.mark.parametrize("kind", ["score", "class"])
@all_strides
def test_a_wrong_score_threshold_changes_the_result(
    threshold: float, rule: str, kind: str, strides: tuple[int, ...]
) -> None:
    conventions = Conventions(score=rule, threshold_on=kind)  # type: ignore[arg-type]
    config = tiny_config(score_threshold=threshold, conventions=conventions, strides=strides)
    case = cases(config)["scores around the threshold"]
    right = count(case, config)
    assert right > 0
    for off in (-0.0015, 0.0015):
        other = tiny_config(score_threshold=threshold + off, conventions=conventions, strides=strides)
        assert count(case, other) == right - np.sign(off)


@pytest.mark.parametrize("name", PRESETS)
def test_cases_of_every_dialect_have_detections(name: str) -> None:
    config = tiny_config(conventions=PRESETS[name].conventions)
    empty = {case.name for case in cases(config).values() if not count(case, config)}
    assert empty == {"none"}


@all_strides
def test_every_second_box_of_a_chain_stays(strides: tuple[int, ...]) -> None:
    config = tiny_config(strides=strides)
    case = cases(config)["chain of suppressions"]
    total = int((case.raw.cls[0] > -20).sum())
    assert total > 12
    assert count(case, config) == -(-total // 2)
    for nms_iou in (0.99, 1.0):
        assert "chain of suppressions" not in cases(tiny_config(nms_iou=nms_iou, strides=strides))


@pytest.mark.parametrize(("classes", "keep"), [(1, 50), (3, 50), (80, 200), (3, 1000)])
@pytest.mark.parametrize("off", [-2, 2])
@all_strides
def test_keeping_two_candidates_more_or_less_changes_the_result(
    classes: int, keep: int, off: int, strides: tuple[int, ...]
) -> None:
    config = tiny_config(candidates=keep, strides=strides)
    case = cases(config, classes=classes)["more candidates than a level keeps"]
    assert count(case, tiny_config(candidates=keep + off, strides=strides)) == count(case, config) + off


def test_there_is_no_topk_case_if_a_level_keeps_all_candidates() -> None:
    assert "more candidates than a level keeps" not in cases(tiny_config(candidates=1000), classes=1)


def test_raw_outputs_are_raised_lowered_and_rounded() -> None:
    model = tiny_model()
    with torch.inference_mode():
        raw = model(torch.randint(0, 256, (1, 3, HEIGHT, WIDTH), dtype=torch.uint8))
    altered = {case.name: case for case in perturbed_cases(raw, config=model.config)}
    assert tuple(altered) == ("real", "real, raised", "real, lowered to none", "real, rounded")
    assert count(altered["real, lowered to none"]) == 0
    assert float(found(altered["real, raised"]).scores.max()) > 0.6
    assert float(found(altered["real"]).scores.max()) < 0.2
    assert bool((altered["real, rounded"].raw.cls[0] * 4 % 1 == 0).all())


def test_the_same_sizes_give_the_same_cases() -> None:
    for one, other in zip(cases().values(), cases().values(), strict=True):
        assert all(
            torch.equal(a, b) for x, y in zip(one.raw, other.raw, strict=True) for a, b in zip(x, y, strict=True)
        )
