from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fcos_cli.errors import FcosError, ModelError, UsageError
from fcos_cli.model.decode import Candidates
from fcos_cli.model.nms import suppress
from fcos_cli.runtime.exported import InputLimits, check_score, drop_below, run_in_batches
from fcos_cli.runtime.results import RawDetections
from tests.runtime.onnx_files import FACTS, answer, assert_same, pictures

WHERE = Path("m.onnx")
ANY = InputLimits()
FIVE = pictures(255, 200, 14, 0, 100)


class Model:
    """A backend's call, recording what it is given."""

    def __init__(self, **more) -> None:
        self.calls: list[list[int]] = []
        self.more = more

    def __call__(self, given):
        images = given["images"]
        assert images.flags.c_contiguous
        assert len(given["sizes"]) == len(images)
        self.calls.append(images[:, 0, 0, 0].tolist())
        return {**answer(images)._asdict(), **{key: value(images) for key, value in self.more.items()}}


@pytest.mark.parametrize(
    ("limits", "calls"),
    [
        (ANY, [[255, 200, 14, 0, 100]]),
        (InputLimits(1, 1), [[255], [200], [14], [0], [100]]),
        (InputLimits(2, 2), [[255, 200], [14, 0], [100, 100]]),
        (InputLimits(1, 4), [[255, 200, 14, 0], [100]]),
        (InputLimits(3, 4), [[255, 200, 14, 0], [100, 100, 100]]),
        (InputLimits(8, 8), [[255, 200, 14, 0, 100, 100, 100, 100]]),
        (InputLimits(6, None), [[255, 200, 14, 0, 100, 100]]),
    ],
)
def test_a_batch_is_cut_and_filled_to_what_the_model_takes_and_nobody_can_tell(limits, calls):
    model = Model()
    assert_same(run_in_batches(FIVE, None, model, limits=limits, score=None, where=WHERE), answer(FIVE))
    assert model.calls == calls


def test_sizes_go_with_their_pictures_and_are_the_whole_input_where_nobody_says():
    seen = []

    def run(given):
        seen.append(given["sizes"].tolist())
        return Model()(given)

    sizes = np.arange(10).reshape(5, 2)
    run_in_batches(FIVE, sizes, run, limits=InputLimits(2, 2), score=None, where=WHERE)
    assert seen == [[[0, 1], [2, 3]], [[4, 5], [6, 7]], [[8, 9], [8, 9]]]
    run_in_batches(FIVE[:1], None, run, limits=ANY, score=None, where=WHERE)
    assert seen[-1] == [list(FIVE.shape[2:])]


def test_any_stretch_of_memory_becomes_one_that_libraries_can_read():
    images = FIVE[::2]
    assert_same(run_in_batches(images, None, Model(), limits=ANY, score=None, where=WHERE), answer(images))


def test_types_are_those_of_raw_detections_whatever_the_backend_hands_over():
    def run(given):
        images = given["images"]
        found = answer(images)
        return {**found._asdict(), "classes": found.classes.astype(np.int32), "counts": found.counts.astype(np.int32)}

    assert_same(run_in_batches(FIVE, None, run, limits=ANY, score=None, where=WHERE), answer(FIVE))


@pytest.mark.parametrize(("height", "width"), [(64, 48), (32, 64), (None, 64)])
def test_pictures_of_another_size_than_the_models_are_an_error_that_names_both(height, width):
    with pytest.raises(ModelError, match=f"{height or 'any'} x {width}.* not 32 x 48") as caught:
        run_in_batches(FIVE, None, Model(), limits=InputLimits(height=height, width=width), score=None, where=WHERE)
    assert caught.value.where == str(WHERE)
    assert "--size" in caught.value.remedy


def test_a_fixed_size_that_fits_is_fine():
    assert_same(
        run_in_batches(FIVE, None, Model(), limits=InputLimits(1, 1, 32, 48), score=None, where=WHERE), answer(FIVE)
    )


def test_a_suppression_that_was_cut_off_is_never_silently_wrong():
    model = Model(converged=lambda images: images[:, 0, 0, 0] != 14)
    with pytest.raises(FcosError, match="NMS") as caught:
        run_in_batches(FIVE, None, model, limits=InputLimits(2, 2), score=None, where=WHERE)
    assert "--format onnx" in caught.value.remedy
    fine = pictures(255, 13)
    assert_same(run_in_batches(fine, None, model, limits=ANY, score=None, where=WHERE), answer(fine))


def test_a_higher_score_drops_what_is_below_and_leaves_empty_places():
    # reds 255, 200, 14, 0, 100 of 256 and their halves and quarters; at least 100/256
    found = run_in_batches(FIVE, None, Model(), limits=ANY, score=100 / 256, where=WHERE)
    assert_same(found, answer(FIVE, score=100 / 256))
    assert found.counts.tolist() == [2, 2, 0, 0, 1]
    assert found.classes.tolist() == [[0, 1, -1], [0, 1, -1], [-1, -1, -1], [-1, -1, -1], [0, -1, -1]]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), low=st.floats(0, 0.5), more=st.floats(0, 0.5))
def test_filtering_afterwards_is_what_a_higher_threshold_inside_gives(seed, low, more):
    """The promise of `score`: NMS with a threshold of `high` = NMS with `low`, filtered; here by the real NMS."""
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 40, (2, 30, 2))
    boxes = torch.from_numpy(np.concatenate([corners, corners + rng.integers(1, 30, corners.shape)], -1)).float()
    scores = torch.from_numpy(np.round(rng.random((2, 30)), 1)).float()  # rounded: ties, and scores on the threshold
    classes = torch.from_numpy(rng.integers(0, 2, (2, 30)))

    def found(threshold: float) -> RawDetections:
        kept = Candidates(boxes, scores * (scores >= threshold), classes)
        return RawDetections(*(part.numpy() for part in suppress(kept, iou=0.5, max_detections=20)))

    high = round(low + more, 1)
    assert_same(drop_below(found(round(low, 1)), high), found(high))


def test_a_score_below_the_models_own_cannot_be_had():
    check_score(None, FACTS, WHERE)
    check_score(FACTS.score_threshold, FACTS, WHERE)
    with pytest.raises(UsageError, match=r"0\.05") as caught:
        check_score(0.01, FACTS, WHERE)
    assert "--score 0.01" in caught.value.remedy
