"""Predictions per point and votes for detections, on handmade raw outputs and on an untrained network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from fcos_cli.explain.points import explain, find_votes, level_maps
from fcos_cli.model.config import FINE_STRIDES, REALTIME_STRIDES, STRIDES
from fcos_cli.model.conventions import Conventions
from fcos_cli.model.decode import decode
from fcos_cli.model.head import RawOutputs
from fcos_cli.runtime.detector import to_source
from fcos_cli.runtime.pytorch import facts_of
from fcos_cli.runtime.results import RawDetections
from tests.tiny import tiny_artifact, tiny_model

SIZE = 64


def logit(probability: float) -> float:
    return float(torch.logit(torch.tensor(probability, dtype=torch.float64)))


def make_raw(*points: tuple[int, tuple[int, int], int, float, float, tuple[float, float, float, float]]) -> RawOutputs:
    """Raw outputs for 64 × 64 px and 3 classes with detections only at the given points.

    A point: level, cell (column, row), class, probability, centerness, box xyxy. Points are in the centres of the
    cells.
    """
    sides = [-(-SIZE // stride) for stride in STRIDES]
    cls = [torch.full((1, 3, side, side), -20.0) for side in sides]
    ltrb = [torch.ones(1, 4, side, side) for side in sides]
    ctr = [torch.zeros(1, 1, side, side) for side in sides]
    for level, (column, row), index, probability, centerness, (x1, y1, x2, y2) in points:
        x, y = ((cell + 0.5) * STRIDES[level] for cell in (column, row))
        cls[level][0, index, row, column] = logit(probability)
        ctr[level][0, 0, row, column] = logit(centerness)
        ltrb[level][0, :, row, column] = torch.tensor([x - x1, y - y1, x2 - x, y2 - y])
    return RawOutputs(cls, ltrb, ctr)


BOX = (8.0, 8.0, 56.0, 40.0)


def test_voters_of_a_box_come_from_any_level():
    raw = make_raw(
        (1, (1, 1), 1, 0.8, 0.9, BOX),  # P4, point (24, 24): the best
        (1, (2, 1), 1, 0.5, 0.4, (9.0, 8.0, 56.0, 40.0)),  # P4, point (40, 24)
        (2, (0, 0), 1, 0.6, 0.5, (8.0, 8.0, 56.0, 42.0)),  # P5, point (16, 16)
    )
    found, votes = find_votes(tiny_model(), raw, height=SIZE, width=SIZE)
    np.testing.assert_allclose(found.boxes, [BOX], atol=1e-4)
    np.testing.assert_allclose(found.scores, [(0.8 * 0.9) ** 0.5], atol=1e-6)
    assert (found.classes.tolist(), found.levels.tolist()) == ([1], [1])

    assert votes.detection.tolist() == [0, 0, 0]
    assert votes.level.tolist() == [1, 2, 1]  # best first: √0.72, √0.3, √0.2
    assert votes.xy.tolist() == [[24, 24], [16, 16], [40, 24]]
    np.testing.assert_allclose(votes.ltrb, [[16, 16, 32, 16], [8, 8, 40, 26], [31, 16, 16, 16]], atol=1e-4)
    np.testing.assert_allclose(votes.probability, [0.8, 0.6, 0.5], atol=1e-6)
    np.testing.assert_allclose(votes.centerness, [0.9, 0.5, 0.4], atol=1e-6)
    np.testing.assert_allclose(votes.score, np.sqrt([0.72, 0.3, 0.2]), atol=1e-6)
    np.testing.assert_allclose(votes.iou, [1, 32 / 34, 47 / 48], atol=1e-6)


def test_points_of_another_class_or_place_vote_for_their_own_detection():
    raw = make_raw(
        (1, (1, 1), 1, 0.9, 0.9, BOX),
        (1, (2, 1), 0, 0.5, 0.5, BOX),  # the same box, another class
        (0, (0, 0), 1, 0.5, 0.4, (0.0, 0.0, 8.0, 8.0)),  # the same class, elsewhere
        (2, (1, 1), 1, 0.3, 0.3, (8.0, 8.0, 56.0, 64.0)),  # IoU 32/56 = 0.57, not above 0.6
    )
    found, votes = find_votes(tiny_model(), raw, height=SIZE, width=SIZE)
    assert found.classes.tolist() == [1, 0, 1, 1]
    assert found.levels.tolist() == [1, 1, 0, 2]
    assert votes.detection.tolist() == [0, 1, 2, 3]
    assert [len(votes.of(number)) for number in range(4)] == [1, 1, 1, 1]


def test_a_candidate_that_overlaps_two_detections_votes_for_the_better_one():
    raw = make_raw(
        (1, (1, 1), 1, 0.9, 0.9, (0.0, 8.0, 48.0, 40.0)),
        (1, (2, 1), 1, 0.8, 0.8, (16.0, 8.0, 64.0, 40.0)),  # IoU of the two is 32/64
        (2, (0, 0), 1, 0.5, 0.5, (8.0, 8.0, 56.0, 40.0)),  # IoU 40/56 = 0.71 with either
    )
    found, votes = find_votes(tiny_model(), raw, height=SIZE, width=SIZE)
    assert len(found) == 2
    assert votes.of(0).level.tolist() == [1, 2]
    assert votes.of(1).level.tolist() == [1]


def test_background_only_has_no_detections():
    found, votes = find_votes(tiny_model(), make_raw(), height=SIZE, width=SIZE)
    assert (len(found), len(votes)) == (0, 0)
    assert votes.xy.shape == (0, 2)


RULES = [
    Conventions(),
    Conventions(score="product", point_offset=0.0),
    Conventions(stride_rule="padded", clip="picture"),
    Conventions(clip="after", box_ends="inclusive", empty_boxes="keep", nms="batched"),
    Conventions(threshold_on="class", best_by="class", empty_boxes="before-nms"),
]


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("size", [(64, 64), (96, 160)])
def test_detections_match_the_network_and_every_candidate_votes_for_all_conventions(rules, size):
    model = tiny_model(conventions=rules, score_threshold=0.004, max_detections=10_000, candidates=40)
    height, width = size
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (1, 3, height, width), generator=generator, dtype=torch.uint8)
    sizes = torch.tensor([[height - 20, width - 30]])
    with torch.inference_mode():
        raw = model(images)
        found, votes = find_votes(model, raw, height=height, width=width, sizes=sizes)
        output = model.post_process(raw, height=height, width=width, sizes=sizes)
        candidates = decode(raw, height=height, width=width, config=model.config, sizes=sizes)
    count = int(output.counts[0])
    one = 1.0 if rules.box_ends == "inclusive" else 0.0
    assert len(found) == count > 3
    np.testing.assert_array_equal(found.boxes, output.boxes[0, :count].numpy() + np.float32([0, 0, one, one]))
    np.testing.assert_array_equal(found.scores, output.scores[0, :count].numpy())
    # nothing is cut off at the end, so each candidate is a detection or was suppressed by one
    assert len(votes) == int((candidates.scores[0] > 0).sum())

    edges = np.concatenate((votes.xy - votes.ltrb[:, :2], votes.xy + votes.ltrb[:, 2:]), 1)
    for number in range(count):
        own = votes.of(number)
        assert own.level[0] == found.levels[number]
        assert own.score[0] == found.scores[number] == own.score.max()
        first = edges[votes.detection == number][0]
        limit = np.tile(sizes[0].numpy()[::-1] if rules.clip == "picture" else size[::-1], 2)
        expected = first if rules.clip == "after" else np.clip(first, 0, limit)
        np.testing.assert_allclose(found.boxes[number] - [0, 0, one, one], expected, atol=1e-3)
    assert (votes.iou > model.config.nms_iou).all()


def test_candidates_beyond_max_detections_do_not_vote():
    model = tiny_model(score_threshold=0.001, max_detections=3)
    images = torch.zeros(1, 3, SIZE, SIZE, dtype=torch.uint8)
    with torch.inference_mode():
        found, votes = find_votes(model, model(images), height=SIZE, width=SIZE)
    assert len(found) == 3
    assert set(votes.detection.tolist()) == {0, 1, 2}
    boxes = torch.from_numpy(found.boxes)
    assert (
        (box_iou(boxes, boxes).fill_diagonal_(0) <= model.config.nms_iou)
        .logical_or(torch.from_numpy(found.classes)[:, None] != torch.from_numpy(found.classes))
        .all()
    )


def test_maps_have_the_predictions_of_each_point():
    raw = make_raw((1, (2, 1), 1, 0.8, 0.9, BOX))
    maps = level_maps(raw, height=SIZE, width=SIZE, config=tiny_model().config)
    assert [level.name for level in maps] == ["P3", "P4", "P5", "P6", "P7"]
    assert [level.classes.shape for level in maps] == [(3, 8, 8), (3, 4, 4), (3, 2, 2), (3, 1, 1), (3, 1, 1)]
    p4 = maps[1]
    np.testing.assert_allclose(
        [p4.classes[1, 1, 2], p4.centerness[1, 2], p4.scores[1, 1, 2]], [0.8, 0.9, 0.72**0.5], atol=1e-6
    )
    assert p4.features is None
    product = tiny_model(conventions=Conventions(score="product")).config
    np.testing.assert_allclose(level_maps(raw, height=SIZE, width=SIZE, config=product)[1].scores[1, 1, 2], 0.72)


def test_an_image_is_explained_at_the_models_input_and_the_network_is_unchanged():
    artifact = tiny_artifact()
    model, facts = artifact.build(), facts_of(artifact)
    image = np.random.default_rng(0).integers(0, 256, (40, 80, 3), np.uint8)
    explained = explain(model, facts, image)
    assert explained.geometry.resized == (64, 32)
    assert explained.image is image
    for level in explained.levels:
        assert level.features is not None
        assert level.features.shape == level.centerness.shape
        assert level.features.max() == 1
    assert not model.backbone._forward_hooks
    assert len(explained.detections) > 3
    assert_as_predicted(explained, model)


def assert_as_predicted(explained, model):
    facts, found = explained.facts, explained.detections
    pixels, geometries = facts.resize.batch([explained.image])
    with torch.inference_mode():
        output = model.detect(torch.from_numpy(pixels))
    raw = RawDetections(*(part.numpy() for part in output))
    (predicted,) = to_source(raw, geometries, facts.conventions)
    np.testing.assert_array_equal(found.scores, predicted.scores)
    np.testing.assert_array_equal(found.classes, predicted.classes)
    np.testing.assert_allclose(explained.geometry.inverse(found.boxes), predicted.boxes, atol=1e-3)
    assert set(explained.votes.detection.tolist()) == set(range(len(found)))
    for number in range(len(found)):
        own = explained.votes.of(number)
        assert (own.score[0], own.level[0]) == (found.scores[number], found.levels[number])


@pytest.mark.parametrize("rules", [Conventions(), Conventions(clip="after", empty_boxes="keep")])
def test_boxes_are_clipped_to_the_image_as_those_of_predict(rules):
    """Three quarters of the input are padding, and many boxes lie in it."""
    artifact = tiny_artifact(config=tiny_model(conventions=rules, score_threshold=0.004).config)
    model = artifact.build()
    explained = explain(model, facts_of(artifact), np.zeros((80, 20, 3), np.uint8))
    assert explained.geometry.resized == (16, 64)
    assert_as_predicted(explained, model)
    inside = (explained.detections.boxes <= [16, 64, 16, 64]).all()
    empty = explained.detections.boxes[:, 0] == 16
    assert (inside, empty.any()) == (True, rules.empty_boxes == "keep")


@pytest.mark.parametrize(
    ("levels", "names"), [(FINE_STRIDES, ["P2", "P3", "P4", "P5", "P6"]), (REALTIME_STRIDES, ["P3", "P4", "P5"])]
)
def test_levels_are_named_after_the_models_strides(levels, names):
    model = tiny_model(strides=levels)
    artifact = tiny_artifact(weights=model.state_dict(), config=model.config)
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    explained = explain(model, facts_of(artifact), image)
    assert [level.name for level in explained.levels] == names
    assert [level.grid.spacing for level in explained.levels] == [(s, s) for s in levels]
    votes = explained.votes
    assert len(votes) > 0
    strides = np.take(levels, votes.level)[:, None]
    np.testing.assert_array_equal(votes.xy % strides, np.broadcast_to(strides / 2, votes.xy.shape))
